"""When the database is full, wait; and say clearly what waiting cannot mend."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from single_connection import (
    CredentialsError,
    Database,
    DatabaseBusyError,
    OutsideInvocationError,
    SettingsError,
)

from layers.single_connection.tests.conftest import Alarm, World, invoke
from layers.single_connection.tests.network import Proxy, free_port, greeting, listener
from local.certificates import write_certificates


def ping(database: Database, seconds: float = 4.0) -> None:
    invoke(database, lambda: database.connection().ping(), seconds)


@contextlib.contextmanager
def taken(world: World, environ: dict[str, str], count: int) -> Iterator[list[Any]]:
    """`count` connections; the databases under test stand behind a proxy, so none is guarded."""
    held: list[Any] = []
    try:
        for _ in range(count):
            opened = pymysql.connect(
                host=world.server.host,
                port=world.server.port,
                user=environ["DATABASE_USER"],
                password=environ["DATABASE_PASSWORD"],
                ssl_ca=environ["DATABASE_CA_FILE"],
            )
            held.append(opened)
        yield held
    finally:
        for connection in held:
            connection._force_close()


def full(world: World, code: int) -> contextlib.AbstractContextManager[Any]:
    """A database that refuses one more connection of ours, with that error."""
    if code == 1040:
        # The fewest MariaDB takes; of MySQL's, the observer has one.
        world.server.execute("SET GLOBAL max_connections = %s", 10 + (world.flavor == "mysql"))
        return taken(world, world.server.master_environ(), 10)
    if code == 1226:
        world.server.execute("ALTER USER 'application'@'%' WITH MAX_USER_CONNECTIONS 1")
    else:
        world.server.execute("ALTER USER 'application'@'%' WITH MAX_USER_CONNECTIONS 0")
        world.server.execute("SET GLOBAL max_user_connections = 1")
    return taken(world, world.environ(), 1)


def codes(world: World) -> list[int]:
    # MariaDB fixes the global limit per user at start when it was 0: it cannot be tried there.
    return [1040, 1226] if world.flavor == "mariadb" else [1040, 1203, 1226]


@pytest.mark.parametrize("code", [1040, 1203, 1226])
def test_a_full_database_is_waited_for(world: World, proxy: Proxy, code: int) -> None:
    if code not in codes(world):
        pytest.skip("MariaDB does not take max_user_connections at run time")
    database = world.database(port=proxy.port)
    with full(world, code) as held:
        timer = threading.Timer(0.5, lambda: held.pop()._force_close())
        timer.start()
        ping(database)
        timer.join()


@pytest.mark.parametrize("code", [1040, 1203, 1226])
def test_a_database_that_stays_full_is_a_clear_error_with_the_servers_code(
    world: World, proxy: Proxy, code: int
) -> None:
    if code not in codes(world):
        pytest.skip("MariaDB does not take max_user_connections at run time")
    database = world.database(port=proxy.port)
    with full(world, code), pytest.raises(DatabaseBusyError) as caught:
        ping(database, 3.0)
    error = caught.value
    assert error.code == code
    assert isinstance(error.__cause__, pymysql.err.OperationalError)
    assert error.__cause__.args[0] == code
    assert error.retry_after >= 1
    assert error.attempts > 1
    assert 0.3 < error.waited < 3.0
    assert f"error {code}" in str(error)


def test_the_next_invocation_has_its_own_time_to_wait(world: World, proxy: Proxy) -> None:
    """A fault of serverless-mysql: the retry budget is not reset for the next invocation."""
    database = world.database(port=proxy.port)
    with full(world, 1226) as held:
        for _ in range(2):
            with pytest.raises(DatabaseBusyError) as caught:
                ping(database, 2.4)
            assert caught.value.attempts > 1
            assert caught.value.waited > 0.2
        held.pop()._force_close()
    ping(database)


def test_a_handler_may_catch_the_busy_error_and_answer(world: World, proxy: Proxy) -> None:
    database = world.database(port=proxy.port)

    def work() -> str:
        try:
            database.connection()
        except DatabaseBusyError as busy:
            return f"503, Retry-After: {busy.retry_after:.0f}"
        return "200"

    with full(world, 1226):
        assert invoke(database, work, 2.4).startswith("503, Retry-After: ")


def test_a_server_that_is_not_there_is_waited_for(world: World) -> None:
    database = world.database()
    world.server.kill()
    starting = threading.Timer(0.1, world.server.restart)
    starting.start()
    try:
        ping(database, 20.0)
    finally:
        starting.join()


def test_a_refused_connect_is_retried_and_then_an_error_that_says_so(world: World) -> None:
    database = world.database(port=free_port())
    with pytest.raises(DatabaseBusyError) as caught:
        ping(database, 2.0)
    assert caught.value.code == 2003
    assert caught.value.attempts > 1


SILENT = {
    "never says a word": b"",
    "stops within the greeting": greeting(tls=True)[:20],
    "stops after the greeting": greeting(tls=True),
}


@pytest.mark.parametrize("how", SILENT)
def test_a_server_that_falls_silent_is_given_up_in_time(world: World, how: str) -> None:
    with listener(lambda client: client.sendall(SILENT[how])) as (port, heard):
        database = world.database(port=port)
        with pytest.raises(DatabaseBusyError) as caught:
            ping(database, 2.4)
    assert caught.value.code in (2003, 2013)
    assert str(database.settings.password) not in repr(heard)


@pytest.mark.parametrize("after", [b"", greeting(tls=True)])
def test_a_server_that_hangs_up_is_tried_again(world: World, after: bytes) -> None:
    def hang_up(client: Any) -> None:
        client.sendall(after)
        if after:
            client.recv(4096)
        client.close()

    with listener(hang_up) as (port, _), pytest.raises(DatabaseBusyError) as caught:
        ping(world.database(port=port), 2.4)
    assert caught.value.attempts > 1


def test_a_thread_that_waits_for_admission_stops_when_the_handler_is_done(
    world: World, proxy: Proxy
) -> None:
    database, ended = world.database(port=proxy.port), []

    def ask() -> None:
        try:
            database.connection()
        except (DatabaseBusyError, OutsideInvocationError) as error:
            ended.append(type(error))

    def work() -> threading.Thread:
        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)
        return thread

    with full(world, 1226):
        began = time.monotonic()
        thread = invoke(database, work, 10.0)
        thread.join()
        assert time.monotonic() - began < 2
    assert ended


# What waiting cannot mend --------------------------------------------------------------------


def fails_at_once(database: Database, error: type[Exception], *words: str) -> str:
    began = time.monotonic()
    with pytest.raises(error) as caught:
        ping(database, 10.0)
    assert time.monotonic() - began < 4.0, "it was waited for"
    for word in words:
        assert word in str(caught.value)
    assert (database.settings.password or "-") not in str(caught.value)
    return str(caught.value)


def test_a_wrong_password_fails_at_once(world: World) -> None:
    database = world.database(password="not-the-password")
    fails_at_once(database, CredentialsError, "1045", "DATABASE_PASSWORD")


def test_a_missing_right_fails_at_once(world: World) -> None:
    world.server.execute("REVOKE ALL ON shop.* FROM 'application'@'%'")
    fails_at_once(world.database(), CredentialsError, "1044", "grants")


def test_an_unknown_database_fails_at_once(world: World) -> None:
    environ = world.server.master_environ() | {"DATABASE_NAME": "no_such"}
    fails_at_once(Database.from_environment(environ), SettingsError, "DATABASE_NAME", "1049")


def test_another_authoritys_certificate_fails_at_once(world: World, tmp_path: Path) -> None:
    other = write_certificates(tmp_path / "other").ca_file
    database = world.database(ca_file=other)
    fails_at_once(database, SettingsError, "DATABASE_CA_FILE", "could not be verified")


def test_a_certificate_for_another_host_fails_at_once(world: World) -> None:
    with Proxy(world.server.host, world.server.port, bind="127.0.0.2") as elsewhere:
        database = world.database(host="127.0.0.2", port=elsewhere.port)
        fails_at_once(database, SettingsError, "DATABASE_HOST", "127.0.0.2")


def test_a_server_without_tls_is_refused_and_never_told_the_password(world: World) -> None:
    with listener(lambda client: client.sendall(greeting(tls=False))) as (port, heard):
        database = world.database(port=port)
        fails_at_once(database, SettingsError, "TLS")
    assert b"application" not in b"".join(heard)
    assert str(database.settings.password).encode() not in b"".join(heard)


def test_a_name_that_does_not_exist_fails_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(socket.EAI_NONAME))
    database = world.database(host="no-such-host.invalid")
    fails_at_once(database, SettingsError, "DATABASE_HOST", "no-such-host.invalid")


def test_a_name_server_that_does_not_answer_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(socket.EAI_AGAIN))
    with pytest.raises(DatabaseBusyError) as caught:
        ping(world.database(host="some-host.invalid"), 2.0)
    assert caught.value.code == 2003
    assert caught.value.attempts > 1


def test_a_name_server_that_is_silent_keeps_no_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a thread that asks it: it learns later that its invocation is over."""
    silent, came = threading.Event(), []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silent.wait(10))
    database = world.database(host="some-host.invalid")

    def ask() -> None:
        with pytest.raises((DatabaseBusyError, OutsideInvocationError)) as caught:
            database.connection()
        came.append(caught.value)

    def work() -> threading.Thread:
        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)
        return thread

    began = time.monotonic()
    thread = invoke(database, work, 6.0)
    assert time.monotonic() - began < 1.8
    assert not came
    thread.join()
    assert len(came) == 1
    silent.set()


