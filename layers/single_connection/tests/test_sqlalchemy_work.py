"""What SQLAlchemy says is written is written, and nothing else is."""

import asyncio
import contextlib
import datetime as dt
import gc
import threading
import time
from typing import Any

import pymysql
import pytest
from single_connection import (
    CommitOutcomeUnknownError,
    Database,
    DeadlineError,
    SecondConnectionError,
    Settings,
    TransactionControlError,
    UncommittedWorkError,
)
from single_connection.sqlalchemy import create_engine

from layers.single_connection.tests.conftest import World, invoke
from layers.single_connection.tests.network import Proxy
from local.delay_proxy import DelayProxy

sqlalchemy = pytest.importorskip("sqlalchemy", reason="run `pip install SQLAlchemy`")
orm = pytest.importorskip("sqlalchemy.orm")
text = sqlalchemy.text

ADD = text("UPDATE things SET number = number + 10 WHERE name = :name")
NUMBERS = text(
    "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT n FROM s"
)


@pytest.fixture
def things(world: World) -> World:
    world.stock(a=1, b=1)
    return world


def defining(world: World) -> Any:
    """A database whose user may define tables."""
    return Database(Settings.from_environment(world.server.master_environ()))


def add_plainly(database: Any, name: str) -> None:
    with database.connection().cursor() as cursor:
        cursor.execute("UPDATE things SET number = number + 10 WHERE name = %s", (name,))


def ask(database: Any, sql: str) -> Any:
    with database.connection().cursor() as cursor:
        cursor.execute(sql)
        row: Any = cursor.fetchone()
        return row[-1]


# Autocommit and isolation


@pytest.mark.parametrize("how", ["engine", "option"])
@pytest.mark.parametrize(
    "level", ["AUTOCOMMIT", "READ COMMITTED", "SERIALIZABLE", "READ UNCOMMITTED"]
)
def test_an_isolation_level_lasts_for_its_checkout(things: World, how: str, level: str) -> None:
    """Whichever it is, what is written is written, and autocommit is on again behind it."""
    database = things.database()
    if how == "engine":
        engine = create_engine(database, isolation_level=level)
    else:
        engine = create_engine(database).execution_options(isolation_level=level)

    def work() -> None:
        database.connection().query("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        for _ in range(2):
            with engine.connect() as connection:
                connection.execute(ADD, {"name": "a"})
                if level != "AUTOCOMMIT":
                    assert connection.get_isolation_level() == level
                    connection.commit()
            with contextlib.suppress(ValueError), engine.begin() as connection:
                connection.execute(ADD, {"name": "b"})
                raise ValueError
            assert ask(database, "SHOW SESSION VARIABLES LIKE 't%isolation'") == "SERIALIZABLE"
            assert ask(database, "SELECT @@autocommit") == 1
            add_plainly(database, "a")
            with database.transaction() as cursor:
                cursor.execute("UPDATE things SET number = number + 10 WHERE name = 'a'")

    invoke(database, work)
    assert things.things() == {"a": 61, "b": 21 if level == "AUTOCOMMIT" else 1}


def test_ddl_ends_the_transaction_and_what_follows_is_another(things: World) -> None:
    """As it is everywhere with MySQL: what comes after the DDL can still be undone."""
    database = defining(things)
    engine = create_engine(database)

    def work() -> None:
        with contextlib.suppress(ValueError), engine.begin() as connection:
            connection.execute(ADD, {"name": "a"})
            connection.execute(text("CREATE TABLE more (n INT)"))
            connection.execute(ADD, {"name": "b"})
            connection.execute(text("INSERT INTO more VALUES (1)"))
            raise ValueError

    invoke(database, work)
    assert things.things() == {"a": 11, "b": 1}
    assert things.server.execute("SELECT COUNT(*) AS n FROM more") == [{"n": 0}]


def test_what_a_failed_procedure_has_done_is_rolled_back(things: World) -> None:
    """After an error the server's flags are stale: nobody may take them for its word."""
    things.server.execute(
        "CREATE PROCEDURE half() BEGIN UPDATE things SET number = 7; "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END"
    )
    things.server.execute(f"GRANT EXECUTE ON {things.server.name}.* TO 'application'@'%'")
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with pytest.raises(sqlalchemy.exc.OperationalError, match="no"):
            with engine.connect() as connection:
                connection.execute(text("CALL half()"))
        add_plainly(database, "b")

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 11}


