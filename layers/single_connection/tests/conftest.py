"""The layer against a real server: by direct calls, and through Lambda's own runtime client."""

import _thread
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.cursors import DictCursor
from single_connection import Database, Settings
from single_connection.testing import LambdaContext

from layers.single_connection.tests.network import Proxy
from local.database import LocalDatabase, Session
from local.delay_proxy import DelayProxy
from local.environment import Answer, Environment

HANDLERS = Path(__file__).parent / "handlers"


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Coverage is not measured meanwhile: its tracer takes a lock, which an alarm that raises just
    then would leave taken for ever."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


@pytest.fixture(autouse=True, scope="session")
def _measured_everywhere() -> Iterator[None]:
    """Coverage follows the threads of `threading`; what watches the deadline is none of them."""
    hook, start = threading.gettrace(), _thread.start_new_thread

    def measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
        def run(*given: Any) -> None:
            sys.settrace(hook)
            function(*given)

        return start(run, arguments)

    if hook is not None:
        _thread.start_new_thread = measured  # type: ignore[assignment]
    yield
    _thread.start_new_thread = start


class Alarm(Exception):  # noqa: N818 - as a handler would call it
    """What a handler's own alarm raises."""


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Call it: an alarm strikes after so many seconds, in whatever the main thread waits for."""

    def strike(*_: object) -> None:
        raise Alarm

    def arm(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with untraced():
            yield arm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class World:
    """One real server, and what the tests need to look at it from outside."""

    def __init__(self, server: LocalDatabase) -> None:
        self.server = server
        self.flavor = server.server.flavor
        self._outsiders: list[pymysql.Connection[DictCursor]] = []

    def environ(self, **changes: Any) -> dict[str, str]:
        environ = self.server.application_environ() | {"DATABASE_DEADLINE_MARGIN": "1.0"}
        return environ | {f"DATABASE_{name.upper()}": str(value) for name, value in changes.items()}

    def database(self, **changes: Any) -> Database:
        return Database(Settings.from_environment(self.environ(**changes)))

    def sessions(self) -> list[Session]:
        """The server's own list, without us who look at it."""
        return [one for one in self.server.sessions() if one.user != "observer"]

    def wait_for(self, claim: Callable[[], Any], seconds: float = 5.0) -> Any:
        """What `claim` gives as soon as it is true."""
        until = time.monotonic() + seconds
        while not (found := claim()):
            assert time.monotonic() < until, f"not within {seconds} s: {self.server.sessions()}"
            time.sleep(0.005)
        return found

    def busy(self, text: str) -> Session | None:
        """The session that runs a statement with `text` in it."""
        return next((one for one in self.sessions() if text in (one.info or "")), None)

    def outsider(self) -> "pymysql.Connection[DictCursor]":
        """Somebody else's session, by the observer's door: it counts nowhere, nobody guards it."""
        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.server.observer.port,
            user="observer",
            password=self.server._passwords["observer"],
            database=self.server.name,
            cursorclass=DictCursor,
            ssl_ca=str(self.server.ca_file),
        )
        self._outsiders.append(connection)
        return connection

    def stock(self, **rows: int) -> None:
        """A table of things and how many there are."""
        self.server.execute("CREATE TABLE things (name VARCHAR(20) PRIMARY KEY, number INT)")
        for name, number in rows.items():
            self.server.execute("INSERT INTO things VALUES (%s, %s)", name, number)

    def things(self) -> dict[str, int]:
        rows = self.server.execute("SELECT name, number FROM things ORDER BY name")
        return {row["name"]: row["number"] for row in rows}

    def close(self) -> None:
        for connection in self._outsiders:
            connection._force_close()  # type: ignore[attr-defined] # the stubs lack it


@pytest.fixture
def world(database_server: LocalDatabase) -> Iterator[World]:
    """A clean server."""
    world = World(database_server)
    yield world
    world.close()


@contextlib.contextmanager
def no_thread_left(seconds: float = 2.0) -> Iterator[None]:
    """What starts a thread in the block has ended it, at the latest so many seconds afterwards."""
    # Counts those too that `threading` knows nothing of, as the one that watches the deadline.
    before = _thread._count()
    yield
    until = time.monotonic() + seconds
    while (left := _thread._count() - before) > 0 and time.monotonic() < until:
        time.sleep(0.005)
    assert left <= 0, f"{left} threads are left; with a name: {threading.enumerate()}"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Whatever a test does, neither it nor the layer leaves a thread or a timer behind."""
    with no_thread_left():
        yield


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    with Proxy(world.server.host, world.server.port) as proxy:
        yield proxy


# Long beside anything computed here, even on a busy machine, so that what is said in one breath
# arrives in one.
ROUND_TRIP = 0.04


@pytest.fixture
def far_away(world: World) -> Iterator[DelayProxy]:
    """The server at the end of a long line, on which turns are counted."""
    with DelayProxy(world.server.host, world.server.port, ROUND_TRIP) as proxy:
        yield proxy


def invoke(database: Database, work: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Do `work` as a handler; whatever happens, there is an answer before `seconds` are over."""
    began = time.monotonic()
    try:
        return database.invocation(lambda _event, _context: work())({}, LambdaContext(seconds))
    finally:
        assert time.monotonic() - began < seconds, "Lambda would have killed the environment"


class Function:
    """A Lambda function in one execution environment, invoked as by Lambda, one call at a time."""

    def __init__(self, environment: Environment, runner: asyncio.Runner) -> None:
        self._environment = environment
        self._runner = runner

    def invoke(self, **event: Any) -> Answer:
        return self._runner.run(self._environment.invoke(event))

    def idle(self) -> None:
        """Frozen, or ended."""
        self._runner.run(self._environment.idle())

    @contextlib.contextmanager
    def invoked(self, **event: Any) -> Iterator[Callable[[], Answer]]:
        """Invoke, and do something meanwhile; call what is yielded for the answer."""
        self.idle()
        # From this thread: the kernel would end the process with the thread that started it.
        self._runner.run(self._environment.start())
        loop = self._runner.get_loop()
        task = loop.create_task(self._environment.invoke(event))
        running = threading.Thread(target=loop.run_until_complete, args=(task,))
        running.start()

        def answer() -> Answer:
            running.join()
            return task.result()

        try:
            yield answer
        finally:
            running.join()

    @property
    def busy(self) -> bool:
        return self._environment.busy

    @property
    def pid(self) -> int:
        assert self._environment.pid is not None
        return self._environment.pid


def variables(environ: dict[str, str]) -> dict[str, str]:
    """The function's, with what measures coverage in it, if anything does."""
    measured = {name: os.environ[name] for name in os.environ if name.startswith("COVERAGE_")}
    return environ | measured


@contextlib.contextmanager
def function(module: str, environ: dict[str, str], **options: Any) -> Iterator[Function]:
    """A function of `layers/single_connection/tests/handlers`, or of `directory`."""
    directory = options.pop("directory", HANDLERS)
    with asyncio.Runner() as runner:
        environment = Environment(
            directory, handler=f"{module}.lambda_handler", environ=variables(environ), **options
        )
        runner.run(environment.__aenter__())
        try:
            yield Function(environment, runner)
        finally:
            runner.run(environment.close())


def body(answer: Answer) -> Any:
    assert answer.status == "ok", (answer.status, answer.payload, answer.log)
    return json.loads(answer.payload)
