"""`make serve`, over real HTTP, with functions of the tests' own and a real database."""

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.database import LocalDatabase
from local.environment import ROOT
from local.serve.actions import Actions
from local.serve.journal import Entry, Journal
from local.serve.server import PortTakenError, listen, serve
from local.serve.stack import Stack

TEMPLATE = """
Resources:
  Api: {Type: AWS::Serverless::HttpApi, Properties: {Auth: {DefaultAuthorizer: AWS_IAM}}}
  Web:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: web/
      Timeout: 8
      ReservedConcurrentExecutions: 3
      Events:
        Any: {Type: HttpApi, Properties: {Method: ANY, Path: "/{proxy+}", TimeoutInMillis: 2500}}
  Worker:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: worker/, Events: {Messages: {Type: SQS, Properties: {Queue: x}}}}
  Schema:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: schema/
      Environment: {Variables: {APPLICATION_USER: ""}}
"""
WEB = """
import json, os, time
from single_connection import Database
database = Database.from_environment()
KEPT = []

@database.invocation
def lambda_handler(event, context):
    match event["rawPath"]:
        case "/sql":
            with database.transaction() as cursor:
                cursor.execute("SELECT 42 AS answer")
                return cursor.fetchone()
        case "/raise":
            raise ValueError("broken")
        case "/sleep":
            time.sleep(3)
        case "/slow":
            with database.transaction() as cursor:
                cursor.execute("SELECT SLEEP(0.3)")
    return {"version": "VERSION", "event": event}
"""
LEAK = """
import os, pymysql
KEPT = []
def lambda_handler(event, context):
    KEPT.append(pymysql.connect(
        host=os.environ["DATABASE_HOST"], port=int(os.environ["DATABASE_PORT"]),
        user=os.environ["DATABASE_USER"], password=os.environ["DATABASE_PASSWORD"],
        ssl_ca=os.environ["DATABASE_CA_FILE"],
    ))
"""
WORKER = """
def lambda_handler(event, context):
    bad = [r["messageId"] for r in event["Records"] if r["body"] == "bad"]
    return {"batchItemFailures": [{"itemIdentifier": one} for one in bad]}
"""
SCHEMA = """
import os
def lambda_handler(event, context):
    return {"user": os.environ["DATABASE_USER"], "for": os.environ["APPLICATION_USER"]}
"""


@dataclass
class Served:
    """A running `make serve`."""

    url: str
    folder: Path
    actions: Actions
    output: io.StringIO

    async def get(self, path: str, **changes: Any) -> tuple[int, Any]:
        return await asyncio.to_thread(self._ask, path, changes)

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        data = json.dumps(body).encode()
        return await asyncio.to_thread(self._ask, path, {"data": data, "headers": headers})

    def _ask(self, path: str, changes: dict[str, Any]) -> tuple[int, Any]:
        asked = urllib.request.Request(self.url + path, **changes)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answered:
                status, read = answered.status, answered.read()
        except urllib.error.HTTPError as error:
            with error:
                status, read = error.code, error.read()
        try:
            return status, json.loads(read)
        except ValueError:
            return status, read

    @property
    def entries(self) -> list[Entry]:
        return list(self.actions.journal.entries)