def test_a_loan_that_ends_with_an_error_leaves_nothing_of_it(things: World) -> None:
    """As where the collector ends it, and SQLAlchemy cannot roll back by itself."""
    things.server.execute(
        "CREATE PROCEDURE half() BEGIN UPDATE things SET number = 7; "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END"
    )
    things.server.execute(f"GRANT EXECUTE ON {things.server.name}.* TO 'application'@'%'")
    database = things.database()

    def work() -> None:
        connection = database.connection()
        hold = connection.borrow("a loan", "here")
        with hold.here(), pytest.raises(pymysql.err.OperationalError, match="no"):
            connection.query("CALL half()")
        connection.give_back(hold)
        add_plainly(database, "b")

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 11}


# What is counted, and what is heard


def test_a_row_that_is_written_unchanged_is_a_row_that_is_there(world: World) -> None:
    """Else the ORM takes it for StaleDataError: DATETIME keeps whole seconds."""
    database = defining(world)
    engine = create_engine(database)
    base: Any = orm.declarative_base()

    class Thing(base):
        __tablename__ = "thing"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        seen = sqlalchemy.Column(sqlalchemy.DateTime)

    noon = dt.datetime(2026, 1, 1, 12)  # noqa: DTZ001 - the column keeps no time zone

    def work() -> None:
        base.metadata.create_all(engine)
        with orm.Session(engine) as session:
            session.add(Thing(id=1, seen=noon))
            session.commit()
            session.get(Thing, 1).seen = noon + dt.timedelta(milliseconds=300)
            session.commit()
        with engine.begin() as connection:
            update = sqlalchemy.update(Thing.__table__).values(seen=noon)
            assert connection.execute(update).rowcount == 1

    invoke(database, work)


def test_listeners_hear_what_the_user_did_and_nothing_of_the_layer(things: World) -> None:
    database = things.database()
    engine = create_engine(database)
    heard: list[str] = []
    for name in ("begin", "commit", "rollback", "savepoint", "engine_connect"):
        sqlalchemy.event.listen(engine, name, lambda *_args, name=name: heard.append(name))
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda *args: heard.append(str(args[2]))
    )

    def work() -> None:
        engine.connect().close()  # SQLAlchemy asks the server what it is
        heard.clear()
        with engine.begin() as connection, connection.begin_nested():
            connection.execute(ADD, {"name": "a"})

    invoke(database, work)
    assert [one for one in heard if not one.startswith("UPDATE")] == [
        "engine_connect",
        "begin",
        "savepoint",
        "SAVEPOINT sa_savepoint_1",
        "RELEASE SAVEPOINT sa_savepoint_1",
        "commit",
    ]


def test_a_checkout_costs_what_a_transaction_needs_and_no_more(
    things: World, far_away: DelayProxy
) -> None:
    """Autocommit off, the statement, COMMIT, SQLAlchemy's own ROLLBACK, autocommit on."""
    database = things.database(port=far_away.port)
    engine = create_engine(database)

    def work() -> int:
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "a"})
        before = far_away.turns
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "a"})
        return far_away.turns - before

    assert invoke(database, work) == 5


# Whose connection it is


def test_a_connection_that_was_invalidated_is_ended(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with engine.connect() as connection:
            first = connection.scalar(text("SELECT CONNECTION_ID()"))
            connection.execute(ADD, {"name": "a"})
            connection.invalidate()
            with pytest.raises(sqlalchemy.exc.PendingRollbackError):
                connection.execute(ADD, {"name": "b"})
            connection.rollback()
            assert connection.scalar(text("SELECT CONNECTION_ID()")) != first
            assert len(things.sessions()) == 1
        add_plainly(database, "b")

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 11}
    things.wait_for(lambda: not things.sessions(), 1.0)


