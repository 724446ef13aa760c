"""The way in to one database, and the way to end what does not listen: what stays warm is here."""

import functools
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from . import _driver as driver
from ._admission import Admission
from ._credentials import Credentials
from ._guard import Guard
from ._invocation import Invocation
from ._kill import kill
from ._lease import Lease
from ._settings import Settings
from ._telemetry import Telemetry
from ._tls import ResumingContext
from .errors import CredentialsError, DatabaseBusyError

# Seconds between two readings of a secret that the server refuses: while a rotation is between
# changing the password and publishing it, only waiting helps.
REREAD_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0)


class Door:
    """Opens and ends sessions; keeps credentials, TLS and experience, never a socket."""

    def __init__(
        self, settings: Callable[[], Settings], guard: Guard, telemetry: Telemetry
    ) -> None:
        """Nothing is read yet: `settings` is asked at first use, and may raise SettingsError."""
        self._settings = settings
        self._guard = guard
        self._telemetry = telemetry
        self._admission = Admission()

    @functools.cached_property
    def _credentials(self) -> Credentials:
        return Credentials(self._settings())

    @functools.cached_property
    def _tls(self) -> ResumingContext:
        return ResumingContext(self._settings().ca_file)

    def open(self, invocation: Invocation) -> driver.Connection:
        """The invocation's connection, opened after waiting at a full database.

        Raises:
            SettingsError: Something is missing or wrong.
            CredentialsError: The secret cannot be read, or the server refuses what it holds.
            DatabaseBusyError: No connection within the time left.
        """
        settings, deadline = self._settings(), invocation.deadline
        tag = _tag(invocation.context) if settings.tag_statements else ""
        measured = invocation.measured

        def attempt() -> driver.Connection:
            began = time.perf_counter()
            lease = Lease(
                max(0.0, deadline.hard - time.monotonic()), through_proxy=settings.through_proxy
            )
            with self._guard.permitted():
                opened = driver.open_connection(
                    self._target(),
                    lease,
                    tag=tag,
                    timeout=deadline.left(),
                    meanwhile=invocation.watch,
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
        settings = self._settings()
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

    def kill_session(self, thread_id: int, age: float, until: float) -> bool:
        """End the session of that number and age (seconds) by `until`; whether it is gone."""
        return self._kill(until, thread_id=thread_id, age=age)

    def kill_ends(self, ends: frozenset[str], until: float) -> bool:
        """End the sessions that come from these ends of ours by `until`; whether they are gone."""
        return self._kill(until, ends=ends)

    def _kill(self, until: float, **which: Any) -> bool:
        if self._settings().through_proxy:
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
