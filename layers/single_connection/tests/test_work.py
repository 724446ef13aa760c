"""What was committed is written, what failed is not, and each row belongs to who asked for it.

Where that cannot be given there is an error, never silence.
"""

import asyncio
import contextlib
import contextvars
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.cursors import SSCursor
from single_connection import (
    CommitOutcomeUnknownError,
    Database,
    DeadlineError,
    OutsideInvocationError,
    SecondConnectionError,
    TransactionControlError,
    UncommittedWorkError,
)
from single_connection._statement import classify
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import Alarm, World
from layers.single_connection.tests.network import Proxy
from local.database import LocalDatabase

Error = pymysql.err.Error
ADD = "UPDATE things SET number = number + 1 WHERE name = %s"
ROWS = (
    "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT n FROM s"
)
OVERFLOWS = (  # at its 710th row
    "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) "
    "SELECT REPEAT('x', 100), EXP(n) FROM s"
)


@pytest.fixture
def things(world: World) -> World:
    world.stock(a=0, b=0)
    return world


@pytest.fixture
def database(things: World) -> Database:
    return things.database()


def invoke(database: Database, work: Callable[[], Any], seconds: float = 10.0) -> Any:
    return database.invocation(lambda _event, _context: work())({}, LambdaContext(seconds))


def in_thread(work: Callable[[], Any]) -> "tuple[threading.Thread, list[Any]]":
    """What `work` gives, or the error it raises, once the thread is joined."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(work())
        except Exception as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, came


# A block is its owner's ------------------------------------------------------------------------


def test_a_block_of_another_thread_waits_and_is_not_undone_with_the_first(
    things: World, database: Database
) -> None:
    begun = threading.Event()

    def fails() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            begun.set()
            time.sleep(0.2)
            raise ValueError("rolled back, rightly")

    def succeeds() -> str:
        begun.wait(5)
        with database.transaction() as cursor:
            cursor.execute(ADD, ("b",))
        return "committed"

    def work() -> list[Any]:
        threads = [in_thread(fails), in_thread(succeeds)]
        for thread, _ in threads:
            thread.join()
        return [came[0] for _, came in threads]

    failed, committed = invoke(database, work)
    assert (str(failed), committed) == ("rolled back, rightly", "committed")
    assert things.things() == {"a": 0, "b": 1}


@pytest.mark.parametrize("what", ["block", "statement", "by hand"])
def test_who_waits_for_another_threads_block_until_the_end_is_told_whose_it_is(
    things: World, database: Database, what: str
) -> None:
    def ask() -> None:
        if what == "block":
            with database.transaction():
                pass
        elif what == "by hand":
            database.connection().begin()
        else:
            with database.cursor() as cursor:
                cursor.execute(ADD, ("b",))

    def work() -> Any:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            thread, came = in_thread(ask)
            thread.join()
            raise came[0]

    with pytest.raises(DeadlineError, match=r"block \(begun at .*test_work.py:\d+ in work\)"):
        invoke(database, work, 2.0)
    assert things.things() == {"a": 0, "b": 0}


@pytest.mark.parametrize("dies_later", [False, True])
def test_a_thread_that_ended_with_its_transaction_open_is_not_waited_for(
    things: World, database: Database, dies_later: bool
) -> None:
    left_open: list[Any] = []

    def begin() -> None:
        left_open.append(database.transaction())
        left_open[0].__enter__().execute(ADD, ("a",))
        begun.set()
        time.sleep(0.3 if dies_later else 0)

    def work() -> None:
        thread, _ = in_thread(begin)
        begun.wait()
        if not dies_later:
            thread.join()
        try:
            database.cursor().execute(ADD, ("b",))
        finally:
            thread.join()

    begun, started = threading.Event(), time.monotonic()
    with pytest.raises(TransactionControlError, match="thread that began it has ended"):
        invoke(database, work)
    assert time.monotonic() - started < 5
    assert things.things() == {"a": 0, "b": 0}


def test_another_task_of_the_same_thread_is_refused_at_once(
    things: World, database: Database
) -> None:
    async def block(name: str) -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, (name,))
            await asyncio.sleep(0.01)

    async def both() -> list[Any]:
        return list(await asyncio.gather(block("a"), block("b"), return_exceptions=True))

    first, second = invoke(database, lambda: asyncio.run(both()))
    assert first is None
    assert isinstance(second, TransactionControlError)
    assert "another task" in str(second)
    assert things.things() == {"a": 1, "b": 0}


def test_a_statement_of_another_task_is_refused_and_not_taken_into_the_block(
    things: World, database: Database
) -> None:
    async def block() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            await asyncio.sleep(0.05)
            raise ValueError("undone")

    async def other() -> None:
        with database.cursor() as cursor:
            cursor.execute(ADD, ("b",))

    async def both() -> list[Any]:
        return list(await asyncio.gather(block(), other(), return_exceptions=True))

    _, second = invoke(database, lambda: asyncio.run(both()))
    assert isinstance(second, TransactionControlError)
    assert things.things() == {"a": 0, "b": 0}


def test_tasks_that_run_inside_of_a_block_work_in_it(things: World, database: Database) -> None:
    async def work_in(cursor: Any) -> None:
        cursor.execute(ADD, ("a",))
        with database.transaction() as inner:
            inner.execute(ADD, ("b",))

    def work() -> None:
        with database.transaction() as cursor:
            asyncio.run(work_in(cursor))

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


def test_what_runs_in_a_context_of_its_own_is_outside_of_the_block(
    things: World, database: Database
) -> None:
    """Schedulers of other libraries give each task its context, and nothing else."""

    def nested() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("b",))

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            contextvars.copy_context().run(nested)  # inherited: inside
            with pytest.raises(TransactionControlError):
                contextvars.Context().run(nested)

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


def test_a_greenlet_that_a_block_waits_for_works_in_it(things: World, database: Database) -> None:
    greenlet = pytest.importorskip("greenlet")

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            inner = greenlet.greenlet(lambda: cursor.execute(ADD, ("b",)))
            inner.gr_context = contextvars.copy_context()
            inner.switch()

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


def test_a_statement_that_waits_for_a_block_of_a_connection_that_is_closed_waits_no_more(
    things: World, database: Database
) -> None:
    def work() -> None:
        with contextlib.suppress(Error), database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            connection = database.connection()
            thread, came = in_thread(lambda: connection.cursor().execute(ADD, ("b",)))
            time.sleep(0.1)
            began = time.monotonic()
            connection.close()
            thread.join()
            took.append(time.monotonic() - began)
            told.extend(came)

    took: list[float] = []
    told: list[Any] = []
    invoke(database, work)
    assert took[0] < 2
    assert "closed by hand" in str(told[0])
    assert things.things() == {"a": 0, "b": 0}


def test_two_greenlets_do_not_nest_in_one_another(things: World, database: Database) -> None:
    greenlet = pytest.importorskip("greenlet")

    def block(name: str) -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, (name,))
            greenlet.getcurrent().parent.switch()

    def work() -> None:
        first, second = greenlet.greenlet(block), greenlet.greenlet(block)
        first.switch("a")
        with pytest.raises(TransactionControlError):
            second.switch("b")
        first.switch()

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 0}


def test_no_thread_gets_another_threads_rows(things: World, database: Database) -> None:
    wrong: list[Any] = []

    def ask(number: int) -> None:
        for _ in range(30):
            cursor = database.cursor()
            cursor.execute("SELECT %s AS n, REPEAT('x', 2000) AS filler", (number,))
            rows = cursor.fetchall()
            if [row["n"] for row in rows] != [number]:
                wrong.append((number, rows))

    def work() -> None:
        threads = [in_thread(functools.partial(ask, number)) for number in range(6)]
        for thread, came in threads:
            thread.join()
            assert came == [None]

    invoke(database, work)
    assert not wrong


# The outermost block really begins and commits -------------------------------------------------


@pytest.mark.parametrize(
    "how",
    ["commit()", "rollback()", "begin()", "autocommit(False)", "COMMIT", " /* now */ commit",
     "/*! COMMIT */", "ROLLBACK", "BEGIN", "START TRANSACTION", "SET autocommit = 1",
     "TRUNCATE TABLE things", "CREATE TABLE more (n INT)", "LOCK TABLES things WRITE"],
)  # fmt: skip
def test_what_would_end_a_block_from_inside_is_refused_and_all_of_it_undone(
    things: World, database: Database, how: str
) -> None:
    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            if how.endswith(")") and how[0].islower():
                name, _, argument = how.rstrip(")").partition("(")
                getattr(database.connection(), name)(*([False] if argument else []))
            else:
                cursor.execute(how)

    with pytest.raises(TransactionControlError, match="refused inside"):
        invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


def test_a_commit_in_a_procedure_ends_the_block_in_an_error(things: World) -> None:
    things.server.execute("CREATE PROCEDURE commits() COMMIT")
    things.server.execute("GRANT EXECUTE ON shop.* TO 'application'@'%'")
    database = things.database()

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with contextlib.suppress(TransactionControlError):
                cursor.execute("CALL commits()")
            cursor.execute(ADD, ("b",))

    with pytest.raises(TransactionControlError, match="ended the transaction"):
        invoke(database, work)
    assert things.things() == {"a": 1, "b": 0}


def test_an_error_that_undoes_one_statement_leaves_the_block_as_it_was(
    things: World, database: Database
) -> None:
    """The server's flag tells it from one that undid everything."""

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with pytest.raises(pymysql.err.IntegrityError):
                cursor.execute("INSERT INTO things VALUES ('a', 9)")
            cursor.execute(ADD, ("b",))

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