def test_a_raw_connection_is_a_checkout_too(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        for name, commit in (("a", True), ("b", False)):
            raw = engine.raw_connection()
            try:
                cursor = raw.cursor()
                cursor.execute(str(ADD).replace(":name", "%s"), (name,))
                cursor.close()
                with pytest.raises(TransactionControlError):
                    engine.raw_connection()
                if commit:
                    raw.commit()
            finally:
                raw.close()
        add_plainly(database, "a")

    invoke(database, work)
    assert things.things() == {"a": 21, "b": 1}


def test_what_was_given_back_is_closed_for_who_kept_it(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        raw = engine.raw_connection()
        kept: Any = raw.dbapi_connection
        cursor = kept.cursor()
        raw.close()
        for late in (
            lambda: cursor.execute("UPDATE things SET number = 5"),
            lambda: kept.cursor().execute("UPDATE things SET number = 5"),
            lambda: kept.query("UPDATE things SET number = 5"),
        ):
            with pytest.raises(pymysql.err.InterfaceError, match="closed"):
                late()
        kept.close()  # a second time is harmless
        add_plainly(database, "a")

    invoke(database, work)
    assert things.things() == {"a": 11, "b": 1}


def test_a_plain_change_beside_an_open_session_is_refused(things: World) -> None:
    """It would be rolled back with the session, though plain statements are committed each."""
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with orm.Session(engine) as session:
            session.scalar(text("SELECT 1"))
            for change in (
                lambda: add_plainly(database, "a"),
                database.connection().commit,
                database.connection().rollback,
                lambda: database.connection().query("SET autocommit = 1"),
            ):
                with pytest.raises(
                    TransactionControlError, match=r"beside an SQLAlchemy.*test_sqlalchemy_work\.py"
                ):
                    change()
            assert ask(database, "SELECT number FROM things WHERE name = 'a'") == 1
            session.execute(ADD, {"name": "b"})
            session.commit()
            add_plainly(database, "a")  # the session has given the connection back
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(ADD, {"name": "b"})
            add_plainly(database, "a")  # each statement is committed by itself, here too
        raw = engine.raw_connection()
        raw.cursor().execute("UPDATE things SET number = number + 10 WHERE name = 'b'")
        raw.commit()
        raw.close()

    invoke(database, work)
    assert things.things() == {"a": 21, "b": 31}


def test_two_engines_of_one_database_have_the_one_connection(things: World) -> None:
    database = things.database()
    one, two = create_engine(database), create_engine(database)

    def work() -> None:
        with one.begin() as connection:
            connection.execute(ADD, {"name": "a"})
            with pytest.raises(SecondConnectionError, match=r"test_sqlalchemy_work\.py"):
                two.connect()
        with two.begin() as connection:
            connection.execute(ADD, {"name": "b"})

    invoke(database, work)
    assert things.things() == {"a": 11, "b": 11}


def test_a_refusal_names_the_users_line_and_not_the_insides_of_the_orm(things: World) -> None:
    database = things.database()
    engine = create_engine(database)
    lines: list[int] = []

    def work() -> None:
        with orm.Session(engine) as one, orm.Session(engine) as two:
            lines.append(work.__code__.co_firstlineno + 3)
            one.execute(text("SELECT 1"))
            two.execute(text("SELECT 1"))

    with pytest.raises(TransactionControlError) as caught:
        invoke(database, work)
    assert f"{__file__}:{lines[0]} in work" in str(caught.value)


def test_the_first_connections_place_is_the_users_line(things: World) -> None:
    database = things.database()
    engine = create_engine(database)
    environ = things.environ()

    def work() -> None:
        with orm.Session(engine) as session:
            session.execute(text("SELECT 1"))
        pymysql.connect(host=environ["DATABASE_HOST"], port=int(environ["DATABASE_PORT"]))

    with pytest.raises(SecondConnectionError, match=r"opened at .*test_sqlalchemy_work\.py"):
        invoke(database, work)


def test_two_phases_are_refused(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with engine.connect() as connection:
            with pytest.raises(TransactionControlError, match="two-phase"):
                connection.begin_twophase()
        with orm.Session(engine, twophase=True) as session:
            with pytest.raises(TransactionControlError, match="two-phase"):
                session.execute(ADD, {"name": "a"})
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "b"})

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 11}


# Threads, and the garbage collector


