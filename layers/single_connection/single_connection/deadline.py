"""How long this invocation may hold a connection, and who takes it away in time."""

import _thread
import threading
import time
from collections.abc import Callable
from typing import Any

# Lambda's longest timeout, in seconds; taken where the context does not tell, as in a direct call.
LONGEST_INVOCATION = 900


class Deadline:
    """The moment, on the monotonic clock, by which the connection is gone.

    Attributes:
        hard: When Lambda ends the environment.
        soft: When the connection is cut: `margin` seconds before, or half-way where less is left.
    """

    __slots__ = ("hard", "soft")

    def __init__(self, context: Any, margin: float) -> None:
        """Read the time left from `context`, in milliseconds as Lambda gives it."""
        remaining = getattr(context, "get_remaining_time_in_millis", None)
        left = LONGEST_INVOCATION if remaining is None else max(0.0, remaining() / 1000)
        self.hard = time.monotonic() + left
        self.soft = self.hard - min(margin, left / 2)

    def left(self) -> float:
        """Seconds until the cut; negative after it."""
        return self.soft - time.monotonic()


class Watchdog:
    """Calls `cut` at the deadline, from a thread of its own, unless it is dismissed before.

    A thread, not a signal: it also reaches a handler that hangs in native code or was called from
    another thread than the main one. It lives as long as the connection does, and no longer.
    """

    __slots__ = ("_cut", "_deadline", "_dismissed", "_ended", "_ident", "_turn")

    def __init__(self, deadline: Deadline, cut: Callable[[], None]) -> None:
        """Start watching."""
        self._cut = cut
        self._ident = 0
        self._deadline = deadline
        self._turn = threading.Lock()  # whoever takes it first: the cut, or the dismissal
        self._dismissed = threading.Lock()
        self._dismissed.acquire()
        self._ended = threading.Lock()
        self._ended.acquire()
        # threading.Thread would wait here until the thread runs, on each invocation.
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        self._ident = threading.get_ident()
        try:
            # Asked here: on a busy machine the thread may begin late.
            woken = self._dismissed.acquire(timeout=max(0.0, self._deadline.left()))
            if not woken and self._turn.acquire(blocking=False):
                self._cut()
        finally:
            self._ended.release()

    def dismiss(self) -> None:
        """Stop watching: no cut begins after this, and one that is under way is waited for."""
        under_way = not self._turn.acquire(blocking=False)
        self._dismissed.release()
        if under_way:
            self.join()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._ident != threading.get_ident():
            with self._ended:
                pass