def test_a_lock_wait_timeout_that_undoes_everything_ends_the_block(
    things: World, tmp_path: Path
) -> None:
    options = ("--innodb-rollback-on-timeout=ON",)
    with LocalDatabase(things.server.server, tmp_path, options=options) as server:
        server.create_application_user()
        strict = World(server)
        strict.stock(a=0, b=0)
        database, other = strict.database(), strict.outsider()
        other.begin()
        with other.cursor() as cursor:
            cursor.execute("SELECT * FROM things WHERE name = 'b' FOR UPDATE")

        def work() -> None:
            with database.transaction() as cursor:
                cursor.execute(ADD, ("a",))
                with contextlib.suppress(pymysql.err.OperationalError):
                    cursor.execute(ADD, ("b",))  # "never mind that one"
                cursor.execute(ADD, ("a",))

        with pytest.raises(pymysql.err.OperationalError, match="1205"):
            invoke(database, work, 4.0)
        other.rollback()
        assert strict.things() == {"a": 0, "b": 0}
        strict.close()


# Autocommit, and what was set by hand ----------------------------------------------------------


def test_autocommit_is_on_where_the_servers_default_is_off(things: World) -> None:
    things.server.execute("SET GLOBAL autocommit = 0")
    try:
        database = things.database()

        def work() -> None:
            with database.cursor() as cursor:
                cursor.execute(ADD, ("a",))

        invoke(database, work)
        assert things.things()["a"] == 1

        # And the first thing that is asked of a connection is heeded.
        def off() -> int:
            database.connection().autocommit(False)
            return autocommit(database)

        assert invoke(database, off) == 0
    finally:
        things.server.execute("SET GLOBAL autocommit = 1")


