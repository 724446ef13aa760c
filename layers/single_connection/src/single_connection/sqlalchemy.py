"""An engine for libraries that can only pool: no pool, the invocation's connection, nothing kept.

SQLAlchemy is no dependency of the layer: install it with the function that uses it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import sqlalchemy
    from sqlalchemy import event
    from sqlalchemy.pool import NullPool
except ImportError as error:
    raise ImportError(
        "single_connection.sqlalchemy needs SQLAlchemy 2: add it to the function's requirements.txt"
    ) from error

from ._database import Database
from ._driver import Connection
from ._guard import caller
from .errors import SecondConnectionError

_LIBRARY = str(Path(sqlalchemy.__file__).parent)


class _Borrowed:
    """The invocation's connection in SQLAlchemy's hands: closing it gives it back, alive."""

    def __init__(self, connection: Connection, place: str, give_back: Callable[[], None]) -> None:
        self._connection = connection
        self._give_back = give_back
        self.place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        """Give the connection back to the invocation, which destroys it at its end."""
        self._give_back()


def create_engine(database: Database, **options: Any) -> sqlalchemy.Engine:
    """An engine that borrows the invocation's connection for each checkout, and keeps none.

    Create it in the module, use it in the handler. A second checkout while one is open is refused:
    it would be the same session under another name.

    Args:
        database: The handler's database.
        options: Passed to `sqlalchemy.create_engine`, without a pool of your own.

    Raises:
        TypeError: `options` name a pool.
        SecondConnectionError: At use, when a second connection is checked out beside the first.
        OutsideInvocationError: At use, while no invocation is running.
    """
    pools = sorted(name for name in options if name.startswith("pool") or name == "creator")
    if pools:
        raise TypeError(
            f"{', '.join(pools)} cannot be given: an invocation has one connection, and no pool"
        )
    borrowed: _Borrowed | None = None

    def refuse_inside_block(connection: Any) -> None:
        if connection.transaction_depth:
            raise SecondConnectionError(
                "SQLAlchemy asked for the connection inside a database.transaction() block, which "
                "it would end: use the block's cursor there, or SQLAlchemy's own transaction"
            )

    def begin(opened: sqlalchemy.Connection) -> None:
        refuse_inside_block(opened.connection.dbapi_connection)
        opened.exec_driver_sql("START TRANSACTION")

    def give_back() -> None:
        nonlocal borrowed
        borrowed = None

    def borrow() -> _Borrowed:
        nonlocal borrowed
        connection = database.connection()
        refuse_inside_block(connection)
        if borrowed is not None and borrowed._connection is connection:
            raise SecondConnectionError(
                "SQLAlchemy asked for a second connection while the first is still checked out "
                f"(at {borrowed.place}): close that one, or pass it on"
            )
        borrowed = _Borrowed(connection, caller(beside=_LIBRARY), give_back)
        return borrowed

    engine = sqlalchemy.create_engine(
        "mysql+pymysql://", creator=borrow, poolclass=NullPool, **options
    )
    # The session is in autocommit, as the layer opens it; without this, what SQLAlchemy believes to
    # be a transaction would be committed statement by statement.
    event.listen(engine, "begin", begin)
    return engine
