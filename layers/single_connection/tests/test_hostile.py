"""Whatever speaks in the server's place: one of our errors, in time, no secret in any frame."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.err import OperationalError
from single_connection import (
    CredentialsError,
    Database,
    DatabaseBusyError,
    DeadlineError,
    Settings,
    SettingsError,
    SingleConnectionError,
)
from single_connection._clock import clock
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import invoke
from layers.single_connection.tests.hostile import (
    OK,
    Client,
    Hostile,
    error,
    greeting,
    ok,
    packet,
)
from layers.single_connection.tests.test_credentials import everything

SECRET = "S3cr3t-of-the-database"
Script = Callable[[Client], Any]


def settings(server: Hostile, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "name": "shop",
        "user": "application",
        "password": SECRET,
        "ca_file": str(server.ca_file),
    }
    return Settings(**given | changes)


def meet(
    server: Hostile, seconds: float = 1.5, statement: str = "SELECT 1"
) -> tuple[SingleConnectionError, float]:
    """The error that a handler gets, and after how many seconds."""
    database = Database(settings(server))

    @database.invocation
    def handler(_event: Any, _context: Any) -> None:
        with database.cursor() as cursor:
            cursor.execute(statement)

    began = time.monotonic()
    with pytest.raises(SingleConnectionError) as caught:
        handler({}, LambdaContext(seconds))
    assert SECRET not in everything(caught.value)
    return caught.value, time.monotonic() - began


def says(data: bytes) -> Script:
    return lambda client: client.send(data)


def trickles(data: bytes) -> Script:
    return lambda client: client.trickle(data)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 2013, id="not MySQL"),
        pytest.param(says(packet(b"", 0)), 2013, id="empty greeting"),
        pytest.param(says(packet(b"\x0a8.4.0\0\1", 0)), 2013, id="half a greeting"),
        pytest.param(says(greeting(version=b"eight")), 2013, id="no version"),
        pytest.param(says(greeting(version=b"9" * 5000)), 2013, id="a version of 5,000 digits"),
        pytest.param(says(greeting(plugin=b"\xff\xfe")), 2013, id="a plugin that is no text"),
        pytest.param(says(b"\xff\xff\xff\0" + b"x" * 9000), 2013, id="a greeting of 16 MB"),
        pytest.param(says(error(1040)), 1040, id="full"),
        pytest.param(says(error(1129)), 1129, id="blocked"),
        pytest.param(says(error(1130)), 1130, id="not allowed"),
        pytest.param(says(error(1045)), 2013, id="denied, in plain text"),
        pytest.param(says(error(1049)), 2013, id="no such schema, in plain text"),
        pytest.param(says(error(2026)), 2013, id="no TLS, says an error"),
        pytest.param(trickles(greeting(version=b"8.4.0-" + b"x" * 400)), 2013, id="trickled"),
        pytest.param(lambda client: client.wait(), 2013, id="silent"),
        pytest.param(
            lambda client: client.trickle(error(1045, b"x" * 400, client.log_in(greeting()))),
            2013,
            id="the answer to the password trickled",
        ),
    ],
)
def test_a_broken_or_slow_greeting_is_a_database_that_does_not_answer_in_time(
    tmp_path: Path, script: Script, code: int
) -> None:
    """What is said before TLS is a reason to wait, if anything: it may be anybody's."""
    with Hostile(tmp_path, script) as server:
        raised, took = meet(server)
    assert isinstance(raised, DatabaseBusyError)
    assert raised.code == code
    assert took < 1.5


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        pytest.param(
            says(greeting(low=0xFFFF & ~0x0800)), SettingsError, "verifiable TLS", id="downgrade"
        ),
        pytest.param(
            lambda client: client.send(error(1045, b"no", client.log_in(greeting()))),
            CredentialsError, "refused user", id="denied, through TLS",
        ),
        pytest.param(
            lambda client: client.send(error(1049, b"no", client.log_in(greeting()))),
            SettingsError, "does not exist", id="no such schema, through TLS",
        ),
        pytest.param(
            lambda client: client.send(
                packet(b"\xfeparsec\0" + bytes(32), client.log_in(greeting()))
            ),
            CredentialsError, "authentication that the driver does not do", id="unknown plugin",
        ),
        pytest.param(
            lambda client: client.send(
                packet(b"\xfemysql_old_password\0" + bytes(9), client.log_in(greeting()))
            ),
            CredentialsError, "caching_sha2_password", id="a plugin of old",
        ),
        pytest.param(
            lambda client: client.send(
                error(1045, b"you said " + SECRET.encode(), client.log_in(greeting()))
            ),
            CredentialsError, "refused user", id="a server that repeats the password",
        ),
    ],
)  # fmt: skip
def test_what_waiting_does_not_mend_is_said_at_once(
    tmp_path: Path, script: Script, kind: type[Exception], words: str
) -> None:
    with Hostile(tmp_path, script) as server:
        raised, _ = meet(server)
    assert isinstance(raised, kind)
    assert words in str(raised)
    assert server.count == 1


