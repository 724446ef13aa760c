"""A TLS session is resumed where it was verified, and verified anew wherever it is refused."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from single_connection import Database, DatabaseBusyError, SettingsError
from single_connection import _driver as driver
from single_connection._connector import MySQLConnector
from single_connection._deadline import Deadline
from single_connection._early import EarlyRequest
from single_connection._lease import Lease
from single_connection._opening import Opening
from single_connection._tls import ResumingContext
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World
from layers.single_connection.tests.network import Proxy
from layers.single_connection.tests.test_admission import full
from local.certificates import write_certificates
from local.database import LocalDatabase

Handshakes = list[tuple[str, bool]]


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> Handshakes:
    """Host of each handshake that ended well, and whether it resumed a session."""
    seen: Handshakes = []
    verified = ResumingContext.verified

    def note(self: ResumingContext, host: str, *, reused: bool) -> None:
        seen.append((host, reused))
        verified(self, host, reused=reused)

    monkeypatch.setattr(ResumingContext, "verified", note)
    return seen


def ask(database: Database) -> Any:
    @database.invocation
    def handler(_event: Any, _context: Any) -> Any:
        with database.connection().cursor() as cursor:
            cursor.execute("SELECT 42")
            return cursor.fetchone()

    return handler({}, LambdaContext(10))


def resumptions(database: Database, handshakes: Handshakes, *work: Callable[[], Any]) -> list[bool]:
    """Ask after each piece of `work`; which of the handshakes resumed."""
    handshakes.clear()
    for step in work:
        step()
        assert ask(database) == (42,)
    return [reused for _, reused in handshakes]


def early(database: Database) -> EarlyRequest:
    """What is said early to this database."""
    assert isinstance(database._connector, MySQLConnector)
    return database._connector._early


def reload_tls(world: World) -> None:
    """Give the server new keys for its tickets, and its TLS settings as they are now."""
    if world.flavor == "mysql":  # which verifies its own certificate on this occasion
        world.server.execute("SET GLOBAL ssl_ca = %s", str(world.server.ca_file))
    statement = {"mysql": "ALTER INSTANCE RELOAD TLS", "mariadb": "FLUSH SSL"}[world.flavor]
    world.server.execute(statement)


def nothing() -> None:
    """Between two invocations."""


def test_every_invocation_but_the_first_resumes(world: World, handshakes: Handshakes) -> None:
    work = [nothing] * 5
    assert resumptions(world.database(), handshakes, *work) == [False] + [True] * 4


def test_who_was_refused_behind_tls_resumes_at_the_next_attempt(
    world: World, proxy: Proxy, handshakes: Handshakes
) -> None:
    """A full server verifies one at a time whether it is an administrator, and that often."""
    database = world.database(port=proxy.port)
    with full(world, 1226) as held:
        timer = threading.Timer(0.3, lambda: held.pop()._force_close())
        timer.start()
        assert ask(database) == (42,)
        timer.join()
    assert [reused for _, reused in handshakes][:3] == [False, True, True]


def test_a_restarted_server_is_verified_again_without_a_further_connection(
    world: World, handshakes: Handshakes
) -> None:
    database = world.database()
    work = (nothing, nothing, world.server.restart, nothing)
    assert resumptions(database, handshakes, *work) == [False, True, False, True]


def test_a_server_that_has_new_keys_for_its_tickets_is_verified_again(
    world: World, handshakes: Handshakes
) -> None:
    work = (nothing, nothing, lambda: reload_tls(world), nothing)
    assert resumptions(world.database(), handshakes, *work) == [False, True, False, True]


def test_an_expired_ticket_costs_a_full_handshake_and_nothing_else(
    world: World, handshakes: Handshakes
) -> None:
    if world.flavor != "mysql":
        pytest.skip("MariaDB has no setting for the life of a ticket")
    world.server.execute("SET GLOBAL ssl_session_cache_timeout = 1")
    reload_tls(world)
    try:
        work = (nothing, nothing, lambda: time.sleep(2.1), nothing)
        resumed = resumptions(world.database(), handshakes, *work)
    finally:
        world.server.execute("SET GLOBAL ssl_session_cache_timeout = 300")
        reload_tls(world)
    assert (resumed[0], resumed[2]) == (False, False)


def test_a_server_that_keeps_no_sessions_is_verified_each_time(
    world: World, handshakes: Handshakes
) -> None:
    if world.flavor != "mysql":
        pytest.skip("MariaDB cannot switch resumption off")
    world.server.execute("SET GLOBAL ssl_session_cache_mode = OFF")
    reload_tls(world)
    try:
        assert not any(resumptions(world.database(), handshakes, nothing, nothing, nothing))
    finally:
        world.server.execute("SET GLOBAL ssl_session_cache_mode = ON")
        reload_tls(world)


def target(world: World, tls: ResumingContext, **changes: Any) -> driver.Target:
    environ = world.environ()
    named: dict[str, Any] = {
        "host": environ["DATABASE_HOST"],
        "port": world.server.port,
        "addresses": ("127.0.0.1",),
        "name": environ["DATABASE_NAME"],
        "user": environ["DATABASE_USER"],
        "password": environ["DATABASE_PASSWORD"],
        "tls": tls,
        "early": EarlyRequest(),
    }
    return driver.Target(**(named | changes))


def connect(where: driver.Target) -> None:
    opening = Opening(Deadline(5, 0.5))
    opened = driver.open_connection(where, Lease(5), opening, opening.deadline.soft)
    with contextlib.closing(opened) as connection:
        connection.query("SELECT 42")


def test_what_was_verified_for_one_host_is_never_used_for_another(
    world: World, handshakes: Handshakes
) -> None:
    tls = ResumingContext(str(world.server.ca_file))
    for host in ("127.0.0.1", "127.0.0.1", "localhost", "localhost", "127.0.0.1"):
        connect(target(world, tls, host=host))
    assert handshakes == [
        ("127.0.0.1", False),
        ("127.0.0.1", True),
        ("localhost", False),
        ("localhost", True),
        ("127.0.0.1", False),
    ]


def test_nothing_is_kept_of_a_handshake_that_was_not_verified(
    world: World, tmp_path: Path, handshakes: Handshakes
) -> None:
    tls = ResumingContext(str(write_certificates(tmp_path).ca_file))
    for _ in range(2):
        with pytest.raises(SettingsError, match="could not be verified"):
            connect(target(world, tls))
    assert (handshakes, tls.ticket("127.0.0.1")) == ([], None)


def test_another_server_in_its_place_is_verified_and_refused(
    world: World, tmp_path: Path, handshakes: Handshakes
) -> None:
    """It cannot read the ticket, so it has to show its certificate, which our CA did not sign."""
    tls = ResumingContext(str(world.server.ca_file))
    connect(target(world, tls))
    assert tls.ticket("127.0.0.1") is not None
    with LocalDatabase(world.server.server, tmp_path) as impostor:
        for _ in range(2):
            with pytest.raises(SettingsError, match="could not be verified"):
                connect(target(world, tls, port=impostor.port))
    connect(target(world, tls))
    assert handshakes == [("127.0.0.1", False), ("127.0.0.1", True)]


def test_a_server_that_greets_differently_is_asked_again_in_the_usual_order(
    world: World, handshakes: Handshakes
) -> None:
    database = world.database()
    ask(database)
    # Not what PyMySQL will want to say.
    early(database)._request = b"\x20\0\0\1" + bytes(32)
    assert resumptions(database, handshakes, nothing, nothing) == [True, True]


class Touchy:
    """A thing in between that hangs up, saying nonsense, on whoever speaks before the greeting."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.offended = 0
        self._threads = [threading.Thread(target=self._serve)]
        self._sockets = [self._listener]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if select.select([client], [], [], 0.1)[0]:
                    self.offended += 1
                    with client:
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    continue
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    self._threads.append(threading.Thread(target=self._pass, args=(source, sink)))
                    self._threads[-1].start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def test_what_cannot_bear_an_early_hello_is_asked_again_in_the_usual_order(
    world: World, handshakes: Handshakes
) -> None:
    with Touchy(world.server.host, world.server.port) as touchy:
        database = world.database(port=touchy.port)
        resumed = resumptions(database, handshakes, *[nothing] * 6)
    assert resumed == [False] + [True] * 5
    assert touchy.offended == 3, "and after three times it is left in peace"


@pytest.fixture
def full_server() -> Iterator[int]:
    """Port of a server that has no room: it says so and leaves, without reading what was said."""
    error = b"\xff" + struct.pack("<H", 1040) + b"#08004Too many connections"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.sendall(struct.pack("<I", len(error)) + error)
                    time.sleep(0.005)  # what was said early has arrived, so that close() resets
                    client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_full_server_is_understood_though_it_resets_the_connection(
    world: World, full_server: int
) -> None:
    if world.flavor != "mysql":
        pytest.skip("needs no server: once is enough")
    database = world.database(port=full_server)
    for _ in range(20):
        early(database).verified("127.0.0.1", b"\x20\0\0\1" + bytes(32), early=True)
        with pytest.raises(DatabaseBusyError) as busy:
            database.invocation(lambda _event, _context: database.connection())(
                {}, LambdaContext(0.1)
            )
        assert busy.value.code == 1040
