"""What a handler does comes out the same on the fake server as on a real one."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor as Tuples
from single_connection import (
    Database,
    OutsideInvocationError,
    TransactionControlError,
    UncommittedWorkError,
)
from single_connection.sqlalchemy import create_engine
from single_connection.testing import FakeServer, fake

from layers.single_connection.tests.conftest import World, invoke

LOOK = "SELECT name, number FROM things ORDER BY name"
CHANGE = "UPDATE things SET number = number + 1"
ADD = "INSERT INTO things VALUES ('a', 7)"


class Either:
    """A database with two things in it, and how often `CHANGE` was written there."""

    def __init__(self, world: World, server: FakeServer | None, database: Database) -> None:
        self._world, self.server, self.database = world, server, database

    def invoke(self, work: Callable[[], Any]) -> Any:
        return invoke(self.database, work)

    def written(self) -> int:
        if self.server is None:
            return self._world.things()["a"] - 1
        return self.server.outcomes.count("committed")


@pytest.fixture(params=["fake", "real"])
def either(world: World, request: pytest.FixtureRequest) -> Iterator[Either]:
    world.stock(a=1, b=1)
    database = world.database()
    if request.param == "real":
        yield Either(world, None, database)
        assert not world.sessions()
    else:
        with fake(database) as server:
            server.answer("SELECT", rows=[{"name": "a", "number": 1}, {"name": "b", "number": 1}])
            server.answer("UPDATE", affected=2)
            server.answer("INSERT", error=pymysql.err.IntegrityError(1062, "Duplicate entry"))
            yield Either(world, server, database)


def test_rows_come_in_the_same_types(either: Either) -> None:
    def work() -> None:
        database = either.database
        with database.connection().cursor(Tuples) as cursor:
            assert cursor.execute(LOOK) == cursor.rowcount == 2
            assert cursor.fetchall() == (("a", 1), ("b", 1))
            cursor.execute(LOOK)
            assert cursor.fetchmany(1) == (("a", 1),)
            assert cursor.fetchone() == ("b", 1)
            assert cursor.fetchone() is None
            assert list(cursor.fetchall()) == []
        with database.cursor() as cursor:
            cursor.execute(LOOK)
            assert cursor.fetchmany() == [{"name": "a", "number": 1}]
            assert cursor.fetchall() == [{"name": "b", "number": 1}]
            cursor.execute(LOOK)
            assert [row["name"] for row in cursor] == ["a", "b"]

    either.invoke(work)


def test_a_statement_without_a_cursor_says_how_many_rows_it_gave_or_changed(
    either: Either,
) -> None:
    def work() -> None:
        assert either.database.connection().query(LOOK) == 2
        assert either.database.connection().query(CHANGE) == 2

    either.invoke(work)


def test_what_libraries_ask_a_connection_is_answered(either: Either) -> None:
    def work() -> None:
        connection = either.database.connection()
        connection.ping()
        connection.select_db("shop")
        assert connection.open
        assert connection.character_set_name() == "utf8mb4"
        assert int(connection.get_server_info().partition(".")[0]) >= 8
        assert connection.get_autocommit() is True
        connection.autocommit(False)
        assert connection.get_autocommit() is False
        connection.autocommit(True)
        assert connection.get_autocommit() is True

    either.invoke(work)


def test_without_autocommit_what_is_not_committed_is_said(either: Either) -> None:
    def work() -> None:
        connection = either.database.connection()
        connection.autocommit(False)
        connection.query(CHANGE)
        connection.commit()
        connection.query(CHANGE)

    with pytest.raises(UncommittedWorkError, match="begun by hand"):
        either.invoke(work)
    assert either.written() == 1


def test_a_connection_closed_by_hand_says_so_and_the_next_is_another_one(either: Either) -> None:
    def work() -> None:
        first = either.database.connection()
        cursor = first.cursor()
        first.close()
        first.close()
        assert not first.open
        for use in (
            lambda: cursor.execute(LOOK),
            lambda: first.query(LOOK),
            first.ping,
            first.begin,
            first.commit,
            first.rollback,
            lambda: first.select_db("shop"),
            lambda: first.autocommit(False),
        ):
            with pytest.raises(pymysql.err.OperationalError, match="closed by hand"):
                use()
        second = either.database.connection()
        assert second is not first
        assert second.query(LOOK) == 2
        second.close()

    either.invoke(work)


def test_closing_it_is_a_way_to_roll_back_what_was_begun_by_hand(either: Either) -> None:
    def work() -> None:
        connection = either.database.connection()
        connection.begin()
        connection.query(CHANGE)
        connection.close()
        assert either.database.connection().query(LOOK) == 2

    either.invoke(work)
    assert either.written() == 0


def test_a_block_whose_connection_was_closed_in_it_is_an_error_and_writes_nothing(
    either: Either,
) -> None:
    def work() -> None:
        with either.database.transaction() as cursor:
            cursor.execute(CHANGE)
            either.database.connection().close()

    with pytest.raises(pymysql.err.OperationalError, match="closed by hand"):
        either.invoke(work)
    assert either.written() == 0


def test_a_second_begin_commits_what_came_before_it(either: Either) -> None:
    def work() -> None:
        connection = either.database.connection()
        connection.begin()
        connection.query(CHANGE)
        connection.begin()
        connection.query(CHANGE)
        connection.rollback()
        connection.commit()

    either.invoke(work)
    assert either.written() == 1


def test_a_block_neither_contains_nor_stands_in_a_transaction_by_hand(either: Either) -> None:
    def work() -> None:
        connection = either.database.connection()
        with either.database.transaction():
            assert connection.get_autocommit() is True
            for refused in (
                connection.begin,
                connection.commit,
                connection.rollback,
                lambda: connection.autocommit(False),
            ):
                with pytest.raises(TransactionControlError, match="refused inside a database"):
                    refused()
        connection.begin()
        with pytest.raises(TransactionControlError, match=r"inside a transaction begun by hand"):
            either.database.transaction().__enter__()
        connection.rollback()

    either.invoke(work)


def test_switching_autocommit_on_commits_what_is_open(either: Either) -> None:
    def work() -> None:
        connection = either.database.connection()
        connection.autocommit(False)
        connection.query(CHANGE)
        connection.autocommit(True)
        connection.rollback()

    either.invoke(work)
    assert either.written() == 1


def test_what_sqlalchemy_has_is_left_to_it_until_it_is_given_back(either: Either) -> None:
    engine = create_engine(either.database)

    def work() -> None:
        connection = either.database.connection()
        lent = engine.raw_connection()
        raw: Any = lent.dbapi_connection
        for what in (either.database.transaction().__enter__, engine.raw_connection):
            with pytest.raises(TransactionControlError, match="inside an SQLAlchemy connection"):
                what()
        raw.begin()
        raw.query(CHANGE)
        raw.commit()
        raw.query(CHANGE)
        lent.close()
        raw.close()  # harmless when repeated
        assert connection.get_autocommit() is True
        raw.discard()
        assert connection.open, "it was given back, and is the invocation's again"
        with pytest.raises(pymysql.err.InterfaceError, match="SQLAlchemy's no more"):
            raw.query(LOOK)

    either.invoke(work)
    assert either.written() == 1


def test_an_invalid_connection_of_sqlalchemys_is_ended_and_the_next_is_another(
    either: Either,
) -> None:
    engine = create_engine(either.database)

    def work() -> None:
        first = either.database.connection()
        engine.raw_connection().invalidate()
        assert not first.open
        raw: Any = engine.raw_connection()
        first.close()
        either.database.connection().close()
        raw.close()  # its session has gone already
        assert either.database.connection().query(LOOK) == 2

    either.invoke(work)


def test_an_error_that_undoes_one_statement_leaves_the_block_as_it_was(either: Either) -> None:
    def work() -> None:
        with either.database.transaction() as cursor:
            cursor.execute(CHANGE)
            with pytest.raises(pymysql.err.IntegrityError):
                cursor.execute(ADD)
            cursor.execute(LOOK)

    either.invoke(work)
    assert either.written() == 1


def test_a_connection_kept_beyond_its_invocation_says_so(either: Either) -> None:
    kept: list[Any] = []
    either.invoke(lambda: kept.append(either.database.connection()))
    with pytest.raises(OutsideInvocationError, match="after its invocation had ended"):
        kept[0].query(LOOK)
    with pytest.raises(OutsideInvocationError, match="after its invocation had ended"):
        kept[0].cursor().execute(LOOK)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_may_use_neither_its_parents_connection_nor_another(
    either: Either,
) -> None:
    def work() -> bytes:
        connection = either.database.connection()
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                for use in (connection.ping, either.database.connection):
                    try:
                        use()
                    except OutsideInvocationError as error:
                        os.write(writing, f"{error.args[0][:23]}\n".encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        connection.ping()
        with os.fdopen(reading, "rb") as said:
            return said.read()

    assert either.invoke(work) == b"a forked child process \n" * 2


def test_what_a_forked_child_does_with_its_copy_leaves_it_closed_and_says_why(
    either: Either,
) -> None:
    """The same, in this process: as if it were the child."""

    def work() -> None:
        connection = either.database.connection()
        assert either.database._invocation is not None
        either.database._invocation.abandon()
        assert not connection.open
        with pytest.raises(OutsideInvocationError, match="forked child"):
            connection.ping()

    either.invoke(work)
