"""An engine for libraries that can only pool: no pool, the invocation's connection, nothing kept.

SQLAlchemy is no dependency of the layer: install it with the function that uses it.
"""

import functools
from typing import Any, NoReturn

try:
    import sqlalchemy
    from sqlalchemy.dialects import registry
    from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
    from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
    from sqlalchemy.pool import NullPool
except ImportError as error:
    raise ImportError(
        "single_connection.sqlalchemy needs SQLAlchemy 2: add it to the function's requirements.txt"
    ) from error

from ._database import Database
from ._driver import Connection, InterfaceError
from ._guard import caller
from .errors import TransactionControlError

# How SQLAlchemy finds our dialects, by the names of those they are.
_DIALECTS = {
    "mysql+pymysql": ("mysql.single_connection", "_MySQL"),
    "mariadb+pymysql": ("mariadb.single_connection", "_MariaDB"),
}
# They say how a connection is opened or kept, which is the layer's.
_REFUSED = frozenset({"connect_args", "creator", "module", "pool", "poolclass"})


class _Borrowed:
    """The invocation's connection in SQLAlchemy's hands: closing it gives it back, alive."""

    def __init__(self, connection: Connection, place: str) -> None:
        self._connection = connection
        self._hold = connection.borrow("an SQLAlchemy connection", place)
        self._given_back = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        if not callable(found):
            return found
        if self._given_back:
            raise InterfaceError(0, "this connection was closed, and is SQLAlchemy's no more")

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            # It belongs to whoever uses it: web frameworks open a session in one thread of a pool,
            # use it in a second and close it in a third.
            with self._hold.here():
                return found(*args, **kwargs)

        return call

    def cursor(self, kind: Any = None) -> Any:
        """A cursor whose statements are SQLAlchemy's, and no others beside them."""
        cursor = self._connection.cursor(kind)
        cursor.connection = self
        return cursor

    def rollback(self) -> None:
        """Undo what is open; of a lost session the server has, in mid-statement `close` will.

        SQLAlchemy rolls back what the garbage collector finds, which may strike anywhere.
        """
        with self._connection.turns.lock:
            if self._connection.open and not self._connection.busy:
                with self._hold.here():
                    self._connection.rollback()

    def remember_level(self) -> None:
        """The session's own isolation level comes back when the connection is given back."""
        if not self._hold.restore:
            with self.cursor() as cursor:
                cursor.execute("SHOW SESSION VARIABLES LIKE 't%isolation'")
                level = cursor.fetchone()[-1].replace("-", " ")
            self._hold.restore = f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"

    def close(self) -> None:
        """Give the connection back to the invocation, which destroys it at its end."""
        self._given_back = True
        self._connection.give_back(self._hold)

    def discard(self) -> None:
        """End the session; the invocation opens another one when it is asked to."""
        if not self._given_back:
            self.close()
            self._connection.close()


class _MySQL(MySQLDialect_pymysql):
    """SQLAlchemy's own dialect, on a session that the layer has set up, and ends."""

    supports_statement_cache = True

    def on_connect(self) -> None:  # type: ignore[override] # None is what SQLAlchemy documents
        """Nothing is left to do: SET NAMES came with the session's lease."""

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set it for this checkout only."""
        if level != "AUTOCOMMIT":
            dbapi_connection.remember_level()
        super().set_isolation_level(dbapi_connection, level)

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        """As SQLAlchemy does; in mid-statement, where the collector struck, `close` will."""
        if not dbapi_conn.busy:
            super().reset_isolation_level(dbapi_conn)  # type: ignore[no-untyped-call]

    def do_terminate(self, dbapi_connection: Any) -> None:
        """What was invalidated is not given back."""
        dbapi_connection.discard()

    def do_begin_twophase(self, connection: Any, xid: Any) -> NoReturn:  # noqa: ARG002
        """Refuse: what is prepared outlives its session, locks and all."""
        raise TransactionControlError(
            "a two-phase transaction was refused: once prepared it keeps its locks after its "
            "session, and no invocation would end it; use begin()"
        )


class _MariaDB(MariaDBDialect, _MySQL):
    supports_statement_cache = True


for _name, _class in _DIALECTS.values():
    registry.register(_name, __name__, _class)


def create_engine(
    database: Database, *, drivername: str = "mysql+pymysql", **options: Any
) -> sqlalchemy.Engine:
    """An engine that borrows the invocation's connection for each checkout, and keeps none.

    Create it in the module, use it in the handler. A second checkout while one is open would be
    the same session under another name: in the same thread it is refused, in another it waits.

    Args:
        database: The handler's database.
        drivername: "mysql+pymysql", or "mariadb+pymysql" for what MariaDB alone can do.
        options: Passed to `sqlalchemy.create_engine`, without what opens or pools connections.

    Raises:
        TypeError: `options` say how to connect, or name a pool.
        ValueError: Another `drivername`.
        TransactionControlError: At use, when the connection is asked for while it is checked out
            already, or inside a `database.transaction()` block.
        OutsideInvocationError: At use, while no invocation is running.
    """
    refused = sorted(name for name in options if name in _REFUSED or name.startswith("pool_"))
    if refused:
        raise TypeError(
            f"{', '.join(refused)} cannot be given: the invocation's connection is used as it is, "
            "opened by the layer from its settings, and there is no pool"
        )
    if drivername not in _DIALECTS:
        raise ValueError(f"drivername must be one of {', '.join(_DIALECTS)}, not {drivername!r}")

    def borrow() -> _Borrowed:
        return _Borrowed(database.connection(), caller())

    name, _ = _DIALECTS[drivername]
    engine = sqlalchemy.create_engine(
        f"{name.replace('.', '+')}://",
        creator=borrow,
        poolclass=NullPool,
        **options,
    )
    engine.url = engine.url.set(drivername=drivername)
    return engine
