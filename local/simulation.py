"""A database's door in discrete events: callers, connections, refusals, and the layer's own policy.

Drives the real `Admission`, not a copy of it, with a clock of its own: `first_pause`, `pause` and
`learn` are called here in the order in which `admit` calls them (a test compares the two). A second
of 650 callers takes a fraction of a second: a policy is judged in many situations, then measured.

It knows how many connections there are, how long each is held, how long a refusal takes, and, where
it is told, what attempts cost of cores that all share, as on a machine that runs both sides.
"""

import collections
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from single_connection import _admission as layer

from local.fleet import percentile

# Time held: seconds, drawn anew for each connection.
Held = Callable[[random.Random], float]


class Policy(Protocol):
    """What the simulation calls of `Admission`."""

    def first_pause(self) -> float:
        """Seconds until the first attempt."""
        ...

    def pause(self, age: float) -> float:
        """Seconds until the next attempt."""
        ...

    def learn(self, waited: float, shut: float, number: int | None) -> None:
        """An invocation was admitted after `waited` seconds, last refused after `shut`."""
        ...


Clock = Callable[[], float]


@dataclass(frozen=True)
class Cpu:
    """Cores that everything shares evenly, and what it takes of them; seconds each."""

    cores: int
    refusal: float
    success: float


# What an attempt takes of the machine that measures, which server and callers share.
TWO_CORES = Cpu(2, refusal=0.0014, success=0.0022)


def spread(mean: float, by: float = 0.1) -> Held:
    """Times held that lie around `mean`, by a tenth of it or so."""
    return lambda chance: max(0.2 * mean, chance.gauss(mean, by * mean))


def admission(clock: Clock, chance: random.Random) -> Policy:
    """The layer's own policy, without experience."""
    return layer.Admission(clock=clock, uniform=chance.uniform)


@dataclass
class Run:
    """What happened in the measured window.

    Attributes:
        seconds: Its length.
        limit: Connections there are.
        latencies: Of each invocation that ended well in it, from first asking to closing.
        attempts: Connections asked for.
        busy: Invocations that gave up.
        held: Seconds for which connections were held, in all.
    """

    seconds: float
    limit: int
    latencies: list[float] = field(default_factory=list)
    attempts: int = 0
    busy: int = 0
    held: float = 0.0

    @property
    def throughput(self) -> float:
        """Successes a second."""
        return len(self.latencies) / self.seconds

    @property
    def occupied(self) -> float:
        """Share of what the connections can do at all (limit / time held) that was done."""
        return self.held / (self.seconds * self.limit)

    @property
    def success(self) -> float:
        """Share of invocations that got their connection."""
        return len(self.latencies) / max(1, len(self.latencies) + self.busy)

    @property
    def attempts_each(self) -> float:
        """Attempts for each success."""
        return self.attempts / max(1, len(self.latencies))

    def percentile(self, share: float) -> float:
        """The latency below which `share` of the successes lie."""
        return percentile(sorted(self.latencies), share) if self.latencies else 0.0


@dataclass(slots=True, eq=False)
class _Caller:
    """One environment, and the invocation in it."""

    policy: Policy
    kind: Held
    until: float = math.inf
    started: float = 0.0
    shut: float = 0.0
    entered: float = 0.0
    attempts: int = 0


