"""Counts the database's connections each minute, and ends those no invocation can own any more.

The layer destroys every connection, and the server drops the ones it cannot; this is the third
net, and the eye on the first two: in a healthy system it never ends anything.
"""

import os
from collections import Counter
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pymysql.cursors import DictCursor
from pymysql.err import MySQLError
from single_connection import Database

# An invocation that is just being ended still has its connection for a moment.
MARGIN_SECONDS = 60
NO_SUCH_THREAD = 1094

logger = Logger()
database = Database.from_environment()
metrics = Metrics(
    namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE") or "Shop",
    service=os.environ.get("POWERTOOLS_SERVICE_NAME") or "connection_census",
)


@logger.inject_lambda_context
@metrics.log_metrics
@database.invocation
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Count, publish, end what outlived any invocation; `{"dry_run": true}` ends nothing."""
    dry_run = event.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise InvalidEventError(f"dry_run must be true or false, and is {dry_run!r}")
    oldest = longest_invocation() + MARGIN_SECONDS

    cursor = database.connection().cursor(DictCursor)
    total = status(cursor, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    limit = status(cursor, "SHOW GLOBAL VARIABLES LIKE 'max_connections'")
    sessions = own_sessions(cursor)
    outlived = [s for s in sessions if s["Command"] != "Killed" and (s["Time"] or 0) > oldest]
    ended = [] if dry_run else [s for s in outlived if end(cursor, s["Id"])]

    by_command = Counter(s["Command"] for s in sessions)
    metrics.add_metric("Connections", MetricUnit.Count, total)
    metrics.add_metric("ConnectionsOfLimit", MetricUnit.Percent, 100 * total / limit)
    metrics.add_metric("ApplicationConnections", MetricUnit.Count, len(sessions))
    metrics.add_metric("ApplicationConnectionsIdle", MetricUnit.Count, by_command["Sleep"])
    metrics.add_metric("OrphanedConnections", MetricUnit.Count, len(outlived))
    for session in outlived:
        logger.warning("This connection outlived any invocation", extra={"session": session})
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


def longest_invocation() -> int:
    """Seconds that the slowest function using this database user may run."""
    given = os.environ.get("LONGEST_INVOCATION_SECONDS", "")
    if not given.isdecimal() or int(given) == 0:
        raise InvalidSettingError(
            "LONGEST_INVOCATION_SECONDS must be the longest timeout, in seconds, of the functions "
            f"that use this database user, and is {given!r}"
        )
    return int(given)


def status(cursor: DictCursor, query: str) -> int:
    """The value of the one server variable that `query` shows."""
    cursor.execute(query)
    return int(cursor.fetchone()["Value"])


def own_sessions(cursor: DictCursor) -> list[dict[str, Any]]:
    """The user's sessions but this one: without PROCESS, the server shows no others.

    `Time` is the seconds in the current state, not the session's age. A session whose state has
    lasted longer than any invocation can is older still, so its owner is gone for certain; one
    whose state changes has an owner. SHOW, as information_schema.PROCESSLIST is deprecated.
    """
    cursor.execute("SELECT CONNECTION_ID() AS id, SUBSTRING_INDEX(USER(), '@', 1) AS user")
    me = cursor.fetchone()
    cursor.execute("SHOW PROCESSLIST")
    columns = ("Id", "Host", "Command", "Time", "State")
    return [
        {name: row[name] for name in columns}
        for row in cursor.fetchall()
        if row["Id"] != me["id"] and row["User"] == me["user"]
    ]


def end(cursor: DictCursor, session_id: int) -> bool:
    """Whether the session was there to be ended; ids are never used twice, so no other can be."""
    try:
        cursor.execute("KILL %s", (session_id,))
    except MySQLError as error:
        if error.args[0] != NO_SUCH_THREAD:
            raise
        return False
    return True
