"""Our Runtime API and AWS's own emulator get the same answers out of the same function.

The emulator ships inside the aws-sam-cli wheel. It is no judge of status codes (it answers an
exception with 200) and its text for a timeout is older than Lambda's, so the payloads are compared.
"""

import asyncio
import http.client
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from local.environment import Environment

HANDLER = """
import os, sys
calls = 0
def lambda_handler(event, context):
    global calls
    calls += 1
    match event.get("do"):
        case "raise":
            raise ValueError("no such product")
        case "unserialisable":
            return object()
        case "exit":
            os._exit(event["code"])
        case "kill":
            os.kill(os.getpid(), 9)
        case "sys.exit":
            sys.exit(3)
    return {"calls": calls, "event": event, "umlaut": "ü", "execution": context.function_version}
"""
EVENTS: list[dict[str, Any]] = [
    {"n": 1},
    {"n": 2},
    {"do": "raise"},
    {"do": "unserialisable"},
    {"do": "exit", "code": 2},
    {"n": 3},
    {"do": "sys.exit"},
    {"do": "exit", "code": 0},
    {"do": "kill"},
    {"n": "ü"},
]
REQUEST_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def emulator() -> Path:
    machine = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    found = find_spec("samcli")
    if found is None or found.origin is None:
        pytest.skip("no emulator: pip install 'aws-sam-cli>=1.170'")
    program = Path(found.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{machine}"
    if not program.is_file():
        pytest.skip(f"aws-sam-cli brings no emulator for {machine}; it has x86_64 and arm64")
    return program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def function(tmp_path: Path) -> Path:
    directory = tmp_path / "greet"
    directory.mkdir()
    (directory / "app.py").write_text(HANDLER)
    return directory


@pytest.fixture
def emulated(function: Path, tmp_path: Path) -> Iterator[int]:
    program = Path(shutil.copy(emulator(), tmp_path / "emulator"))
    program.chmod(0o755)
    port, runtime_port = free_port(), free_port()
    process = subprocess.Popen(
        [
            program,
            "--runtime-interface-emulator-address",
            f"127.0.0.1:{port}",
            "--runtime-api-address",
            f"127.0.0.1:{runtime_port}",
            sys.executable,
            "-m",
            "awslambdaric",
            "app.lambda_handler",
        ],
        cwd=function,
        env={"PATH": os.environ["PATH"], "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def invoke(port: int, event: object) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        path = "/2015-03-31/functions/function/invocations"
        connection.request("POST", path, json.dumps(event).encode())
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def without_ids(answer: object) -> Any:
    return json.loads(REQUEST_ID.sub("ID", json.dumps(answer)))


async def ours(function: Path) -> list[Any]:
    async with Environment(function) as environment:
        return [(await environment.invoke(event)).json() for event in EVENTS]


def test_the_emulator_of_aws_gets_the_same_answers(function: Path, emulated: int) -> None:
    theirs = [without_ids(invoke(emulated, event)) for event in EVENTS]
    assert [without_ids(answer) for answer in asyncio.run(ours(function))] == theirs
    assert [answer.get("calls") for answer in theirs] == [1, 2, *[None] * 3, 1, *[None] * 3, 1]