class _Cores:
    """Work at the same time gets equal shares of the cores, and none more than one of them."""

    def __init__(self, door: "_Door", cores: int) -> None:
        self._door = door
        self._cores = cores
        self._done = 0.0  # seconds of work that whoever was here all the time has got
        self._then = 0.0
        self._jobs: list[tuple[float, int, Callable[[_Caller], None], _Caller]] = []
        self._number = itertools.count()
        self._turn = 0

    def work(self, seconds: float, what: Callable[[_Caller], None], caller: _Caller) -> None:
        """Let `what` happen when so much work is done."""
        self._pass()
        heapq.heappush(self._jobs, (self._done + seconds, next(self._number), what, caller))
        self._expect(caller)

    def _pass(self) -> None:
        if self._jobs:
            share = min(1.0, self._cores / len(self._jobs))
            self._done += (self._door.now - self._then) * share
        self._then = self._door.now

    def _expect(self, caller: _Caller) -> None:
        """The next of them to be done, unless another comes in between."""
        self._turn += 1
        turn = self._turn
        left = (self._jobs[0][0] - self._done) * max(1.0, len(self._jobs) / self._cores)
        self._door.at(self._door.now + max(0.0, left), lambda _caller: self._end(turn), caller)

    def _end(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._pass()
        _, _, what, caller = heapq.heappop(self._jobs)
        if self._jobs:
            self._expect(caller)
        what(caller)


class _Door:
    """The database's door, and time."""

    def __init__(
        self,
        run: Run,
        *,
        warm_up: float,
        refusal: float,
        timeout: float,
        queue: bool,
        cpu: Cpu | None,
        seed: int,
    ) -> None:
        self._cpu = cpu
        self._cores = _Cores(self, cpu.cores if cpu else 1)
        self.chance = random.Random(seed)
        self.now = 0.0
        self.run = run
        self.warm_up = warm_up
        self.end = warm_up + run.seconds
        self._free = run.limit
        self._connections = 0  # asked for, as the server numbers them
        self._refusal = refusal
        self._timeout = timeout
        self._queue: collections.deque[_Caller] | None = collections.deque() if queue else None
        self._number = itertools.count()  # so that events at the same time keep their order
        self._events: list[tuple[float, int, Callable[[_Caller], None], _Caller]] = []
        self.done: Callable[[_Caller], None] = lambda _caller: None

    @property
    def measuring(self) -> bool:
        """Whether what happens now counts."""
        return self.now >= self.warm_up

    def at(self, when: float, what: Callable[[_Caller], None], caller: _Caller) -> None:
        """Let `what` happen to `caller` then."""
        heapq.heappush(self._events, (when, next(self._number), what, caller))

    def pass_time(self) -> Run:
        """Until the end."""
        while self._events:
            self.now, _, what, caller = heapq.heappop(self._events)
            if self.now > self.end:
                break
            what(caller)
        return self.run

    def ask(self, caller: _Caller) -> None:
        """The caller's next invocation begins."""
        caller.started = self.now
        caller.attempts, caller.shut = 0, 0.0
        pause = 0.0 if self._queue is not None else caller.policy.first_pause()
        self.at(self.now + pause, self._attempt, caller)

    def _attempt(self, caller: _Caller) -> None:
        if self._cpu:
            self._cores.work(self._cpu.refusal, self._knock, caller)
        else:
            self._knock(caller)

    def _knock(self, caller: _Caller) -> None:
        caller.attempts += 1
        self._connections += 1
        self.run.attempts += self.measuring
        if self._free:
            self._free -= 1
            self._enter(caller)
        elif self._queue is not None:
            self._queue.append(caller)
        else:
            self._refuse(caller)

    def _enter(self, caller: _Caller) -> None:
        if self._queue is None:
            caller.policy.learn(self.now - caller.started, caller.shut, self._connections)
        caller.entered = self.now
        if self._cpu:
            self._cores.work(self._cpu.success, self._stay, caller)
        else:
            self._stay(caller)

    def _stay(self, caller: _Caller) -> None:
        self.at(self.now + caller.kind(self.chance), self._leave, caller)

    def _leave(self, caller: _Caller) -> None:
        self.run.held += max(0.0, self.now - max(self.warm_up, caller.entered))
        if self.measuring:
            self.run.latencies.append(self.now - caller.started)
        while self._queue:
            waiting = self._queue.popleft()
            if self.now - waiting.started < self._timeout:
                self._enter(waiting)
                break
            self._give_up(waiting)
        else:
            self._free += 1
        self.done(caller)

    def _refuse(self, caller: _Caller) -> None:
        self.now += self._refusal
        caller.shut = self.now - caller.started
        half = (self._timeout - caller.shut) / 2
        if half >= layer.SHORTEST_PAUSE:
            pause = min(caller.policy.pause(caller.shut), half)
            self.at(self.now + pause, self._attempt, caller)
        else:
            caller.policy.learn(caller.shut, caller.shut, None)
            self._give_up(caller)

    def _give_up(self, caller: _Caller) -> None:
        self.run.busy += self.measuring
        self.done(caller)


def closed_loop(
    callers: int | Iterable[tuple[float, float]],
    limit: int,
    held: Held | list[Held],
    *,
    seconds: float = 6.0,
    warm_up: float = 2.0,
    refusal: float = 0.001,
    between: float = 0.001,
    timeout: float = 14.5,
    policy: Callable[[Clock, random.Random], Policy] = admission,
    queue: bool = False,
    cpu: Cpu | None = None,
    seed: int = 1,
) -> Run:
    """Callers that ask again as soon as they are done.

    Args:
        callers: How many, all at once; or for each the time it begins and the time it ends.
        limit: Connections there are.
        held: Time held by an invocation; several for several functions, taken in turn.
        seconds: The window, after `warm_up`.
        warm_up: Seconds before it, not counted.
        refusal: Seconds a refused attempt takes.
        between: Seconds between an invocation's end and the next.
        timeout: Seconds after which an invocation gives up.
        policy: Makes each environment's.
        queue: First come, first served instead, as a proxy would; no attempt is refused.
        cpu: What is short besides connections, if anything.
        seed: Of everything that is left to chance.
    """
    run = Run(seconds, limit)
    door = _Door(
        run, warm_up=warm_up, refusal=refusal, timeout=timeout, queue=queue, cpu=cpu, seed=seed
    )
    kinds = held if isinstance(held, list) else [held]
    spans = [(0.0, math.inf)] * callers if isinstance(callers, int) else list(callers)

    def again(caller: _Caller) -> None:
        if door.now < caller.until:
            door.at(door.now + between, door.ask, caller)

    door.done = again
    for index, (since, until) in enumerate(spans):
        environment = policy(lambda: door.now, door.chance)
        caller = _Caller(environment, kinds[index % len(kinds)], until)
        door.at(since + door.chance.random() * 0.001, door.ask, caller)
    return door.pass_time()


def arrivals(
    rate: float,
    limit: int,
    held: Held,
    *,
    seconds: float = 4.0,
    warm_up: float = 4.0,
    refusal: float = 0.001,
    timeout: float = 14.5,
    policy: Callable[[Clock, random.Random], Policy] = admission,
    queue: bool = False,
    cpu: Cpu | None = None,
    seed: int = 1,
) -> Run:
    """Invocations that arrive by chance, `rate` a second, whether or not others are done.

    An idle environment takes each, or a new one, as in Lambda; how many there may be is not limited
    here. Arguments as for `closed_loop`.
    """
    run = Run(seconds, limit)
    door = _Door(
        run, warm_up=warm_up, refusal=refusal, timeout=timeout, queue=queue, cpu=cpu, seed=seed
    )
    idle: list[_Caller] = []
    door.done = idle.append

    def arrive(nobody: _Caller) -> None:
        door.at(door.now + door.chance.expovariate(rate), arrive, nobody)
        door.ask(idle.pop() if idle else _Caller(policy(lambda: door.now, door.chance), held))

    door.at(0.0, arrive, _Caller(policy(lambda: door.now, door.chance), held))
    return door.pass_time()