def test_threads_take_turns_with_one_engine(things: World) -> None:
    database = things.database()
    engine = create_engine(database)
    failed: list[BaseException] = []

    def add(name: str, fail: bool) -> None:
        try:
            with contextlib.suppress(ValueError), engine.begin() as connection:
                before = connection.scalar(text("SELECT number FROM things WHERE name = 'a'"))
                time.sleep(0.01)
                connection.execute(
                    text("UPDATE things SET number = :n WHERE name = :name"),
                    {"n": before + 1, "name": name},
                )
                if fail:
                    raise ValueError
        except BaseException as error:
            failed.append(error)

    def work() -> None:
        threads = [threading.Thread(target=add, args=("a", n % 2 == 1)) for n in range(10)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    invoke(database, work)
    assert not failed
    assert things.things() == {"a": 6, "b": 1}


def test_a_second_task_of_the_same_thread_is_refused_at_once(things: World) -> None:
    """It would wait for ever: the first one cannot go on while it waits."""
    database = things.database()
    engine = create_engine(database)

    async def add(name: str) -> None:
        with orm.Session(engine) as session:
            session.execute(ADD, {"name": name})
            await asyncio.sleep(0.01)
            session.commit()

    async def both() -> Any:
        return await asyncio.gather(add("a"), add("b"), return_exceptions=True)

    first, second = invoke(database, lambda: asyncio.run(both()))
    assert first is None
    assert isinstance(second, TransactionControlError)
    assert things.things() == {"a": 11, "b": 1}


def test_a_session_may_be_passed_from_thread_to_thread(things: World) -> None:
    """As web frameworks do with what is opened in a pool of threads."""
    database = things.database()
    engine = create_engine(database)
    failed: list[BaseException] = []

    def in_a_thread(step: Any) -> None:
        def run() -> None:
            try:
                step()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()

    def work() -> None:
        sessions: list[Any] = []
        in_a_thread(lambda: sessions.append(orm.Session(engine)))
        in_a_thread(lambda: sessions[0].execute(ADD, {"name": "a"}))
        in_a_thread(lambda: sessions[0].execute(ADD, {"name": "b"}))
        in_a_thread(sessions[0].commit)
        in_a_thread(lambda: sessions[0].execute(ADD, {"name": "b"}))
        in_a_thread(sessions[0].close)
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = number + 10 WHERE name = 'a'")

    invoke(database, work)
    assert not failed
    assert things.things() == {"a": 21, "b": 11}


def test_a_forgotten_connection_is_given_back_by_the_collector(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        engine.connect().execute(ADD, {"name": "a"})
        gc.collect()
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "b"})

    invoke(database, work)
    assert things.things() == {"a": 1, "b": 11}


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_the_collector_may_strike_in_the_middle_of_a_statement(things: World, level: str) -> None:
    """A connection and its transaction refer to each other: only the collector ends them."""
    database = things.database()
    engine = create_engine(database).execution_options(isolation_level=level)

    def work() -> None:
        for _ in range(2):
            engine.connect().execute(ADD, {"name": "a"})
            gc.collect()
            kept = engine.connect()
            kept.execute(ADD, {"name": "a"})
            connection = database.connection()
            read = connection._read_packet
            struck: list[int] = []

            def strike(*args: Any, read: Any = read, struck: Any = struck) -> Any:
                if not struck:
                    struck.append(gc.collect())
                return read(*args)

            connection._read_packet = strike  # type: ignore[assignment]
            del kept
            assert ask(database, "SELECT 42") == 42
            del connection._read_packet
            assert struck
            assert ask(database, "SHOW SESSION VARIABLES LIKE 't%isolation'") == "REPEATABLE-READ"
            with engine.begin() as own:
                assert own.scalar(text("SELECT 43")) == 43
                own.execute(ADD, {"name": "b"})

    gc.disable()
    try:
        invoke(database, work)
    finally:
        gc.enable()
    assert things.things() == {"a": 1, "b": 21}


# What is lost is said


@pytest.mark.parametrize("arrived", [False, True])
@pytest.mark.parametrize("way", ["begin", "session", "connection"])
def test_a_commit_that_is_lost_is_of_unknown_outcome_through_the_engine_too(
    things: World, proxy: Proxy, arrived: bool, way: str
) -> None:
    database = things.database(port=proxy.port)
    engine = create_engine(database)

    def lose() -> None:
        if arrived:
            proxy.cut_before_answering()
        else:
            proxy.cut_before_forwarding()

    def work() -> None:
        with pytest.raises(CommitOutcomeUnknownError):
            if way == "begin":
                with engine.begin() as connection:
                    connection.execute(ADD, {"name": "a"})
                    lose()
            elif way == "session":
                with orm.Session(engine) as session:
                    session.execute(ADD, {"name": "a"})
                    lose()
                    session.commit()
            else:
                with engine.connect() as connection:
                    connection.execute(ADD, {"name": "a"})
                    lose()
                    connection.commit()
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "b"})

    invoke(database, work)
    assert things.things() == {"a": 11 if arrived else 1, "b": 11}


def test_the_deadline_is_told_through_the_engine(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "a"})
            connection.execute(text("SELECT SLEEP(10)"))

    with pytest.raises(DeadlineError):
        invoke(database, work, seconds=2.5)
    assert things.things()["a"] == 1
    things.wait_for(lambda: not things.sessions(), 2.0)


def test_work_that_was_not_committed_is_said(things: World) -> None:
    """The usual mistake with SQLAlchemy 2."""
    database = things.database()
    engine = create_engine(database)

    def work() -> str:
        orm.Session(engine).execute(ADD, {"name": "a"})
        return "done"

    gc.disable()
    try:
        with pytest.raises(UncommittedWorkError, match=r"SQLAlchemy.*test_sqlalchemy_work\.py"):
            invoke(database, work)
    finally:
        gc.enable()
    assert things.things()["a"] == 1


