"""What a user needs to test handlers without a server; no fixture of a server here."""

import contextlib
import json
from typing import Any

import pymysql
import pytest
from single_connection import (
    Database,
    OutsideInvocationError,
    SecondConnectionError,
    UncommittedWorkError,
)
from single_connection.testing import LambdaContext, fake

database = Database.from_environment({})


@database.invocation
def lambda_handler(event: dict[str, Any], context: Any) -> Any:
    """A user's handler."""
    with database.transaction() as cursor:
        cursor.execute("SELECT name, stock FROM products WHERE id = %s", (event["id"],))
        product = cursor.fetchone()
        if event.get("take"):
            cursor.execute("UPDATE products SET stock = stock - 1 WHERE id = %s", (event["id"],))
            assert cursor.rowcount == 1
        if event.get("fail"):
            raise ValueError("out of stock")
        return product


def test_a_users_handler_answers_and_what_it_did_can_be_asked() -> None:
    with fake(database) as server:
        server.answer("SELECT name, stock FROM products", rows=[{"name": "Mug", "stock": 3}])
        assert lambda_handler({"id": 7}, LambdaContext()) == {"name": "Mug", "stock": 3}
    assert server.executed == [("SELECT name, stock FROM products WHERE id = %s", (7,))]
    assert server.outcomes == ["committed"]
    assert (server.connections_opened, server.connections_open) == (1, 0)


def test_an_error_in_the_handler_rolls_back() -> None:
    with fake(database) as server:
        server.answer("SELECT", rows=[{"name": "Mug", "stock": 0}])
        server.answer("UPDATE", affected=1)
        with pytest.raises(ValueError, match="out of stock"):
            lambda_handler({"id": 7, "take": True, "fail": True}, LambdaContext())
    assert server.outcomes == ["rolled back"]


def test_an_unexpected_statement_says_how_to_answer_it() -> None:
    with fake(database), pytest.raises(AssertionError, match=r"server\.answer"):
        lambda_handler({"id": 7}, LambdaContext())


def test_the_law_holds_without_a_server_too() -> None:
    with fake(database), pytest.raises(OutsideInvocationError):
        database.connection()


def test_a_servers_error_can_be_played() -> None:
    runs = []

    @database.transactional
    def work(cursor: Any) -> None:
        runs.append(1)
        cursor.execute("UPDATE products SET stock = 0")

    with fake(database) as server:
        server.answer("UPDATE", error=pymysql.err.OperationalError(1213, "Deadlock found"))

        def heal(_event: Any, _context: Any) -> None:
            with pytest.raises(pymysql.err.OperationalError):
                database.transactional(once)()
            server.answer("UPDATE", affected=2)
            work()

        def once(cursor: Any) -> None:
            raise pymysql.err.OperationalError(1064, "syntax")

        database.invocation(heal)({}, LambdaContext())
    assert runs == [1]
    assert server.outcomes == ["rolled back", "committed"]


def test_a_deadlock_that_is_played_runs_the_whole_again() -> None:
    with fake(database) as server:
        server.answer("INSERT", insert_id=7)
        server.answer("UPDATE", error=pymysql.err.OperationalError(1213, "Deadlock found"))
        ids = []

        @database.transactional
        def work(cursor: Any) -> None:
            cursor.execute("INSERT INTO orders VALUES ()")
            ids.append(cursor.lastrowid)
            if len(ids) > 1:
                server.answer("UPDATE", affected=1)
            cursor.executemany("UPDATE products SET stock = 0 WHERE id = %s", [(1,), (2,)])

        database.invocation(lambda _e, _c: work())({}, LambdaContext())
    assert ids == [7, 7]
    assert server.outcomes == ["rolled back", "committed"]


def test_cursors_give_rows_as_a_real_one_does() -> None:
    rows = [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]

    def work(_event: Any, _context: Any) -> None:
        with database.connection().cursor() as cursor:
            assert cursor.execute("SELECT n") == 4
            assert cursor.fetchone() == (1,)
            assert cursor.fetchmany(2) == ((2,), (3,))
            assert list(cursor) == [(4,)]
            assert cursor.fetchone() is None
        with database.transaction() as cursor:
            cursor.execute("SELECT n")
            assert cursor.fetchall() == rows
            with database.transaction() as inner:
                inner.execute("SELECT n")
            with pytest.raises(KeyError):
                with database.transaction() as inner:
                    raise KeyError
        connection = database.connection()
        connection.begin()
        connection.rollback()
        connection.begin()
        connection.commit()

    with fake(database) as server:
        server.answer("SELECT n", rows=rows)
        database.invocation(work)({}, LambdaContext())
    assert server.outcomes == ["committed", "rolled back", "committed"]


def test_a_transaction_left_open_is_rolled_back_at_the_end() -> None:
    with fake(database) as server:
        database.invocation(lambda _e, _c: database.connection().begin())({}, LambdaContext())
    assert server.outcomes == ["rolled back"]


def test_a_handler_that_forgets_to_commit_is_told_by_a_fake_too() -> None:
    def work(_event: Any, _context: Any) -> None:
        database.connection().begin()
        with database.cursor() as cursor:
            cursor.execute("UPDATE products SET stock = 0")

    with fake(database) as server:
        server.answer("UPDATE", affected=1)
        with pytest.raises(UncommittedWorkError, match="begun by hand"):
            database.invocation(work)({}, LambdaContext())
    assert server.outcomes == ["rolled back"]