def autocommit(database: Database) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT @@autocommit AS n")
        row = cursor.fetchone()
    assert row is not None
    return int(row["n"])


def test_a_handler_that_forgets_to_commit_gets_an_error_that_says_where_it_began(
    things: World, database: Database
) -> None:
    def work() -> str:
        connection = database.connection()
        connection.autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute(ADD, ("a",))
        return "no error, no log line"

    with pytest.raises(UncommittedWorkError, match=r"begun at .*test_work.py:\d+ in work"):
        invoke(database, work)
    assert things.things()["a"] == 0


def test_a_transaction_by_hand_that_changed_nothing_may_be_left_open(database: Database) -> None:
    def work() -> str:
        database.connection().begin()
        with database.cursor() as cursor:
            cursor.execute("SELECT * FROM things FOR UPDATE")
        return "done"

    assert invoke(database, work) == "done"


def test_by_hand_works_as_it_does_with_pymysql(things: World, database: Database) -> None:
    def work() -> None:
        connection = database.connection()
        connection.begin()
        with connection.cursor() as cursor:
            cursor.execute(ADD, ("a",))
        connection.commit()
        connection.begin()
        with connection.cursor() as cursor:
            cursor.execute(ADD, ("b",))
        connection.rollback()

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 0}


@pytest.mark.parametrize("statement", ["SET time_zone = '+05:00'", "USE shop", "SET @mine = 1"])
def test_what_was_set_by_hand_and_lost_with_the_connection_is_said_once(
    things: World, database: Database, statement: str
) -> None:
    def work() -> None:
        with database.cursor() as cursor:
            cursor.execute(statement)
        things.server.end_sessions()
        with pytest.raises(Error):
            database.connection().ping()
        with pytest.raises(pymysql.err.OperationalError, match="what was set by hand"):
            database.connection()
        database.connection().ping()

    invoke(database, work)


# Whatever is not the server's own error ends the connection -------------------------------------


def test_a_stream_that_another_statement_disturbs_is_an_error_to_its_reader(
    things: World, database: Database
) -> None:
    def work() -> int:
        seen = 0
        cursor = database.connection().cursor(SSCursor)
        cursor.execute(ROWS)
        with pytest.raises(pymysql.err.ProgrammingError, match="another statement came"):
            for _ in cursor:
                seen += 1
                with database.cursor() as other:
                    other.execute(ADD, ("a",))
        return seen

    assert invoke(database, work) == 1
    assert things.things()["a"] == 1


def test_a_stream_that_is_left_early_costs_no_time_and_hides_no_error(
    things: World, database: Database
) -> None:
    def work() -> None:
        with database.connection().cursor(SSCursor) as cursor:
            cursor.execute("SELECT REPEAT('x', 1000) FROM seq a, seq b, seq c, seq d, seq e")
            cursor.fetchone()
            raise ValueError("mine")

    things.server.execute("CREATE TABLE seq (n INT)")
    things.server.execute("INSERT INTO seq VALUES " + ",".join(f"({n})" for n in range(30)))
    began = time.monotonic()
    with pytest.raises(ValueError, match="mine"):
        invoke(database, work)
    assert time.monotonic() - began < 5
    assert not things.sessions()


@pytest.mark.parametrize("rows", [ROWS, OVERFLOWS], ids=["rows", "an error behind them"])
def test_a_short_stream_that_is_left_early_keeps_the_transaction(
    things: World, database: Database, rows: str
) -> None:
    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with database.connection().cursor(SSCursor) as stream:
                stream.execute(rows)
                stream.fetchone()
            cursor.execute(ADD, ("b",))

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


def test_a_converter_that_fails_leaves_no_rows_for_the_next_query(
    things: World, database: Database
) -> None:
    def fails(_data: str) -> None:
        raise ArithmeticError("a converter's own")

    def work() -> Any:
        connection = database.connection()
        connection.decoders = {**connection.decoders, 3: fails, 8: fails}
        with pytest.raises(ArithmeticError), connection.cursor() as cursor:
            cursor.execute(ROWS)
        with database.cursor() as cursor:
            cursor.execute("SELECT 'mine' AS n")
            return cursor.fetchall()

    assert list(invoke(database, work)) == [{"n": "mine"}]


def test_a_statement_larger_than_the_server_takes_says_so(things: World) -> None:
    """The server's last word is read before "gone away" is said."""
    database = things.database()

    def work() -> None:
        with database.cursor() as cursor:
            cursor.execute("SHOW VARIABLES LIKE 'max_allowed_packet'")
            row = cursor.fetchone()
            assert row is not None
            cursor.execute("SELECT LENGTH(%s)", ("x" * (int(row["Value"]) + 4096),))

    with pytest.raises(pymysql.err.OperationalError, match=r"1153|2006|2013") as caught:
        invoke(database, work, 20.0)
    if things.flavor == "mysql":
        assert caught.value.args[0] == 1153


@pytest.mark.parametrize("by", ["method", "text"])
def test_a_commit_by_hand_that_is_lost_is_of_unknown_outcome(
    things: World, proxy: Proxy, by: str
) -> None:
    database = things.database(port=proxy.port)

    def work() -> None:
        connection = database.connection()
        connection.begin()
        with connection.cursor() as cursor:
            cursor.execute(ADD, ("a",))
            proxy.cut_before_answering()
            if by == "method":
                connection.commit()
            else:
                cursor.execute("COMMIT")

    with pytest.raises(CommitOutcomeUnknownError):
        invoke(database, work)


