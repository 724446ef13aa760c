"""The law: one connection per invocation, opened when first needed, destroyed on every way out."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ._deadline import Deadline, Watchdog
from ._driver import CONFIRM_SECONDS, Connection, Killer
from ._guard import Guard, caller
from ._leaks import Leak
from ._telemetry import Measurements, Telemetry
from .errors import DeadlineError, OutsideInvocationError

# For a server to answer the end of a connection that was idle.
LISTEN_SECONDS = 0.1

Opener = Callable[["Invocation"], Connection]

_running: set["Invocation"] = set()


class Invocation:
    """One invocation's hold on the database: none, or one connection, and none afterwards.

    Attributes:
        context: What Lambda passed to the handler.
        deadline: When the connection will be cut.
        measured: What telemetry will say of it.
        over: Set once the handler is done: whoever still waits for a connection stops waiting.
    """

    def __init__(
        self,
        context: Any,
        *,
        margin: float,
        opener: Opener,
        killer: Killer,
        guard: Guard,
    ) -> None:
        """Begin; nothing is opened.

        Args:
            context: Lambda's.
            margin: Seconds before Lambda's deadline at which the connection is cut.
            opener: Opens the connection, waiting where it must.
            killer: Ends the session of that number on the server.
            guard: Refuses every other connection meanwhile.
        """
        self.context = context
        self.deadline = Deadline(context, margin)
        self.measured = Measurements()
        self.over = threading.Event()
        self._opener = opener
        self._killer = killer
        self._guard = guard
        self._opening = threading.Lock()
        self._connection: Connection | None = None
        self._watchdog: Watchdog | None = None
        self._leaks: list[Leak] | None = None  # until they have been looked for
        self._process = os.getpid()
        self._thread = threading.get_ident()
        guard.enter()
        _running.add(self)

    def in_this_process(self) -> bool:
        """False in a child that was forked while the handler ran."""
        return self._process == os.getpid()

    def abandon(self) -> None:
        """In a forked child: the session is its parent's, and a word from here would spoil it."""
        if self._connection is not None:
            self._connection.abandon()

    def in_this_thread(self) -> bool:
        """Whether the handler runs in this thread."""
        return self._thread == threading.get_ident()

    def count_retry(self) -> None:
        """A transaction is run again."""
        self.measured.transaction_retries += 1

    def connection(self) -> Connection:
        """The invocation's connection, opened now if there is none.

        Raises:
            OutsideInvocationError: In a forked child, or when the handler is done.
            DeadlineError: The time is over.
        """
        if not self.in_this_process():
            raise OutsideInvocationError(
                "a forked child process asked for the invocation's connection: let the process "
                "that runs the handler talk to the database"
            )
        connection = self._connection
        if connection is not None and connection.open and not self.over.is_set():
            return connection
        with self._opening:
            if self._connection is not None:
                if self._connection.open:
                    return self._connection
                if self._connection.transaction_depth:
                    # A new one would commit the rest of the block without what was lost.
                    self._connection.raise_if_ended()
                self._release()
            if self.over.is_set():
                raise OutsideInvocationError(
                    "a thread that outlived its invocation asked for a connection: wait for your "
                    "threads before the handler returns"
                )
            if self.deadline.left() <= 0:
                raise self._late()
            connection = self._opener(self)
            if self.over.is_set():
                connection.destroy(self._killer, self._patience())
                raise OutsideInvocationError("the handler returned while this connection opened")
            self._connection = connection
            # The server is busy with the session's set-up: this is free.
            self._guard.opened(caller(), connection.inode)
            self.watch()
            if self.deadline.left() <= 0:
                self._cut()  # the watchdog may have come when there was nothing to cut yet
                raise self._late()
            return connection

    def watch(self) -> None:
        """See that the deadline is watched; the opener may do it where there is time."""
        if self._watchdog is None:
            self._watchdog = Watchdog(self.deadline, self._cut)

    def _patience(self) -> float:
        """Until when to wait for the server to let go: part of the time left is for the answer."""
        now = time.monotonic()
        return now + max(0.05, min(CONFIRM_SECONDS, (self.deadline.hard - now) / 2))

    def _late(self) -> DeadlineError:
        return DeadlineError(
            f"the invocation's time is over but for the last {self._margin():.1f} s, which are for "
            "the answer: the connection was destroyed, and what was not committed is rolled back"
        )

    def _margin(self) -> float:
        return self.deadline.hard - self.deadline.soft

    def _cut(self) -> None:
        connection = self._connection
        if connection is not None:
            self.measured.deadline_cuts = 1  # there is no opening another one after it
            connection.cut(self._late, self._killer, self._patience())  # counted when released

    def _release(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Let go of the connection there is, alive or dead."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self.measured.destroyed += 1
        try:
            if not connection.destroy(self._killer, self._patience(), meanwhile):
                self.measured.unconfirmed += 1
        finally:
            self._guard.closed()

    def end(self, telemetry: Telemetry, kill_ends: Callable[[frozenset[str], float], bool]) -> None:
        """The way out: destroy the connection, find what else there is, say what was unusual.

        Never raises: the handler's own answer or error matters more than ours.
        """
        if not self.in_this_process():
            return  # a forked child on its way out: the session is its parent's
        _running.discard(self)
        self.over.set()
        problems: list[str] = []
        open_transaction = self._connection is not None and self._connection.in_transaction
        with self._opening:
            watchdog = self._watchdog
            if watchdog is not None:
                watchdog.dismiss()
            _try(lambda: self._release(meanwhile=lambda: self._meanwhile(problems)), problems)
        _try(lambda: self._destroy_leaks(kill_ends), problems)
        self._guard.leave()
        _try(lambda: self._report(telemetry, problems, open_transaction), [])
        if watchdog is not None:
            watchdog.join()  # no thread outlives the invocation; it had time to end meanwhile

    def _meanwhile(self, problems: list[str]) -> None:
        """What can be done while the server lets go of the connection."""
        _try(self._find_leaks, problems)
        if self._watchdog is not None:
            self._watchdog.release()

    def _find_leaks(self) -> list[Leak]:
        if self._leaks is None:
            self._leaks = self._guard.find_leaks()
        return self._leaks

    def _destroy_leaks(self, kill_ends: Callable[[frozenset[str], float], bool]) -> None:
        leaks = self._find_leaks()
        if not leaks:
            return
        self.measured.leaks += len(leaks)
        until = self._patience()
        # One that is in the middle of a statement does not hear: those are looked for and killed.
        deaf = [leak.end for leak in leaks if not leak.shut(LISTEN_SECONDS)]
        if deaf and not kill_ends(frozenset(deaf), until):
            self.measured.unconfirmed += len(deaf)

    def _report(self, telemetry: Telemetry, problems: list[str], open_transaction: bool) -> None:
        measured = self.measured
        if open_transaction:
            problems.append("a transaction was left open, and is rolled back")
        if measured.leaks:
            problems.append(
                f"{measured.leaks} connections beside the invocation's own were found and destroyed"
            )
        if measured.deadline_cuts:
            problems.append("the connection was cut because the time was nearly over")
        if measured.unconfirmed:
            problems.append("the server did not confirm that it let go; its lease will end it")
        for problem in problems:
            telemetry.warn(problem, self.context)
        telemetry.emit(measured)


def _try(action: Callable[[], object], problems: list[str]) -> None:
    """A clean-up must not hide what the handler answered or raised: note its failure, go on."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is logged
        problems.append(f"a clean-up failed: {type(error).__name__}: {error}")


def _after_fork() -> None:
    for invocation in _running:
        invocation.abandon()


os.register_at_fork(after_in_child=_after_fork)
