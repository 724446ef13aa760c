"""One Lambda execution environment on this machine: the real runtime client, frozen when idle.

An `Environment` runs AWS's own `python -m awslambdaric` as a process group of its own and is its
Runtime API. It does to that process what Lambda does:

- one invocation at a time; free again only when the runtime asks for the next one;
- frozen (SIGSTOP) whenever it is free, thawed (SIGCONT) for the next invocation: nothing in it
  runs in between, its sockets stay open, nobody answers on them;
- a cold start when there is no process: at first use and after a timeout, an exit or a failed init;
- SIGKILL at the deadline, without a warning, as for a function without extensions;
- no variable of the caller's own environment but those passed in, so no credentials of yours.

Not simulated: the memory limit and the CPU share it buys, the isolation of the file system, the
time to fetch code. Needs Linux (pidfd, `/proc`, orphaned process groups).

Nothing outlives the parent, even one that dies by SIGKILL: `setpriv --pdeathsig` has the kernel
kill the runtime with it, and the kernel hangs up a stopped process group that is orphaned.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from local.ascii import ascii_path, function_name
from local.debug import DEBUG_SECONDS, Debug
from local.process import RuntimeProcess
from local.runtime_api import PAYLOAD_LIMIT, Invocation, RefusedError, RuntimeApi

ROOT = Path(__file__).resolve().parent.parent
LAYER = ROOT / "layers" / "single_connection" / "src"

# AWS Lambda: the init phase of an on-demand function may take ten seconds.
INIT_LIMIT = 10.0

Status = Literal["ok", "error", "timeout", "exit", "init_error"]
T = TypeVar("T")
_Outcome = tuple[Status, bytes, str | None]  # with the payload and the error's type


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller of a synchronous invocation gets, with what its REPORT line would say.

    Times are in seconds. `init_duration` is None where the environment was warm. `log` is all the
    process wrote since the last answer; `max_memory_mb` is its highest resident size so far.
    """

    status: Status
    payload: bytes
    error_type: str | None
    duration: float
    init_duration: float | None
    log: str
    request_id: str
    max_memory_mb: int

    def json(self) -> Any:
        """The answer as the caller reads it."""
        return json.loads(self.payload)


class EnvironmentBusyError(RuntimeError):
    """An environment serves one invocation at a time; this one was still at work."""


class UnsupportedSystemError(RuntimeError):
    """The local Lambda freezes and watches processes in ways only Linux offers."""


@dataclass(slots=True)
class _Work:
    """The invocation in hand, until the runtime asks for the next."""

    invocation: Invocation
    answered: asyncio.Future[_Outcome]
    started: float = field(default_factory=time.perf_counter)