def test_a_lost_statement_says_what_became_of_the_work(things: World, proxy: Proxy) -> None:
    database = things.database(port=proxy.port)

    def reads() -> None:
        with database.cursor() as cursor:
            cursor.execute("SELECT 1")
            proxy.cut_before_answering()
            cursor.execute("SELECT 2")

    def writes() -> None:
        with database.cursor() as cursor:
            cursor.execute("SELECT 1")
            proxy.cut_before_answering()
            cursor.execute(ADD, ("a",))

    with pytest.raises(pymysql.err.OperationalError, match="nothing was changed"):
        invoke(database, reads)
    with pytest.raises(pymysql.err.OperationalError, match="carried out is not known"):
        invoke(database, writes)


# A user's string is data ------------------------------------------------------------------------

EVIL = ["' OR 1=1 -- ", "\\' OR 1=1 -- ", "\\", "it's", 'say "x"', "a\0b", "a\nb\x1a"]


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES"])
@pytest.mark.parametrize("how", ["init_connect", "sql_mode"])
def test_a_string_is_stored_as_it_was_given_whatever_the_servers_mode(
    things: World, mode: str, how: str
) -> None:
    things.server.execute("CREATE TABLE texts (t VARCHAR(50))")
    if how == "init_connect":
        things.server.execute("SET GLOBAL init_connect = %s", f"SET sql_mode = '{mode}'")
    else:
        things.server.execute("SET GLOBAL sql_mode = %s", mode)
    try:
        for text in EVIL:
            database = things.database()

            def first(text: str = text, database: Database = database) -> Any:
                with database.cursor() as cursor:
                    cursor.execute("SELECT t FROM texts WHERE t IN %s", ([text],))
                    return cursor.fetchall()

            def write(text: str = text, database: Database = database) -> Any:
                with database.cursor() as cursor:
                    cursor.execute("INSERT INTO texts VALUES (%s)", (text,))

            assert list(invoke(database, first)) == []
            invoke(database, write)
            assert [row["t"] for row in invoke(database, first)] == [text]
    finally:
        things.server.execute("SET GLOBAL init_connect = ''")
        things.server.execute("SET GLOBAL sql_mode = DEFAULT")


# Beyond the invocation -------------------------------------------------------------------------


def test_a_connection_kept_in_a_global_says_so_in_the_next_invocation(database: Database) -> None:
    kept = invoke(database, database.connection)
    with pytest.raises(OutsideInvocationError, match="keep none in a global"):
        invoke(database, lambda: kept.cursor().execute("SELECT 1"))


@pytest.mark.parametrize("kind", ["coroutine", "generator", "async generator", "partial", "object"])
def test_transactional_refuses_what_returns_before_its_work_is_done(
    database: Database, kind: str
) -> None:
    async def coroutine(_cursor: Any) -> None:
        """Nothing."""

    def generator(_cursor: Any) -> Any:
        yield 1

    async def async_generator(_cursor: Any) -> Any:
        yield 1

    class Callable:
        async def __call__(self, _cursor: Any) -> None:
            """Nothing."""

    functions: dict[str, Any] = {
        "object": Callable(),
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
        "partial": functools.partial(coroutine),
    }
    with pytest.raises(TypeError, match="before its work is done"):
        database.transactional(functions[kind])
    with pytest.raises(TypeError, match="before its work is done"):
        database.invocation(functions[kind])


def test_tcp_fast_open_is_refused_like_any_other_connect(things: World) -> None:
    import socket

    database = things.database()

    def work() -> None:
        with socket.socket() as sock, pytest.raises(SecondConnectionError):
            sock.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", things.server.port))

    invoke(database, work)


def test_one_block_may_be_used_again_but_not_inside_of_itself(
    things: World, database: Database
) -> None:
    def work() -> None:
        block = database.transaction()
        for _ in range(2):
            with block as cursor:
                cursor.execute(ADD, ("a",))
        with pytest.raises(TransactionControlError, match="entered again"), block as cursor:
            cursor.execute(ADD, ("b",))
            with block:
                pass

    invoke(database, work)
    assert things.things() == {"a": 2, "b": 0}


# Procedures, prepared statements, generators ----------------------------------------------------


@pytest.fixture
def procedures(things: World) -> World:
    """One that undoes, commits, fails or goes on behind an answer that it has given already."""
    run = things.server.execute
    for name, body in {
        "undoes": "SELECT 1; ROLLBACK",
        "commits": "START TRANSACTION; UPDATE things SET number = 1; SELECT 1; COMMIT",
        "begins_anew": "ROLLBACK; START TRANSACTION",
        "changes": "UPDATE things SET number = number + 1",
        "fails": "START TRANSACTION; UPDATE things SET number = 1; SIGNAL SQLSTATE '45000'",
        "answers_twice": "SELECT 1; SELECT 2",
        "switches_off": "SET autocommit = 0",
        "goes_on": "SELECT 1; DO SLEEP(0.3); UPDATE things SET number = 1",
    }.items():
        run(f"DROP PROCEDURE IF EXISTS {name}")
        run(f"CREATE PROCEDURE {name}() BEGIN {body}; END")
        run(f"GRANT EXECUTE ON PROCEDURE {name} TO application")
    return things