@contextlib.asynccontextmanager
async def serving(database: LocalDatabase, folder: Path) -> AsyncIterator[Served]:
    for name, code in (("web", WEB), ("worker", WORKER), ("schema", SCHEMA)):
        (folder / name).mkdir()
        (folder / name / "app.py").write_text(code)
    (folder / "template.yaml").write_text(TEMPLATE)
    (folder / "events").mkdir()
    (folder / "events" / "worker.one.json").write_text('{"Records": [{"body": "{\\"a\\": 1}"}]}')
    output = io.StringIO()
    journal = Journal(Console(file=output, width=200))
    stack = Stack(database, journal.tell, folder / "template.yaml")
    actions = Actions(stack, journal, folder / "events")
    with listen(0) as listener:
        ready = asyncio.Event()
        work = asyncio.create_task(serve(listener, actions, ready.set))
        is_ready = asyncio.create_task(ready.wait())
        await asyncio.wait([work, is_ready], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield Served(url, folder, actions, output)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.wait_for(work, 20)


async def test_a_request_runs_in_lambdas_runtime_and_the_server_counts_one_opened_one_destroyed(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        assert await served.get("/sql") == (200, {"answer": 42})
        assert await served.get("/sql") == (200, {"answer": 42})
        status, read = await served.post("/items/1?q=a", {"n": 1}, **{"Content-Type": "text/plain"})
        assert status == 200
        assert read["event"]["body"] == '{"n": 1}'
        assert read["event"]["pathParameters"] == {"proxy": "items/1"}
        assert read["event"]["requestContext"]["authorizer"]["iam"]["accountId"] == "123456789012"
        counted = [(entry.opened, entry.destroyed, entry.among) for entry in served.entries]
        assert counted == [(1, 1, 1), (1, 1, 1), (0, 0, 1)]
        cold, warm, _ = served.entries
        assert cold.init_ms is not None
        assert warm.init_ms is None
        line = served.output.getvalue().splitlines()[-2]
        assert "200  GET /sql  web  " in line
        assert "1 opened, 1 destroyed" in line
    assert database_server.sessions() == []


async def test_a_connection_that_stays_is_counted_and_shown(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        (tmp_path / "web" / "app.py").write_text(LEAK)
        await served.get("/leak")
        (entry,) = served.entries
        assert (entry.opened, entry.destroyed) == (1, 0)
        assert "1 opened, 0 destroyed" in served.output.getvalue()
        status, state = await served.get("/_local/state")
        assert status == 200
        assert state["connections"] == 1
        assert state["environments"]["web"] == {"at_work": 0, "frozen": 1, "reserved": 3}


async def test_requests_that_overlap_are_counted_together_and_what_is_too_many_refused(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        many = {"method": "GET", "path": "/%73low?q=1", "count": 5}
        status, counts = await served.post("/_local/many", many)
        assert (status, counts) == (200, {"200": 3, "429": 2})
        assert {entry.among for entry in served.entries} <= {1, 2, 3, 4, 5}
        assert "5 at once: 3 connections opened, 3 destroyed" in served.output.getvalue()


async def test_an_edited_handler_answers_with_the_next_request(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        status, page = await served.get("/")  # no route takes it: the page does
        assert (status, page[:15]) == (200, b"<!doctype html>")
        assert (await served.get("/x"))[1]["version"] == "VERSION"
        (tmp_path / "web" / "app.py").write_text(WEB.replace("VERSION", "second"))
        assert (await served.get("/x"))[1]["version"] == "second"
        assert "web has changed" in served.output.getvalue()
        (tmp_path / "web" / "app.py").write_text("nonsense(")
        assert (await served.get("/x"))[0] == 500
        assert "SyntaxError" in served.output.getvalue()
        (tmp_path / "web" / "app.py").write_text(WEB.replace("VERSION", "third"))
        assert (await served.get("/x"))[1]["version"] == "third"


async def test_a_changed_migration_runs_at_once_and_a_changed_template_is_read(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        assert served.output.getvalue().count("Migrated through schema") == 1
        (tmp_path / "schema" / "0001.sql").touch()
        assert await eventually(lambda: served.output.getvalue().count("Migrated through") == 2)
        (tmp_path / "template.yaml").write_text(TEMPLATE.replace("{proxy+}", "only"))
        assert (await served.get("/only"))[0] == 200
        assert (await served.get("/sql"))[0] == 404
        (tmp_path / "template.yaml").write_text("Resources: nonsense")
        assert (await served.get("/only"))[0] == 200
        assert "template.yaml stays as it was: " in served.output.getvalue()


async def test_queues_schedules_and_direct_calls_are_found_in_the_template_and_invoked(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        _, offered = await served.get("/_local/functions")
        assert [(one["name"], one["trigger"]) for one in offered] == [
            ("web", "http"), ("worker", "queue"), ("schema", "direct")
        ]  # fmt: skip
        event = offered[1]["events"]["one message"]
        assert json.loads(event["Records"][0]["body"]) == {"a": 1}
        _, done = await served.post("/_local/invoke", {"function": "worker", "event": event})
        assert done["status"] == "ok"
        event["Records"][0]["body"] = "bad"
        _, done = await served.post("/_local/invoke", {"function": "worker", "event": event})
        assert (done["status"], done["good"]) == ("1 failed", False)
        _, done = await served.post("/_local/invoke", {"function": "schema", "event": {}})
        assert json.loads(done["answer"]) == {"user": "master", "for": "application"}


async def test_an_error_is_500_and_a_function_slower_than_the_gateway_waits_503(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        assert await served.get("/raise") == (500, {"message": "Internal Server Error"})
        assert "ValueError: broken" in served.output.getvalue()
        for size in (7_000_000, 11_000_000):  # over what Lambda takes, and what the gateway takes
            assert (await served.post("/x", "x" * size))[0] == 413
        assert await served.get("/sleep") == (503, {"message": "Service Unavailable"})


async def test_the_database_can_be_stopped_and_started_with_its_data(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    database_server.execute("CREATE TABLE kept (n INT)")
    async with serving(database_server, tmp_path) as served:
        assert (await served.post("/_local/database", {"running": False}))[0] == 200
        assert (await served.get("/_local/state"))[1]["running"] is False
        assert (await served.get("/sql"))[0] == 503  # the layer tried until the deadline
        assert served.entries[-1].opened is None
        assert "the database does not answer" in served.output.getvalue()
        await served.post("/_local/database", {"running": True})
        # Who was refused a moment ago waits before it asks again, longer than this gateway does.
        deadline = time.monotonic() + 20
        while (last := await served.get("/sql"))[0] == 503 and time.monotonic() < deadline:
            pass
        assert last == (200, {"answer": 42})
        assert database_server.execute("SELECT COUNT(*) AS n FROM kept") == [{"n": 0}]


async def test_only_this_machine_and_this_page_may_act(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        for headers in ({"Host": "rebound.example"}, {"Origin": "http://evil.example"}):
            status, _ = await served.post("/_local/database", {"running": False}, **headers)
            assert status == 403
            assert (await served.post("/orders", {}, **headers))[0] == 403
        assert (await served.get("/_local/state"))[1]["running"] is True
        own = {"Origin": served.url}
        asked = {"function": "nobody", "event": {}}
        status, said = await served.post("/_local/invoke", asked, **own)
        assert status == 400
        assert "the template has no function 'nobody'; it has: web, worker, schema" in str(said)


async def test_the_page_and_all_it_needs_come_from_here(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    async with serving(database_server, tmp_path) as served:
        _, page = await served.get("/_local/")
        text = page.decode()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        for asset in ("swagger-ui.js", "swagger-ui.css"):
            assert asset in text
            status, read = await served.get(f"/_local/{asset}")
            assert status == 200
            assert len(read) > 100_000
        assert (await served.get("/_local/nothing"))[0] == 404


async def test_a_page_that_watches_does_not_keep_it_from_ending(
    database_server: LocalDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(database_server, tmp_path) as served:
        address = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(address[0], int(address[1]))
        writer.write(b"GET /_local/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"event: state")
        await served.get("/sql")
        await reader.readuntil(b"event: request")
        ending = time.monotonic()
    assert time.monotonic() - ending < 3
    assert b"\r\n0\r\n\r\n" in await reader.read()  # ended in order
    writer.close()
    await writer.wait_closed()
    assert caplog.records == []


async def eventually(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return true()


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} cannot be had .*choose another"):
            listen(port)
        command = [sys.executable, "-m", "local.serve", "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"serve: port {port} cannot be had")
    assert done.stderr.count("\n") == 1
    with pytest.raises(PortTakenError):
        listen(70_000)
