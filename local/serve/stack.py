"""The template's functions, ready to be invoked: environments, their database, and what changed."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.changes import fingerprint
from local.database import LocalDatabase
from local.environment import LAYER, Answer
from local.fleet import Fleet, ThrottledError
from local.kept import KeptDatabase
from local.migration import MigrationError, database_environ, migrate, migrates
from local.serve.counts import Counter, Spell
from local.serve.routes import Route, read_routes, trigger_of
from local.template import TEMPLATE, Function, TemplateError, api_is_signed, read_functions

# Where the template reserves nothing, or only once deployed.
DEFAULT_CONCURRENCY = 10
# Lambda keeps an idle environment for minutes; here for as many as one looks at the page.
IDLE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One invocation: the answer (None where it was throttled), and what the server counted."""

    answer: Answer | None
    counted: Spell
    seconds: float


@dataclass(slots=True)
class _Version:
    """A function's environments, made from the files as they were."""

    function: Function
    fleet: Fleet
    files: str


@dataclass(slots=True)
class Stack:
    """Invokes the functions of template.yaml as they are now.

    Args:
        database: a running one.
        tell: says a sentence to whoever watches.
        template: where the functions stand.
    """

    database: LocalDatabase
    tell: Callable[[str], None]
    template: Path = TEMPLATE
    functions: dict[str, Function] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    signed: bool = False  # whether callers of the HTTP API sign their requests, as IAM wants it
    counter: Counter = field(init=False)
    _versions: dict[str, _Version] = field(default_factory=dict)
    _read: str = ""
    _schema: str = ""
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.counter = Counter(self.database)

    async def open(self) -> None:
        """Read the template and migrate.

        Raises:
            TemplateError: the template cannot be read.
            MigrationError: the migrations do not succeed.
        """
        self._read_template()
        migrating = self._migrating()
        if migrating and not (
            isinstance(self.database, KeptDatabase) and self.database.migrated == self._schema
        ):
            await self._migrate(migrating)

    async def close(self) -> None:
        """End every environment."""
        versions, self._versions = list(self._versions.values()), {}
        await asyncio.gather(*(version.fleet.__aexit__(None, None, None) for version in versions))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def invoke(self, name: str, event: object) -> Outcome:
        """Invoke that function, with its files as they are now."""
        await self.check()
        version = await self._version(self.functions[name])
        counted = await self.counter.begin()
        started = time.perf_counter()
        answer = None
        try:
            answer = await version.fleet.invoke(event)
        except ThrottledError:
            pass
        finally:
            seconds = time.perf_counter() - started
            await self.counter.end(counted)
        return Outcome(answer, counted, seconds)

    def environments(self) -> Mapping[str, dict[str, int]]:
        """For each function: environments at work, frozen, and reserved at most."""
        return {
            name: {
                "at_work": version.fleet.size - version.fleet.idle if version else 0,
                "frozen": version.fleet.idle if version else 0,
                "reserved": _reserved(function),
            }
            for name, function in self.functions.items()
            for version in [self._versions.get(name)]
        }

    # What has changed

    async def check(self) -> None:
        """Take up what was edited: the template, a function, the layer, a migration."""
        async with self._checking:
            if fingerprint([self.template]) != self._read:
                try:
                    self._read_template()
                    self.tell(f"{self.template.name} was read again")
                except TemplateError as error:
                    self._read = fingerprint([self.template])
                    self.tell(f"{self.template.name} stays as it was: {error}")
            migrating = self._migrating()
            if migrating and fingerprint([migrating.directory]) != self._schema:
                self._schema = fingerprint([migrating.directory])
                try:
                    await self._migrate(migrating)
                except MigrationError as error:
                    self.tell(str(error))
            for name, version in list(self._versions.items()):
                if (
                    self.functions.get(name) != version.function
                    or _files(version.function) != version.files
                ):
                    del self._versions[name]
                    self._spawn(_retire(version.fleet))
                    self.tell(f"{name} has changed: its next request is a cold start")

    def _read_template(self) -> None:
        self._read = fingerprint([self.template])
        functions = read_functions(self.template)
        self.functions, self.routes = functions, read_routes(functions.values())
        self.signed = api_is_signed(self.template)
        if migrating := self._migrating():
            self._schema = self._schema or fingerprint([migrating.directory])

    def _migrating(self) -> Function | None:
        return next((one for one in self.functions.values() if migrates(one)), None)

    async def _migrate(self, function: Function) -> None:
        answer = await migrate(self.database, function)
        if isinstance(self.database, KeptDatabase):
            self.database.note_migration(self._schema)
        self.tell(f"Migrated through {function.name} in {answer.duration:.1f} s")

    async def _version(self, function: Function) -> _Version:
        if version := self._versions.get(function.name):
            return version
        environ = database_environ(function, self.database)
        fleet = Fleet(
            lambda: function.environment(environ),
            reserved_concurrency=_reserved(function),
            idle_timeout=IDLE_SECONDS,
        )
        version = self._versions[function.name] = _Version(function, fleet, _files(function))
        await fleet.__aenter__()
        return version

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def describe(self, function: Function) -> dict[str, Any]:
        """What a page needs to offer it."""
        return {
            "name": function.name,
            "id": function.logical_id,
            "trigger": trigger_of(function),
            "timeout": function.timeout,
            "memory": function.memory,
            "reserved": _reserved(function),
        }


def _reserved(function: Function) -> int:
    return function.reserved_concurrency or DEFAULT_CONCURRENCY


def _files(function: Function) -> str:
    return fingerprint([function.directory, LAYER])


async def _retire(fleet: Fleet) -> None:
    """End environments of older files when they have answered."""
    try:
        while fleet.in_flight:
            await asyncio.sleep(0.02)
    finally:
        await fleet.__aexit__(None, None, None)
