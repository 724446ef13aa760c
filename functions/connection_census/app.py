"""Counts the database's connections each minute, and ends those no invocation can own any more.

The layer destroys every connection, and the server drops the ones it cannot; this is the third
net, and the eye on the first two: in a healthy system it never ends anything. It has a user of its
own, who sees everybody and gets in when the application's connections are all taken.
"""

import os
import time
from collections import Counter
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from single_connection import Cursor, Database, DriverError

# An invocation that is just being ended still has its connection for a moment.
MARGIN_SECONDS = 60
NO_SUCH_THREAD, NOT_THE_OWNER = 1094, 1095  # MySQL server error reference

logger = Logger()
database = Database.from_environment()
metrics = Metrics(
    namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE") or "Shop",
    service=os.environ.get("POWERTOOLS_SERVICE_NAME") or "connection_census",
)


class Marks:
    """Which sessions are older than so many seconds, by numbers that no session can set.

    A server numbers its connections as they come. So each one with a smaller number than this
    function's own of two minutes ago is older than two minutes, whatever it does and says. (`Time`
    in the process list is the seconds in one state, and on MySQL follows the session's own
    `SET timestamp`.) Kept in memory: a new environment knows nothing yet, and ends nothing.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._marks: list[tuple[int, int]] = []

    def add(self, connection_id: int, uptime: int, now: float) -> None:
        """Remember the number of this connection, and the server's age; times in seconds."""
        started = now - uptime
        if abs(started - self._started) > 5:  # another life of the server, and it counts anew
            self._started, self._marks = started, []
        self._marks.append((uptime, connection_id))

    def older_than(self, seconds: int) -> int:
        """The number below which every session is older; 0 where that is not known yet."""
        now, _ = self._marks[-1]
        old = [mark for mark in self._marks if now - mark[0] > seconds]
        self._marks = old[-1:] + self._marks[len(old) :]
        return old[-1][1] if old else 0


marks = Marks()


@logger.inject_lambda_context
@metrics.log_metrics
@database.invocation
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Count, publish, end what outlived any invocation; `{"dry_run": true}` ends nothing."""
    dry_run = event.get("dry_run", False) if isinstance(event, dict) else None
    if not isinstance(dry_run, bool):
        raise InvalidEventError(
            f"the event must be a JSON object, in it dry_run true or false, and is {event!r}"
        )
    oldest = longest_invocation() + MARGIN_SECONDS

    with database.cursor() as cursor:
        total = number(cursor, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
        limit = number(cursor, "SHOW GLOBAL VARIABLES LIKE 'max_connections'")
        [me] = rows(cursor, "SELECT CONNECTION_ID() AS id, SUBSTRING_INDEX(USER(), '@', 1) AS user")
        marks.add(me["id"], number(cursor, "SHOW GLOBAL STATUS LIKE 'Uptime'"), time.time())
        mark = marks.older_than(oldest)
        sessions = sessions_of(cursor, os.environ.get("WATCHED_USER") or me["user"], me["id"])
        outlived = [s for s in sessions if s["Id"] < mark and s["Command"] != "Killed"]
        by_command = Counter(s["Command"] for s in sessions)

        # Of all connections AWS/RDS has a metric, DatabaseConnections, at no price.
        metrics.add_metric("ApplicationConnections", MetricUnit.Count, len(sessions))
        metrics.add_metric("ApplicationConnectionsIdle", MetricUnit.Count, by_command["Sleep"])
        metrics.add_metric("OrphanedConnections", MetricUnit.Count, len(outlived))
        for session in outlived:
            logger.warning("This connection outlived any invocation", extra={"session": session})
        ended = [] if dry_run else [s for s in outlived if end(cursor, s["Id"])]

    return {
        "connections": total,
        "limit": limit,
        "application": dict(by_command),
        "outlived": [s["Id"] for s in outlived],
        "ended": [s["Id"] for s in ended],
    }


class InvalidEventError(ValueError):
    """The event asks for something this function does not know."""


class InvalidSettingError(ValueError):
    """A variable of this function's environment is missing or wrong."""


class NotPermittedError(Exception):
    """The census's user has not the privilege it needs."""


def longest_invocation() -> int:
    """Seconds that the slowest function using the watched user may run."""
    given = os.environ.get("LONGEST_INVOCATION_SECONDS", "")
    if not (given.isascii() and given.isdecimal() and int(given)):
        raise InvalidSettingError(
            "LONGEST_INVOCATION_SECONDS must be the longest timeout, in seconds, of the functions "
            f"that use the application's user, and is {given!r}"
        )
    return int(given)


def rows(cursor: Cursor, query: str) -> Any:
    """What the server answers."""
    cursor.execute(query)
    return cursor.fetchall()


def number(cursor: Cursor, query: str) -> int:
    """The value of the one server variable that `query` shows."""
    [row] = rows(cursor, query)
    return int(row["Value"])


def sessions_of(cursor: Cursor, user: str, but: int) -> list[dict[str, Any]]:
    """The user's sessions, but the one given. Those of others need the privilege PROCESS."""
    columns = ("Id", "Host", "Command", "Time", "State")
    # SHOW, as information_schema.PROCESSLIST is deprecated.
    return [
        {name: row[name] for name in columns}
        for row in rows(cursor, "SHOW PROCESSLIST")
        if row["Id"] != but and row["User"] == user
    ]


def end(cursor: Cursor, session_id: int) -> bool:
    """Whether the session was there to be ended; ids are never used twice, so no other can be.

    Another user's takes CONNECTION_ADMIN, which nobody on RDS has; there a procedure does it.
    """
    for statement in ("KILL %s", "CALL mysql.rds_kill(%s)"):
        try:
            cursor.execute(statement, (session_id,))
        except DriverError as error:
            if error.args[0] == NO_SUCH_THREAD:
                return False
            if error.args[0] != NOT_THE_OWNER:
                raise
        else:
            return True
    raise NotPermittedError(
        "the census may not end other users' sessions: grant it CONNECTION_ADMIN (MySQL) or "
        "CONNECTION ADMIN (MariaDB); on RDS run Migrate again"
    )
