"""Many execution environments of one function, with the load on them and the count of connections.

Faithful where connections are decided: real runtimes; one invocation at a time in each; a request
takes an idle environment or a cold start; refused at the reserved concurrency; frozen in between,
sockets open; replaced after a timeout or a crash; ended after being idle for long.

Not faithful, and nothing to measure here: CPU. All environments share this machine's cores, where
Lambda gives each its share; so only `starts_at_once` cold starts run at a time, the others wait for
their turn, and `init_duration` is that of this machine. Lambda does not say which idle environment
it takes: here it is the one idle longest, so that all of them take turns. A request that follows an
answer so closely that the environment has not come free yet waits for it, where a client across a
network would arrive later.
"""

import asyncio
import json
import math
import random
import re
import resource
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from local.environment import Answer, Environment

STARTS_AT_ONCE = 2
# "(1040, 'Too many connections')" in the message of a driver's error.
_SERVER_ERROR = re.compile(r"\(?\b([12]\d{3})\b\)?[,:]")


class ThrottledError(Exception):
    """Lambda's 429: as many invocations are in flight as the function has reserved."""


class Fleet:
    """One function's environments: as many invocations at once as it has reserved, and no more.

    Args:
        make: makes one environment, not yet started.
        reserved_concurrency: invocations in flight beyond which a request is refused.
        starts_at_once: cold starts this machine does at a time.
        idle_timeout: seconds after which an idle environment is ended; never by default.
    """

    def __init__(
        self,
        make: Callable[[], Environment],
        *,
        reserved_concurrency: int,
        starts_at_once: int = STARTS_AT_ONCE,
        idle_timeout: float | None = None,
    ) -> None:
        self._make = make
        self._reserved = reserved_concurrency
        self._starts = asyncio.Semaphore(starts_at_once)
        self._idle_timeout = idle_timeout
        self._idle: deque[tuple[float, Environment]] = deque()
        self._waiting: deque[asyncio.Future[Environment]] = deque()
        self._winding_up = 0
        self._environments: set[Environment] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.in_flight = 0

    @property
    def size(self) -> int:
        """Environments there are, idle or at work."""
        return len(self._environments)

    @property
    def idle(self) -> int:
        """Environments that are frozen and wait for a request."""
        return len(self._idle)

    async def __aenter__(self) -> Self:
        # An environment takes up to six descriptors here; the usual soft limit is 1,024.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if self._idle_timeout is not None:
            self._spawn(self._reap(self._idle_timeout))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(environment.close() for environment in self._environments))
        self._environments.clear()
        self._idle.clear()

    async def invoke(self, event: object) -> Answer:
        """Invoke in an idle environment, or in a new one.

        Raises:
            ThrottledError: the reserved concurrency is in flight.
        """
        if self.in_flight >= self._reserved:
            raise ThrottledError(
                f"{self.in_flight} invocations are in flight, {self._reserved} reserved"
            )
        self.in_flight += 1
        try:
            return await self._invoke(await self._take(), event)
        finally:
            self.in_flight -= 1

    async def warm(
        self, count: int, event: object, *, done: Callable[[Answer], object] = lambda _: None
    ) -> list[Answer]:
        """Add `count` new environments, each invoked once while all before it stay warm."""

        async def add() -> Answer:
            self.in_flight += 1
            try:
                answer = await self._invoke(await self._grow(), event)
            finally:
                self.in_flight -= 1
            done(answer)
            return answer

        turns = asyncio.Semaphore(STARTS_AT_ONCE)

        async def in_turn() -> Answer:
            async with turns:
                return await add()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn()) for _ in range(count)]
        await self.settle()
        return [task.result() for task in tasks]

    async def settle(self) -> None:
        """Return when every environment that has answered is frozen again."""
        while self._winding_up:
            await asyncio.sleep(0.01)

    async def _take(self) -> Environment:
        if self._idle:
            return self._idle.popleft()[1]
        if self._winding_up <= len(self._waiting):
            return await self._grow()
        turn: asyncio.Future[Environment] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._hand_on(turn.result())
            raise

    async def _grow(self) -> Environment:
        environment = self._make()
        await environment.__aenter__()
        self._environments.add(environment)
        return environment

    async def _invoke(self, environment: Environment, event: object) -> Answer:
        try:
            failed = None
            if environment.pid is None:
                async with self._starts:
                    failed = await environment.start()
            return failed or await environment.invoke(event)
        finally:
            self._winding_up += 1
            self._spawn(self._release(environment))

    async def _release(self, environment: Environment) -> None:
        try:
            await environment.idle()
        finally:
            self._winding_up -= 1
        self._hand_on(environment)

    def _hand_on(self, environment: Environment) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(environment)
                return
        self._idle.append((time.monotonic(), environment))

    async def _reap(self, idle_timeout: float) -> None:
        while True:
            await asyncio.sleep(idle_timeout / 10)
            while self._idle and time.monotonic() - self._idle[0][0] > idle_timeout:
                _, environment = self._idle.popleft()
                await environment.close()
                self._environments.discard(environment)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class Call:
    """One request as its client saw it: seconds from the start of the load, seconds it took."""

    at: float
    seconds: float
    answer: Answer | None  # None where it was throttled

    @property
    def ok(self) -> bool:
        return self.answer is not None and self.answer.status == "ok"

    @property
    def failure(self) -> str | None:
        """The server's error number where there is one, else the error's type; None if it is ok."""
        if self.answer is None:
            return "429"
        return None if self.ok else failure_of(self.answer)


