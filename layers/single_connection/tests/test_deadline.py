"""Shortly before Lambda's own deadline the connection is taken away."""

import _thread
import contextlib
import gc
import threading
import time
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.cursors import SSCursor
from single_connection import (
    CommitOutcomeUnknownError,
    Database,
    DatabaseBusyError,
    DeadlineError,
    OutsideInvocationError,
)
from single_connection import _driver as driver
from single_connection._clock import clock
from single_connection._deadline import LONGEST_DEADLINE, Deadline, Watchdog, seconds_left
from single_connection._lease import Lease
from single_connection._opening import Opening
from single_connection._tls import ResumingContext
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World, body, function, invoke
from layers.single_connection.tests.network import Proxy
from layers.single_connection.tests.test_tls_resumption import target


@pytest.fixture
def things(world: World) -> World:
    world.stock(a=1, b=1)
    return world


def threads() -> set[str]:
    """The kernel's: those Python does not know of too."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


SLOW = {
    "a query": "SELECT SLEEP(20)",
    "a wait for a lock": "UPDATE things SET number = 0 WHERE name = 'b'",
    "a long update": "UPDATE things SET number = number + SLEEP(5)",
}


@pytest.mark.parametrize("slow", SLOW)
def test_what_runs_too_long_is_cut_in_time_to_answer_and_rolled_back(
    things: World, slow: str
) -> None:
    other = things.outsider()
    if slow == "a wait for a lock":
        other.begin()
        other.query("UPDATE things SET number = 5 WHERE name = 'b'")
    database = things.database()

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = 10 WHERE name = 'a'")
            if slow == "a wait for a lock":
                time.sleep(0.8)  # a lock is waited for at most half of the lease
            cursor.execute(SLOW[slow])

    with pytest.raises(DeadlineError) as caught:
        invoke(database, work, 2.4)
    assert isinstance(caught.value.__cause__, pymysql.err.Error)
    things.wait_for(lambda: not things.sessions(), 1.0)
    other.rollback()
    assert things.things() == {"a": 1, "b": 1}


@pytest.mark.parametrize("way", ["SELECT SLEEP(20)", "UPDATE things SET number = SLEEP(20)"])
def test_the_handler_answers_before_lambda_kills_its_environment(things: World, way: str) -> None:
    with function("deadline", things.environ(), timeout=2.5) as slow:
        said = body(slow.invoke(way=way))
        assert things.sessions() == []
        assert "nearly over" in said["error"] or "time is over" in said["error"]
        assert 0 < said["left"] < 1000
        assert body(slow.invoke(way="SELECT 1")) is None
    assert things.things()["a"] == 1


def test_a_handler_stuck_in_its_own_code_loses_the_connection_all_the_same(things: World) -> None:
    with function("deadline", things.environ(), timeout=2.5) as stuck:
        with stuck.invoked(way="loop") as answered:
            things.wait_for(things.sessions)
            things.wait_for(lambda: not things.sessions())
            assert stuck.busy
            assert answered().status == "timeout"
    assert things.things()["a"] == 1


def test_every_later_use_says_that_the_time_is_over(things: World) -> None:
    database = things.database()

    def work() -> None:
        connection = database.connection()
        cursor = connection.cursor()
        time.sleep(1.1)
        for use in (
            lambda: cursor.execute("SELECT 1"),
            connection.ping,
            connection.begin,
            connection.commit,
            connection.rollback,
            database.connection,
            lambda: database.transaction().__enter__(),
            database.transactional(lambda _cursor: None),
        ):
            with pytest.raises(DeadlineError):
                use()

    invoke(database, work, 2.0)


def test_a_half_read_cursor_says_that_the_time_is_over(things: World) -> None:
    things.server.execute("CREATE TABLE seq (n INT)")
    things.server.execute("INSERT INTO seq VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9),(10)")
    database = things.database()

    def work() -> None:
        cursor = database.connection().cursor(SSCursor)
        cursor.execute("SELECT REPEAT('x', 200) FROM seq a, seq b, seq c, seq d, seq e, seq f")
        with pytest.raises(DeadlineError):
            while cursor.fetchone():
                time.sleep(0.0001)

    invoke(database, work, 2.0)
    things.wait_for(lambda: not things.sessions(), 1.0)


def test_a_half_read_cursor_kept_beyond_its_invocation_tells_its_reader_and_nobody_else(
    things: World,
) -> None:
    things.server.execute("INSERT INTO things VALUES ('c', 1), ('d', 1)")
    database, kept = things.database(), []

    def work() -> None:
        kept.append(database.connection().cursor(SSCursor))
        kept[0].execute("SELECT name FROM things ORDER BY name")
        assert kept[0].fetchone() == ("a",)

    invoke(database, work, 2.0)
    with pytest.raises(OutsideInvocationError, match="after its invocation had ended"):
        kept[0].fetchone()  # None would say that there are no more
    kept[0].close()
    kept.clear()
    gc.collect()  # warnings are errors here


def test_a_commit_cut_by_the_deadline_is_an_unknown_outcome(things: World, proxy: Proxy) -> None:
    database = things.database(port=proxy.port)

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = 10 WHERE name = 'a'")
            proxy.swallow()

    with pytest.raises(CommitOutcomeUnknownError) as caught:
        invoke(database, work, 2.0)
    assert isinstance(caught.value.__cause__, DeadlineError)


@pytest.mark.parametrize("doing", ["a query", "nothing", "a transaction"])
def test_a_network_that_fell_silent_does_not_keep_the_answer(
    things: World, proxy: Proxy, doing: str
) -> None:
    database = things.database(port=proxy.port)

    def work() -> None:
        connection = database.connection()
        connection.ping()
        if doing == "a transaction":
            connection.begin()
        proxy.swallow()
        if doing == "a query":
            connection.query("SELECT 1")
        else:
            time.sleep(1.1)
            connection.ping()

    with pytest.raises(DeadlineError):
        invoke(database, work, 2.0)


def test_a_network_that_fell_silent_does_not_keep_a_return(things: World, proxy: Proxy) -> None:
    database = things.database(port=proxy.port)

    def work() -> None:
        database.connection().ping()
        proxy.swallow()

    invoke(database, work, 2.0)


@pytest.mark.parametrize("seconds", [2.0, 3.5])
def test_a_network_that_is_slow_at_each_step_does_not_keep_the_answer(
    things: World, proxy: Proxy, seconds: float
) -> None:
    proxy.pause = 0.35
    database = things.database(port=proxy.port)
    with pytest.raises((DeadlineError, DatabaseBusyError)):
        invoke(database, lambda: database.connection().query("SELECT SLEEP(9)"), seconds)


def test_the_deadline_while_waiting_for_admission_is_a_busy_database(things: World) -> None:
    things.server.execute("ALTER USER 'application'@'%' WITH MAX_USER_CONNECTIONS 1")
    with function("ways_out", things.environ(), timeout=5.0) as other:
        with other.invoked(way="killed") as answered:
            session = things.wait_for(lambda: things.busy("SLEEP"))
            database = things.database()
            with pytest.raises(DatabaseBusyError) as caught:
                invoke(database, database.connection, 2.0)
            assert caught.value.code == 1226
            things.server.execute("KILL CONNECTION %s", session.id)
            answered()


def test_the_deadline_is_that_of_the_connection_not_of_its_first_use(things: World) -> None:
    database = things.database()

    def work() -> None:
        time.sleep(0.8)
        with pytest.raises(DeadlineError):
            database.connection().query("SELECT SLEEP(9)")

    invoke(database, work, 2.0)


def test_without_time_left_nothing_is_opened(things: World) -> None:
    database = things.database()
    before = things.server.status("Connections")
    with pytest.raises(DeadlineError):
        database.invocation(lambda _e, _c: database.connection())({}, LambdaContext(0.0))
    assert things.server.status("Connections") == before


def test_no_thread_outlives_the_invocation(things: World) -> None:
    database = things.database()
    invoke(database, lambda: database.connection().ping(), 2.0)
    before = threads()  # another test's may end at any time
    for _ in range(20):
        invoke(database, lambda: database.connection().ping(), 2.0)
        things.wait_for(lambda: threads() <= before, 1.0)
    with pytest.raises(DeadlineError):
        invoke(database, lambda: database.connection().query("SELECT SLEEP(9)"), 2.0)
    things.wait_for(lambda: threads() <= before, 1.0)


def test_a_cut_exactly_as_a_query_starts_or_ends_neither_hangs_nor_leaks(things: World) -> None:
    """Two hundred deadlines that fall anywhere in a rush of short queries."""
    database = things.database(deadline_margin="0.02")
    ends = []
    for turn in range(50):

        def work() -> None:
            with database.transaction() as cursor:
                while True:
                    cursor.execute("UPDATE things SET number = number + 1 WHERE name = 'a'")
                    cursor.execute("SELECT SLEEP(0.001)")

        context = LambdaContext(0.045 + (turn % 20) / 1000)
        began = time.monotonic()
        with pytest.raises((DeadlineError, DatabaseBusyError)) as caught:
            database.invocation(lambda _e, _c, work=work: work())({}, context)
        assert time.monotonic() - began < 3
        ends.append(caught.type)
        things.wait_for(lambda: not things.sessions(), 3.0)
    assert ends.count(DeadlineError) > 25
    assert things.things()["a"] == 1
    assert database._invocation is None


def test_threads_that_share_the_connection_are_all_told(things: World) -> None:
    database, told = things.database(), []

    def ask() -> None:
        try:
            while True:
                with database.connection().cursor() as cursor:
                    cursor.execute("SELECT SLEEP(0.01)")
        except (DeadlineError, OutsideInvocationError) as error:
            told.append(type(error))

    def work() -> None:
        running = [threading.Thread(target=ask) for _ in range(4)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    invoke(database, work, 2.0)
    assert told == [DeadlineError] * 4


def test_a_rush_of_threads_at_the_end_neither_hangs_nor_leaks(things: World) -> None:
    database = things.database()
    for turn in range(12):
        stop = threading.Event()
        running: list[Any] = []

        def ask(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                try:
                    with database.connection().cursor() as cursor:
                        cursor.execute("SELECT SLEEP(0.001)")
                except (pymysql.err.Error, OutsideInvocationError):
                    time.sleep(0.001)  # three that spin keep the interpreter from everybody else

        def work(turn: int = turn, running: Any = running, ask: Any = ask) -> None:
            for _ in range(3):
                running.append(threading.Thread(target=ask))
                running[-1].start()
            time.sleep(turn % 7 / 1000)

        invoke(database, work, 5.0)
        things.wait_for(lambda: not things.sessions(), 1.0)
        stop.set()
        for thread in running:
            thread.join()


class _Context:
    def __init__(self, milliseconds: Any) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> Any:
        if isinstance(self._milliseconds, Exception):
            raise self._milliseconds
        return self._milliseconds


def test_where_less_than_twice_the_margin_is_left_half_of_it_is_the_margin() -> None:
    deadline = Deadline(0.6, 0.5)
    assert deadline.hard - deadline.soft == pytest.approx(0.3)
    assert Deadline(3.0, 0.5).left() == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize(
    "context",
    [None, {}, object(), _Context("soon"), _Context(None), _Context(float("nan")),
     _Context(ValueError("no")), _Context(3j)],
)  # fmt: skip
def test_a_context_that_does_not_tell_the_time_is_refused(context: Any) -> None:
    """Without an end there is no lease and no cut: none is assumed in silence."""
    with pytest.raises(TypeError, match="tells no time"):
        Database.from_environment({}).invocation(lambda _event, _context: "done")({}, context)


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [(0, 0), (-5, 0), (1, 0.001), (float("inf"), LONGEST_DEADLINE), (float("-inf"), 0),
     (10**400, LONGEST_DEADLINE), (10**13, LONGEST_DEADLINE)],
)  # fmt: skip
def test_a_time_that_no_platform_can_wait_for_is_capped(
    milliseconds: float, seconds: float
) -> None:
    assert seconds_left(_Context(milliseconds)) == seconds


def test_a_test_that_stops_the_time_does_not_stop_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As freezegun does it: another function in the module's place."""
    before = clock.now()
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert clock.now() >= before > 0


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The watch runs in threads that Python, and what measures coverage, knows of."""
    started: list[threading.Thread] = []

    def start(function: Any, arguments: Any) -> None:
        started.append(threading.Thread(target=function, args=arguments))
        started[-1].start()

    monkeypatch.setattr(_thread, "start_new_thread", start)
    return started


def test_the_watch_cuts_once_and_who_dismisses_it_meanwhile_waits(
    visible: list[threading.Thread],
) -> None:
    cutting, cut = threading.Event(), []

    def slowly() -> None:
        cutting.set()
        time.sleep(0.1)
        cut.append(1)

    watchdog = Watchdog(Deadline(0.05, 0.0), slowly)
    watchdog.start()
    watchdog.start()  # harmless when repeated
    assert cutting.wait(5)
    watchdog.dismiss()
    assert cut == [1]
    watchdog.start()
    assert len(visible) == 1


def test_a_watch_that_is_dismissed_before_its_time_cuts_nothing_even_if_it_is_not_let_go(
    visible: list[threading.Thread],
) -> None:
    cut: list[int] = []
    watchdog = Watchdog(Deadline(0.05, 0.0), lambda: cut.append(1))
    watchdog.start()
    watchdog.dismiss()
    visible[0].join()
    watchdog.join()
    assert not cut


def test_a_watch_whose_cut_fails_is_over_all_the_same(
    visible: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fail() -> None:
        raise RuntimeError("as it cuts")

    watchdog = Watchdog(Deadline(0.01, 0.0), fail)
    watchdog.start()
    visible[0].join()
    watchdog.dismiss()
    assert [one.exc_type for one in told] == [RuntimeError]


@pytest.mark.parametrize("runs", [False, True])
def test_an_error_as_the_watch_starts_neither_hangs_nor_leaves_a_thread(
    monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """No thread to spare, or an alarm that strikes just as it was started."""
    really = _thread.start_new_thread

    def start(*what: Any) -> None:
        if runs:
            really(*what)
        raise RuntimeError("can't start new thread")

    watchdog = Watchdog(Deadline(10.0, 0.0), print)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(_thread, "start_new_thread", start)
        watchdog.start()
    began = time.monotonic()
    watchdog.dismiss()
    watchdog.join()
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("by_name", [{"context"}, {"event", "context"}])
def test_a_context_that_is_passed_by_name_counts(by_name: set[str]) -> None:
    database = Database.from_environment({})
    left = []

    @database.invocation
    def handler(event: Any, context: Any) -> None:
        assert database._invocation is not None
        left.append(database._invocation.deadline.hard - clock.now())

    given: dict[str, Any] = {"event": {}, "context": LambdaContext(7)}
    named = {name: given.pop(name) for name in by_name}
    handler(*given.values(), **named)
    assert left[0] == pytest.approx(7, abs=0.5)


def test_a_method_is_marked_as_a_function_is_and_its_context_counts(things: World) -> None:
    database = things.database()

    class Api:
        @database.invocation
        def handle(self, event: Any, context: Any) -> None:
            database.connection().query("SELECT SLEEP(20)")

    with pytest.raises(DeadlineError):
        Api().handle({}, LambdaContext(1.5))


def test_a_deadline_that_passes_while_the_connection_opens_is_not_missed(things: World) -> None:
    """The watch begins before there is anything to cut: it finds nothing, and comes no more."""
    database = things.database()
    opens = database._connector.open

    def slowly(opening: Any, context: Any, measured: Any) -> Any:
        connection = opens(opening, context, measured)
        time.sleep(max(0.0, opening.deadline.left()) + 0.05)
        return connection

    database._connector.open = slowly  # type: ignore[method-assign]

    def work() -> None:
        for _ in range(2):
            with pytest.raises(DeadlineError):
                database.connection()
            things.wait_for(lambda: not things.sessions(), 0.5)
        assert database._invocation is not None
        assert database._invocation.measured.deadline_cuts == 1

    invoke(database, work, 2.0)


def test_a_statement_that_meets_the_end_before_the_watch_does_says_that_the_time_is_over(
    things: World, proxy: Proxy
) -> None:
    """The watch is a thread, and may come late on a busy machine."""
    late = Deadline(2.0, 1.9)
    opening = Opening(late, Watchdog(late, lambda: None))
    where = target(things, ResumingContext(str(things.server.ca_file)), port=proxy.port)
    with contextlib.closing(
        driver.open_connection(where, Lease(2), opening, late.soft)
    ) as connection:
        connection.ping()
        proxy.swallow()
        with pytest.raises(DeadlineError, match="what was not committed is rolled back"):
            connection.query("SELECT 1")
    assert opening.watchdog is not None
    opening.watchdog.dismiss()
    opening.watchdog.join()


def test_a_cut_from_whichever_thread_destroys_the_connection_once(things: World) -> None:
    database = things.database()

    def work() -> None:
        connection = database.connection()
        assert database._invocation is not None
        for _ in range(2):
            database._invocation._cut()
            with pytest.raises(DeadlineError):
                connection.ping()
        things.wait_for(lambda: not things.sessions(), 1.0)

    invoke(database, work, 2.0)
