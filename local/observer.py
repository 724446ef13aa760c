"""What the server itself says: who is connected, and its counters."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
from pymysql.cursors import DictCursor

from local.prepared import LocalDatabaseError
from local.servers import Server

Row = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """One line of the server's own list of sessions; `time` in seconds spent in `state`."""

    id: int
    user: str
    host: str
    db: str | None
    command: str
    time: int
    state: str | None
    info: str | None


class Observer:
    """One lasting connection at a door of its own: it works when every connection is taken.

    Args:
        server: which of the two it is.
        password: of the user `observer`.
        schema: where its statements run.

    """

    def __init__(self, server: Server, password: str, schema: str) -> None:
        self.server = server
        self.port = 0  # this and the next are known when the server is started
        self.ca_file = Path()
        # MariaDB keeps its extra port out of all counts. MySQL never refuses an administrator at
        # its admin port, but counts them: so there, the limit is one more than asked for.
        self.counted = 1 if server.flavor == "mysql" else 0
        self._password = password
        self._schema = schema
        self._connection: pymysql.Connection[DictCursor] | None = None
        self._owner = 0
        self._turn = threading.RLock()

    def execute(self, statement: str, *arguments: object) -> list[Row]:
        """Run a statement in the schema; rows as dicts. One at a time."""
        with self._turn:
            try:
                with self._connect().cursor() as cursor:
                    cursor.execute(statement, arguments or None)
                    return list(cursor.fetchall())
            except (pymysql.err.OperationalError, pymysql.err.InterfaceError):
                self.forget()
                raise

    def sessions(self) -> list[Session]:
        """The server's own list of sessions, without the observer's and its own threads."""
        rows = self.execute(
            "SELECT ID, USER, HOST, DB, COMMAND, TIME, STATE, INFO "
            "FROM information_schema.PROCESSLIST WHERE COMMAND <> 'Daemon' "
            "AND USER NOT IN ('observer', 'system user', 'event_scheduler') ORDER BY ID"
        )
        return [Session(**{column.lower(): value for column, value in row.items()}) for row in rows]

    def status(self, name: str) -> int:
        """A global counter of the server; the observer is left out of Threads_connected."""
        rows = self.execute("SHOW GLOBAL STATUS LIKE %s", name)
        if not rows:
            raise LocalDatabaseError(f"{self.server} has no status variable {name!r}.")
        value = int(rows[0]["Value"])
        return value - self.counted if name.lower() == "threads_connected" else value

    def forget(self) -> None:
        """Close the connection; the next statement opens another."""
        with self._turn:
            connection, self._connection = self._connection, None
            if not connection:
                return
            if self._owner == os.getpid():
                with contextlib.suppress(pymysql.err.Error):  # it may be closed already
                    connection.close()
            else:
                # A goodbye from a forked child would end its parent's.
                connection._force_close()  # type: ignore[attr-defined]

    def _connect(self) -> pymysql.Connection[DictCursor]:
        if self._connection and self._owner != os.getpid():
            self.forget()  # a forked child must not talk on its parent's connection
        if not self._connection:
            connection = pymysql.connect(
                host="127.0.0.1",
                port=self.port,
                user="observer",
                password=self._password,
                ssl=ssl.create_default_context(cafile=str(self.ca_file)),
                autocommit=True,
                charset="utf8mb4",
                connect_timeout=5,
                read_timeout=30,
                init_command="SET SESSION wait_timeout = 31536000",
                cursorclass=DictCursor,
            )
            with contextlib.suppress(pymysql.err.OperationalError):  # the schema may be dropped
                connection.select_db(self._schema)
            self._connection, self._owner = connection, os.getpid()
        return self._connection
