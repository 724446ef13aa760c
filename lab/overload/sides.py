"""How an invocation gets its connection: ours, and what others do or would write."""

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import sqlalchemy
import sqlalchemy.pool
from single_connection import Database, DatabaseBusyError, SingleConnectionError
from single_connection.testing import LambdaContext

# Too many connections: in all, of this user, of this user by a limit of the account.
FULL = {1040, 1203, 1226}
ROOT = Path(__file__).resolve().parents[2]

STATEMENT = "SELECT SLEEP({:g})"
SECONDS = 0.02  # for which the statement sleeps, where nothing else is said
# Lambda's timeout for an invocation here; what takes longer has failed.
TIMEOUT = 15.0


@dataclass(frozen=True)
class Outcome:
    """One invocation: attempts made, seconds held, and the failure if it failed."""

    attempts: int
    held: float
    failure: str | None = None


Invoke = Callable[[str], Outcome]
"""Runs one invocation with that statement."""


def plain(environ: Mapping[str, str], context: ssl.SSLContext) -> Invoke:
    """PyMySQL, connected and closed in each call; the verified TLS context is made once."""
    arguments: dict[str, Any] = _arguments(environ, context)

    def invoke(statement: str) -> Outcome:
        began = time.monotonic()
        try:
            connection = pymysql.connect(**arguments)
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    cursor.fetchall()
            finally:
                connection.close()
        except pymysql.err.OperationalError as error:
            return Outcome(1, 0.0, str(error.args[0]))
        return Outcome(1, time.monotonic() - began)

    return invoke


def queue(environ: Mapping[str, str], context: ssl.SSLContext) -> Invoke:
    """The same behind a real queue, whose port is in the environment."""
    return plain({**environ, "DATABASE_PORT": environ["QUEUE_PORT"]}, context)


def backoff(environ: Mapping[str, str], context: ssl.SSLContext) -> Invoke:
    """The same with what a good engineer would write: full jitter, bounded, within the time left.

    Full jitter is a pause between nothing and a bound that doubles; see AWS's "Exponential Backoff
    and Jitter". Only a full database is worth another attempt.
    """
    import tenacity

    arguments: dict[str, Any] = _arguments(environ, context)

    def is_full(error: BaseException) -> bool:
        return isinstance(error, pymysql.err.OperationalError) and error.args[0] in FULL

    def invoke(statement: str) -> Outcome:
        seen = {"began": 0.0, "attempts": 0}

        def connect() -> Any:
            seen.update(began=time.monotonic(), attempts=seen["attempts"] + 1)
            return pymysql.connect(**arguments)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_full),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2.0),
            stop=tenacity.stop_after_delay(TIMEOUT - 0.5),
            reraise=True,
        )
        try:
            connection = retrying(connect)
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    cursor.fetchall()
            finally:
                connection.close()
        except pymysql.err.OperationalError as error:
            return Outcome(int(seen["attempts"]), 0.0, str(error.args[0]))
        return Outcome(int(seen["attempts"]), time.monotonic() - seen["began"])

    return invoke


def null_pool(environ: Mapping[str, str], context: ssl.SSLContext) -> Invoke:
    """SQLAlchemy with NullPool, what its documentation advises where pooling does not fit."""
    arguments = _arguments(environ, context)
    engine = sqlalchemy.create_engine(
        "mysql+pymysql://", connect_args=arguments, poolclass=sqlalchemy.pool.NullPool
    )

    def invoke(statement: str) -> Outcome:
        began = time.monotonic()
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text(statement)).fetchall()
        except sqlalchemy.exc.OperationalError as error:
            return Outcome(1, 0.0, str(error.orig.args[0]) if error.orig else "?")
        return Outcome(1, time.monotonic() - began)

    return invoke


def ours(environ: Mapping[str, str], _context: ssl.SSLContext) -> Invoke:
    """The layer as a handler uses it, with a deadline; its policy learns as it would in Lambda."""
    database = Database.from_environment(environ)
    seen: dict[str, float] = {}

    @database.invocation
    def handler(statement: str, _context: Any) -> None:
        connection = database.connection()
        # Only the invocation itself knows how often it knocked; telemetry would print it.
        measured = database._running().measured
        seen["began"] = time.monotonic() - measured.connect_seconds
        seen["attempts"] = measured.attempts
        with connection.cursor() as cursor:
            cursor.execute(statement)
            cursor.fetchall()

    def invoke(statement: str) -> Outcome:
        seen.update(began=0.0, attempts=1)
        try:
            handler(statement, LambdaContext(TIMEOUT))
        except DatabaseBusyError as busy:
            return Outcome(busy.attempts, 0.0, str(busy.code))
        except (SingleConnectionError, pymysql.err.Error) as error:
            return Outcome(int(seen["attempts"]), 0.0, type(error).__name__)
        return Outcome(int(seen["attempts"]), time.monotonic() - seen["began"])

    return invoke


SIDES: dict[str, Callable[[Mapping[str, str], ssl.SSLContext], Invoke]] = {
    "plain": plain,
    "queue": queue,
    "backoff": backoff,
    "null_pool": null_pool,
    "ours": ours,
}


def _arguments(environ: Mapping[str, str], context: ssl.SSLContext) -> dict[str, Any]:
    return {
        "host": environ["DATABASE_HOST"],
        "port": int(environ["DATABASE_PORT"]),
        "user": environ["DATABASE_USER"],
        "password": environ["DATABASE_PASSWORD"],
        "database": environ["DATABASE_NAME"],
        "ssl": context,
    }