def failure_of(answer: Answer) -> str:
    """The server's error number where the answer's message has one, else the error's type."""
    try:
        message = str(json.loads(answer.payload)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        message = ""
    found = _SERVER_ERROR.search(message)
    return found[1] if found else str(answer.error_type)


async def closed_loop(fleet: Fleet, event: object, *, clients: int, seconds: float) -> list[Call]:
    """As many clients as that, each sending its next request when the last is answered."""
    started = time.perf_counter()
    calls: list[Call] = []

    async def client() -> None:
        while time.perf_counter() - started < seconds:
            calls.append(await _call(fleet, event, started))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return calls


async def arrivals(
    fleet: Fleet, event: object, *, per_second: float, seconds: float, seed: int = 0
) -> list[Call]:
    """Requests that arrive at random (Poisson) whether or not the earlier ones are answered."""
    chance = random.Random(seed)
    started = time.perf_counter()
    at = 0.0
    tasks: list[asyncio.Task[Call]] = []
    async with asyncio.TaskGroup() as group:
        while (at := at + chance.expovariate(per_second)) < seconds:
            await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
            tasks.append(group.create_task(_call(fleet, event, started)))
    return [task.result() for task in tasks]


async def _call(fleet: Fleet, event: object, started: float) -> Call:
    at = time.perf_counter()
    try:
        answer = await fleet.invoke(event)
    except ThrottledError:
        answer = None
        await asyncio.sleep(0.01)  # a refusal costs a round trip, too; and the loop must turn
    return Call(at - started, time.perf_counter() - at, answer)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server counted at a moment, the invocations in flight about it, and environments."""

    at: float
    sessions: int
    in_flight: int
    environments: int


class Sampler:
    """Asks the server for its count at a steady beat, in a thread, from `start` to exit.

    Args:
        count: asks the server; may block.
        fleet: whose invocations in flight are noted beside it.
        every: seconds between two samples.
    """

    def __init__(self, count: Callable[[], int], fleet: Fleet, *, every: float = 0.1) -> None:
        self._count = count
        self._fleet = fleet
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._started = time.perf_counter()
        self.samples: list[Sample] = []

    @property
    def now(self) -> float:
        """Seconds since the first sample."""
        return time.perf_counter() - self._started

    async def __aenter__(self) -> Self:
        self._started = time.perf_counter()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
            if isinstance(outcome, Exception) and error is None:
                raise outcome

    async def _run(self) -> None:
        while True:
            due = self._started + len(self.samples) * self._every
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            before, at = self._fleet.in_flight, self.now
            sessions = await asyncio.to_thread(self._count)
            in_flight = max(before, self._fleet.in_flight)
            self.samples.append(Sample(at, sessions, in_flight, self._fleet.size))


@dataclass(frozen=True, slots=True)
class Summary:
    """What a load came to; times in seconds, NaN where nothing succeeded."""

    calls: int
    ok: int
    per_second: float
    failures: dict[str, int]
    p50: float
    p95: float
    p99: float
    longest: float


def summarise(calls: Sequence[Call], seconds: float) -> Summary:
    """Count and rank; the latencies are those of the calls that succeeded."""
    times = sorted(call.seconds for call in calls if call.ok)
    failures = Counter(call.failure for call in calls if call.failure is not None)
    return Summary(
        calls=len(calls),
        ok=len(times),
        per_second=len(times) / seconds,
        failures=dict(failures.most_common()),
        p50=percentile(times, 0.50),
        p95=percentile(times, 0.95),
        p99=percentile(times, 0.99),
        longest=times[-1] if times else math.nan,
    )


def percentile(ranked: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of the ranked values does not exceed."""
    if not ranked:
        return math.nan
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]
