"""Whatever strikes, wherever: the next invocation begins clean, and what was told is true.

An exception is raised at each line of the layer and of the driver in turn, as the handler of a
signal would; and by real alarms at random moments.
"""

import contextlib
import gc
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from single_connection import CommitOutcomeUnknownError, Database, _latch
from single_connection._deadline import Deadline, Watchdog
from single_connection._invocation import Invocation
from single_connection._latch import Latch
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World, untraced

# What strikes as a file is being closed leaves that to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
# How many alarms, and every how many-th line is struck: `LATE_ALARMS=20000 LATE_STEP=1 pytest …`
# takes half an hour.
ALARMS = int(os.environ.get("LATE_ALARMS", "300"))
STEP = int(os.environ.get("LATE_STEP", "101"))


class TooLong(Exception):  # noqa: N818 - as a handler would call it
    """What a handler's own alarm raises."""


@pytest.fixture
def things(world: World) -> World:
    world.stock(a=0, b=0)
    return world


@pytest.fixture
def once(world: World) -> None:
    """What is struck is our own code: one server is enough, unless all is wanted."""
    if world.flavor != "mysql" and not os.environ.get("LATE_STEP"):
        pytest.skip("our own lines are the same on both servers")


def work(database: Database) -> str:
    """Everything there is: open, a statement, a block with one inside, COMMIT."""
    with database.cursor() as cursor:
        cursor.execute("SELECT name FROM things WHERE name = %s", ("it's",))
        assert cursor.fetchall() == ()
    with database.transaction() as cursor:
        cursor.execute("UPDATE things SET number = number + 1 WHERE name = 'a'")
        with database.transaction() as inner:
            inner.execute("UPDATE things SET number = number + 1 WHERE name = 'b'")
    return "done"


