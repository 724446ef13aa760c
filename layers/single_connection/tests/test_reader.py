"""A writer and a reader are two servers: a `Database` for each, and of each one connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from single_connection import Database, SecondConnectionError
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World
from local.database import LocalDatabase


@pytest.fixture
def reader(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A second server beside the first."""
    with LocalDatabase(world.server.server, tmp_path_factory.mktemp("reader")) as server:
        server.reset()
        second = World(server)
        yield second
        second.close()


def port(database: Database) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT @@port AS port")
        return int(cursor.fetchall()[0]["port"])


def test_a_writer_and_a_reader_are_one_connection_each_and_none_afterwards(
    world: World, reader: World
) -> None:
    writes, reads = world.database(), reader.database()

    @writes.invocation
    @reads.invocation
    def handler(_event: Any, _context: Any) -> tuple[list[int], list[int]]:
        asked = [port(writes), port(reads), port(writes), port(reads)]
        return asked, [len(world.sessions()), len(reader.sessions())]

    for _ in range(2):
        asked, sessions = handler({}, LambdaContext(10))
        assert asked == [world.server.port, reader.server.port] * 2
        assert sessions == [1, 1]
        world.wait_for(lambda: not world.sessions() + reader.sessions())


def test_who_only_reads_has_no_connection_to_the_writer(world: World, reader: World) -> None:
    writes, reads = world.database(), reader.database()

    @writes.invocation
    @reads.invocation
    def handler(_event: Any, _context: Any) -> int:
        port(reads)
        return len(world.sessions())

    assert handler({}, LambdaContext(10)) == 0


def test_a_second_connection_to_the_reader_is_refused_like_one_to_the_writer(
    world: World, reader: World
) -> None:
    writes, reads = world.database(), reader.database()

    @writes.invocation
    @reads.invocation
    def handler(_event: Any, _context: Any) -> None:
        port(writes)
        port(reads)
        for server in (world.server, reader.server):
            with pytest.raises(SecondConnectionError):
                pymysql.connect(host=server.host, port=server.port, user="application")

    handler({}, LambdaContext(10))


def test_a_readers_name_that_is_the_writers_address_is_refused(world: World) -> None:
    """As Aurora's reader endpoint is while there is no reader: two connections to one server."""
    writes, reads = world.database(), world.database(host="localhost")

    @writes.invocation
    @reads.invocation
    def handler(_event: Any, _context: Any) -> None:
        port(writes)
        with pytest.raises(SecondConnectionError):
            port(reads)
        assert len(world.sessions()) == 1

    handler({}, LambdaContext(10))
