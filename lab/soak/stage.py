"""Everything a soak plays on: the server, the network before it, the secrets, the fleets."""

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from lab.soak.conduct import outcome_of, what_is_wrong
from lab.soak.fault import Fault
from lab.soak.proxy import Door, Network
from lab.soak.secret_store import SecretStore
from local.certificates import Certificates, write_certificates
from local.database import LocalDatabase
from local.environment import Answer, Environment
from local.fleet import Fleet, ThrottledError
from local.migration import database_environ, migrate
from local.template import Function, find_function

# Invocations at once of each function, and so environments, but for those that are winding up.
CONCURRENCY = {"orders_api": 8, "stock_worker": 3, "sales_report": 1, "connection_census": 1}
# Seconds before and after a fault in which what it does to an environment may still be seen.
NEAR = 0.5


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation as its client saw it; times in seconds from the start of the soak."""

    at: float
    seconds: float
    function: str
    client: str
    outcome: str  # "201", "ok", "throttled", or the name of an error
    good: bool

    @property
    def ended(self) -> float:
        return self.at + self.seconds


@dataclass(slots=True)
class Struck:
    """A fault that was: when it really began and ended, infinite while it lasts."""

    fault: Fault
    began: float
    ended: float = float("inf")


class Stage:
    """The whole of it, running from entry to exit.

    Args:
        database: running; migrated on entry.
        longest: seconds no function's timeout may exceed, so that what times out does so in time.

    Attributes:
        calls: every invocation.
        struck: every fault.
        violations: what must not be, a sentence each.
    """

    def __init__(self, database: LocalDatabase, *, longest: float = 6.0) -> None:
        self.database = database
        self.network = Network(database.host, database.port)
        self.store = SecretStore()
        self.longest = longest
        self.environments: dict[str, list[tuple[Environment, Door]]] = {}
        self.calls: list[Call] = []
        self.struck: list[Struck] = []
        self.violations: list[str] = []
        self.one_at_a_time = asyncio.Lock()  # held by faults that must not overlap with their like
        self.certificates: deque[Certificates] = deque()  # that the server may take, in turns
        self._fleets: dict[str, Fleet] = {}
        self._exit = AsyncExitStack()
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the soak began."""
        return time.monotonic() - self._began

    @property
    def in_flight(self) -> int:
        """Invocations under way, of all functions."""
        return sum(fleet.in_flight for fleet in self._fleets.values())

    async def __aenter__(self) -> Self:
        self._exit.enter_context(self.store)
        self._trust_others()
        await migrate(self.database)
        self._exit.push_async_callback(self.network.close)
        for name, concurrency in CONCURRENCY.items():
            function = find_function(name)
            function = replace(function, timeout=min(function.timeout, self.longest))
            fleet = Fleet(self._maker(function), reserved_concurrency=concurrency)
            self._fleets[name] = await self._exit.enter_async_context(fleet)
        self._began = time.monotonic()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    def _trust_others(self) -> None:
        """As RDS's bundles hold several authorities, so does what the functions trust."""
        for number in range(3):
            others = write_certificates(self.database.directory / f"tls/other-{number}")
            with self.database.ca_file.open("ab") as trusted:
                trusted.write(others.ca_file.read_bytes())
            self.certificates.append(others)

    def _maker(self, function: Function) -> Callable[[], Environment]:
        made = self.environments.setdefault(function.name, [])

        def make() -> Environment:
            door = self.network.door(function.timeout)
            environment = function.environment(self._environ(function, door))
            made.append((environment, door))
            return environment

        return make

    def _environ(self, function: Function, door: Door) -> Mapping[str, str]:
        """The function's settings: through its door, the password in the store."""
        environ = dict(database_environ(function, self.database))
        user, password = environ.pop("DATABASE_USER"), environ.pop("DATABASE_PASSWORD")
        arn = self.store.arn_of(user) or self.store.put(user, password)
        return {
            **environ,
            **self.store.environ(),
            "DATABASE_PORT": str(door.port),
            "DATABASE_SECRET_ARN": arn,
            "LONGEST_INVOCATION_SECONDS": str(round(self.longest)),
        }

    async def invoke(self, function: str, event: Any, client: str) -> Answer | None:
        """Invoke and judge how it was answered; None where it was throttled."""
        at = self.now
        try:
            answer: Answer | None = await self._fleets[function].invoke(event)
        except ThrottledError:
            answer = None
        seconds = self.now - at
        outcome, good = outcome_of(answer)
        self.calls.append(Call(at, seconds, function, client, outcome, good))
        if answer is not None:
            kinds = self.struck_between(at - NEAR, at + seconds)
            for wrong in what_is_wrong(function, answer, kinds, self.store.passwords):
                self.violations.append(f"{at:.2f} s: {function}: {wrong}")
        return answer

    def struck_between(self, begin: float, end: float) -> set[str]:
        """The kinds of the faults that were at work in that time."""
        return {s.fault.kind for s in self.struck if s.began <= end and s.ended >= begin}

    async def warm(self, function: str, count: int, event: Any) -> None:
        """Make so many cold starts ahead of the first fault; the time begins anew after them."""
        await self._fleets[function].warm(count, event)
        self._began = time.monotonic()

    async def settle(self) -> None:
        """Return when every environment is frozen."""
        for fleet in self._fleets.values():
            await fleet.settle()

    def busy(self, function: str = "") -> list[tuple[Environment, Door]]:
        """The environments at work, of one function or of all."""
        names = [function] if function else list(self.environments)
        return [pair for name in names for pair in self.environments.get(name, []) if pair[0].busy]

    def signal(self, environment: Environment, number: signal.Signals) -> None:
        """Send to the environment's whole process group, if it still has one."""
        if environment.pid is not None:
            try:
                os.killpg(environment.pid, number)
            except ProcessLookupError:
                return
