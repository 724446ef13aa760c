"""What passes by itself is 503 with Retry-After and leaves nothing; a mistake stays a mistake."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.api_gateway import Router
from single_connection import (
    CommitOutcomeUnknownError,
    Database,
    DatabaseBusyError,
    DeadlineError,
)
from single_connection.powertools import answer_unavailable
from single_connection.sqlalchemy import create_engine
from single_connection.testing import LambdaContext
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from layers.single_connection.tests.conftest import World

EVENT = {
    "version": "2.0",
    "rawPath": "/",
    "headers": {},
    "requestContext": {"stage": "$default", "http": {"method": "GET", "path": "/"}},
}


def answer(
    route: Callable[[], Any], database: Database | None = None, seconds: float = 10
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of what an API with this one route answers."""
    app = APIGatewayHttpResolver()
    answer_unavailable(app)
    app.get("/")(route)

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        return app.resolve(event, context)

    marked = database.invocation(handler) if database else handler
    got = marked(EVENT, LambdaContext(seconds))
    return got["statusCode"], got["headers"], json.loads(got["body"])


def raising(error: Exception) -> Callable[[], Any]:
    def route() -> None:
        raise error

    return route


def error_of_server(code: int, text: str = "…") -> Exception:
    return pymysql.err.OperationalError(code, text)


# ── Which is which ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error",
    [
        DatabaseBusyError(1040, retry_after=6.4, attempts=9, waited=2.0),
        DeadlineError("the time was nearly over"),
        error_of_server(1053, "Server shutdown in progress"),
        error_of_server(1205, "Lock wait timeout exceeded"),
        error_of_server(1290, "The server is running with the --read-only option"),
        error_of_server(1290, "The server is running with the --super-read-only option"),
        pymysql.err.InternalError(1836, "Running in read-only mode"),
        error_of_server(2013, "Lost connection"),
        error_of_server(1317, "Query execution was interrupted"),
        error_of_server(1927, "Connection was killed"),
        error_of_server(4031, "The client was disconnected by the server because of inactivity"),
        error_of_server(3032, "The server is currently in offline mode"),
    ],
    ids=lambda error: f"{type(error).__name__}{error.args[:1]}",
)
def test_what_passes_by_itself_is_503_and_says_that_nothing_was_kept(error: Exception) -> None:
    status, headers, body = answer(raising(error))
    assert status == 503
    assert int(headers["Retry-After"]) == (7 if isinstance(error, DatabaseBusyError) else 1)
    assert set(body) == {"message"}
    assert "Nothing of this request was kept: try again shortly" in body["message"]


def test_an_unknown_commit_is_503_and_says_that_it_is_unknown() -> None:
    status, headers, body = answer(raising(CommitOutcomeUnknownError("lost during COMMIT")))
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "It is unknown whether this was done" in body["message"]
    assert "same Idempotency-Key" in body["message"]


@pytest.mark.parametrize(
    "error",
    [
        error_of_server(1290, "The server is running with the --secure-file-priv option"),
        pymysql.err.ProgrammingError(1146, "no such table"),
        pymysql.err.IntegrityError(1062, "Duplicate entry"),
        pymysql.err.InterfaceError(0, ""),
        pymysql.err.MySQLError("no number"),
        pymysql.err.MySQLError(),
        ValueError("a bug"),
    ],
    ids=repr,
)
def test_a_mistake_is_raised_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        answer(raising(error))
    assert raised.value is error


def test_a_body_of_ones_own_and_a_router_of_an_app() -> None:
    app, router = APIGatewayHttpResolver(), Router()
    answer_unavailable(router, lambda message: {"error": {"detail": message}})
    router.get("/")(raising(DeadlineError("the time was nearly over")))
    app.include_router(router)
    context: Any = LambdaContext()
    got = app.resolve(EVENT, context)
    assert (got["statusCode"], list(json.loads(got["body"]))) == (503, ["error"])


def test_without_sqlalchemy_the_drivers_errors_are_known_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a function that does not bring it."""
    monkeypatch.delitem(sys.modules, "sqlalchemy")
    assert answer(raising(error_of_server(1213)))[0] == 503
    with pytest.raises(ValueError, match="a bug"):
        answer(raising(ValueError("a bug")))


# ── On a real server ──────────────────────────────────────────────────────────────────────────


def end_the_session_with(world: World, text: str) -> threading.Thread:
    """Ends the session that runs a statement with `text` in it, from a thread; join it."""

    def end_it() -> None:
        session = world.wait_for(lambda: world.busy(text))
        world.server.execute(f"KILL {session.id}")

    killer = threading.Thread(target=end_it)
    killer.start()
    return killer


def test_a_session_that_is_lost_before_commit_is_503_and_changed_nothing(world: World) -> None:
    world.stock(cups=1)
    database = world.database()

    def route() -> None:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = 0")
            cursor.execute("SELECT SLEEP(5)")

    killer = end_the_session_with(world, "SLEEP")
    status, _, body = answer(route, database)
    killer.join()
    assert (status, world.things(), world.sessions()) == (503, {"cups": 1}, [])
    assert "Nothing of this request was kept" in body["message"]


def test_a_session_that_is_lost_through_sqlalchemy_is_503_too(world: World) -> None:
    world.stock(cups=1)
    database = world.database()
    engine = create_engine(database)

    def route() -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE things SET number = 0"))
            connection.execute(text("SELECT SLEEP(5)"))

    killer = end_the_session_with(world, "SLEEP")
    status, _, body = answer(route, database)
    killer.join()
    assert (status, world.things(), world.sessions()) == (503, {"cups": 1}, [])
    assert "Nothing of this request was kept" in body["message"]


def test_a_mistake_through_sqlalchemy_is_raised_as_it_is(world: World) -> None:
    database = world.database()
    engine = create_engine(database)

    def route() -> None:
        with engine.begin() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(ProgrammingError, match="1146"):
        answer(route, database)


def test_a_change_outside_a_transaction_whose_session_is_lost_is_503_and_unknown(
    world: World,
) -> None:
    world.stock(cups=1)
    database = world.database()

    def route() -> None:
        with database.cursor() as cursor:
            cursor.execute("UPDATE things SET number = SLEEP(5)")

    killer = end_the_session_with(world, "SLEEP")
    status, _, body = answer(route, database)
    killer.join()
    assert (status, world.sessions()) == (503, [])
    assert "It is unknown whether this was done" in body["message"]


def test_a_row_that_stays_locked_is_503_and_changed_nothing(world: World) -> None:
    world.stock(cups=1)
    rival = world.outsider()
    rival.begin()
    rival.cursor().execute("SELECT * FROM things FOR UPDATE")
    database = world.database()

    def route() -> None:
        with database.transaction() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
            cursor.execute("UPDATE things SET number = 0")

    status, _, _ = answer(route, database)
    assert (status, world.things()) == (503, {"cups": 1})


def test_a_server_that_is_read_only_is_503(world: World) -> None:
    """As the old writer is in a failover."""
    world.stock(cups=1)
    database = world.database()

    def route() -> None:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = 0")

    world.server.execute("SET GLOBAL read_only = 1")
    try:
        status, _, _ = answer(route, database)
    finally:
        world.server.execute("SET GLOBAL read_only = 0")
    assert (status, world.things()) == (503, {"cups": 1})
    assert answer(route, database)[0] == 200


def test_the_deadline_is_503(world: World) -> None:
    database = world.database()

    def route() -> None:
        with database.transaction() as cursor:
            cursor.execute("SELECT SLEEP(5)")

    status, _, _ = answer(route, database, seconds=2)
    assert (status, world.sessions()) == (503, [])