@pytest.mark.parametrize("reads_all", [False, True])
def test_a_procedure_that_undoes_the_block_behind_its_first_answer_is_an_error(
    procedures: World, reads_all: bool
) -> None:
    database = procedures.database()

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            cursor.callproc("undoes")
            while reads_all and cursor.nextset():
                pass

    with pytest.raises(TransactionControlError, match="CALL ended the transaction"):
        invoke(database, work)
    assert procedures.things() == {"a": 0, "b": 0}


def test_a_procedure_that_commits_behind_its_first_answer_has_left_nothing_open(
    procedures: World,
) -> None:
    database = procedures.database()

    def work() -> None:
        with database.cursor() as cursor:
            cursor.callproc("commits")
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))

    invoke(database, work)
    assert procedures.things() == {"a": 2, "b": 1}


def test_a_procedure_whose_last_answers_nobody_reads_is_not_killed_half_way(
    procedures: World,
) -> None:
    database = procedures.database()
    invoke(database, lambda: database.connection().cursor().callproc("goes_on"))
    assert procedures.things() == {"a": 1, "b": 1}


def test_a_query_that_is_executed_by_name_is_no_change(database: Database) -> None:
    def work() -> Any:
        database.connection().begin()
        with database.cursor() as cursor:
            cursor.execute("PREPARE numbers FROM 'SELECT number FROM things'")
            return cursor.execute("EXECUTE numbers")

    assert invoke(database, work) == 2


def test_beside_another_threads_block_a_function_is_run_again_as_elsewhere(
    things: World, database: Database
) -> None:
    begun, tries = threading.Event(), []

    @database.transactional
    def add(cursor: Any) -> None:
        tries.append(cursor.execute(ADD, ("a",)))
        if len(tries) == 1:
            raise pymysql.err.OperationalError(1213, "played")

    def other() -> None:
        with database.transaction():
            begun.set()
            time.sleep(0.2)

    def work() -> None:
        thread, _ = in_thread(other)
        begun.wait()
        second, came = in_thread(add)
        thread.join()
        second.join()
        assert came == [None]

    invoke(database, work)
    assert len(tries) == 2
    assert things.things() == {"a": 1, "b": 0}


@pytest.mark.parametrize("nested", [False, True])
def test_a_procedure_that_puts_another_transaction_in_the_blocks_place_is_an_error(
    procedures: World, nested: bool
) -> None:
    database = procedures.database()

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with database.transaction() if nested else contextlib.nullcontext():
                cursor.callproc("begins_anew")
            cursor.execute(ADD, ("b",))

    with pytest.raises(TransactionControlError, match="ended its transaction and began another"):
        invoke(database, work)
    assert procedures.things() == {"a": 0, "b": 0}


def test_a_transaction_that_a_failed_procedure_left_is_not_committed_by_the_next_block(
    procedures: World,
) -> None:
    database = procedures.database()

    def work() -> None:
        with contextlib.suppress(Error), database.cursor() as cursor:
            cursor.callproc("fails")
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))

    invoke(database, work)
    assert procedures.things() == {"a": 1, "b": 0}


def test_procedures_and_savepoints_by_hand_work_inside_a_block(procedures: World) -> None:
    database = procedures.database()

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute("SAVEPOINT mine")
            cursor.callproc("changes")
            cursor.execute("ROLLBACK TO SAVEPOINT mine")
            cursor.callproc("changes")
            with contextlib.suppress(ValueError), database.transaction():
                cursor.callproc("changes")
                raise ValueError
            cursor.callproc("changes")

    invoke(database, work)
    assert procedures.things() == {"a": 2, "b": 2}


def test_rows_that_were_changed_in_a_generator_that_is_dropped_are_not_lost_in_silence(
    things: World, database: Database
) -> None:
    def rows() -> Iterator[Any]:
        with database.transaction() as cursor:
            cursor.execute("SELECT name FROM things FOR UPDATE")
            yield from cursor.fetchall()

    def work() -> str:
        for row in rows():
            with database.cursor() as cursor:
                cursor.execute(ADD, (row["name"],))
            break
        return "well"

    with pytest.raises(UncommittedWorkError, match=r"a generator was dropped .* in rows"):
        invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


def test_a_generator_that_only_reads_may_be_dropped(database: Database) -> None:
    def rows() -> Iterator[Any]:
        with database.transaction() as cursor:
            cursor.execute("SELECT name FROM things")
            yield from cursor.fetchall()

    assert invoke(database, lambda: next(rows())) == {"name": "a"}


def test_ddl_that_fails_has_committed_what_came_before_and_the_work_goes_on(
    things: World, database: Database
) -> None:
    things.server.execute("GRANT CREATE ON things TO application")

    def work() -> None:
        connection = database.connection()
        connection.autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute(ADD, ("a",))
            with pytest.raises(Error, match="already exists"):
                cursor.execute("CREATE TABLE things (n INT)")
            cursor.execute(ADD, ("b",))
        connection.commit()

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 1}


def test_ddl_that_is_lost_may_have_committed_what_came_before(things: World, proxy: Proxy) -> None:
    database = things.database(port=proxy.port)
    things.server.execute("GRANT CREATE ON things TO application")

    def work() -> None:
        database.connection().begin()
        with database.cursor() as cursor:
            cursor.execute(ADD, ("a",))
            proxy.cut_before_answering()
            cursor.execute("CREATE TABLE IF NOT EXISTS things (n INT)")

    with pytest.raises(CommitOutcomeUnknownError, match="lost during CREATE TABLE"):
        invoke(database, work)


