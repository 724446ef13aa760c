"""The one object a handler's module holds: settings, and the way to the invocation's connection."""

import functools
import os
import threading
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, TypeVar

from ._connector import MySQLConnector
from ._deadline import context_among
from ._driver import Connection, Cursor
from ._invocation import Invocation
from ._protocols import Connector
from ._settings import Settings
from ._telemetry import Telemetry
from ._transaction import Block, run_again
from .errors import OutsideInvocationError, SecondConnectionError

P = ParamSpec("P")
R = TypeVar("R")
Handler = TypeVar("Handler", bound=Callable[..., Any])

# Of a code object: a generator, a coroutine, an asynchronous generator (Python's data model).
_RETURNS_EARLY = 0x20 | 0x80 | 0x200


class Database:
    """A database that is reached through one connection per invocation, and never otherwise.

    Kept in a module's global; importing opens nothing and needs no environment. What stays warm
    between invocations is what makes the next connection cheap, never a socket.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        connector: Connector | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Use `settings`.

        Args:
            settings: Complete and checked; None takes them from `environ` at first use.
            connector: Opens the connections, in place of the one that speaks to MySQL.
            environ: Where telemetry, and the settings if none are given, are configured.
        """
        self._telemetry = Telemetry(environ)
        self._connector: Connector = connector or MySQLConnector(settings, environ, self._telemetry)
        self._invocation: Invocation | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Database":
        """Take the settings from `environ` when they are first needed.

        Args:
            environ: DATABASE_HOST, DATABASE_PORT (3306), DATABASE_NAME, DATABASE_SECRET_ARN or
                DATABASE_USER and DATABASE_PASSWORD, DATABASE_CA_FILE (the RDS roots of AWS_REGION
                where not given), DATABASE_DEADLINE_MARGIN (seconds, 0.5),
                DATABASE_TAG_STATEMENTS (1 to name function and request in each statement).

        Raises:
            SettingsError: At first use, with everything that is missing or wrong.
        """
        return cls(environ=environ)

    @property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            SettingsError: With everything that is missing or wrong.
        """
        return self._connector.settings

    def invocation(self, handler: Handler) -> Handler:
        """Mark a Lambda handler: whatever it opens is gone when it is left, in whichever way.

        Works under and over other decorators, and on a method. Calling one marked function from
        another joins the invocation that is running.

        Args:
            handler: `handler(event, context)`; `context.get_remaining_time_in_millis()` tells the
                time left.

        Raises:
            TypeError: The handler is a coroutine or a generator: it would end before its work does.
                When it is called: `context` tells no time.
        """
        _refuse_to_return_early(handler, "run the coroutine inside it")

        @functools.wraps(handler)
        def marked(*args: Any, **kwargs: Any) -> Any:
            if self._joins_another():
                return handler(*args, **kwargs)
            invocation = Invocation(
                self._connector, self._telemetry, context_among(args, kwargs.get("context"))
            )
            try:
                self._invocation = invocation
                with invocation:
                    answer = handler(*args, **kwargs)
                    invocation.check_all_is_written()
                    return answer
            finally:
                # Again, for what struck on the way out: it does what is not done yet.
                invocation.end()
                self._invocation = None

        return marked  # type: ignore[return-value]

    def _joins_another(self) -> bool:
        """Whether an invocation is running that this one is part of."""
        running = self._invocation
        if running is None:
            return False
        if not running.is_in_this_process():
            return False
        if not running.is_running():  # something struck its way out
            running.end()
            self._invocation = None
            return False
        if running.thread != threading.get_ident():
            raise SecondConnectionError(
                "another thread runs an invocation: an environment serves one at a time"
            )
        return True

    def _running(self) -> Invocation:
        if self._invocation is None:
            raise OutsideInvocationError(
                "a connection was asked for while no invocation is running: mark the handler with "
                "@database.invocation, and connect inside it"
            )
        return self._invocation

    def connection(self) -> Connection:
        """The invocation's PyMySQL connection, autocommit on, opened at the first call.

        Every call in the invocation gives the same one, in whichever thread; a lost one is replaced
        by a new one.

        Raises:
            OutsideInvocationError: No invocation is running.
            SettingsError: Something is missing or wrong.
            CredentialsError: The secret cannot be read, or the server refuses what it holds.
            DatabaseBusyError: No connection within the time left.
            DeadlineError: The time is over.
            pymysql.err.OperationalError: Once, where a transaction or a setting of the session made
                by hand was lost with the connection, and nobody has been told yet.
        """
        connection: Connection = self._running().session()
        return connection

    def cursor(self) -> Cursor:
        """A cursor whose rows are dictionaries, for statements that are each committed by itself.

        Use it in a `with` statement. For several statements that belong together there is
        `transaction()`.

        Raises:
            Exception: What `connection()` raises.
        """
        cursor: Cursor = self.connection().cursor(Cursor)
        return cursor

    def transaction(self) -> Block:
        """A transaction around a `with` block: commit on success, rollback on any error.

        Its value is a cursor whose rows are dictionaries. Nested, the inner block is a savepoint.
        It belongs to the thread and task that opened it: another thread's block or statement waits
        for its end, within the time left; another task of the same thread is refused.

        Raises:
            OutsideInvocationError: No invocation is running.
            TransactionControlError: On entering: a transaction is open that is no block of this
                thread and task.
            CommitOutcomeUnknownError: On leaving: no answer to COMMIT was read.
            Exception: What `connection()` raises, and PyMySQL's own errors.
        """
        return Block(self._running())

    def transactional(self, function: Callable[Concatenate[Cursor, P], R]) -> Callable[P, R]:
        """Run the function as one transaction, its cursor first, and again as a whole if it must.

        After a deadlock (1213), a lock-wait timeout (1205) or a row that has changed since it was
        read (1020) the whole function runs again, within the time left: let it touch nothing but
        the database. Called inside a transaction it is part of that one, and not run again by
        itself.

        Args:
            function: `function(cursor, ...)`.

        Raises:
            TypeError: The function is a coroutine or a generator: it would be committed before its
                work is done.
        """
        _refuse_to_return_early(function, "call it with the rows that a plain function has read")

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            def attempt() -> R:
                with self.transaction() as cursor:
                    return function(cursor, *args, **kwargs)

            running = self._running()
            hold = running.session().turns.hold
            if hold is not None and hold.is_ours():
                return attempt()
            return run_again(attempt, running.deadline, running.count_retry)

        return run


def _refuse_to_return_early(function: Callable[..., Any], instead: str) -> None:
    """Refuse what returns before its work is done, behind whatever wraps it in the usual way."""
    inner: Any = function
    while inner is not None:
        inner = getattr(inner, "func", inner)  # a functools.partial
        plain = getattr(inner, "__func__", inner)  # a method
        if not isinstance(plain, FunctionType):
            plain = getattr(type(plain), "__call__", None)  # noqa: B004 - its code is wanted
        code = getattr(plain, "__code__", None)
        if code is not None and code.co_flags & _RETURNS_EARLY:
            raise TypeError(
                f"{getattr(function, '__qualname__', function)} is a coroutine or a generator, "
                f"which returns before its work is done: mark a plain function, and {instead}"
            )
        inner = getattr(inner, "__wrapped__", None)
