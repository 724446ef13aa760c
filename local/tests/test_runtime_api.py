"""The Runtime API on the wire, driven by hand as a runtime would."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from local.runtime_api import PAYLOAD_LIMIT, Invocation, RuntimeApi

ROOT = "/2018-06-01/runtime"


class RecordingHost:
    """A fake environment: one invocation to hand out, everything it was told in a list."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    async def next_invocation(self) -> Invocation:
        return Invocation("id-1", b'{"a": 1}', 1234567, "arn:x", "Root=1", '{"custom": {}}')

    def take_response(self, request_id: str, payload: bytes) -> None:
        self.told.append(("response", request_id, payload))

    def take_error(self, request_id: str, payload: bytes, error_type: str) -> None:
        self.told.append(("error", request_id, payload, error_type))

    def take_init_error(self, payload: bytes, error_type: str) -> None:
        self.told.append(("init", payload, error_type))

    def take_oversized(self, request_id: str, size: int) -> None:
        self.told.append(("oversized", request_id, size))


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, text: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        self.writer.write(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return await self.receive()

    async def receive(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        start, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
        return int(start.split()[1]), headers, body


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[RecordingHost, Wire]]:
    host = RecordingHost()
    api = RuntimeApi(host)
    await api.open()
    address, port = api.address.split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    try:
        yield host, Wire(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
        await api.close()


async def test_next_carries_the_event_and_all_a_context_is_made_from() -> None:
    async with wired() as (_, wire):
        status, headers, body = await wire.send(f"GET {ROOT}/invocation/next HTTP/1.1\nHost: x")
    assert (status, body) == (200, b'{"a": 1}')
    assert headers["Lambda-Runtime-Aws-Request-Id"] == "id-1"
    assert headers["Lambda-Runtime-Deadline-Ms"] == "1234567"
    assert headers["Lambda-Runtime-Invoked-Function-Arn"] == "arn:x"
    assert headers["Lambda-Runtime-Trace-Id"] == "Root=1"
    assert headers["Lambda-Runtime-Client-Context"] == '{"custom": {}}'


async def test_one_connection_carries_many_calls() -> None:
    async with wired() as (host, wire):
        for number in range(3):
            status, _, _ = await wire.send(
                f"POST {ROOT}/invocation/id-1/response HTTP/1.1\nContent-Length: 1",
                str(number).encode(),
            )
            assert status == 202
    assert [told[2] for told in host.told] == [b"0", b"1", b"2"]


async def test_errors_arrive_with_the_type_of_their_header() -> None:
    async with wired() as (host, wire):
        header = "Lambda-Runtime-Function-Error-Type: Unhandled\nContent-Length: 2"
        await wire.send(f"POST {ROOT}/invocation/id-1/error HTTP/1.1\n{header}", b"{}")
        await wire.send(f"POST {ROOT}/init/error HTTP/1.1\n{header}", b"{}")
    assert host.told == [("error", "id-1", b"{}", "Unhandled"), ("init", b"{}", "Unhandled")]


async def test_a_snapshot_is_restored_as_soon_as_it_is_taken() -> None:
    async with wired() as (host, wire):
        status, _, _ = await wire.send(f"GET {ROOT}/restore/next HTTP/1.1\nHost: x")
        assert status == 200
        header = "Lambda-Runtime-Function-Error-Type: Runtime.AfterRestoreError\nContent-Length: 2"
        await wire.send(f"POST {ROOT}/restore/error HTTP/1.1\n{header}", b"{}")
    assert host.told == [("init", b"{}", "Runtime.AfterRestoreError")]


async def test_a_client_that_expects_continue_is_told_to() -> None:
    async with wired() as (host, wire):
        head = (
            f"POST {ROOT}/invocation/id-1/response HTTP/1.1\nContent-Length: 4\n"
            "Expect: 100-continue"
        )
        status, _, _ = await wire.send(head)
        assert status == 100
        wire.writer.write(b"true")
        status, _, _ = await wire.receive()
    assert status == 202
    assert host.told == [("response", "id-1", b"true")]


async def test_an_answer_over_six_megabytes_is_refused_before_and_after_it_is_sent() -> None:
    size = PAYLOAD_LIMIT + 1
    head = f"POST {ROOT}/invocation/id-1/response HTTP/1.1\nContent-Length: {size}"
    async with wired() as (host, wire):
        status, _, body = await wire.send(head + "\nExpect: 100-continue")
    assert status == 413
    assert json.loads(body)["errorType"] == "RequestEntityTooLarge"
    assert host.told == [("oversized", "id-1", size)]
    async with wired() as (host, wire):
        status, _, _ = await wire.send(head, b"x" * size)
    assert status == 413
    assert host.told == [("oversized", "id-1", size)]


async def test_an_answer_of_exactly_the_limit_is_taken() -> None:
    head = f"POST {ROOT}/invocation/id-1/response HTTP/1.1\nContent-Length: {PAYLOAD_LIMIT}"
    async with wired() as (host, wire):
        status, _, _ = await wire.send(head, b"x" * PAYLOAD_LIMIT)
    assert status == 202
    assert len(host.told[0][2]) == PAYLOAD_LIMIT


async def test_what_is_not_the_runtime_api_gets_a_clear_answer() -> None:
    async with wired() as (host, wire):
        status, _, body = await wire.send("GET /elsewhere HTTP/1.1\nHost: x")
        assert status == 404
        assert "no GET /elsewhere" in json.loads(body)["errorMessage"]
        status, _, _ = await wire.send(
            f"POST {ROOT}/init/error HTTP/1.1\nTransfer-Encoding: chunked"
        )
        assert status == 400
    async with wired() as (host, wire):
        status, _, body = await wire.send("nonsense")
        assert status == 400
        assert "HTTP" in json.loads(body)["errorMessage"]
    assert host.told == []
