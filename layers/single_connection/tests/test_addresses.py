"""Two addresses of one host are the same, and a name is looked up in time, or not again."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from single_connection import DatabaseBusyError, _addresses
from single_connection._addresses import Resolver, end_of, plain

from layers.single_connection.tests.conftest import World, invoke

NAME = "database.example"


@pytest.mark.parametrize(
    ("host", "same"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("0:0:0:0:0:FFFF:0a00:0001", "10.0.0.1"),
        ("FE80:0::1%eth0", "fe80::1"),
        ("::1", "::1"),
    ],
)
def test_an_address_is_known_in_whichever_dress(host: str, same: str) -> None:
    assert plain(host) == same


@pytest.mark.parametrize("name", ["localhost", "127.1", "", "1::2::3", "a" * 300, "\udcff"])
def test_a_name_is_no_address(name: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        plain(name)


def test_our_end_of_a_socket_that_speaks_both_is_as_the_server_sees_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as ours:
        ours.connect((f"::ffff:{server.getsockname()[0]}", server.getsockname()[1]))
        accepted, (host, port) = server.accept()
        accepted.close()
        assert end_of(ours) == f"{host}:{port}"


class NameServer:
    """Stands where the system's look-up does; silent as long as it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.silent = False
        self.over = threading.Event()

    def look_up(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        if self.silent:
            self.over.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))] * 2


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    yield server
    server.over.set()


def test_a_name_is_looked_up_once_in_a_while(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(NAME)
    assert resolver.addresses(1) == resolver.addresses(1) == ("192.0.2.7",)
    assert names.asked == 1
    monkeypatch.setattr(_addresses, "FRESH_SECONDS", 0.0)
    resolver.addresses(1)
    assert names.asked == 2, "after a failover the name has another address"


def test_while_the_name_server_is_silent_what_it_said_last_is_taken_but_not_for_ever(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_addresses, "FRESH_SECONDS", 0.0)
    resolver = Resolver(NAME)
    resolver.addresses(1)
    names.silent = True
    assert resolver.addresses(0.05) == ("192.0.2.7",)
    monkeypatch.setattr(_addresses, "STALE_SECONDS", 0.0)
    with pytest.raises(TimeoutError, match="no name server answered for"):
        resolver.addresses(0.05)


def test_what_the_name_server_says_instead_is_raised_where_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror, match="not known"):
        Resolver(NAME).addresses(1)


def test_a_name_server_that_says_nothing_is_a_database_that_is_not_there_yet(
    world: World, names: NameServer
) -> None:
    names.silent = True
    database = world.database(host=NAME)
    with pytest.raises(DatabaseBusyError) as caught:
        invoke(database, database.connection, 2.0)
    assert caught.value.code == 2003
    assert isinstance(caught.value.__cause__, TimeoutError)
