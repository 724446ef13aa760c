"""`make smoke` and `make load` against the real functions, behind what IAM and AWS's APIs would be.

The stack is that of `make serve`. In front of it stands a server that checks each signature as IAM
does, describes the stack, and invokes functions; boto3 is led there by its own variables.
"""

import asyncio
import contextlib
import io
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pymysql
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from rich.console import Console
from single_connection.testing import unguarded

from deploy import load, smoke
from deploy.template import ROOT
from local.database import LocalDatabase
from local.serve.actions import Actions
from local.serve.journal import Journal
from local.serve.server import listen, serve
from local.serve.stack import Stack

KEY, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-1"
STACK = """<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
<DescribeStacksResult><Stacks><member><StackName>shop</StackName>
<CreationTime>2026-11-26T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>
<member><OutputKey>ApiUrl</OutputKey><OutputValue>{url}/</OutputValue></member>
<member><OutputKey>CensusFunction</OutputKey><OutputValue>connection_census</OutputValue></member>
</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"""


class Front(BaseHTTPRequestHandler):
    """API Gateway's IAM, CloudFormation and Lambda, as far as the two commands ask them."""

    protocol_version = "HTTP/1.1"
    behind = ""
    open_to_all = False

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if not (self.open_to_all or self._is_signed()):
            return self._answer(403, b'{"message":"Forbidden"}')
        return self._answer(*ask(self.behind + self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if b"Action=DescribeStacks" in body:
            host = self.headers["Host"]
            return self._answer(200, STACK.format(url=f"http://{host}").encode(), "text/xml")
        function = self.path.split("/")[3]
        asked = json.dumps({"function": function, "event": json.loads(body)}).encode()
        status, done = ask(f"{self.behind}/_local/invoke", asked)
        assert status == 200, done
        return self._answer(200, json.loads(done)["answer"].encode())

    def _is_signed(self) -> bool:
        given = self.headers.get("Authorization", "")
        request = AWSRequest("GET", f"http://{self.headers['Host']}{self.path}")
        request.context["timestamp"] = self.headers.get("X-Amz-Date", "")
        signer = SigV4Auth(Credentials(KEY, SECRET), "execute-api", REGION)
        request.headers["X-Amz-Date"] = self.headers.get("X-Amz-Date", "")
        canonical = signer.canonical_request(request)
        signature = signer.signature(signer.string_to_sign(request, canonical), request)
        return given.endswith(f"Signature={signature}")

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def ask(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answered:
            return answered.status, answered.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[type[Front]]:
    """Listening; a class of its own for each test."""
    handler = type("Handler", (Front,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_CLOUDFORMATION": url,
        "AWS_ENDPOINT_URL_LAMBDA": url,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    yield handler
    server.shutdown()
    server.server_close()


def with_the_stack(database: LocalDatabase, front: type[Front], work: Callable[[], int]) -> int:
    """Do `work` while the functions are served; what it returns."""

    async def run() -> int:
        journal = Journal(Console(file=io.StringIO()))
        actions = Actions(Stack(database, journal.tell), journal)
        with listen(0) as listener:
            front.behind = f"http://127.0.0.1:{listener.getsockname()[1]}"
            ready = asyncio.Event()
            serving = asyncio.create_task(serve(listener, actions, ready.set))
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
            try:
                return await asyncio.to_thread(work)
            finally:
                waiting.cancel()
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving

    return asyncio.run(run())


def test_a_stack_that_works_is_said_to(
    database_server: LocalDatabase, front: type[Front], capsys: pytest.CaptureFixture[str]
) -> None:
    done = with_the_stack(database_server, front, lambda: smoke.main(["--stack", "shop"]))
    said = capsys.readouterr()
    assert done == 0, said
    assert "GET /products  200" in said.out
    assert "unsigned  403" in said.out
    assert "0 connections of the functions open, none outlived" in said.out


def test_an_api_that_is_open_to_everybody_does_not_pass(
    database_server: LocalDatabase, front: type[Front], capsys: pytest.CaptureFixture[str]
) -> None:
    front.open_to_all = True
    assert with_the_stack(database_server, front, lambda: smoke.main(["--stack", "shop"])) == 1
    assert "open to everybody" in capsys.readouterr().err


def test_a_connection_that_stays_open_does_not_pass_unless_others_are_at_work(
    database_server: LocalDatabase,
    front: type[Front],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deploy.deployed.PATIENCE_SECONDS", 1)

    def twice() -> int:
        environ = database_server.application_environ()
        with (
            unguarded(),
            contextlib.closing(
                pymysql.connect(
                    host=environ["DATABASE_HOST"],
                    port=int(environ["DATABASE_PORT"]),
                    user=environ["DATABASE_USER"],
                    password=environ["DATABASE_PASSWORD"],
                    ssl_ca=environ["DATABASE_CA_FILE"],
                )
            ),
        ):
            assert smoke.main(["--stack", "shop", "--busy"]) == 0
            return smoke.main(["--stack", "shop"])

    assert with_the_stack(database_server, front, twice) == 1
    said = capsys.readouterr()
    assert "1 connections of the functions are still open" in said.err
    assert "1 connections of the functions open, none outlived" in said.out


def test_a_path_that_fails_and_a_function_that_fails_do_not_pass(
    database_server: LocalDatabase, front: type[Front], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--stack", "shop", "--path", "/products/999999"]
    assert with_the_stack(database_server, front, lambda: smoke.main(asked)) == 1
    assert "/products/999999 was answered 404" in capsys.readouterr().err


def test_callers_beyond_the_reservation_are_counted_and_nothing_is_left(
    database_server: LocalDatabase, front: type[Front], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--stack", "shop", "--callers", "2", "4", "--seconds", "1.5", "--path", "/products"]
    done = with_the_stack(database_server, front, lambda: load.main(asked))
    said = capsys.readouterr()
    assert done == 0, said
    rows = [line.split(" | ") for line in said.out.splitlines() if line.startswith(("| 2", "| 4"))]
    assert [row[0] for row in rows] == ["| 2", "| 4"]
    assert all(row[2].startswith("100 %") for row in rows)
    assert all(int(row[3]) >= 1 for row in rows)
    assert "0 connections of the functions open" in said.out


def test_the_table_is_that_of_the_overload_page() -> None:
    sample = load.Sample([0.01, 0.02, 1.5], attempts=4, peak=3, seconds=2.0)
    sample.refused[503] = 1
    columns = load.HEAD.splitlines()[0].count("|")
    row = load.line("shop", 10, sample)
    assert row == ("| 10 | shop | 75 %, 1x 503 | 2 | 20 ms | 1.5 s | 1.5 s | 1.5 s | 1.33 | 3 |")
    assert row.count("|") == columns
    page = ROOT / "lab/overload/README.md"
    if not page.exists():
        pytest.skip("lab/ was deleted, and with it the page that has the same table")
    assert load.HEAD in page.read_text("utf-8")


def test_a_stack_without_an_api_is_said_in_a_sentence(
    front: type[Front], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.STACK", STACK.replace("ApiUrl", "Another"))
    assert smoke.main(["--stack", "shop"]) == 1
    assert "has no output ApiUrl" in capsys.readouterr().err
