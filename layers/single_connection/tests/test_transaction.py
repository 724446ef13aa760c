"""All or nothing, run again as a whole, and never replayed where the outcome is unknown."""

import threading
import time
from typing import Any

import pymysql
import pytest
from pymysql.cursors import DictCursor, SSCursor
from single_connection import (
    CommitOutcomeUnknownError,
    TransactionControlError,
    UncommittedWorkError,
)

from layers.single_connection.tests.conftest import World, invoke
from layers.single_connection.tests.network import Proxy


@pytest.fixture
def things(world: World) -> World:
    world.stock(a=1, b=1)
    return world


def add(cursor: DictCursor, name: str, number: int = 10) -> None:
    cursor.execute("UPDATE things SET number = number + %s WHERE name = %s", (number, name))


class Deadlock:
    """Somebody else who takes `b` and then wants `a`, once the handler has taken `a`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._other = world.outsider()
        self._other.begin()
        # More work done than ours, so that the server chooses us to give way.
        with self._other.cursor() as cursor:
            for _ in range(3):
                add(cursor, "b", 100)
            cursor.execute("INSERT INTO things VALUES ('x', 1), ('y', 1), ('z', 1)")
        self._thread: threading.Thread | None = None

    def spring(self) -> None:
        """Called by the handler that holds `a`: the other now waits for it."""
        if self._thread is not None:
            return

        def want_a() -> None:
            with self._other.cursor() as cursor:
                add(cursor, "a", 100)
            self._other.commit()

        self._thread = threading.Thread(target=want_a)
        self._thread.start()
        self._world.wait_for(
            lambda: any(
                "UPDATE" in (row["Info"] or "")
                for row in self._world.server.execute("SHOW PROCESSLIST")
            )
        )
        time.sleep(0.05)  # from the session list to the lock's queue

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()


def swallow(cursor: DictCursor, other: Deadlock) -> None:
    """A deadlock, and nobody hears of it."""
    add(cursor, "a")
    other.spring()
    with pytest.raises(pymysql.err.OperationalError):
        add(cursor, "b")


def test_a_block_is_committed_as_a_whole(things: World) -> None:
    database = things.database()

    def work() -> None:
        with database.transaction() as cursor:
            add(cursor, "a")
            add(cursor, "b")
            assert things.things() == {"a": 1, "b": 1}

    invoke(database, work)
    assert things.things() == {"a": 11, "b": 11}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_any_error_out_of_the_block_rolls_it_back(things: World, error: type) -> None:
    database = things.database()

    def work() -> None:
        with pytest.raises(error):
            with database.transaction() as cursor:
                add(cursor, "a")
                raise error
        assert things.things() == {"a": 1, "b": 1}

    invoke(database, work)


def test_rows_are_dictionaries(things: World) -> None:
    database = things.database()

    def work() -> Any:
        with database.transaction() as cursor:
            cursor.execute("SELECT name, number FROM things WHERE name = %s", ("a",))
            return cursor.fetchall()

    assert invoke(database, work) == [{"name": "a", "number": 1}]


def test_a_nested_block_is_a_savepoint(things: World) -> None:
    database = things.database()

    def work() -> None:
        with database.transaction() as outer:
            add(outer, "a")
            with pytest.raises(ValueError, match="inner"):
                with database.transaction() as inner:
                    add(inner, "b")
                    with database.transaction() as innermost:
                        add(innermost, "b")
                    raise ValueError("inner")
            with database.transaction() as inner:
                add(inner, "b", 5)

    invoke(database, work)
    assert things.things() == {"a": 11, "b": 6}


def test_after_a_deadlock_the_whole_is_run_again_not_the_last_statement_alone(
    things: World,
) -> None:
    """A fault of serverless-mysql: earlier writes of the transaction are silently lost."""
    database, other = things.database(), Deadlock(things)
    runs: list[int] = []

    @database.transactional
    def both(cursor: DictCursor) -> None:
        runs.append(1)
        add(cursor, "a")
        other.spring()
        add(cursor, "b")

    invoke(database, both)
    other.join()
    assert len(runs) == 2
    assert things.things() == {"a": 111, "b": 311, "x": 1, "y": 1, "z": 1}


def test_a_deadlock_under_a_savepoint_runs_the_whole_again(things: World) -> None:
    database, other = things.database(), Deadlock(things)

    @database.transactional
    def inner(cursor: DictCursor) -> None:
        add(cursor, "b")

    @database.transactional
    def outer(cursor: DictCursor) -> None:
        add(cursor, "a")
        other.spring()
        inner()

    invoke(database, outer)
    other.join()
    assert things.things() == {"a": 111, "b": 311, "x": 1, "y": 1, "z": 1}


@pytest.mark.parametrize("nested", [False, True])
def test_a_deadlock_that_the_block_swallows_does_not_commit_the_rest(
    things: World, nested: bool
) -> None:
    database, other = things.database(), Deadlock(things)

    def work() -> None:
        with database.transaction() as cursor:
            add(cursor, "a")
            other.spring()
            with pytest.raises(pymysql.err.OperationalError):
                if nested:
                    with database.transaction() as inner:
                        add(inner, "b")
                else:
                    add(cursor, "b")
            # The server has undone everything: what follows would be committed alone.
            cursor.execute("INSERT INTO things VALUES ('rest', 1)")

    with pytest.raises(pymysql.err.OperationalError) as caught:
        invoke(database, work)
    other.join()
    assert caught.value.args[0] == 1213
    assert "rest" not in things.things()


def test_a_deadlock_swallowed_at_the_very_end_is_not_a_success(things: World) -> None:
    database, other = things.database(), Deadlock(things)

    def work() -> None:
        with database.transaction() as cursor:
            swallow(cursor, other)

    with pytest.raises(pymysql.err.OperationalError, match="1213"):
        invoke(database, work)
    other.join()


# A first row so long that the server sends it before it looks for the next one.
LOCKS_B = (
    "(SELECT REPEAT('x', 40000)) UNION ALL (SELECT name FROM things WHERE name >= 'b' FOR UPDATE)"
)


@pytest.mark.parametrize("then", ["nothing", "a statement", "a block"])
@pytest.mark.parametrize("closed", [False, True])
def test_a_deadlock_behind_rows_that_nobody_reads_is_not_a_success(
    things: World, then: str, closed: bool
) -> None:
    database, other = things.database(), Deadlock(things)

    def work() -> None:
        with database.transaction() as cursor:
            add(cursor, "a")
            other.spring()
            stream = database.connection().cursor(SSCursor)
            stream.execute(LOCKS_B)
            stream.fetchone()
            if closed:
                stream.close()
            if then == "a statement":
                cursor.execute("INSERT INTO things VALUES ('rest', 1)")
            elif then == "a block":
                with database.transaction() as inner:
                    inner.execute("INSERT INTO things VALUES ('rest', 1)")

    with pytest.raises(pymysql.err.OperationalError, match="1213"):
        invoke(database, work)
    other.join()
    assert things.things() == {"a": 101, "b": 301, "x": 1, "y": 1, "z": 1}


def test_an_inner_block_behind_a_swallowed_deadlock_does_not_begin(things: World) -> None:
    database, other = things.database(), Deadlock(things)

    def work() -> None:
        with database.transaction() as cursor:
            swallow(cursor, other)
            with database.transaction():
                raise AssertionError("not begun")

    with pytest.raises(pymysql.err.OperationalError, match="1213"):
        invoke(database, work)
    other.join()


@pytest.mark.parametrize("heeded", [False, True])
def test_a_deadlock_by_hand_that_is_swallowed_is_said_until_it_is_heeded(
    things: World, heeded: bool
) -> None:
    database, other = things.database(), Deadlock(things)

    def work() -> None:
        connection = database.connection()
        connection.begin()
        with connection.cursor(DictCursor) as cursor:
            swallow(cursor, other)
            other.join()
            if heeded:
                connection.rollback()
            add(cursor, "a", 1)

    if heeded:
        invoke(database, work)
    else:
        with pytest.raises(pymysql.err.OperationalError, match="1213"):
            invoke(database, work)
    assert things.things()["a"] == (102 if heeded else 101)


def test_after_a_deadlock_the_next_block_of_the_invocation_is_a_new_one(things: World) -> None:
    database, other = things.database(), Deadlock(things)

    def work() -> None:
        with pytest.raises(pymysql.err.OperationalError):
            with database.transaction() as cursor:
                add(cursor, "a")
                other.spring()
                add(cursor, "b")
        other.join()
        with database.transaction() as cursor:
            add(cursor, "a", 1)

    invoke(database, work)
    assert things.things()["a"] == 102


def test_after_a_lock_wait_timeout_the_whole_is_run_again(things: World) -> None:
    database, other = things.database(), things.outsider()
    other.begin()
    with other.cursor() as cursor:
        add(cursor, "b", 100)
    runs: list[int] = []

    @database.transactional
    def both(cursor: DictCursor) -> None:
        runs.append(1)
        if len(runs) == 2:
            other.commit()
        add(cursor, "a")
        add(cursor, "b")

    invoke(database, both, seconds=3.5)
    assert len(runs) == 2
    assert things.things() == {"a": 11, "b": 111}


def test_running_again_ends_with_the_servers_own_error_when_the_time_does(things: World) -> None:
    database, other = things.database(), things.outsider()
    other.begin()
    with other.cursor() as cursor:
        add(cursor, "a", 100)

    @database.transactional
    def one(cursor: DictCursor) -> None:
        add(cursor, "a")

    began = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - either, by who comes first
        invoke(database, one, seconds=2.5)
    assert time.monotonic() - began < 2.5
    assert type(caught.value).__name__ in ("DeadlineError", "OperationalError")
    other.rollback()
    assert things.things() == {"a": 1, "b": 1}


def test_other_errors_are_not_run_again(things: World) -> None:
    database = things.database()
    runs: list[int] = []

    @database.transactional
    def twice(cursor: DictCursor) -> None:
        runs.append(1)
        cursor.execute("INSERT INTO things VALUES ('a', 1)")

    with pytest.raises(pymysql.err.IntegrityError):
        invoke(database, twice)
    assert runs == [1]


def test_arguments_and_result_pass_through_transactional(things: World) -> None:
    database = things.database()

    @database.transactional
    def take(cursor: DictCursor, name: str, *, number: int) -> int:
        """Take some."""
        add(cursor, name, -number)
        return number

    assert invoke(database, lambda: take("a", number=3)) == 3
    assert take.__doc__ == "Take some."
    assert things.things()["a"] == -2


def test_a_connection_lost_before_commit_is_an_error_and_nothing_is_committed(
    things: World,
) -> None:
    """A fault of serverless-mysql: it goes on with a new connection, outside the transaction."""
    database = things.database()

    def work() -> None:
        with database.transaction() as cursor:
            add(cursor, "a")
            things.server.end_sessions()
            add(cursor, "b")

    with pytest.raises(pymysql.err.OperationalError):
        invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


@pytest.mark.parametrize("how", ["connection", "transaction", "transactional"])
def test_inside_a_block_that_lost_its_connection_no_new_one_is_given(
    things: World, how: str
) -> None:
    """It would commit the rest of the block without what was lost."""
    database = things.database()

    def rest(cursor: DictCursor) -> None:
        add(cursor, "b")

    def work() -> None:
        with database.transaction() as cursor:
            add(cursor, "a")
            things.server.end_sessions()
            with pytest.raises(pymysql.err.Error):
                add(cursor, "b")
            with pytest.raises(pymysql.err.OperationalError, match="lost"):
                if how == "connection":
                    rest(database.connection().cursor(DictCursor))
                elif how == "transaction":
                    with database.transaction() as inner:
                        rest(inner)
                else:
                    database.transactional(rest)()

    with pytest.raises(pymysql.err.OperationalError, match="before COMMIT"):
        invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


def test_a_loss_that_the_block_swallows_is_not_a_success(things: World) -> None:
    database = things.database()

    def work() -> None:
        with database.transaction() as cursor:
            add(cursor, "a")
            things.server.end_sessions()
            with pytest.raises(pymysql.err.Error):
                add(cursor, "b")

    with pytest.raises(pymysql.err.OperationalError, match="before COMMIT"):
        invoke(database, work)


@pytest.mark.parametrize("arrived", [False, True])
def test_a_connection_lost_during_commit_is_an_unknown_outcome_and_never_replayed(
    things: World, proxy: Proxy, arrived: bool
) -> None:
    """A fault of serverless-mysql: the lost COMMIT is replayed."""
    database = things.database(port=proxy.port)
    runs: list[int] = []

    @database.transactional
    def one(cursor: DictCursor) -> None:
        runs.append(1)
        add(cursor, "a")
        if arrived:
            proxy.cut_before_answering()
        else:
            proxy.cut_before_forwarding()

    with pytest.raises(CommitOutcomeUnknownError) as caught:
        invoke(database, one)
    assert isinstance(caught.value.__cause__, pymysql.err.OperationalError)
    assert runs == [1]
    things.wait_for(lambda: not things.sessions())
    assert things.things()["a"] == (11 if arrived else 1)


def test_a_block_inside_a_transaction_begun_by_hand_is_refused_and_names_it(things: World) -> None:
    """START TRANSACTION would commit implicitly what is open; a savepoint would commit nothing."""
    database = things.database()

    def work() -> None:
        connection = database.connection()
        connection.begin()
        with connection.cursor(DictCursor) as cursor:
            add(cursor, "a")
        with pytest.raises(TransactionControlError, match=r"by hand \(begun at .*in work\)"):
            with database.transaction() as inner:
                add(inner, "b")
        with pytest.raises(TransactionControlError):
            database.transactional(lambda inner: add(inner, "b"))()
        connection.commit()

    invoke(database, work)
    assert things.things() == {"a": 11, "b": 1}


def test_ddl_which_would_commit_half_of_a_block_is_refused_in_it(things: World) -> None:
    things.server.execute("GRANT CREATE ON shop.* TO 'application'@'%'")
    database = things.database()

    def work() -> None:
        with database.transaction() as cursor:
            add(cursor, "a")
            cursor.execute("CREATE TABLE more (n INT)")

    with pytest.raises(TransactionControlError, match="CREATE TABLE was refused"):
        invoke(database, work)
    assert things.things()["a"] == 1


def test_work_aborted_in_one_invocation_is_not_committed_by_the_next(things: World) -> None:
    database = things.database()

    def careless() -> None:
        database.connection().begin()
        with database.connection().cursor(DictCursor) as cursor:
            add(cursor, "a")

    def next_one() -> None:
        with database.transaction() as cursor:
            add(cursor, "b")

    with pytest.raises(UncommittedWorkError, match="begun by hand"):
        invoke(database, careless)
    invoke(database, next_one)
    assert things.things() == {"a": 1, "b": 11}


def test_two_hundred_transactions_are_all_there_or_not_at_all(things: World) -> None:
    database = things.database()

    def work() -> int:
        done = 0
        for number in range(200):
            try:
                with database.transaction() as cursor:
                    add(cursor, "a", 1)
                    if number % 3 == 0:
                        raise ValueError
                    add(cursor, "b", 1)
                    done += 1
            except ValueError:
                pass
        return done

    done = invoke(database, work)
    assert things.things() == {"a": 1 + done, "b": 1 + done}