@pytest.mark.parametrize("end", ["commit", "rollback", "DDL"])
def test_work_that_was_ended_is_no_uncommitted_work_though_its_connection_is_open(
    things: World, end: str
) -> None:
    """Said to be rolled back, what is written would be done again."""
    database = defining(things)
    engine = create_engine(database)
    kept: list[Any] = []

    def work() -> str:
        kept.append(engine.connect())
        kept[0].execute(ADD, {"name": "a"})
        if end == "DDL":
            kept[0].execute(text("CREATE TABLE more (n INT)"))
        else:
            getattr(kept[0], end)()
        kept[0].execute(text("SELECT * FROM things")).all()
        return "done"

    assert invoke(database, work) == "done"
    assert things.things()["a"] == (1 if end == "rollback" else 11)
    kept[0].close()


def test_a_stream_disturbed_by_another_statement_is_an_error_to_its_reader(things: World) -> None:
    database = things.database()
    engine = create_engine(database)
    seen: list[int] = []

    def work() -> None:
        with engine.connect().execution_options(yield_per=10) as connection:
            for (number,) in connection.execute(NUMBERS):
                seen.append(number)
                ask(database, "SELECT 1")

    with pytest.raises(Exception, match="another statement"):
        invoke(database, work)
    assert 0 < len(seen) < 900


@pytest.mark.parametrize(("width", "written"), [(1, True), (60_000, False)])
def test_work_beside_a_stream_that_is_left_early_is_written_or_said_to_be_lost(
    things: World, width: int, written: bool
) -> None:
    """What is left is read if it is little; else the connection ends, and COMMIT is an error."""
    database = things.database()
    engine = create_engine(database)
    rows = text(str(NUMBERS).replace("SELECT n FROM", f"SELECT REPEAT('x', {width}) FROM"))

    def work() -> None:
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "a"})
            for _ in connection.execution_options(stream_results=True).execute(rows):
                break

    if written:
        invoke(database, work)
    else:
        with pytest.raises(sqlalchemy.exc.OperationalError, match=r"a stream was left.*nothing of"):
            invoke(database, work)
    assert things.things()["a"] == (11 if written else 1)


def test_what_is_forgotten_is_ended_without_a_word_in_the_log(
    things: World, caplog: pytest.LogCaptureFixture
) -> None:
    database = things.database()
    engine = create_engine(database)
    invoke(database, lambda: engine.connect().scalar(text("SELECT 1")))
    gc.collect()
    invoke(database, lambda: engine.connect().close())
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_stream_that_nobody_disturbs_is_complete(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> int:
        with orm.Session(engine) as session:
            rows = session.execute(NUMBERS, execution_options={"yield_per": 10})
            return sum(1 for _ in rows)

    assert invoke(database, work) == 900


def test_a_deadlock_is_sqlalchemys_error_and_the_transaction_can_be_run_again(
    things: World,
) -> None:
    database = things.database()
    engine = create_engine(database)
    outsider = things.outsider()
    met = threading.Event()

    def other() -> None:
        with outsider.cursor() as cursor:
            cursor.execute("BEGIN")
            # The lighter transaction is the victim: this one has more rows to undo.
            cursor.executemany("INSERT INTO things VALUES (%s, 0)", [(f"x{n}",) for n in range(50)])
            cursor.execute("UPDATE things SET number = 100 WHERE name = 'b'")
            met.set()
            cursor.execute("UPDATE things SET number = 100 WHERE name = 'a'")
        outsider.commit()

    def waiting() -> Any:
        time.sleep(0.15)  # InnoDB shows what it showed before to who asks more often
        state = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        return things.server.execute(state)

    def work() -> int:
        for attempt in range(1, 4):
            try:
                with engine.begin() as connection:
                    connection.execute(ADD, {"name": "a"})
                    if attempt == 1:
                        thread.start()
                        assert met.wait(5)
                        things.wait_for(waiting)
                    connection.execute(ADD, {"name": "b"})
            except sqlalchemy.exc.OperationalError as error:
                codes.append(error.orig.args[0])
                thread.join(5)
            else:
                return attempt
        return 0

    thread = threading.Thread(target=other)
    codes: list[int] = []
    assert (invoke(database, work), codes) == (2, [1213])
    thread.join(5)
    assert {name: things.things()[name] for name in "ab"} == {"a": 110, "b": 110}
