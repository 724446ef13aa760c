"""The way to one database: opens, and ends what does not listen. What stays warm is here."""

import os
import time
import weakref
from typing import Any

from . import _credentials, _snapshot
from . import _driver as driver
from ._admission import Admission, Refused
from ._clock import clock
from ._credentials import Credentials
from ._deadline import Deadline
from ._early import EarlyRequest
from ._guard import Guard
from ._kill import kill_ends, kill_marked
from ._leaks import Leak
from ._lease import Lease
from ._opening import Opening
from ._server_errors import DENIED, FULL
from ._settings import DEFAULT_DEADLINE_MARGIN, Settings
from ._telemetry import Measurements, Telemetry
from ._tls import ResumingContext
from .errors import CredentialsError, DatabaseBusyError, SettingsError

# Seconds between two readings of a secret that the server refuses: while a rotation is between
# changing the password and publishing it, only waiting helps.
REREAD_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0)


_connectors: "weakref.WeakSet[MySQLConnector]" = weakref.WeakSet()


class MySQLConnector:
    """Opens and ends sessions; keeps credentials, TLS and experience, never a socket."""

    def __init__(self, settings: Settings | None, environ: Any, telemetry: Telemetry) -> None:
        """Nothing is read yet.

        Args:
            settings: Complete and checked, or None to take them from `environ` at first use.
            environ: The environment's variables.
            telemetry: Is told what could not be ended.
        """
        self._settings = settings
        self._who: Credentials | None = None
        self._context: ResumingContext | None = None
        self._environ = environ
        self._telemetry = telemetry
        self._admission = Admission()
        self._early = EarlyRequest()
        self._guard = Guard(self)
        _connectors.add(self)
        _credentials.prepare(environ)
        _snapshot.register(environ, forget=self._before_snapshot, prepare=self._after_restore)

    # Not functools.cached_property, which holds all that is in `self`, the environment too, in a
    # frame of each error.

    @property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            SettingsError: With everything that is missing or wrong.
        """
        if self._settings is None:
            self._settings = Settings.from_environment(self._environ)
        return self._settings

    @property
    def _credentials(self) -> Credentials:
        if self._who is None:
            self._who = Credentials(self.settings)
        return self._who

    @property
    def _tls(self) -> ResumingContext:
        if self._context is None:
            self._context = ResumingContext(self.settings.ca_file)
        return self._context

    def address(self) -> tuple[str, int] | None:
        """Host and port; None where the settings cannot be read: said at the first connection."""
        try:
            return self.settings.host, self.settings.port
        except SettingsError:
            return None

    @property
    def margin(self) -> float:
        """Seconds before Lambda's deadline at which the connection is cut."""
        try:
            return self.settings.deadline_margin
        except SettingsError:
            return DEFAULT_DEADLINE_MARGIN  # a handler that asks for no connection needs none

    def enter(self) -> None:
        """An invocation begins."""
        self._guard.enter()

    def opened(self, place: str, session: driver.Connection) -> None:
        """The invocation's own connection, asked for at `place`."""
        self._guard.opened(place, session.inode)

    def closed(self) -> None:
        """The invocation's own connection is no more."""
        self._guard.closed()

    def leave(self) -> None:
        """The invocation is over: nothing may be opened until the next."""
        self._guard.leave()

    def find_leaks(self) -> list[Leak]:
        """Connections to the database that were not permitted and exist all the same."""
        return self._guard.find_leaks()

    # In ----------------------------------------------------------------------------------------

    def open(self, opening: Opening, context: Any, measured: Measurements) -> driver.Connection:
        """The invocation's connection, opened after waiting at a full database.

        Raises:
            SettingsError: Something is missing or wrong.
            CredentialsError: The secret cannot be read, or the server refuses what it holds.
            DatabaseBusyError: No connection within the time left.
        """
        settings, deadline = self.settings, opening.deadline
        tag = _tag(context) if settings.tag_statements else ""

        def attempt() -> driver.Connection:
            began = time.perf_counter()
            lease = Lease(
                max(0.0, deadline.hard - clock.now()),
                mark="" if settings.through_proxy else os.urandom(12).hex(),
                through_proxy=settings.through_proxy,
            )
            try:
                opened = self._connect(lease, opening, deadline.soft, tag=tag)
            except Refused as refused:
                opening.was_refused = refused.code in FULL
                raise
            measured.connect_seconds = time.perf_counter() - began
            return opened

        try:
            connection, attempts, waited = self._admission.admit(
                attempt, until=deadline.soft, stop=opening.over, number=self._number
            )
        except DatabaseBusyError as busy:
            measured.attempts += busy.attempts
            measured.waited_seconds += busy.waited
            raise
        measured.attempts += attempts
        measured.waited_seconds += waited
        return connection

    def _number(self, connection: driver.Connection) -> int | None:
        """The server's for it; RDS Proxy's numbers are its own."""
        return None if self.settings.through_proxy else connection.claimed_id

    def _connect(
        self, lease: Lease, opening: Opening, until: float, *, tag: str = "", beside: bool = False
    ) -> driver.Connection:
        """Connect, again with the secret read anew while a rotation may be going on."""
        _ = self._tls  # whatever is wrong there is said before a password is read
        pauses = iter(REREAD_SECONDS)
        again = False
        while True:
            left = until - clock.now()
            try:
                with self._guard.permitted(beside=beside):
                    return self._log_in(lease, opening, until, tag=tag, again=again)
            except CredentialsError as refused:
                code = getattr(refused.__cause__, "args", (0,))[:1]
                pause = next(pauses, None)
                if (
                    not (code and code[0] in DENIED and self._credentials.can_change)
                    or pause is None
                    or left <= pause
                    or opening.over.wait(pause)
                ):
                    raise
                again = True

    def _log_in(
        self, lease: Lease, opening: Opening, until: float, *, tag: str, again: bool
    ) -> driver.Connection:
        """No frame above this one has seen the password, nor has the error that leaves it."""
        try:
            return self._log_in_with_password(lease, opening, until, tag=tag, again=again)
        except BaseException as error:
            _forget_frames(error)
            raise

    def _log_in_with_password(
        self, lease: Lease, opening: Opening, until: float, *, tag: str, again: bool
    ) -> driver.Connection:
        settings = self.settings
        user, password = self._credentials.read(again=again, within=max(0.05, until - clock.now()))
        target = driver.Target(
            host=settings.host,
            port=settings.port,
            addresses=driver.addresses(self._guard, settings.host, until),
            name=settings.name,
            user=user,
            password=password,
            tls=self._tls,
            early=None if settings.through_proxy else self._early,
        )
        try:
            return driver.open_connection(target, lease, opening, until, tag=tag)
        except BaseException as error:
            _forget_word(error, password)  # whoever was told it may say it again
            raise

    # Out ---------------------------------------------------------------------------------------

    def end(self, session: driver.Connection, until: float) -> bool:
        """Kill a session that does not listen; whether the server is known to have let go."""
        if not session.mark:
            return False  # a proxy's: the numbers are its own, closing our side must do
        return self._beside(until, lambda killer: kill_marked(
            killer, session.mark, session.claimed_id, until
        ))  # fmt: skip

    def end_leaks(self, ends: frozenset[str], until: float) -> bool:
        """Kill the sessions that come from these addresses of ours; whether they are gone."""
        if self.settings.through_proxy:
            return False
        return self._beside(until, lambda killer: kill_ends(killer, ends, until))

    def _beside(self, until: float, work: Any) -> bool:
        """Do `work` on a momentary connection beside the invocation's; False if it failed."""
        left = max(0.05, until - clock.now())
        try:
            opening = Opening(Deadline(left, 0.0))
            killer = self._connect(Lease(left), opening, until, beside=True)
            try:
                return bool(work(killer))
            finally:
                if killer.say_goodbye(until):
                    killer.is_gone(until)
                killer.hang_up(until)
        except Exception as error:  # noqa: BLE001 - the lease ends what we could not
            self._telemetry.warn(
                "a session that was cut could not be killed: the server ends it with its lease, "
                "or when its statement ends",
                None,
                error=f"{type(error).__name__}: {error}",
            )
            return False

    def _before_snapshot(self) -> None:
        self.forget()
        if self._who is not None:
            self._who.forget()

    def _after_restore(self) -> None:
        """What the first connection needs is there when it is asked for."""
        _ = self._tls
        self._credentials.read()

    def forget(self) -> None:
        """Keep nothing that copies of this process may not share."""
        self._early.forget()
        self._admission = Admission()
        if self._context is not None:
            self._context.forget()


def _chain(error: BaseException) -> list[BaseException]:
    """The error, what caused it, and what it came in the way of."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and not any(one is known for known in found):
            found.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "original_exception", None)]
    return found


def _forget_frames(error: BaseException) -> None:
    """While it logs in, the driver's frames hold the password in the clear; its context's, too."""
    for one in _chain(error):
        one.__traceback__ = None


def _forget_word(error: BaseException, word: str) -> None:
    """Take `word` out of what the errors say."""
    for one in _chain(error):
        one.args = tuple(
            said.replace(word, "***") if isinstance(said, str) else said for said in one.args
        )


def _tag(context: Any) -> str:
    """A comment in sqlcommenter's form, naming function and request."""
    named = {
        "function": getattr(context, "function_name", ""),
        "request_id": getattr(context, "aws_request_id", ""),
    }
    from urllib.parse import quote  # noqa: PLC0415 - 2 ms at a cold start, and rarely switched on

    return " /*" + ",".join(f"{key}='{quote(str(v), safe='')}'" for key, v in named.items()) + "*/"


def _after_fork() -> None:
    for connector in list(_connectors):
        connector.forget()


os.register_at_fork(after_in_child=_after_fork)
