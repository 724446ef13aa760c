"""The network between functions and server does what its weather says, to a real session."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, get_args

import pymysql
import pytest

from lab.soak.proxy import Door, Network
from lab.soak.weather import CommitFate
from local.database import LocalDatabase


def connect(database: LocalDatabase, port: int, **more: Any) -> pymysql.Connection:
    given = database.application_environ()
    return pymysql.connect(
        host="127.0.0.1",
        port=port,
        user=given["DATABASE_USER"],
        password=given["DATABASE_PASSWORD"],
        database=given["DATABASE_NAME"],
        ssl=ssl.create_default_context(cafile=given["DATABASE_CA_FILE"]),
        **{"read_timeout": 2, "connect_timeout": 2, **more},
    )


def write_one(database: LocalDatabase, port: int) -> bool:
    """Whether the client was told that its row is written."""
    connection = connect(database, port)
    try:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO notes VALUES (1)")
        connection.commit()
    except pymysql.err.MySQLError:
        return False
    else:
        return True
    finally:
        with contextlib.suppress(pymysql.err.Error):  # it may have found itself closed
            connection.close()


def through(database: LocalDatabase, play: Callable[[Network, Door], Any]) -> Any:
    """Play in a thread while the network runs in this one."""

    async def run() -> Any:
        network = Network(database.host, database.port)
        door = network.door(3.0)
        try:
            return await asyncio.to_thread(play, network, door)
        finally:
            await network.close()

    return asyncio.run(run())


FATES: dict[CommitFate | None, tuple[bool, bool]] = {
    None: (True, True),
    "never sent, reset": (False, False),
    "half sent, reset": (False, False),
    "done, reset": (False, True),
    "never sent, silence": (False, False),
    "done, silence": (False, True),
    "late": (True, True),
}
"""Whether the client is told that it is written, and whether it is."""


@pytest.mark.parametrize("fate", FATES)
def test_a_commit_meets_its_fate_and_nothing_before_it_does(
    database_server: LocalDatabase, fate: CommitFate | None
) -> None:
    told, written = FATES[fate]
    database_server.execute("CREATE TABLE notes (n INT)")

    def play(network: Network, door: Door) -> bool:
        network.weather.commit = fate
        return write_one(database_server, door.port)

    assert through(database_server, play) is told
    database_server.end_sessions()
    assert len(database_server.execute("SELECT * FROM notes")) == written


def test_every_fate_of_a_commit_is_tried() -> None:
    assert FATES.keys() - {None} == set(get_args(CommitFate))


def test_who_is_cut_off_leaves_a_session_that_the_server_does_not_miss(
    database_server: LocalDatabase,
) -> None:
    def play(network: Network, door: Door) -> tuple[int, bool]:
        connection = connect(database_server, door.port)
        door.cut()
        with pytest.raises(pymysql.err.MySQLError):
            connection.ping(reconnect=False)
        with contextlib.suppress(pymysql.err.Error):
            connection.close()
        left = database_server.sessions()
        owned = network.owner(int(left[0].host.rpartition(":")[2])) is not None
        return len(left), owned

    assert through(database_server, play) == (1, True)


def test_a_cut_door_stops_nobody_behind_another(database_server: LocalDatabase) -> None:
    async def run() -> None:
        network = Network(database_server.host, database_server.port)
        cut, other = network.door(3.0), network.door(3.0)
        cut.cut()
        try:
            connection = await asyncio.to_thread(connect, database_server, other.port)
            connection.close()
            with pytest.raises(pymysql.err.MySQLError):
                await asyncio.to_thread(connect, database_server, cut.port)
        finally:
            await network.close()

    asyncio.run(run())


def test_silence_delays_and_loses_nothing(database_server: LocalDatabase) -> None:
    database_server.execute("CREATE TABLE notes (n INT)")

    async def run() -> bool:
        network = Network(database_server.host, database_server.port)
        door = network.door(3.0)
        network.weather.flows.clear()
        writing = asyncio.create_task(asyncio.to_thread(write_one, database_server, door.port))
        done, _ = await asyncio.wait({writing}, timeout=0.3)
        assert not done
        network.weather.flows.set()
        try:
            return await writing
        finally:
            await network.close()

    assert asyncio.run(run())


def test_a_refused_connection_fails_at_once(database_server: LocalDatabase) -> None:
    def play(network: Network, door: Door) -> None:
        network.weather.refuse = True
        with pytest.raises(pymysql.err.MySQLError):
            connect(database_server, door.port)

    through(database_server, play)
    assert database_server.sessions() == []
