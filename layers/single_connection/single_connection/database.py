"""The one object a handler's module holds: settings, and the way to the invocation's connection."""

import contextlib
import functools
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from . import driver
from .admission import Admission
from .credentials import Credentials
from .errors import (
    CredentialsError,
    DatabaseBusyError,
    OutsideInvocationError,
    SecondConnectionError,
    SettingsError,
)
from .guard import Guard
from .invocation import Invocation
from .kill import kill
from .lease import Lease
from .settings import DEFAULT_DEADLINE_MARGIN, Settings
from .telemetry import Telemetry
from .tls import ResumingContext
from .transaction import run_again, transaction

P = ParamSpec("P")
R = TypeVar("R")
Handler = TypeVar("Handler", bound=Callable[..., Any])

# Seconds between two readings of a secret that the server refuses: while a rotation is between
# changing the password and publishing it, only waiting helps.
REREAD_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0)


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
        self._admission = Admission()
        self._guard = Guard(self._address)
        self._invocation: Invocation | None = None
        self._open: Callable[[Invocation], driver.Connection] = self._admit

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            SettingsError: With everything that is missing or wrong.
        """
        return self._read_settings()

    @functools.cached_property
    def _credentials(self) -> Credentials:
        return Credentials(self.settings)

    @functools.cached_property
    def _tls(self) -> ResumingContext:
        return ResumingContext(self.settings.ca_file)

    def _address(self) -> tuple[str, int] | None:
        try:
            return self.settings.host, self.settings.port
        except SettingsError:
            return None  # said where it matters: at the first connection

    # The handler's side -------------------------------------------------------------------------

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
                invocation.end(self._telemetry, self._kill_ends)
                self._invocation = None

        return marked  # type: ignore[return-value]

    def _begin(self, context: Any) -> Invocation:
        self._invocation = invocation = Invocation(
            context,
            margin=self._margin(),
            opener=self._open,
            killer=self._kill_session,
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

    # The server's side --------------------------------------------------------------------------

    def _admit(self, invocation: Invocation) -> driver.Connection:
        """Open the invocation's connection, waiting at a full database."""
        settings, deadline = self.settings, invocation.deadline
        tag = _tag(invocation.context) if settings.tag_statements else ""
        measured = invocation.measured

        def attempt() -> driver.Connection:
            began = time.perf_counter()
            lease = Lease(
                max(0.0, deadline.hard - time.monotonic()), through_proxy=settings.through_proxy
            )
            with self._guard.permitted():
                opened = driver.open_connection(
                    self._target(), lease, tag=tag, timeout=deadline.left()
                )
            measured.connect_seconds = time.perf_counter() - began
            return opened

        try:
            connection, attempts, waited = self._admission.admit(
                lambda: self._through_rotation(attempt, invocation),
                until=deadline.soft,
                stop=invocation.over,
            )
        except DatabaseBusyError as busy:
            measured.attempts += busy.attempts
            measured.waited_seconds += busy.waited
            raise
        measured.attempts += attempts
        measured.waited_seconds += waited
        return connection

    def _through_rotation(
        self, attempt: Callable[[], driver.Connection], invocation: Invocation
    ) -> driver.Connection:
        """Attempt again with the secret read anew, while a rotation may be going on."""
        try:
            return attempt()
        except CredentialsError as refused:
            if not self._credentials.can_change or not driver.is_denied(refused.__cause__):
                raise
            last = refused
        for pause in REREAD_SECONDS:
            if invocation.deadline.left() <= pause or invocation.over.wait(pause):
                break
            self._credentials.read(again=True)
            try:
                return attempt()
            except CredentialsError as refused:
                last = refused
        raise last

    def _target(self) -> driver.Target:
        settings = self.settings
        user, password = self._credentials.read()
        return driver.Target(
            host=settings.host,
            port=settings.port,
            name=settings.name,
            user=user,
            password=password,
            tls=self._tls,
            through_proxy=settings.through_proxy,
        )

    def _kill_session(self, thread_id: int, age: float, until: float) -> bool:
        return self._kill(until, thread_id=thread_id, age=age)

    def _kill_ends(self, ends: frozenset[str], until: float) -> bool:
        return self._kill(until, ends=ends)

    def _kill(self, until: float, **which: Any) -> bool:
        if self.settings.through_proxy:
            return False  # the numbers are the proxy's own: closing our side must do

        def open_killer() -> driver.Connection:
            """A momentary connection beside the invocation's, for a session that is deaf."""
            left = max(0.05, until - time.monotonic())
            with self._guard.permitted(beside=True):
                return driver.open_connection(self._target(), Lease(left), timeout=left)

        try:
            return kill(open_killer, until, **which)
        except Exception as error:  # noqa: BLE001 - the lease ends what we could not
            self._telemetry.warn(
                "a session could not be killed", None, error=f"{type(error).__name__}: {error}"
            )
            return False


def _tag(context: Any) -> str:
    """A comment in sqlcommenter's form, naming function and request."""
    named = {
        "function": getattr(context, "function_name", ""),
        "request_id": getattr(context, "aws_request_id", ""),
    }
    return " /*" + ",".join(f"{key}='{quote(str(v), safe='')}'" for key, v in named.items()) + "*/"