class Environment:
    """One execution environment of the function in `function_dir`: one invocation at a time.

    Args:
        function_dir: the folder with the handler's module, first on the module path, as /var/task.
        handler: "module.function".
        environ: the function's own variables. They win over those Lambda sets.
        timeout: seconds an invocation may take.
        memory: MB, told to the function and not enforced.
        python: the interpreter; it must have awslambdaric.
        name: the function's name; the folder's by default.
        init_limit: seconds until the runtime must have asked for its first invocation.
        debug: how somebody steps through it; then neither limit of time holds.
    """

    def __init__(
        self,
        function_dir: Path | str,
        handler: str = "app.lambda_handler",
        *,
        environ: Mapping[str, str] | None = None,
        timeout: float = 3.0,
        memory: int = 128,
        python: str = sys.executable,
        name: str | None = None,
        init_limit: float = INIT_LIMIT,
        debug: Debug | None = None,
    ) -> None:
        if not hasattr(os, "pidfd_open"):
            raise UnsupportedSystemError(
                "The local Lambda needs Linux 5.3 or newer; elsewhere use `sam local invoke`, "
                "or run this in a Linux container or virtual machine."
            )
        self.function_dir = Path(function_dir).resolve()
        if not self.function_dir.is_dir():
            raise FileNotFoundError(
                f"{self.function_dir} is no folder; expected the one that holds the handler"
            )
        self.handler = handler
        self.timeout = DEBUG_SECONDS if debug else timeout
        self.memory = memory
        self.name = function_name(name or self.function_dir.name)
        self._environ = dict(environ or {})
        self._python = str(ascii_path(Path(python)))
        self._init_limit = DEBUG_SECONDS if debug else init_limit
        self._debug = debug
        self._api = RuntimeApi(self)
        self._process: RuntimeProcess | None = None
        self._ready: asyncio.Future[tuple[bytes, str] | None] | None = None
        self._next: asyncio.Future[Invocation] | None = None
        self._work: _Work | None = None
        self._free = asyncio.Event()
        self._invoking = False
        self._init_duration: float | None = None
        self._watchers: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The runtime's process id, which is also its group's; None before a cold start."""
        return self._process.pid if self._process else None

    @property
    def busy(self) -> bool:
        """Whether an invocation is under way or the runtime has not asked for the next yet."""
        return self._invoking or self._work is not None

    async def __aenter__(self) -> Self:
        await self._api.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the process group by SIGKILL, as Lambda ends a function without extensions."""
        await self._reset()
        await self._api.close()

    async def start(self) -> Answer | None:
        """Make the cold start ahead of an invocation; returns an answer only where it failed."""
        return await self._initialise(str(uuid.uuid4())) if self._process is None else None

    async def invoke(self, event: object, *, client_context: object = None) -> Answer:
        """Invoke once, with a cold start where there is no process, and return when it answers.

        Raises:
            EnvironmentBusyError: an invocation is under way already.
            ValueError: the event is over 6 MB or cannot be written as JSON.
        """
        if self._invoking:
            raise EnvironmentBusyError(
                f"An environment of {self.name} serves one invocation at a time: "
                "await the other one first, or use a Fleet."
            )
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        if len(body) > PAYLOAD_LIMIT:
            raise ValueError(f"the event has {len(body)} bytes; Lambda takes {PAYLOAD_LIMIT}")
        self._invoking = True
        try:
            await self.idle()
            request_id = str(uuid.uuid4())
            if self._process is None and (failed := await self._initialise(request_id)):
                return failed
            context = None if client_context is None else json.dumps(client_context)
            return await self._run(request_id, body, context)
        finally:
            self._invoking = False

    async def idle(self) -> None:
        """Return when the runtime has asked for the next invocation and is frozen, or has ended."""
        if self._work is not None:
            await self._free.wait()

    # The cold start

    async def _initialise(self, request_id: str) -> Answer | None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        self._ready = loop.create_future()
        python = self._debug.command(self._python) if self._debug else [self._python]
        process = RuntimeProcess(
            [*python, "-m", "awslambdaric", self.handler],
            self._variables(),
            ascii_path(self.function_dir),
            at_terminal=self._debug is not None and self._debug.port is None,
        )
        self._process = process
        watcher = asyncio.create_task(self._watch(process))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        try:
            failure = await asyncio.wait_for(asyncio.shield(self._ready), self._init_limit)
        except TimeoutError:
            message = f"Init phase timed out after {self._init_limit:.2f} seconds"
            failure = _failure(request_id, "Sandbox.Timedout", message)
        except asyncio.CancelledError:
            await self._reset()
            raise
        init_duration = time.perf_counter() - started
        if failure is None:
            self._init_duration = init_duration
            return None
        outcome: _Outcome = ("init_error", *failure)
        return await self._end(outcome, request_id, started, init_duration)

    def _variables(self) -> dict[str, str]:
        """The variables Lambda documents, none of the caller's own, then the function's."""
        task_root = str(ascii_path(self.function_dir))
        return {
            "_HANDLER": self.handler,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory),
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": "Text",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]local",
            "AWS_REGION": "us-east-1",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "LAMBDA_TASK_ROOT": task_root,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TZ": ":UTC",
            # boto3 must find neither the files nor the instance role of whoever runs this.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            **self._environ,
            "AWS_LAMBDA_RUNTIME_API": self._api.address,
            "PYTHONPATH": os.pathsep.join([task_root, str(ascii_path(LAYER))]),
        }

    async def _watch(self, process: RuntimeProcess) -> None:
        code = await asyncio.shield(process.exited)
        if process is not self._process:
            return
        if self._next is not None:
            self._next.cancel()
        reason = _exit_reason(code)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(_failure("", "Runtime.ExitError", reason))
        elif self._work is not None and not self._work.answered.done():
            payload, kind = _failure(self._work.invocation.request_id, "Runtime.ExitError", reason)
            self._work.answered.set_result(("exit", payload, kind))
        else:
            # Between answer and next invocation, or frozen: the next one is a cold start.
            await self._reset()

    # One invocation

    async def _run(self, request_id: str, event: bytes, client_context: str | None) -> Answer:
        assert self._process is not None  # noqa: S101 - invoke() made the cold start
        assert self._next is not None  # noqa: S101 - a ready runtime has asked
        loop = asyncio.get_running_loop()
        init_duration, self._init_duration = self._init_duration, None
        invocation = Invocation(
            request_id=request_id,
            event=event,
            deadline_ms=int((time.time() + self.timeout) * 1000),
            function_arn=f"arn:aws:lambda:us-east-1:123456789012:function:{self.name}",
            trace_id=(
                f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};"
                f"Parent={secrets.token_hex(8)};Sampled=0"
            ),
            client_context=client_context,
        )
        work = _Work(invocation, loop.create_future())
        self._work = work
        self._free.clear()
        self._process.signal(signal.SIGCONT)
        self._next.set_result(invocation)
        alarm = loop.call_later(self.timeout, self._time_out, work)
        try:
            outcome = await work.answered
        except asyncio.CancelledError:
            # The caller is gone and nobody will wait for this process to come free.
            alarm.cancel()
            self._process.signal(signal.SIGKILL)
            raise
        if outcome[0] in {"timeout", "exit"}:
            return await self._end(outcome, request_id, work.started, init_duration)
        status, payload, error_type = outcome
        return Answer(
            status=status,
            payload=payload,
            error_type=error_type,
            duration=time.perf_counter() - work.started,
            init_duration=init_duration,
            log=self._process.take_log(),
            request_id=request_id,
            max_memory_mb=self._process.measure(),
        )

    def _time_out(self, work: _Work) -> None:
        if work is not self._work:
            return  # it came free long ago
        if work.answered.done():
            # Answered, but the runtime never asked for more: the deadline counts until it does.
            if self._process is not None:
                self._process.signal(signal.SIGKILL)
            return
        request_id = work.invocation.request_id
        message = f"Task timed out after {self.timeout:.2f} seconds"
        payload, error_type = _failure(request_id, "Sandbox.Timedout", message)
        work.answered.set_result(("timeout", payload, error_type))

    async def _end(
        self, outcome: _Outcome, request_id: str, started: float, init_duration: float | None
    ) -> Answer:
        """Answer for a process that cannot go on, once the kernel has taken all it held."""
        duration = time.perf_counter() - started
        status, payload, error_type = outcome
        process = self._process
        await self._reset()
        return Answer(
            status=status,
            payload=payload,
            error_type=error_type,
            duration=duration,
            init_duration=init_duration,
            log=process.take_log() if process else "",
            request_id=request_id,
            max_memory_mb=process.max_memory_mb if process else 0,
        )

    async def _reset(self) -> None:
        process, self._process = self._process, None
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if process is not None:
            await process.kill()
        self._work = None
        self._free.set()

    # What the runtime asks of us: `local.runtime_api.Host`

    async def next_invocation(self) -> Invocation:
        self._next = asyncio.get_running_loop().create_future()
        self._work = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
            if self._process is not None:
                # A process that dies takes its high-water mark along: keep the one of its init.
                self._process.measure()
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)
        self._free.set()
        return await self._next

    def take_response(self, request_id: str, payload: bytes) -> None:
        self._current(request_id).answered.set_result(("ok", payload, None))

    def take_error(self, request_id: str, payload: bytes, error_type: str) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            # awslambdaric names the exception in the body; its header says "Unhandled".
            error_type = json.loads(payload)["errorType"]
        self._current(request_id).answered.set_result(("error", payload, error_type))

    def take_init_error(self, payload: bytes, error_type: str) -> None:
        if self._ready is None or self._ready.done():
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "InvalidStateTransition", "the init phase is over"
            )
        self._ready.set_result((payload, error_type))

    def take_oversized(self, request_id: str, size: int) -> None:
        message = (
            f"Response payload size ({size} bytes) exceeded maximum allowed payload size "
            f"({PAYLOAD_LIMIT} bytes)."
        )
        kind = "Function.ResponseSizeTooLarge"
        payload = json.dumps({"errorMessage": message, "errorType": kind}).encode()
        self._current(request_id).answered.set_result(("error", payload, kind))

    def _current(self, request_id: str) -> _Work:
        work = self._work
        if work is None or work.invocation.request_id != request_id:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, "InvalidRequestID", "that invocation is not in hand"
            )
        if work.answered.done():
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "InvalidStateTransition", "that invocation is answered"
            )
        return work


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` whose clean-up also runs on SIGTERM, as it does on Ctrl-C.

    Raises:
        KeyboardInterrupt: either signal came, and everything has been ended.
    """

    async def signalled() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are inside one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main

    try:
        return asyncio.run(signalled())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


def _failure(request_id: str, error_type: str, reason: str) -> tuple[bytes, str]:
    """The body Lambda itself writes for a function that could not."""
    message = f"RequestId: {request_id} Error: {reason}" if request_id else f"Error: {reason}"
    return json.dumps({"errorType": error_type, "errorMessage": message}).encode(), error_type


def _exit_reason(code: int) -> str:
    """In the words of Lambda."""
    if code == 0:
        return "Runtime exited without providing a reason"
    how = f"signal: {signal.strsignal(-code)}".lower() if code < 0 else f"exit status {code}"
    return f"Runtime exited with error: {how}"
