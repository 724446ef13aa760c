"""Libraries that can only pool: no pool, our connection, nothing left behind."""

import contextlib
import importlib
import sys
from typing import Any

import pymysql
import pytest
from single_connection import (
    Database,
    OutsideInvocationError,
    SecondConnectionError,
    TransactionControlError,
    UncommittedWorkError,
)
from single_connection.sqlalchemy import create_engine

from layers.single_connection.tests.conftest import World, invoke

sqlalchemy = pytest.importorskip("sqlalchemy", reason="run `pip install SQLAlchemy`")
Session = pytest.importorskip("sqlalchemy.orm").Session
text = sqlalchemy.text


@pytest.fixture
def things(world: World) -> World:
    world.stock(a=1, b=1)
    return world


ADD = text("UPDATE things SET number = number + 10 WHERE name = :name")


def test_an_ordinary_pooled_engine_is_caught(world: World) -> None:
    database = world.database()
    environ = world.environ()
    url = sqlalchemy.URL.create(
        "mysql+pymysql",
        username=environ["DATABASE_USER"],
        password=environ["DATABASE_PASSWORD"],
        host=environ["DATABASE_HOST"],
        port=int(environ["DATABASE_PORT"]),
    )
    engine = sqlalchemy.create_engine(url)

    def work() -> None:
        database.connection()
        with pytest.raises(SecondConnectionError):
            engine.connect()

    invoke(database, work)
    with pytest.raises(OutsideInvocationError):
        engine.connect()


def test_our_engine_uses_the_invocations_connection_and_leaves_nothing(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        own = database.connection().thread_id()
        for _ in range(3):
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT CONNECTION_ID()")) == own
        assert len(things.sessions()) == 1

    for _ in range(2):
        invoke(database, work)
        things.wait_for(lambda: not things.sessions(), 1.0)


def test_a_transaction_of_the_engine_is_one(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with engine.begin() as connection:
            connection.execute(ADD, {"name": "a"})
        with contextlib.suppress(ValueError), engine.begin() as connection:
            connection.execute(ADD, {"name": "a"})
            raise ValueError
        with engine.begin() as connection:
            with contextlib.suppress(ValueError), connection.begin_nested():
                connection.execute(ADD, {"name": "a"})
                raise ValueError
            connection.execute(ADD, {"name": "b"})
        with engine.connect() as connection:  # never committed
            connection.execute(ADD, {"name": "b"})

    invoke(database, work)
    assert things.things() == {"a": 11, "b": 11}


def test_a_session_of_the_orm_works(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> Any:
        with Session(engine) as session, session.begin():
            session.execute(ADD, {"name": "a"})
        with Session(engine) as session:
            return session.scalar(text("SELECT number FROM things WHERE name = 'a'"))

    assert invoke(database, work) == 11


def test_a_second_checkout_beside_the_first_is_refused_and_names_it(things: World) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with engine.connect():
            with pytest.raises(SecondConnectionError, match=r"test_sqlalchemy\.py"):
                engine.connect()

    invoke(database, work)
    invoke(database, lambda: engine.connect().close())


def test_outside_an_invocation_the_engine_gives_nothing(things: World) -> None:
    engine = create_engine(things.database())
    with pytest.raises(OutsideInvocationError):
        engine.connect()


def test_a_checkout_left_open_is_said_and_does_not_hinder_the_next_invocation(
    things: World,
) -> None:
    database = things.database()
    engine = create_engine(database)
    kept = []

    def careless() -> None:
        kept.append(engine.connect())
        kept[0].execute(ADD, {"name": "a"})

    with pytest.raises(UncommittedWorkError, match=r"SQLAlchemy.*test_sqlalchemy\.py.*careless"):
        invoke(database, careless)
    things.wait_for(lambda: not things.sessions(), 1.0)
    invoke(database, lambda: engine.connect().close())
    assert things.things()["a"] == 1
    with contextlib.suppress(Exception):
        kept[0].invalidate()
    kept.clear()


def test_neither_the_engine_nor_a_block_ends_the_others_transaction(things: World) -> None:
    """Each would commit, or roll back, what the other one believes to be its own."""
    database = things.database()
    engine = create_engine(database)

    def work() -> None:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = 5 WHERE name = 'a'")
            with pytest.raises(TransactionControlError, match=r"block.*test_sqlalchemy\.py"):
                engine.connect()
        with Session(engine) as session:
            session.scalar(text("SELECT 1"))
            with pytest.raises(TransactionControlError, match=r"SQLAlchemy.*test_sqlalchemy\.py"):
                with database.transaction():
                    pass
            session.execute(ADD, {"name": "b"})
            session.commit()

    invoke(database, work)
    assert things.things() == {"a": 5, "b": 11}


@pytest.mark.parametrize(
    "option",
    ["pool", "pool_size", "poolclass", "creator", "pool_pre_ping", "connect_args", "module"],
)
def test_how_to_connect_is_the_layers_and_refused(option: str) -> None:
    given: Any = {option: 1}
    with pytest.raises(TypeError, match=f"{option} cannot be given.*no pool"):
        create_engine(Database.from_environment({}), **given)


def test_a_drivername_is_one_of_two(world: World) -> None:
    database = world.database()
    with pytest.raises(ValueError, match=r"mariadb\+pymysql.*asyncmy"):
        create_engine(database, drivername="mysql+asyncmy")
    for name in ("mysql", "mariadb"):
        engine = create_engine(database, drivername=f"{name}+pymysql")
        assert (engine.name, engine.driver) == (name, "pymysql")
        assert engine.url.drivername == f"{name}+pymysql"

    def work() -> None:
        engine = create_engine(database, drivername=f"{world.flavor}+pymysql")
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
            dialect: Any = connection.dialect
            assert dialect.is_mariadb == (world.flavor == "mariadb")

    invoke(database, work)


def test_a_killed_session_is_sqlalchemys_error_and_the_next_checkout_is_a_new_one(
    things: World,
) -> None:
    database = things.database()
    engine = create_engine(database)

    def work() -> Any:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            things.server.end_sessions()
            with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
                connection.execute(text("SELECT 1"))
            assert isinstance(caught.value.orig, pymysql.err.OperationalError)
        with engine.connect() as connection:
            return connection.scalar(text("SELECT 2"))

    assert invoke(database, work) == 2


def test_where_sqlalchemy_is_missing_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "single_connection.sqlalchemy")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ImportError, match=r"add it to the function's requirements\.txt"):
        importlib.import_module("single_connection.sqlalchemy")