def test_a_with_block_that_closes_the_connection_over_uncommitted_rows_says_so(
    things: World, database: Database
) -> None:
    def work(error: Exception | None = None) -> None:
        with database.connection() as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.execute(ADD, ("a",))
            if error is not None:
                raise error

    with pytest.raises(UncommittedWorkError, match="commit before its end"):
        invoke(database, work)
    with pytest.raises(KeyError):
        invoke(database, lambda: work(KeyError("a")))
    assert things.things() == {"a": 0, "b": 0}


def test_a_statement_in_the_middle_of_another_is_refused_and_harms_neither(
    database: Database,
) -> None:
    said: list[Any] = []

    def ask(*_: object) -> None:
        try:
            with database.cursor() as cursor:
                cursor.execute("SELECT 'inner'")
        except Error as error:
            said.append(str(error))

    def work() -> Any:
        with database.connection().cursor() as cursor:
            before = signal.signal(signal.SIGALRM, ask)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                cursor.execute("SELECT SLEEP(0.5), 'outer'")
            finally:
                signal.signal(signal.SIGALRM, before)
            row = cursor.fetchone()
            cursor.execute("SELECT 'next'")
            return row, cursor.fetchone()

    assert invoke(database, work) == ((0, "outer"), ("next",))
    assert len(said) == 1
    assert "in the middle of another one" in said[0]


@pytest.mark.parametrize("sql", ["SET NAMES gbk", "SET character_set_client = 'sjis'"])
def test_an_encoding_that_hides_a_quote_is_set_by_method_alone(
    things: World, database: Database, sql: str
) -> None:
    nobody = "\u7e17' OR 1=1 -- "

    def work() -> list[int]:
        with database.cursor() as cursor:
            with pytest.raises(Error, match="set_character_set"):
                cursor.execute(sql)
            cursor.execute("SET NAMES utf8mb4")
            found = [cursor.execute("SELECT name FROM things WHERE name = %s", (nobody,))]
            database.connection().set_character_set("gbk")
            return [*found, cursor.execute("SELECT name FROM things WHERE name = %s", (nobody,))]

    assert invoke(database, work) == [0, 0]


@pytest.mark.parametrize(
    ("sql", "ends", "reads"),
    [("COMMIT", True, False), ("-- hi\nROLLBACK TO x", False, False), ("(SELECT 1)", False, True),
     ("/*!50000 COMMIT*/", True, False), ("CREATE TEMPORARY TABLE t (n INT)", False, False),
     ("SET @@session.autocommit = 1", True, False), ("", False, False), ("BEGIN;", True, False),
     (b"insert into t values (1)", False, False), ("START SLAVE", False, False),
     ("ROLLBACK WORK TO x", False, False), ("COMMIT WORK", True, False),
     ("WITH x AS (SELECT 1) UPDATE t SET n = 1", False, False),
     ("WITH x AS (SELECT 1) SELECT * FROM x FOR UPDATE", False, True)],
)  # fmt: skip
def test_a_statement_is_known_by_its_first_words(sql: str, ends: bool, reads: bool) -> None:
    statement = classify(sql)
    assert (statement.ends_transaction, statement.reads) == (ends, reads)


# Whatever else strikes a stream, a loan or a block ----------------------------------------------


@contextlib.contextmanager
def waits_for_its_turn(work: Callable[[], Any], connection: Any) -> "Iterator[list[Any]]":
    """`work` has begun in a thread, and waits for the server until the block is left."""
    with connection.turns.lock:
        thread, came = in_thread(work)
        time.sleep(0.1)
        assert not came
        yield came
    thread.join()


@pytest.mark.parametrize("lost", [False, True])
def test_a_stream_that_is_disturbed_while_its_reader_waits_for_a_turn_is_no_end_of_it(
    things: World, database: Database, lost: bool
) -> None:
    def work() -> Any:
        connection = database.connection()
        stream = connection.cursor(SSCursor)
        stream.execute(ROWS)
        stream.fetchone()
        with waits_for_its_turn(stream.fetchone, connection) as came:
            if lost:
                things.server.end_sessions()
            with contextlib.suppress(Error), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        return came[0]

    raised = invoke(database, work)
    assert isinstance(raised, pymysql.err.ProgrammingError)
    assert "rows of a stream are missing" in str(raised)


def test_a_stream_that_is_closed_while_another_statement_runs_leaves_its_answer_alone(
    database: Database,
) -> None:
    def work() -> Any:
        connection = database.connection()
        stream = connection.cursor(SSCursor)
        stream.execute(ROWS)
        stream.fetchone()
        locked = threading.Event()

        def other() -> Any:
            with connection.turns.lock, connection.cursor() as cursor:
                locked.set()
                time.sleep(0.1)
                cursor.execute("SELECT 'mine'")
                return cursor.fetchall()

        thread, came = in_thread(other)
        locked.wait(5)
        stream.close()
        thread.join()
        return came

    assert invoke(database, work) == [(("mine",),)]


def test_an_error_of_the_servers_in_mid_stream_is_its_readers_and_the_block_goes_on(
    things: World, database: Database
) -> None:
    def work() -> int:
        read = 0
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with database.connection().cursor(SSCursor) as stream:
                stream.execute(OVERFLOWS)
                with pytest.raises(Error, match="1690"):
                    for _ in stream:
                        read += 1
            cursor.execute(ADD, ("b",))
        return read

    assert invoke(database, work) == 709
    assert things.things() == {"a": 1, "b": 1}


