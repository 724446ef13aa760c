"""Functions as tests call them: in this process, or many at once in real execution environments."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from single_connection.testing import LambdaContext

from local.database import LocalDatabase
from local.environment import Answer, Environment
from tests.conftest import load_function

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "events"

Load = Callable[[str], types.ModuleType]


def read_event(name: str) -> dict[str, Any]:
    """The event in events/<name>.json."""
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return event


def context(seconds: float = 30) -> Any:
    """What Lambda passes as the second argument."""
    return LambdaContext(seconds)


def request(
    method: str,
    path: str,
    body: object = None,
    *,
    key: str | None = "test-key-0001",
    query: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A request to the HTTP API, in the shape of events/orders_api.place.json."""
    event = read_event("orders_api.place")
    event["rawPath"] = event["requestContext"]["http"]["path"] = path
    event["requestContext"]["http"]["method"] = method
    event["queryStringParameters"] = query or {}
    event["body"] = body if isinstance(body, str) or body is None else json.dumps(body)
    del event["headers"]["idempotency-key"]
    if key is not None:
        event["headers"]["idempotency-key"] = key
    return event


def batch(*bodies: object) -> dict[str, Any]:
    """Messages from the queue with these bodies; their ids are "0", "1", and so on."""
    event = read_event("stock_worker.deliveries")
    record = event["Records"][0]
    texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
    event["Records"] = [
        {**record, "messageId": str(n), "body": text} for n, text in enumerate(texts)
    ]
    return event


@pytest.fixture
def load(shop: LocalDatabase, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a function as the application user, anew, as a new execution environment would."""
    for name, value in shop.application_environ().items():
        monkeypatch.setenv(name, value)
    return load_function


@pytest.fixture
def outsider(database_server: LocalDatabase) -> Iterator[Any]:
    """Somebody else's plain session, by the observer's port, which no guard is about."""
    connection = pymysql.connect(
        host="127.0.0.1",
        port=database_server.observer.port,
        user="observer",
        password=database_server._passwords["observer"],
        database=database_server.name,
        ssl_ca=str(database_server.ca_file),
        autocommit=True,
    )
    yield connection
    connection.close()


def at_once(
    database: LocalDatabase,
    function: str,
    events: list[dict[str, Any]],
    meanwhile: Callable[[], object] | None = None,
    environ: dict[str, str] | None = None,
) -> list[Answer]:
    """The answers to the events, each from an execution environment of its own, all at once.

    `meanwhile` runs in a thread beside them, from the same moment.
    """

    async def run() -> list[Answer]:
        async with AsyncExitStack() as stack:
            environments = [
                await stack.enter_async_context(
                    Environment(
                        ROOT / "functions" / function,
                        environ={
                            **(environ or database.application_environ()),
                            "POWERTOOLS_METRICS_NAMESPACE": "Shop",
                        },
                        timeout=15,
                    )
                )
                for _ in events
            ]
            for environment in environments:  # cold starts first, so that the work overlaps
                await environment.start()
            pairs = zip(environments, events, strict=True)
            work = asyncio.gather(*(environment.invoke(event) for environment, event in pairs))
            if meanwhile:
                await asyncio.to_thread(meanwhile)
            return await work

    return asyncio.run(run())


HOLDER = """
import os, pymysql, select, ssl, sys
if os.fork():
    os._exit(0)  # no child of the test's: the layer ends what its own children hold
given = os.environ
connections = [
    pymysql.connect(
        host=given["DATABASE_HOST"], port=int(given["DATABASE_PORT"]), user=given["DATABASE_USER"],
        password=given["DATABASE_PASSWORD"], database=given["DATABASE_NAME"],
        ssl=ssl.create_default_context(cafile=given["DATABASE_CA_FILE"]),
    )
    for _ in range(int(sys.argv[1]))
]
for connection in connections:
    if sys.argv[2] == "backdated":
        connection.cursor().execute("SET timestamp = UNIX_TIMESTAMP('2026-01-01')")
print(" ".join(str(connection.thread_id()) for connection in connections), flush=True)
while not select.select([sys.stdin], [], [], 0.2)[0]:
    if sys.argv[2] == "busy":
        for connection in connections:
            connection.ping()
"""


@contextmanager
def held_connections(
    environ: dict[str, str], number: int = 1, how: str = "idle"
) -> Iterator[list[int]]:
    """The ids of connections that another process keeps: idle, busy, or backdated."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(number), how],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin
    assert holder.stdout
    try:
        ids = [int(word) for word in holder.stdout.readline().split()]
        assert len(ids) == number, "the process that holds connections could not open them"
        yield ids
    finally:
        holder.stdin.close()
        holder.stdout.read()  # until it has ended
        holder.stdout.close()
        holder.wait()