def test_a_deadlock_that_is_swallowed_commits_nothing_in_a_fake_either() -> None:
    def work(_event: Any, _context: Any) -> None:
        with database.transaction() as cursor, contextlib.suppress(pymysql.err.Error):
            cursor.execute("UPDATE products SET stock = 0")

    with fake(database) as server:
        server.answer("UPDATE", error=pymysql.err.OperationalError(1213, "Deadlock found"))
        with pytest.raises(pymysql.err.OperationalError, match="Deadlock"):
            database.invocation(work)({}, LambdaContext())
    assert server.outcomes == ["rolled back"]


def test_after_a_deadlock_neither_a_statement_nor_an_inner_block_goes_on() -> None:
    def work(_event: Any, _context: Any) -> None:
        with database.transaction() as cursor:
            for use in (
                lambda: cursor.execute("UPDATE products SET stock = 0"),
                lambda: cursor.execute("SELECT 1"),
                lambda: database.transaction().__enter__(),
            ):
                with pytest.raises(pymysql.err.OperationalError, match="Deadlock"):
                    use()
            raise KeyError

    with fake(database) as server:
        server.answer("UPDATE", error=pymysql.err.OperationalError(1213, "Deadlock found"))
        with pytest.raises(KeyError):
            database.invocation(work)({}, LambdaContext())
    assert server.outcomes == ["rolled back"]


def test_afterwards_the_database_is_the_real_one_again() -> None:
    with fake(database):
        pass
    with pytest.raises(Exception, match="DATABASE_HOST is missing"):
        lambda_handler({"id": 7}, LambdaContext())


def test_the_context_is_as_lambdas() -> None:
    context = LambdaContext(2.0, function_name="orders")
    assert 1500 < context.get_remaining_time_in_millis() <= 2000
    assert context.function_name in context.invoked_function_arn
    assert context.aws_request_id != LambdaContext().aws_request_id
    assert json.dumps(vars(context))
    assert LambdaContext(0).get_remaining_time_in_millis() == 0


def test_a_deadline_passes_in_a_fake_too() -> None:
    import time

    from single_connection import DeadlineError

    def work(_event: Any, _context: Any) -> None:
        database.connection()
        time.sleep(0.2)
        with pytest.raises(DeadlineError):
            database.connection()

    with fake(database) as server:
        database.invocation(work)({}, LambdaContext(0.2))
    assert server.connections_open == 0


def test_two_threads_may_not_run_two_invocations_of_a_fake() -> None:
    import threading

    refused = []

    def second() -> None:
        try:
            lambda_handler({}, LambdaContext())
        except SecondConnectionError as error:
            refused.append(error)

    def first(_event: Any, _context: Any) -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    with fake(database):
        database.invocation(first)({}, LambdaContext())
    assert len(refused) == 1


def test_a_cursor_describes_its_columns_as_libraries_ask() -> None:
    def work(_event: Any, _context: Any) -> None:
        with database.connection().cursor() as cursor:
            cursor.execute("SELECT name, stock FROM products")
            assert [column[0] for column in cursor.description or ()] == ["name", "stock"]
            assert cursor.fetchall() == (("Mug", 3),)
            cursor.execute("UPDATE products SET stock = 0")
            assert cursor.description is None

    with fake(database) as server:
        server.answer("SELECT", rows=[{"name": "Mug", "stock": 3}])
        server.answer("UPDATE", affected=1)
        database.invocation(work)({}, LambdaContext())


def test_sqlalchemy_works_on_a_fake_and_what_it_asks_by_itself_needs_no_answer() -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy", reason="run `pip install SQLAlchemy`")
    orm = pytest.importorskip("sqlalchemy.orm")
    from single_connection.sqlalchemy import create_engine

    engine = create_engine(database)
    names = sqlalchemy.text("SELECT name, stock FROM products WHERE id = :id")
    take = sqlalchemy.text("UPDATE products SET stock = 0")

    def work(event: Any, _context: Any) -> Any:
        with engine.begin() as connection:
            rows = connection.execute(names, {"id": 7}).mappings().all()
            with connection.begin_nested():
                assert connection.execute(take).rowcount == 1
        with orm.Session(engine.execution_options(isolation_level="READ COMMITTED")) as session:
            assert session.scalar(names, {"id": 7}) == "Mug"
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(take)
        with pytest.raises(SecondConnectionError):
            with engine.connect(), engine.connect():
                pass
        return [dict(row) for row in rows]

    with fake(database) as server:
        server.answer("SELECT name", rows=[{"name": "Mug", "stock": 3}])
        server.answer("UPDATE", affected=1)
        answer = database.invocation(work)({}, LambdaContext())
    assert answer == [{"name": "Mug", "stock": 3}]
    asked = ("SELECT name, stock FROM products WHERE id = %(id)s", {"id": 7})
    taken: Any = ("UPDATE products SET stock = 0", {})
    assert server.executed == [asked, taken, asked, taken]
    assert server.outcomes == ["committed", "rolled back"]
    assert (server.connections_opened, server.connections_open) == (1, 0)
