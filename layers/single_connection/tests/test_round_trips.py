"""How often a connection waits for the server: each time costs a round trip."""

from typing import Any

import pymysql
from pymysql.cursors import DictCursor
from single_connection import Database
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World
from local.delay_proxy import DelayProxy


def waits(proxy: DelayProxy, database: Database) -> tuple[int, int]:
    """How often an invocation waited until its first row, and until the server had let go."""
    until_row = 0

    @database.invocation
    def handler(_event: Any, _context: Any) -> None:
        nonlocal until_row
        with database.connection().cursor() as cursor:
            cursor.execute("SELECT 42")
            until_row = proxy.turns - before
            assert cursor.fetchone() == (42,)

    before = proxy.turns
    handler({}, LambdaContext(30))
    return until_row, proxy.turns - before


def test_the_first_row_takes_at_most_five_round_trips_the_first_time_and_three_when_warm(
    world: World, far_away: DelayProxy
) -> None:
    database = world.database(port=far_away.port)
    waits(far_away, database)  # MySQL asks for the whole password once: it has cached it after that

    cold = world.database(port=far_away.port)
    assert waits(far_away, cold)[0] <= 5
    assert min(waits(far_away, cold) for _ in range(3)) == (3, 4)


def test_the_very_first_connection_to_a_server_takes_at_most_six(
    world: World, far_away: DelayProxy
) -> None:
    world.server.execute("FLUSH PRIVILEGES")  # empties MySQL's cache of passwords
    assert waits(far_away, world.database(port=far_away.port))[0] <= 6


def test_a_transaction_begins_in_the_round_trip_of_the_set_up(
    world: World, far_away: DelayProxy
) -> None:
    database = world.database(port=far_away.port)
    waits(far_away, database)
    waits(far_away, database)
    turns: list[int] = []

    @database.invocation
    def handler(_event: Any, _context: Any) -> None:
        with database.transaction() as cursor:
            turns.append(far_away.turns - before)
            cursor.execute("SELECT 42")
            turns.append(far_away.turns - before)

    for _ in range(3):
        before = far_away.turns
        handler({}, LambdaContext(30))
    assert min(zip(turns[::2], turns[1::2], strict=True)) == (3, 4)


def test_against_pymysql_as_documented_a_connection_waits_little_more_than_half_as_often(
    world: World, far_away: DelayProxy
) -> None:
    environ = world.environ(port=far_away.port)

    def documented() -> None:
        connection = pymysql.connect(
            host=environ["DATABASE_HOST"],
            port=far_away.port,
            user=environ["DATABASE_USER"],
            password=environ["DATABASE_PASSWORD"],
            database=environ["DATABASE_NAME"],
            cursorclass=DictCursor,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == {"1": 1}

    documented()
    counts = []
    for _ in range(3):
        before = far_away.turns
        documented()
        counts.append(far_away.turns - before)
    assert min(counts) == {"mysql": 7, "mariadb": 6}[world.flavor]
