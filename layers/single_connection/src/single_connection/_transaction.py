"""All or nothing: a block that commits or rolls back as a whole, and is run again as a whole."""

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from pymysql.err import MySQLError

from ._deadline import Deadline
from ._driver import Cursor
from ._guard import caller
from ._jitter import uniform
from ._protocols import Session
from ._server_errors import REPEATABLE
from ._turns import Hold
from .errors import TransactionControlError

R = TypeVar("R")

# Of a code object: a generator, an asynchronous generator (Python's data model).
_GENERATORS = 0x20 | 0x200

FIRST_PAUSE = 0.02  # seconds
LONGEST_PAUSE = 0.5


class Block:
    """A block of statements that are committed together, or not at all.

    Entering gives a cursor whose rows are dictionaries. Inside another block of the same thread and
    task it works under a savepoint.
    """

    __slots__ = ("_cursor", "_hold", "_invocation", "_session")

    def __init__(self, invocation: Any) -> None:
        """Nothing is begun yet; `invocation.session()` gives the connection."""
        self._invocation = invocation
        self._session: Session | None = None
        self._hold: Hold | None = None
        self._cursor: Cursor | None = None

    def __enter__(self) -> Cursor:
        """Begin.

        Raises:
            TransactionControlError: A transaction is open that is not a block of this thread and
                task.
            Exception: What `database.connection()` raises, and PyMySQL's own errors.
        """
        if self._session is not None and self._hold is not None:
            raise TransactionControlError(
                f"{self._hold} was entered again before its end: ask database.transaction() for an "
                "inner block of its own"
            )
        try:
            self._session = session = self._invocation.session()
            self._hold = session.enter_block(caller())
            cursor: Cursor = session.cursor(Cursor)
            self._cursor = cursor
            return cursor  # noqa: TRY300 - in the reach of `except`, whatever strikes
        except BaseException:
            self._end(commit=False)
            raise

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Commit, or roll back if the block failed.

        Raises:
            CommitOutcomeUnknownError: COMMIT was sent, and no answer to it was read.
        """
        if error is None:
            try:
                self._end(commit=True)
            finally:
                self._end(commit=False)  # whatever struck, nothing stays open
        else:
            hold = self._hold
            with contextlib.suppress(Exception):  # the error on its way out says more
                self._end(commit=False)
            if hold is not None and hold.changed and _is_dropped(error):
                self._invocation.given_up = hold  # nobody hears of a generator that is dropped

    def _end(self, *, commit: bool) -> None:
        session, hold = self._session, self._hold
        if session is None or hold is None:
            return
        try:
            session.leave_block(hold, commit=commit)
        finally:
            self._session = None
            if self._cursor is not None:
                with contextlib.suppress(Exception):
                    self._cursor.close()


def _is_dropped(error: BaseException) -> bool:
    """Whether it ends a generator, or an asynchronous one, that nobody reads any more."""
    trace = error.__traceback__ if isinstance(error, GeneratorExit) else None
    return trace is not None and bool(trace.tb_frame.f_code.co_flags & _GENERATORS)


def run_again(attempt: Callable[[], R], deadline: Deadline, count: Callable[[], None]) -> R:
    """Call `attempt`, a whole transaction, again after each error of which the server says so.

    Args:
        attempt: Begins and ends the transaction.
        deadline: No further attempt is begun when less time is left than the pause before it.
        count: Told of each repetition.

    Raises:
        pymysql.err.MySQLError: 1213, 1205 or 1020, when the time is over; else what `attempt` does.
    """
    limit = FIRST_PAUSE
    while True:
        try:
            return attempt()
        except MySQLError as error:
            pause = uniform(0, limit)
            code = error.args[0] if error.args else 0
            if code not in REPEATABLE or deadline.left() <= pause:
                raise
        count()
        time.sleep(pause)
        limit = min(2 * limit, LONGEST_PAUSE)