def test_an_alarm_while_it_connects_leaves_no_socket(
    world: World, alarm: Callable[[float], None]
) -> None:
    """A host that does not answer: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as host:
        where = host.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(where)
        database = world.database(port=where[1])
        before = len(list(Path("/proc/self/fd").iterdir()))
        alarm(0.3)
        with pytest.raises(Alarm):
            ping(database)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        for sock in waiting:
            sock.close()


def resolver(number: int) -> Any:
    """A name server's answer, whichever network this runs on."""

    def resolve(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(number, "as the test wants it")

    return resolve


def test_a_ca_file_without_certificates_fails_at_once(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    database = world.database(ca_file=tmp_path / "empty.pem")
    fails_at_once(database, SettingsError, "DATABASE_CA_FILE", "no PEM certificate")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "3306.5"),
        ("port", "nan"),
        ("port", "inf"),
        ("port", "mysql"),
        ("deadline_margin", "0"),
        ("deadline_margin", "-1"),
        ("deadline_margin", "nan"),
        ("deadline_margin", "inf"),
        ("deadline_margin", "soon"),
        ("ca_file", "/no/such/file"),
    ],
)
def test_a_setting_that_cannot_work_is_named(world: World, variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"DATABASE_{variable.upper()}"):
        world.database(**{variable: value})