def test_a_stream_whose_connection_is_lost_says_what_became_of_the_block(
    things: World, proxy: Proxy
) -> None:
    database = things.database(port=proxy.port)

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with database.connection().cursor(SSCursor) as stream:
                stream.execute("SELECT REPEAT('x', 100000) FROM many")
                stream.fetchone()
                proxy.cut_before_answering()
                for _ in stream:
                    pass

    things.server.execute("CREATE TABLE many (n INT)")
    things.server.execute("INSERT INTO many VALUES " + ",".join(["(1)"] * 400))
    with pytest.raises(pymysql.err.OperationalError, match=r"nothing of .* is written"):
        invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


def test_an_alarm_while_a_left_stream_is_read_to_its_end_comes_out_and_costs_the_connection(
    things: World, database: Database, alarm: Callable[[float], None]
) -> None:
    def work() -> None:
        stream = database.connection().cursor(SSCursor)
        stream.execute("SELECT REPEAT('x', 40000), SLEEP(IF(name = 'b', 5, 0)) FROM things")
        stream.fetchone()
        alarm(0.05)
        stream.close()

    with pytest.raises(Alarm):
        invoke(database, work)
    things.wait_for(lambda: not things.sessions())


def test_an_alarm_behind_a_statements_error_comes_out_and_ends_the_block(
    things: World, proxy: Proxy, alarm: Callable[[float], None]
) -> None:
    database, released = things.database(port=proxy.port), threading.Event()

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with pytest.raises(Alarm):
                answers = iter([True])
                proxy._on_server = lambda: next(answers, None) or released.wait(1)
                alarm(0.3)
                cursor.execute("INSERT INTO things VALUES ('a', 9)")

    with pytest.raises(pymysql.err.OperationalError, match="lost before COMMIT"):
        invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


def test_answers_that_another_threads_statement_took_away_are_no_end_of_them(
    procedures: World,
) -> None:
    database = procedures.database()

    def work() -> None:
        with database.cursor() as cursor:
            cursor.callproc("answers_twice")
            thread, came = in_thread(lambda: database.cursor().execute("SELECT 1"))
            thread.join()
            assert came == [1]
            with pytest.raises(pymysql.err.ProgrammingError, match="another statement came"):
                cursor.nextset()

    invoke(database, work)


def test_ddl_that_fails_behind_a_failed_insert_leaves_nothing_to_be_told(
    things: World, database: Database
) -> None:
    """Autocommit off: the insert that failed has begun a transaction in which nothing changed."""
    things.server.execute("GRANT CREATE ON things TO application")

    def work() -> None:
        connection = database.connection()
        connection.autocommit(False)
        with connection.cursor() as cursor:
            with pytest.raises(Error, match="Duplicate"):
                cursor.execute("INSERT INTO things VALUES ('a', 9)")
            with pytest.raises(Error, match="already exists"):
                cursor.execute("CREATE TABLE things (n INT)")
            cursor.execute(ADD, ("b",))
        connection.commit()

    invoke(database, work)
    assert things.things() == {"a": 0, "b": 1}


def test_a_connection_that_dies_behind_a_statements_error_ends_the_block(
    things: World, proxy: Proxy
) -> None:
    database = things.database(port=proxy.port)

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            answers = iter([True, False])
            proxy._on_server = lambda: next(answers)
            with pytest.raises(pymysql.err.IntegrityError, match="Duplicate"):
                cursor.execute("INSERT INTO things VALUES ('a', 9)")

    with pytest.raises(pymysql.err.OperationalError, match="lost before COMMIT"):
        invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


@pytest.mark.parametrize("told", [False, True])
def test_who_goes_on_by_hand_after_an_error_of_another_kind_is_told_of_the_loss_or_rolls_back(
    things: World, database: Database, told: bool
) -> None:
    def fails(_data: str) -> None:
        raise ArithmeticError("a converter's own")

    def work() -> None:
        connection = database.connection()
        connection.begin()
        with connection.cursor() as cursor:
            cursor.execute(ADD, ("a",))
            connection.decoders = {**connection.decoders, 3: fails}
            with pytest.raises(ArithmeticError):
                cursor.execute("SELECT number FROM things")
        if told:
            with pytest.raises(pymysql.err.OperationalError, match=r"nothing of .* is written"):
                database.connection()
        else:
            connection.rollback()
        with database.cursor() as cursor:
            cursor.execute(ADD, ("b",))

    invoke(database, work)
    assert things.things() == {"a": 0, "b": 1}


def test_a_lost_connection_that_is_kept_says_that_it_is_not_opened_again(
    things: World, database: Database
) -> None:
    def work() -> None:
        kept = database.connection()
        kept.ping()
        things.server.end_sessions()
        with pytest.raises(Error):
            kept.ping()
        with pytest.raises(pymysql.err.OperationalError, match="not opened again"):
            kept.ping()

    invoke(database, work)


def test_what_pymysql_offers_beside_queries_works(things: World, database: Database) -> None:
    def work() -> None:
        connection = database.connection()
        connection.select_db("shop")
        assert connection.get_server_info()[0].isdigit()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 + '2x'")
        assert "2x" in str(connection.show_warnings())
        assert connection.thread_id() == connection.thread_id()

    invoke(database, work)


def test_a_connection_that_is_closed_inside_of_a_block_writes_nothing(
    things: World, database: Database
) -> None:
    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            database.connection().close()

    with pytest.raises(pymysql.err.OperationalError, match="closed by hand"):
        invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


def test_a_connection_is_closed_under_a_thread_that_waits_for_an_answer(
    things: World, database: Database
) -> None:
    def work() -> Any:
        connection = database.connection()
        thread, came = in_thread(lambda: connection.cursor().execute("SELECT SLEEP(5)"))
        things.wait_for(lambda: things.busy("SLEEP(5)"))
        connection.close()
        thread.join(1.0)
        return came[0]

    assert "closed by hand" in str(invoke(database, work))