def is_ours(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    return "single_connection/src" in path or "pymysql" in path


@contextlib.contextmanager
def struck_at(line: int, error: BaseException, *, but: str = "_guard.py") -> Iterator[list[str]]:
    """Raise `error` at the so-many-th line of ours that runs in the block; says where it was.

    An audit hook is no place where a signal's handler runs.
    """
    count = 0
    where: list[str] = []

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if where or not is_ours(frame) or frame.f_code.co_filename.endswith(but):
            return None
        if frame.f_code.co_name == "__del__":
            return None  # Python only prints what strikes there
        if event == "line":
            count += 1
            if count == line:
                where.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
                raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield where
    finally:
        sys.settrace(before)


def state() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def check(things: World, database: Database, told: str, was: tuple[int, int], where: str) -> None:
    """Nothing is left; all of the block or nothing; what was told is true; the next is clean."""
    assert database._invocation is None or not database._invocation.is_running(), where
    database.invocation(lambda _event, _context: None)({}, LambdaContext(5))
    things.wait_for(lambda: not things.sessions(), 2.0)
    now = things.things()
    assert now["a"] == now["b"], (where, told, now)
    if told == "done":
        assert now["a"] == 1, (where, now)
    elif told in ("TooLong", "KeyboardInterrupt", "SystemExit"):
        pass  # the handler's own error: it may have struck after COMMIT
    else:
        assert told == "CommitOutcomeUnknownError", (where, told)
    things.server.execute("UPDATE things SET number = 0")
    database.invocation(lambda _event, _context: work(database))({}, LambdaContext(5))
    assert things.things() == {"a": 1, "b": 1}, where
    things.server.execute("UPDATE things SET number = 0")
    until = time.monotonic() + 1.0
    while state() > was:
        assert time.monotonic() < until, (where, state(), was)
        gc.collect()


@pytest.mark.parametrize(
    ("error", "first"), [(TooLong, 1), (SystemExit, 3), (KeyboardInterrupt, 11)]
)
def test_an_exception_at_any_line_leaves_nothing_and_the_next_invocation_is_clean(
    things: World, once: None, error: Callable[[], BaseException], first: int
) -> None:
    database = things.database()
    handler = database.invocation(lambda _event, _context: work(database))
    for _ in range(3):
        handler({}, LambdaContext(5))
    things.server.execute("UPDATE things SET number = 0")
    was = state()
    strikes = 0
    line = first
    while True:
        told = ""
        with struck_at(line, error()) as where:
            try:
                told = handler({}, LambdaContext(5))
            except BaseException as raised:
                told = type(raised).__name__
                raised.__traceback__ = None
                del raised
        if not where:
            break
        check(things, database, told, was, where[0])
        strikes += 1
        line += STEP
    assert strikes > 20


def test_an_alarm_in_the_first_block_does_not_take_the_work_of_the_second(
    things: World, once: None
) -> None:
    """A handler that goes on after its own alarm: what it then does is written, or an error."""
    database = things.database()

    def twice() -> str:
        try:
            with database.transaction() as cursor:
                cursor.execute("SELECT 1")
        except TooLong:
            pass
        sys.settrace(None)
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = number + 1 WHERE name = 'a'")
        return "done"

    handler = database.invocation(lambda _event, _context: twice())
    with untraced():  # else what it switches off would stay so, for all tests that follow
        handler({}, LambdaContext(5))
    line, lost = 1, []
    while True:
        things.server.execute("UPDATE things SET number = 0")
        with struck_at(line, TooLong()) as where:
            try:
                told = handler({}, LambdaContext(5))
            except Exception as error:
                told = type(error).__name__
        if not where:
            break
        if told == "done" and things.things()["a"] != 1:
            lost.append(where[0])
        line += max(1, STEP // 3)
    assert not lost


def test_an_exception_at_any_line_of_the_watchs_end_does_not_keep_who_ends_it_again() -> None:
    line = 1
    while True:
        watchdog = Watchdog(Deadline(30.0, 0.0), print)
        watchdog.start()
        with struck_at(line, TooLong()) as where, contextlib.suppress(TooLong):
            watchdog.dismiss()
            watchdog.join()
        again = threading.Thread(target=watchdog.join, daemon=True)
        again.start()
        again.join(5)
        assert not again.is_alive(), where
        if not where:
            break
        line += 1
    assert line > 5


@pytest.mark.parametrize("strikes", [1, 2])
def test_what_strikes_the_way_out_leaves_its_rest_to_the_next_invocation(
    things: World, once: None, monkeypatch: pytest.MonkeyPatch, strikes: int
) -> None:
    """Twice, as Ctrl-C held down: the second time nothing is left that could catch it."""
    database, end, left = things.database(), Invocation.end, [KeyboardInterrupt] * strikes

    def struck(invocation: Invocation) -> None:
        if left:
            raise left.pop()
        end(invocation)

    monkeypatch.setattr(Invocation, "end", struck)
    with pytest.raises(KeyboardInterrupt):
        database.invocation(lambda _event, _context: work(database))({}, LambdaContext(5))
    assert len(things.sessions()) == strikes - 1
    database.invocation(lambda _event, _context: None)({}, LambdaContext(5))
    things.wait_for(lambda: not things.sessions(), 2.0)


def test_what_strikes_the_end_of_the_way_out_makes_nobody_report_twice(
    things: World, once: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database, join, left = things.database(), Watchdog.join, [KeyboardInterrupt]

    def struck(watchdog: Watchdog) -> None:
        if left:
            raise left.pop()
        join(watchdog)

    monkeypatch.setattr(Watchdog, "join", struck)

    def leaves_open() -> None:
        database.connection().begin()

    with pytest.raises(KeyboardInterrupt):
        database.invocation(lambda _event, _context: leaves_open())({}, LambdaContext(5))
    assert [one for one in caplog.messages if "was left open" in one] == [
        "a transaction was left open, and is rolled back"
    ]


def test_a_commit_that_was_answered_or_not_is_never_called_a_failure_of_the_drivers(
    things: World, once: None
) -> None:
    """Between COMMIT and its answer the outcome is unknown, and said to be."""
    database = things.database()
    handler = database.invocation(lambda _event, _context: work(database))
    handler({}, LambdaContext(5))
    seen: Counter[str] = Counter()
    line = 1
    while True:
        with struck_at(line, TooLong()) as where:
            try:
                handler({}, LambdaContext(5))
            except (TooLong, CommitOutcomeUnknownError) as error:
                seen[type(error).__name__] += 1
        if not where:
            break
        line += max(1, STEP // 3)
    assert seen["CommitOutcomeUnknownError"] > 0
    assert seen["TooLong"] > 0


def test_real_alarms_at_random_moments_leave_nothing(things: World) -> None:
    database = things.database(deadline_margin="1.0")
    chance = random.Random(1)
    armed = False

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        if armed:
            raise TooLong

    before = signal.signal(signal.SIGALRM, on_alarm)
    handler = database.invocation(lambda _event, _context: work(database))
    handler({}, LambdaContext(5))
    things.server.execute("UPDATE things SET number = 0")
    was = state()
    outcomes: Counter[str] = Counter()
    written = unknown = 0
    try:
        for _ in range(ALARMS):
            with untraced():
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00005, 0.006))
                    told = handler({}, LambdaContext(5))
                except BaseException as error:
                    told = type(error).__name__
                    error.__traceback__ = None
                finally:
                    armed = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
            outcomes[told] += 1
            written += told == "done"
            unknown += told != "done"
        database.invocation(lambda _event, _context: None)({}, LambdaContext(5))
    finally:
        signal.signal(signal.SIGALRM, before)
    things.wait_for(lambda: not things.sessions(), 2.0)
    now = things.things()
    assert now["a"] == now["b"]
    assert written <= now["a"] <= written + unknown
    assert set(outcomes) <= {"done", "TooLong", "CommitOutcomeUnknownError"}, outcomes
    until = time.monotonic() + 5.0
    while state() > was:
        assert time.monotonic() < until, (state(), was)
        gc.collect()


@pytest.mark.parametrize("what", ["set", "wait"])
def test_a_latch_that_was_struck_anywhere_is_set_and_waited_for_all_the_same(what: str) -> None:
    line = 1
    while True:
        latch = Latch()
        with struck_at(line, TooLong()) as where, contextlib.suppress(TooLong):
            latch.set() if what == "set" else latch.wait(0.001)
        latch.set()
        waiting = threading.Thread(target=latch.wait, args=(60,))
        waiting.start()
        waiting.join(5)
        assert not waiting.is_alive(), where
        assert latch.wait(0)
        assert latch.is_set()
        if not where:
            break
        line += 1
    assert line > 2


def test_what_is_written_in_python_and_holds_a_lock_is_not_used_where_an_alarm_may_strike() -> None:
    """An alarm inside `threading.Event`, once in some 10,000, left its lock taken for ever."""
    source = Path(_latch.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"threading\.(Event|Thread|Semaphore|Barrier)\(", text), path
