"""The law: one connection per invocation, opened when first needed, destroyed on every way out."""

import os
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from ._clock import clock
from ._deadline import Deadline, Watchdog, seconds_left
from ._guard import caller
from ._leaks import Leak
from ._opening import Opening
from ._protocols import Connector, Session
from ._telemetry import Measurements, Telemetry
from ._turns import Hold
from .errors import DatabaseBusyError, DeadlineError, OutsideInvocationError, UncommittedWorkError

# For a server to let go of a session: measured at 45 microseconds on loopback; a rollback of much
# work takes longer, and the server then finishes it without us.
CONFIRM_SECONDS = 1.0
# For a server to answer the end of a connection that was idle.
LISTEN_SECONDS = 0.1

_running: set["Invocation"] = set()


class Invocation:
    """One invocation's hold on the database: none, or one connection, and none afterwards.

    Whatever strikes on the way out, `end` can be called again, and does what is not done yet.
    """

    def __init__(self, connector: Connector, telemetry: Telemetry, context: Any) -> None:
        """Nothing is held yet.

        Raises:
            TypeError: `context` tells no time.
        """
        self.context = context
        self.deadline = Deadline(seconds_left(context), connector.margin)
        self.measured = Measurements()
        self._connector = connector
        self._telemetry = telemetry
        self._watchdog = Watchdog(self.deadline, self._cut)
        self._opening = Opening(self.deadline, self._watchdog)
        self._turn = threading.Lock()  # of whoever opens the connection, or takes it away for good
        self._session: Session | None = None
        self._leaks: list[Leak] | None = None  # until they have been looked for
        self._was_open = False
        self._counted = self._reported = False
        self._process = os.getpid()
        self.thread = threading.get_ident()
        self.frame: FrameType | None = None
        self.given_up: Hold | None = None

    def __enter__(self) -> Self:
        self.frame = sys._getframe(1)
        _running.add(self)
        self._connector.enter()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.end()

    def is_in_this_process(self) -> bool:
        """False in a child that was forked while the handler ran."""
        return self._process == os.getpid()

    def is_running(self) -> bool:
        """Whether its handler is still being called: something may have struck its way out."""
        frame = sys._current_frames().get(self.thread)
        while frame is not None:
            if frame is self.frame:
                return True
            frame = frame.f_back
        return False

    def abandon(self) -> None:
        """In a forked child: the session is its parent's, and a word from here would spoil it."""
        if self._session is not None:
            self._session.abandon()

    def count_retry(self) -> None:
        """A transaction is run again."""
        self.measured.transaction_retries += 1

    # In ----------------------------------------------------------------------------------------

    def session(self) -> Any:
        """The invocation's connection, opened now if there is none.

        Raises:
            OutsideInvocationError: In a forked child, or when the handler is done.
            DeadlineError: The time is over.
        """
        if not self.is_in_this_process():
            raise OutsideInvocationError(
                "a forked child process asked for the invocation's connection: let the process "
                "that runs the handler talk to the database"
            )
        session = self._session
        if session is not None and session.open and not self._opening.over.is_set():
            return session
        with self._turn:
            if self._session is not None:
                if self._session.open and not self._opening.over.is_set():
                    return self._session
                self._replace(self._session)
            self._be_in_time()
            try:
                opened = self._connector.open(self._opening, self.context, self.measured)
            except DatabaseBusyError:
                if self._opening.over.is_set():
                    self._be_in_time()
                raise
            self._session = opened
            # The server is busy with the session's set-up: this is free.
            self._connector.opened(caller(), opened)
            self._watchdog.start()
            if self.deadline.left() <= 0:
                self._cut()  # the watchdog may have come when there was nothing to cut yet
            self._be_in_time()
            return opened

    def _be_in_time(self) -> None:
        if self._opening.over.is_set():
            raise OutsideInvocationError(
                "a thread that outlived its invocation asked for a connection: wait for your "
                "threads before the handler returns"
            )
        if self.deadline.left() <= 0:
            raise DeadlineError(self._too_late())

    def _replace(self, lost: Session) -> None:
        """Let go of a connection that was lost; refuse where something would be forgotten."""
        holds = lost.turns.holds
        if holds:  # a new one would commit the rest of the block without what was lost
            raise holds[0].ended or lost.refusal()
        forgotten = lost.forgotten
        self._release([])
        if forgotten is not None:
            raise forgotten

    def _too_late(self) -> str:
        margin = self.deadline.hard - self.deadline.soft
        return (
            f"the invocation's time is over but for the last {margin:.1f} s, which are for the "
            "answer: the connection was destroyed, and what was not committed is rolled back"
        )

    # Out ---------------------------------------------------------------------------------------

    def _until(self) -> float:
        """When to stop waiting for the server to let go: some of the time left is the answer's."""
        now = clock.now()
        return now + max(0.05, min(CONFIRM_SECONDS, (self.deadline.hard - now) / 2))

    def _cut(self) -> None:
        """The deadline: called by the watchdog, in its own thread."""
        session = self._session
        if session is None:
            return
        self.measured.deadline_cuts = 1  # there is no opening another one after it
        until = self._until()
        session.revoke(DeadlineError, self._too_late())
        gone = session.say_goodbye(until) and session.is_gone(until)
        if not gone and not self._counted:
            self._counted = True
            gone = self._connector.end(session, until)
            self.measured.unconfirmed += not gone
        self._counted = True
        session.hang_up(until)

    def _release(self, problems: list[str]) -> None:
        """Let go of the connection there is, alive or dead."""
        session = self._session
        if session is None:
            return
        until = self._until()
        said = _try(lambda: session.say_goodbye(until), problems)
        if self._opening.over.is_set():
            # While the server takes its leave.
            _try(self._find_leaks, problems)
            self._watchdog.release()
        if not self._counted:
            gone = said and _try(lambda: session.is_gone(until), problems)
            self._counted = True
            if not gone and not _try(lambda: self._connector.end(session, until), problems):
                self.measured.unconfirmed += 1
        _try(lambda: session.hang_up(until), problems)
        self.measured.destroyed += 1
        self._connector.closed()
        self._session = None
        self._counted = False

    def check_all_is_written(self) -> None:
        """The handler has returned: is anything open that it may believe to be written?

        Raises:
            UncommittedWorkError: A transaction is open, and has changed rows; or was undone, as the
                generator that it was in was dropped.
        """
        if self.given_up is not None:
            raise UncommittedWorkError(
                f"a generator was dropped before its end inside {self.given_up}, and the rows that "
                "were changed in it are rolled back: read it to its end, or have no block in it"
            )
        session = self._session
        if session is None:
            return
        unfinished = session.unfinished
        if unfinished is not None:
            raise UncommittedWorkError(
                f"the handler returned while {unfinished} was open and had changed rows, which are "
                "rolled back: commit, or end the block, before the handler returns"
            )

    def end(self) -> None:
        """The way out: destroy the connection, find what else there is, say what was unusual.

        Never raises by itself: the handler's own answer or error matters more than ours.
        """
        if self not in _running or not self.is_in_this_process():
            return  # done, or a forked child on its way out: the session is its parent's
        self._opening.abandon()
        session = self._session
        if session is not None:
            self._was_open = self._was_open or session.in_transaction
            session.revoke(
                OutsideInvocationError,
                "a connection was used after its invocation had ended: keep none in a global, ask "
                "database.connection() in each invocation",
            )
        problems: list[str] = []
        self._watchdog.dismiss()
        # Somebody may be opening still: that attempt has been cut, and is over in a moment.
        taken = self._turn.acquire(timeout=max(0.05, self._until() - clock.now()))
        try:
            self._release(problems)
            _try(self._destroy_leaks, problems)
        finally:
            if taken:
                self._turn.release()
        self._connector.leave()
        if not self._reported:
            self._reported = True
            _try(lambda: self._report(problems), [])
        self._watchdog.join()  # no thread outlives the invocation; it had time to end meanwhile
        _running.discard(self)
        self.frame = None

    def _find_leaks(self) -> list[Leak]:
        if self._leaks is None:
            self._leaks = self._connector.find_leaks()
        return self._leaks

    def _destroy_leaks(self) -> None:
        leaks = self._find_leaks()
        if not leaks:
            return
        self.measured.leaks += len(leaks)
        until = self._until()
        # One that is in the middle of a statement does not hear: those are looked for and killed.
        patience = min(LISTEN_SECONDS, (until - clock.now()) / 2 / len(leaks))
        deaf = [leak.end for leak in leaks if not leak.shut(patience)]
        if deaf and not self._connector.end_leaks(frozenset(deaf), until):
            self.measured.unconfirmed += len(deaf)

    def _report(self, problems: list[str]) -> None:
        measured = self.measured
        if self._was_open:
            problems.append("a transaction was left open, and is rolled back")
        if measured.leaks:
            problems.append(
                f"{measured.leaks} connections beside the invocation's own were found and destroyed"
            )
        if measured.deadline_cuts:
            problems.append("the connection was cut because the time was nearly over")
        if measured.unconfirmed:
            problems.append(
                "the server did not confirm that it let go: it ends the session with its lease, or "
                "when the statement that it is in ends"
            )
        for problem in problems:
            self._telemetry.warn(problem, self.context)
        self._telemetry.emit(measured)


def _try(action: Callable[[], Any], problems: list[str]) -> Any:
    """A clean-up must not hide what the handler answered or raised: note its failure, go on."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is logged
        problems.append(f"a clean-up failed: {type(error).__name__}: {error}")


def _after_fork() -> None:
    for invocation in list(_running):
        invocation.abandon()


os.register_at_fork(after_in_child=_after_fork)
