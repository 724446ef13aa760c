"""The one object a handler's module holds: settings, and the way to the invocation's connection."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from . import _driver as driver
from ._connector import Door
from ._guard import Guard
from ._invocation import Invocation
from ._settings import DEFAULT_DEADLINE_MARGIN, Settings
from ._telemetry import Telemetry
from ._transaction import run_again, transaction
from .errors import OutsideInvocationError, SecondConnectionError, SettingsError

P = ParamSpec("P")
R = TypeVar("R")
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Database:
    """A database that is reached through one connection per invocation, and never otherwise.

    Kept in a module's global; importing opens nothing and needs no environment. What stays warm
    between invocations is what makes the next connection cheap, never a socket.
    """

    def __init__(self, settings: Settings) -> None:
        """Use `settings`.

        Args:
            settings: Complete and checked.
        """
        self._prepare(lambda: settings)

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
        database = cls.__new__(cls)
        database._prepare(lambda: Settings.from_environment(environ), environ)
        return database

    def _prepare(
        self, read: Callable[[], Settings], environ: Mapping[str, str] = os.environ
    ) -> None:
        self._read_settings = read
        self._telemetry = Telemetry(environ)
        self._guard = Guard(self._address)
        self._door = Door(lambda: self.settings, self._guard, self._telemetry)
        self._open: Callable[[Invocation], driver.Connection] = self._door.open
        self._invocation: Invocation | None = None

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            SettingsError: With everything that is missing or wrong.
        """
        return self._read_settings()

    def _address(self) -> tuple[str, int] | None:
        try:
            return self.settings.host, self.settings.port
        except SettingsError:
            return None  # said where it matters: at the first connection

    def invocation(self, handler: Handler) -> Handler:
        """Mark a Lambda handler: whatever it opens is gone when it is left, in whichever way.

        Works under and over other decorators. Calling one marked function from another joins the
        invocation that is running.

        Args:
            handler: `handler(event, context)`; `context.get_remaining_time_in_millis()` tells the
                time left.

        Raises:
            TypeError: The handler is a coroutine or a generator: it would end before its work does.
        """
        if (
            inspect.iscoroutinefunction(handler)
            or inspect.isgeneratorfunction(handler)
            or inspect.isasyncgenfunction(handler)
        ):
            raise TypeError(
                f"{handler.__qualname__} is a coroutine or a generator, which returns before its "
                "work is done: mark a plain function, and run the coroutine inside it"
            )

        @functools.wraps(handler)
        def marked(event: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
            running = self._invocation
            if running is not None and running.in_this_process():
                if running.in_this_thread():
                    return handler(event, context, *args, **kwargs)
                raise SecondConnectionError(
                    "another thread runs an invocation: an environment serves one at a time"
                )
            invocation = self._begin(context)
            try:
                return handler(event, context, *args, **kwargs)
            finally:
                invocation.end(self._telemetry, self._door.kill_ends)
                self._invocation = None

        return marked  # type: ignore[return-value]

    def _begin(self, context: Any) -> Invocation:
        self._invocation = invocation = Invocation(
            context,
            margin=self._margin(),
            opener=self._open,
            killer=self._door.kill_session,
            guard=self._guard,
        )
        return invocation

    def _margin(self) -> float:
        try:
            return self.settings.deadline_margin
        except SettingsError:
            return DEFAULT_DEADLINE_MARGIN  # a handler that asks for no connection needs none

    def _running(self) -> Invocation:
        if self._invocation is None:
            raise OutsideInvocationError(
                "a connection was asked for while no invocation is running: mark the handler with "
                "@database.invocation, and connect inside it"
            )
        return self._invocation

    def connection(self) -> driver.Connection:
        """The invocation's PyMySQL connection, autocommit on, opened at the first call.

        Every call in the invocation gives the same one, in whichever thread; a lost one is replaced
        by a new one.

        Raises:
            OutsideInvocationError: No invocation is running.
            SettingsError: Something is missing or wrong.
            CredentialsError: The secret cannot be read, or the server refuses what it holds.
            DatabaseBusyError: No connection within the time left.
            DeadlineError: The time is over.
        """
        return self._running().connection()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[driver.DictCursor]:
        """A transaction around the block: commit on success, rollback on any error.

        Yields:
            A cursor whose rows are dictionaries. Nested, the inner block is a savepoint.

        Raises:
            CommitOutcomeUnknownError: The connection was lost during COMMIT.
            Exception: What `connection()` raises, and PyMySQL's own errors.
        """
        with transaction(self.connection()) as cursor:
            yield cursor

    def transactional(
        self, function: Callable[Concatenate[driver.DictCursor, P], R]
    ) -> Callable[P, R]:
        """Run the function as one transaction, its cursor first, and again as a whole if it must.

        After a deadlock (1213) or a lock-wait timeout (1205) the whole function runs again, within
        the time left: let it touch nothing but the database. Called inside a transaction it is part
        of that one, and not run again by itself.

        Args:
            function: `function(cursor, ...)`.
        """

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            def attempt() -> R:
                with self.transaction() as cursor:
                    return function(cursor, *args, **kwargs)

            running = self._running()
            if running.connection().transaction_depth:
                return attempt()
            return run_again(attempt, running.deadline, running.count_retry)

        return run

    @contextlib.contextmanager
    def replaced(self, settings: Settings, opener: Callable[[Invocation], Any]) -> Iterator[None]:
        """Another opener in this one's place; `single_connection.testing` builds on it.

        Args:
            settings: Stand in for the environment's.
            opener: Gives what stands in for a connection.
        """
        kept = dict(self.__dict__)
        self.__dict__["settings"] = settings
        self._open = opener
        try:
            yield
        finally:
            self.__dict__.clear()
            self.__dict__.update(kept)