def test_answers_that_nobody_read_do_not_keep_a_session_from_ending(
    procedures: World,
) -> None:
    database = procedures.database()

    def work() -> None:
        connection = database.connection()
        connection.cursor().callproc("answers_twice")
        connection.close()
        assert not procedures.sessions()
        with database.transaction() as cursor:
            cursor.execute(ADD, ("b",))

    invoke(database, work)
    assert procedures.things() == {"a": 0, "b": 1}


def test_closing_waits_a_second_at_most_for_a_thread_that_is_stuck_in_a_converter(
    database: Database,
) -> None:
    stuck, go = threading.Event(), threading.Event()

    def waits(_data: str) -> None:
        stuck.set()
        go.wait(5)

    def work() -> float:
        connection = database.connection()
        connection.decoders = {**connection.decoders, 3: waits, 8: waits}
        thread, _ = in_thread(lambda: connection.cursor().execute("SELECT 1"))
        stuck.wait(5)
        began = time.monotonic()
        connection.close()
        took = time.monotonic() - began
        go.set()
        thread.join()
        return took

    assert invoke(database, work) < 2


def test_a_server_that_is_gone_before_its_end_was_read_is_not_called_gone(
    database: Database,
) -> None:
    """Another thread's statement, between goodbye and the server's answer to it."""

    def work() -> bool:
        connection = database.connection()
        until = time.monotonic() + 5
        assert connection.say_goodbye(until)
        with pytest.raises(Error):
            connection.cursor().execute("SELECT 1")
        return bool(connection.is_gone(until))

    assert not invoke(database, work)


def test_an_inner_block_that_ends_after_its_outer_one_is_told_so(
    things: World, database: Database
) -> None:
    def work() -> None:
        outer, inner = database.transaction(), database.transaction()
        outer.__enter__().execute(ADD, ("a",))
        inner.__enter__().execute(ADD, ("b",))
        with pytest.raises(TransactionControlError, match="still open inside of it"):
            outer.__exit__(None, None, None)
        with pytest.raises(TransactionControlError, match="after the one that it was inside of"):
            inner.__exit__(None, None, None)

    invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


def test_a_block_whose_beginning_is_lost_has_not_begun(things: World, database: Database) -> None:
    def work() -> None:
        database.connection().ping()
        things.server.end_sessions()
        with pytest.raises(pymysql.err.OperationalError):
            with database.transaction():
                raise AssertionError("not begun")
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 0}


def test_a_block_that_waited_for_one_that_lost_the_connection_is_told_and_may_try_again(
    things: World, database: Database
) -> None:
    def block() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("b",))

    def work() -> Any:
        with contextlib.suppress(Error), database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            thread, came = in_thread(block)
            time.sleep(0.1)
            things.server.end_sessions()
            cursor.execute(ADD, ("a",))
        thread.join()
        block()
        return came[0]

    assert isinstance(invoke(database, work), pymysql.err.OperationalError)
    assert things.things() == {"a": 0, "b": 1}


@pytest.mark.parametrize("at", ["RELEASE", "ROLLBACK"])
def test_a_connection_lost_as_a_block_ends_hides_no_error_and_writes_nothing(
    things: World, proxy: Proxy, at: str
) -> None:
    database = things.database(port=proxy.port)

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))
            with contextlib.nullcontext() if at == "ROLLBACK" else database.transaction():
                proxy.cut_before_answering()
                if at == "ROLLBACK":
                    raise ValueError("mine")

    with pytest.raises(ValueError if at == "ROLLBACK" else pymysql.err.OperationalError):
        invoke(database, work)
    assert things.things() == {"a": 0, "b": 0}


def test_a_procedure_that_switches_autocommit_off_does_so_until_the_block_ends(
    procedures: World,
) -> None:
    database = procedures.database()

    def work() -> None:
        with database.transaction() as cursor:
            cursor.callproc("switches_off")
            cursor.execute(ADD, ("a",))
        with database.cursor() as cursor:
            cursor.execute(ADD, ("b",))

    invoke(database, work)
    assert procedures.things() == {"a": 1, "b": 1}


@pytest.mark.parametrize("switched_off", [False, True])
def test_after_a_loan_autocommit_is_as_it_was(
    things: World, database: Database, switched_off: bool
) -> None:
    """Who had switched it off believes that a rollback undoes what comes after the loan."""

    def work() -> None:
        connection = database.connection()
        if switched_off:
            connection.autocommit(False)
        hold = connection.borrow("a library", "here")
        with hold.here(), connection.cursor() as cursor:
            cursor.execute(ADD, ("a",))
            connection.commit()
        connection.give_back(hold)
        with connection.cursor() as cursor:
            cursor.execute(ADD, ("b",))
        connection.rollback()

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 0 if switched_off else 1}


@pytest.mark.parametrize("when", ["borrowed", "given back"])
def test_a_connection_lost_as_it_is_lent_leaves_no_loan(
    things: World, database: Database, when: str
) -> None:
    def work() -> None:
        connection = database.connection()
        connection.ping()
        if when == "given back":
            hold = connection.borrow("a library", "here")
        things.server.end_sessions()
        if when == "given back":
            connection.give_back(hold)
        else:
            with pytest.raises(pymysql.err.OperationalError):
                connection.borrow("a library", "here")
        with database.transaction() as cursor:
            cursor.execute(ADD, ("a",))

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 0}
