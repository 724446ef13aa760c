"""Whose turn it is: one connection, and one transaction on it, of one thread and task at a time."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

from ._deadline import Deadline
from .errors import DeadlineError, TransactionControlError

# How often who waits looks whether the thread that it waits for is still there.
LOOK_SECONDS = 0.5

Kind = Literal["block", "loan", "by hand"]

# The transaction of ours that the running code is inside of. A thread or task that was started
# elsewhere does not see it.
_inside: ContextVar["Hold | None"] = ContextVar("single_connection_inside", default=None)


def _task() -> Any:
    """The asyncio task that runs in this thread, or None."""
    events = sys.modules.get("asyncio.events")
    loop = events._get_running_loop() if events is not None else None
    return None if loop is None else sys.modules["asyncio"].current_task(loop)


def _greenlet() -> Any:
    """The greenlet that runs in this thread, or None where nobody uses them."""
    library = sys.modules.get("greenlet")
    return None if library is None else library.getcurrent()


class Hold:
    """A transaction that is open, or a connection that is lent: it belongs to who opened it.

    Attributes:
        kind: A `database.transaction()` block, a loan to a library, or a transaction begun by hand.
        what: The same in words.
        place: Where it began, `file:line in function`.
        changed: Whether rows were changed in it.
        speaks: Of a loan: whether what runs now comes from who borrowed it.
        autocommit: Of a loan: whether autocommit was on before it.
        restore: Of a loan: the statement that puts back what was changed on the session, or "".
        level: Of a block: 0 for the transaction itself, above that a savepoint's number.
        marked: Of a block: whether a savepoint tells if its transaction is still the same one.
        ended: Of a block: why it cannot go on; every further statement raises this.
    """

    __slots__ = (
        "_before", "_greenlet", "_owner", "_task", "autocommit", "changed", "ended", "kind",
        "level", "marked", "place", "restore", "speaks", "thread", "what",
    )  # fmt: skip

    def __init__(self, kind: Kind, what: str, place: str, level: int = 0) -> None:
        self.kind, self.what, self.place, self.level = kind, what, place, level
        self.changed = self.marked = self.speaks = False
        self.autocommit = True
        self.restore = ""
        self.ended: Exception | None = None
        self.thread = threading.get_ident()
        self._task = _task()
        self._greenlet = _greenlet()
        self._owner = threading.current_thread()
        self._before: Hold | None = None

    def __str__(self) -> str:
        return f"{self.what} (begun at {self.place})"

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """In the block it belongs to the thread and task that runs now, and to them from then on.

        For libraries that pass what they borrowed from one thread of a pool to another.
        """
        before, spoke = _inside.get(), self.speaks
        self.thread, self._task, self._greenlet = threading.get_ident(), _task(), _greenlet()
        _inside.set(self)
        self.speaks = True
        try:
            yield
        finally:
            self.speaks = spoke
            _inside.set(before)

    def enter(self) -> None:
        """What runs from here on, in this thread and task, is inside of it."""
        self._before = _inside.get()
        _inside.set(self)

    def leave(self) -> None:
        """And from here on not any more."""
        if _inside.get() is self:
            _inside.set(self._before)

    def is_ours(self) -> bool:
        """Whether what runs now is the thread and the task that it belongs to.

        A loop of tasks that was started inside of a block is inside of it: the block waits for it.
        """
        if self.thread != threading.get_ident():
            return False
        if self._task is not None and self._task is not _task():
            return False
        if self._greenlet is not None and not self._is_above(_greenlet()):
            return False
        return self.kind != "block" or _inside.get() is self

    def is_orphaned(self) -> bool:
        """Whether the thread that alone could end it is no more; a loan may be in other hands."""
        return self.kind != "loan" and not self._owner.is_alive()

    def _is_above(self, greenlet: Any) -> bool:
        while greenlet is not None:
            if greenlet is self._greenlet:
                return True
            greenlet = greenlet.parent
        return False


class Turns:
    """One at a time: statements take turns, and a transaction keeps its turn until it ends.

    Attributes:
        lock: Held by the thread that is talking to the server.
        holds: The transaction that is open, its savepoints above it.
    """

    __slots__ = ("_closed", "_deadline", "_free", "holds", "lock")

    def __init__(self, deadline: Deadline) -> None:
        """Nobody waits longer than `deadline`."""
        self.lock = threading.RLock()
        self._free = threading.Condition(self.lock)
        self._deadline = deadline
        self._closed = False
        self.holds: list[Hold] = []

    @property
    def hold(self) -> Hold | None:
        """The innermost one that is open."""
        return self.holds[-1] if self.holds else None

    def wait(self, wanted: str) -> None:
        """Come back, `lock` held as before, when no other thread has a transaction open.

        Or when the connection is closed: what is open on it then is for nobody to wait for.

        Args:
            wanted: What for, as the error's subject.

        Raises:
            TransactionControlError: Another task of this thread has one, which could not end while
                we wait, or a thread that is no more.
            DeadlineError: It did not end within the time left.
        """
        while self.holds and not self.holds[-1].is_ours():
            hold = self.holds[-1]
            if hold.thread == threading.get_ident():
                raise TransactionControlError(
                    f"{wanted} was asked for by another task than the one that has {hold} open in "
                    "this thread, and would wait for ever: let one task end its transaction before "
                    "the next one begins"
                )
            left = self._deadline.left()
            if left <= 0:
                raise DeadlineError(
                    f"{wanted} waited until the invocation's time was over for another thread, "
                    f"which has {hold} open: let it end before, or do the work in one thread"
                )
            if self._closed:
                return
            if hold.is_orphaned():
                raise TransactionControlError(
                    f"{wanted} was asked for while {hold} is open, and the thread that began it "
                    "has ended without an end of it: put it in a `with` block in that thread"
                )
            self._free.wait(min(left, LOOK_SECONDS))

    def push(self, hold: Hold) -> None:
        """It is open from now on."""
        self.holds.append(hold)

    def drop(self, hold: Hold) -> None:
        """It has ended, with whatever is still open inside of it; harmless when repeated."""
        with self.lock:
            if hold in self.holds:
                del self.holds[self.holds.index(hold) :]
                self._free.notify_all()

    def close(self) -> None:
        """The connection is closed: nobody waits any more."""
        with self.lock:
            self._closed = True
            self._free.notify_all()
