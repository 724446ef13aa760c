"""Managed Instances: several processes in one environment, by AWS's own runtime client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

from layers.single_connection.tests.conftest import HANDLERS, World
from local.runtime_api import Invocation, RuntimeApi

PROCESSES = 3


class Instance:
    """What stands behind the Runtime API here: hands an event to every process that asks."""

    def __init__(self, events: int) -> None:
        self._waiting = asyncio.Queue[Invocation]()
        self._left = events
        self.answers: list[dict[str, Any]] = []
        self.all_answered = asyncio.Event()
        for number in range(events):
            deadline = int((time.time() + 30) * 1000)
            self._waiting.put_nowait(
                Invocation(f"request-{number}", b"{}", deadline, "arn:aws:lambda:f", "Root=1-1")
            )

    async def next_invocation(self) -> Invocation:
        return await self._waiting.get()

    def take_response(self, _request_id: str, payload: bytes) -> None:
        self.answers.append(json.loads(payload))
        self._left -= 1
        if not self._left:
            self.all_answered.set()

    def take_error(self, _request_id: str, payload: bytes, error_type: str) -> None:
        self.take_response("", json.dumps({"error": error_type, "said": payload.decode()}).encode())

    def take_init_error(self, payload: bytes, error_type: str) -> None:
        self.take_error("", payload, error_type)

    def take_oversized(self, _request_id: str, size: int) -> None:
        raise AssertionError(size)


async def test_each_process_has_one_connection_and_together_as_many_as_there_are(
    world: World,
) -> None:
    """So the budget is environments times processes; and the last answer leaves none."""
    instance = Instance(events=2 * PROCESSES)
    api = RuntimeApi(instance)
    await api.open()
    environ = {
        **world.environ(),
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_LAMBDA_MAX_CONCURRENCY": str(PROCESSES),
        "AWS_LAMBDA_FUNCTION_NAME": "managed",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "PYTHONPATH": os.pathsep.join([str(HANDLERS), *sys.path]),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "awslambdaric", "managed.lambda_handler"),
        env=environ,
        cwd=HANDLERS,
        start_new_session=True,
    )
    most = 0
    try:
        async with asyncio.timeout(30):
            while not instance.all_answered.is_set():
                sessions = await asyncio.to_thread(world.sessions)
                # Those at work: one that has just left may still be in the list.
                most = max(most, sum("SLEEP" in (one.info or "") for one in sessions))
                await asyncio.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await api.close()
    assert not [answer for answer in instance.answers if "error" in answer]
    assert most == PROCESSES
    assert len({answer["pid"] for answer in instance.answers}) == PROCESSES
    assert len({answer["connection"] for answer in instance.answers}) == 2 * PROCESSES
    await asyncio.to_thread(world.wait_for, lambda: not world.sessions())
