"""Somebody else at the database: takes connections, or rows."""

import asyncio
import contextlib
import ssl
import threading
from types import TracebackType
from typing import Any, Self

import pymysql

from local.database import LocalDatabase


class Visitor:
    """Connected as the master user; everything is given back at the end."""

    def __init__(self, database: LocalDatabase) -> None:
        given = database.master_environ()
        self._arguments: dict[str, Any] = {
            "host": given["DATABASE_HOST"],
            "port": int(given["DATABASE_PORT"]),
            "user": given["DATABASE_USER"],
            "password": given["DATABASE_PASSWORD"],
            "database": given["DATABASE_NAME"],
            "ssl": ssl.create_default_context(cafile=given["DATABASE_CA_FILE"]),
            "connect_timeout": 5,
            "read_timeout": 10,
        }
        self._most = database.max_connections
        self._connections: list[pymysql.Connection] = []
        self._over = threading.Event()
        self._greed: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._greed is not None:
            await self._greed
        await asyncio.to_thread(self._leave)

    async def take_all(self) -> None:
        """Take every connection, and go on taking those that come free."""
        await asyncio.to_thread(self._take)
        self._greed = asyncio.create_task(asyncio.to_thread(self._take_more))

    async def lock(self, products: list[int]) -> None:
        """Hold these products in a transaction, those that nobody else holds."""
        await asyncio.to_thread(self._lock, products)

    def _take(self) -> None:
        while len(self._connections) < self._most and not self._over.is_set():
            try:
                self._connections.append(pymysql.connect(**self._arguments))
            except pymysql.err.OperationalError:  # 1040: all are taken
                return

    def _take_more(self) -> None:
        while not self._over.wait(0.02):
            self._take()

    def _lock(self, products: list[int]) -> None:
        connection = pymysql.connect(**self._arguments)
        self._connections.append(connection)
        with connection.cursor() as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = 1")
            cursor.execute("BEGIN")
            for product in products:
                with contextlib.suppress(pymysql.err.OperationalError):  # 1205
                    cursor.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", (product,))

    def _leave(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(pymysql.err.Error, OSError):
                connection.close()
