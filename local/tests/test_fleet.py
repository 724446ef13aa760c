"""Scaling out, throttling, freezing and reaping, with real runtimes."""

import asyncio
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local.environment import Answer, Environment
from local.fleet import (
    Call,
    Fleet,
    Sampler,
    ThrottledError,
    arrivals,
    closed_loop,
    failure_of,
    percentile,
    summarise,
)

HANDLER = """
import os, time
calls = 0
def lambda_handler(event, context):
    global calls
    calls += 1
    if event.get("exit"):
        os._exit(1)
    time.sleep(event.get("sleep", 0))
    if event.get("full"):
        raise RuntimeError("(1040, 'Too many connections')")
    return {"pid": os.getpid(), "calls": calls}
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], Environment]:
    (tmp_path / "app.py").write_text(HANDLER)
    return lambda: Environment(tmp_path)


def stopped(pid: int) -> bool:
    """Whether it stops soon: SIGSTOP takes effect when the kernel next schedules the process."""
    for _ in range(100):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.01)
    return False


async def test_an_idle_environment_is_taken_before_a_new_one_is_started(
    make: Callable[[], Environment],
) -> None:
    async with Fleet(make, reserved_concurrency=5) as fleet:
        for _ in range(3):  # also one that has answered and not asked for the next yet
            await fleet.invoke({})
        await fleet.settle()
        assert (fleet.size, fleet.idle, fleet.in_flight) == (1, 1, 0)


async def test_requests_at_once_scale_out_and_the_next_are_throttled(
    make: Callable[[], Environment],
) -> None:
    async with Fleet(make, reserved_concurrency=3) as fleet:
        tasks = [asyncio.create_task(fleet.invoke({"sleep": 0.3})) for _ in range(3)]
        await asyncio.sleep(0)
        assert fleet.in_flight == 3
        with pytest.raises(ThrottledError, match="3 invocations are in flight, 3 reserved"):
            await fleet.invoke({})
        answers = await asyncio.gather(*tasks)
        assert len({answer.json()["pid"] for answer in answers}) == fleet.size == 3
        assert (await fleet.invoke({})).status == "ok"


async def test_warm_environments_are_all_frozen_and_take_turns(
    make: Callable[[], Environment],
) -> None:
    async with Fleet(make, reserved_concurrency=4) as fleet:
        warmed = [answer.json() for answer in await fleet.warm(4, {})]
        pids = [answer["pid"] for answer in warmed]
        assert len(set(pids)) == fleet.idle == fleet.size == 4
        assert all(map(stopped, pids))
        again = []
        for _ in range(4):
            again.append((await fleet.invoke({})).json())
            await fleet.settle()
        assert sorted(answer["pid"] for answer in again) == sorted(pids)
        assert [answer["calls"] for answer in again] == [2, 2, 2, 2]


async def test_a_crashed_environment_comes_back_with_a_cold_start(
    make: Callable[[], Environment],
) -> None:
    async with Fleet(make, reserved_concurrency=1) as fleet:
        assert (await fleet.invoke({"exit": True})).status == "exit"
        await fleet.settle()
        answer = await fleet.invoke({})
        assert answer.init_duration is not None
        assert answer.json()["calls"] == fleet.size == 1


async def test_environments_idle_for_long_are_ended(make: Callable[[], Environment]) -> None:
    async with Fleet(make, reserved_concurrency=2, idle_timeout=0.2) as fleet:
        await fleet.warm(2, {})
        for _ in range(100):
            if fleet.size == 0:
                break
            await asyncio.sleep(0.05)
        assert (fleet.size, fleet.idle) == (0, 0)
        assert (await fleet.invoke({})).init_duration is not None


async def test_a_closed_loop_keeps_its_clients_at_work(make: Callable[[], Environment]) -> None:
    async with Fleet(make, reserved_concurrency=10) as fleet:
        async with Sampler(lambda: 7, fleet, every=0.05) as sampler:
            calls = await closed_loop(fleet, {"sleep": 0.05}, clients=2, seconds=0.6)
        assert fleet.size == 2
    assert all(call.ok and call.failure is None for call in calls)
    assert max(sample.in_flight for sample in sampler.samples) == 2
    assert {sample.sessions for sample in sampler.samples} == {7}
    assert len(sampler.samples) >= 5


async def test_arrivals_do_not_wait_for_answers_and_are_throttled(
    make: Callable[[], Environment],
) -> None:
    async with Fleet(make, reserved_concurrency=1) as fleet:
        calls = await arrivals(fleet, {"sleep": 0.2}, per_second=50, seconds=0.5, seed=1)
    summary = summarise(calls, 0.5)
    assert summary.ok >= 1
    assert summary.failures["429"] == summary.calls - summary.ok > 0


async def test_failures_are_counted_by_the_servers_error_number(
    make: Callable[[], Environment],
) -> None:
    async with Fleet(make, reserved_concurrency=1) as fleet:
        calls = await closed_loop(fleet, {"full": True}, clients=1, seconds=0.1)
        assert failure_of(await fleet.invoke({"exit": True})) == "Runtime.ExitError"
    summary = summarise(calls, 0.1)
    assert summary.failures == {"1040": len(calls)}
    assert (summary.ok, summary.per_second) == (0, 0.0)
    assert math.isnan(summary.p99)


async def test_an_observer_that_fails_is_not_lost(make: Callable[[], Environment]) -> None:
    def fail() -> int:
        raise ConnectionError("server has gone away")

    async with Fleet(make, reserved_concurrency=1) as fleet:
        with pytest.raises(ConnectionError, match="gone away"):
            async with Sampler(fail, fleet):
                await asyncio.sleep(0.1)


def test_the_percentile_is_the_smallest_value_that_covers_the_share() -> None:
    ranked = [float(n) for n in range(1, 101)]
    assert [percentile(ranked, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert percentile([3.0], 0.99) == 3
    assert math.isnan(percentile([], 0.5))


def test_a_summary_ranks_only_what_succeeded() -> None:
    answer = Answer("ok", b"1", None, 0.1, None, "", "id", 1)
    calls = [Call(0, seconds, answer) for seconds in (0.3, 0.1, 0.2)] + [Call(0, 9.0, None)]
    summary = summarise(calls, 2)
    assert (summary.calls, summary.ok, summary.per_second) == (4, 3, 1.5)
    assert (summary.p50, summary.longest) == (0.2, 0.3)
    assert summary.failures == {"429": 1}