def test_what_the_server_says_of_a_login_that_is_neither_full_nor_denied_comes_out_as_it_is(
    tmp_path: Path,
) -> None:
    def expired(client: Client) -> None:
        client.send(error(1862, b"Your password has expired", client.log_in(greeting())))

    with Hostile(tmp_path, expired) as server, pytest.raises(pymysql.err.Error, match="1862"):
        meet(server)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(error(1153, b"Got a packet bigger than that", 1), "1153", id="an error"),
        pytest.param(ok(), "2006", id="an answer that is none"),
        pytest.param(b"", "2006", id="nothing"),
    ],
)
def test_a_server_that_hangs_up_in_the_middle_of_a_statement_is_heard_to_its_last_word(
    tmp_path: Path, words: bytes, said: str
) -> None:
    def script(client: Client) -> None:
        client.send(ok(client.log_in(greeting())))
        client.read()
        client.send(ok())
        client._exactly(100)  # of the statement, which is longer than all buffers
        client.send(words)
        client.reset()

    with Hostile(tmp_path, script) as server, pytest.raises(pymysql.err.Error, match=said):
        meet(server, 5.0, "UPDATE things SET text = '" + "x" * (1 << 24) + "'")


def test_a_reset_while_the_password_is_on_its_way_leaves_it_in_no_frame(tmp_path: Path) -> None:
    def full_authentication_then_reset(client: Client) -> None:
        number = client.log_in(greeting(plugin=b"caching_sha2_password"))
        client.send(packet(b"\x01\x04", number))
        client.reset()

    with Hostile(tmp_path, full_authentication_then_reset) as server:
        raised, took = meet(server)  # and looks at all frames
    assert isinstance(raised, DatabaseBusyError)
    assert took < 1.5


def test_a_server_that_trickles_rows_and_the_killer_too_keeps_nobody_beyond_the_deadline(
    tmp_path: Path,
) -> None:
    def script(client: Client) -> None:
        client.serve()  # the statement came with the set-up
        client.trickle(packet(b"\1", 1) + b"x" * 300)

    with Hostile(tmp_path, script) as server:
        raised, took = meet(server, 2.0)
    assert type(raised).__name__ == "DeadlineError"
    assert took < 2.0


def test_a_server_that_takes_its_leave_in_place_of_an_answer_is_a_lost_connection(
    tmp_path: Path,
) -> None:
    """By the letter, with TLS's own goodbye."""

    def script(client: Client) -> None:
        client.serve()
        client.read()
        client.sock.unwrap()  # type: ignore[attr-defined] # through TLS by now

    with Hostile(tmp_path, script) as server:
        database = Database(settings(server))
        with pytest.raises(OperationalError, match="nothing was changed") as caught:
            invoke(database, lambda: database.connection().query("SELECT 1"), 2.0)
    assert caught.value.args[0] == 2013


def test_what_a_server_says_after_goodbye_is_heard_out_and_it_is_gone(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def script(client: Client) -> None:
        client.serve()
        heard.append(client.read()[1])
        client.send(packet(OK, 1))
        heard.append(client.read()[1])
        for _ in range(3):
            client.send(b"x" * 1000)

    with Hostile(tmp_path, script) as server:
        database = Database(settings(server))

        def work() -> Any:
            database.connection().ping()
            assert database._invocation is not None
            return database._invocation.measured

        measured = invoke(database, work, 4.0)
    assert heard == [b"\x0e", b"\x01"]
    assert (measured.destroyed, measured.unconfirmed) == (1, 0)
    assert server.count == 1, "nobody was sent to kill it"


def test_a_goodbye_for_which_there_is_no_time_is_not_said(tmp_path: Path) -> None:
    def script(client: Client) -> None:
        client.serve()
        client.wait()

    with Hostile(tmp_path, script) as server:
        database = Database(settings(server))

        def work() -> None:
            connection = database.connection()
            assert not connection.say_goodbye(clock.now() - 1)
            assert not connection.is_gone(clock.now() - 1)
            connection.hang_up(clock.now())
            assert not connection.is_gone(clock.now() + 1), "nobody is asked any more"

        invoke(database, work, 2.0)


PROXY = "shop.proxy-abcdefghijkl.eu-west-1.rds.amazonaws.com"


def test_an_rds_proxy_is_verified_by_the_systems_roots_and_told_only_what_it_can_track(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[Client] = []

    def script(client: Client) -> None:
        clients.append(client)
        client.serve()
        client.read()
        client.send(packet(OK, 1))
        client.read()

    looked_up = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: looked_up)
    with Hostile(tmp_path, script, (PROXY,)) as server:
        database = Database(settings(server, host=PROXY, ca_file=None))
        with pytest.raises(SettingsError, match="could not be verified"):
            invoke(database, database.connection, 2.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca_file))  # as if it were among them
        database = Database(settings(server, host=PROXY, ca_file=None))
        for _ in range(2):
            invoke(database, lambda: database.connection().ping(), 2.0)
    *_, first, second = clients
    for client in (first, second):
        assert client.set_up == b"\x03SET NAMES utf8mb4, autocommit = 1, wait_timeout = 2"


def test_through_a_proxy_nobody_is_killed_by_a_number_that_is_the_proxys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our side is closed, and it is said that nobody knows whether the server has let go."""
    monkeypatch.setattr(Settings, "through_proxy", property(lambda _self: True))
    ended: list[bool] = []

    def script(client: Client) -> None:
        client.serve()
        client.read()
        with pytest.raises(EOFError):  # says nothing, and hears only the end
            client.read()
        ended.append(True)

    with Hostile(tmp_path, script) as server:
        database = Database(settings(server))

        def work() -> Any:
            invocation = database._invocation
            assert invocation is not None
            connection = database.connection()
            with pytest.raises(DeadlineError):
                connection.query("SELECT SLEEP(20)")
            assert not database._connector.end(connection, clock.now() + 1)
            assert not database._connector.end_leaks(frozenset({"127.0.0.1:1"}), clock.now() + 1)
            return invocation.measured

        measured = invoke(database, work, 2.0)
    assert ended == [True]
    assert measured.unconfirmed == 1
    assert server.count == 1
