"""The Lambda Runtime API over plain asyncio: the HTTP a runtime client speaks to the service.

It knows the wire only. What an invocation is, when it times out and when the process is frozen is
the business of `local.environment`, which answers the four calls a runtime can make.

Source: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes".
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

# AWS Lambda quota: 6 MB for a buffered answer, and the hundred bytes the service adds to it.
PAYLOAD_LIMIT = 6 * 1024 * 1024 + 100
# Room for the X-Ray cause that a runtime sends as a header (awslambdaric: up to 1 MiB).
HEAD_LIMIT = 2 * 1024 * 1024

_ROOT = "/2018-06-01/runtime"


@dataclass(frozen=True, slots=True)
class Invocation:
    """One event on its way to a runtime, with what its context is made from."""

    request_id: str
    event: bytes
    deadline_ms: int  # Unix time in milliseconds
    function_arn: str
    trace_id: str
    client_context: str | None = None

    def headers(self) -> dict[str, str]:
        headers = {
            "Lambda-Runtime-Aws-Request-Id": self.request_id,
            "Lambda-Runtime-Deadline-Ms": str(self.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self.function_arn,
            "Lambda-Runtime-Trace-Id": self.trace_id,
        }
        if self.client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = self.client_context
        return headers


class RefusedError(Exception):
    """A runtime's call that the API turns down, with the status and error type it answers."""

    def __init__(self, status: HTTPStatus, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type


class Host(Protocol):
    """What stands behind the API: one execution environment."""

    async def next_invocation(self) -> Invocation: ...
    def take_response(self, request_id: str, payload: bytes) -> None: ...
    def take_error(self, request_id: str, payload: bytes, error_type: str) -> None: ...
    def take_init_error(self, payload: bytes, error_type: str) -> None: ...
    def take_oversized(self, request_id: str, size: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def length(self) -> int:
        try:
            length = int(self.headers.get("content-length", "0"))
        except ValueError:
            length = -1
        if length < 0 or "transfer-encoding" in self.headers:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, "InvalidRequest", "a body needs a Content-Length in bytes"
            )
        return length


class RuntimeApi:
    """A port of its own for one execution environment, open from `open()` to `close()`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.address = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=HEAD_LIMIT, backlog=8
        )
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio calls this as a task of its own
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the runtime is gone, or we are closing; the environment learns it from the pid
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection can carry another."""
        try:
            request = await _read_head(reader)
            if request.length > PAYLOAD_LIMIT:
                return await self._refuse_oversized(request, reader, writer)
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(request.length)
            status, headers, payload = await self._route(request, body)
        except RefusedError as refusal:
            _write(writer, refusal.status, {}, _error(refusal.error_type, str(refusal)))
            await writer.drain()
            return refusal.status != HTTPStatus.BAD_REQUEST
        _write(writer, status, headers, payload)
        await writer.drain()
        return request.headers.get("connection", "").lower() != "close"

    async def _route(
        self, request: _Request, body: bytes
    ) -> tuple[HTTPStatus, dict[str, str], bytes]:
        error_type = request.headers.get("lambda-runtime-function-error-type", "Runtime.Unknown")
        match (request.method, request.path.removeprefix(_ROOT).strip("/").split("/")):
            case ("GET", ["invocation", "next"]):
                invocation = await self._host.next_invocation()
                return HTTPStatus.OK, invocation.headers(), invocation.event
            case ("POST", ["invocation", request_id, "response"]):
                self._host.take_response(request_id, body)
            case ("POST", ["invocation", request_id, "error"]):
                self._host.take_error(request_id, body, error_type)
            case ("POST", ["init", "error"] | ["restore", "error"]):
                self._host.take_init_error(body, error_type)
            case ("GET", ["restore", "next"]):  # SnapStart: the snapshot is taken here
                return HTTPStatus.OK, {}, b""
            case _:
                raise RefusedError(
                    HTTPStatus.NOT_FOUND,
                    "InvalidRequest",
                    f"the Runtime API has no {request.method} {request.path}",
                )
        return HTTPStatus.ACCEPTED, {}, b'{"status":"OK"}\n'

    async def _refuse_oversized(
        self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        match request.path.removeprefix(_ROOT).strip("/").split("/"):
            case ["invocation", request_id, _]:
                self._host.take_oversized(request_id, request.length)
        if "expect" not in request.headers:
            # The client is already sending: a client that is not read to the end sees a reset
            # connection instead of the 413.
            left = request.length
            while left > 0 and (chunk := await reader.read(min(left, 1 << 16))):
                left -= len(chunk)
        message = f"Exceeded maximum allowed payload size ({PAYLOAD_LIMIT} bytes)."
        _write(
            writer,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            {"Connection": "close"},
            _error("RequestEntityTooLarge", message),
        )
        await writer.drain()
        return False


async def _read_head(reader: asyncio.StreamReader) -> _Request:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _version = start.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, "InvalidRequest", "that is not an HTTP/1.1 request"
        ) from error
    return _Request(method, path, headers)


def _error(error_type: str, message: str) -> bytes:
    return json.dumps({"errorMessage": message, "errorType": error_type}).encode()


def _write(
    writer: asyncio.StreamWriter, status: HTTPStatus, headers: Mapping[str, str], body: bytes
) -> None:
    every = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode("latin-1") + body)
