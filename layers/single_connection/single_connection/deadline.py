"""How long this invocation may hold a connection, and who takes it away in time."""

import threading
import time
from collections.abc import Callable
from typing import Any

# Lambda's longest timeout, taken where the context does not tell (a direct call in a test).
LONGEST_INVOCATION = 900.0


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

    __slots__ = ("_cut", "_dismissed", "_thread")

    def __init__(self, deadline: Deadline, cut: Callable[[], None]) -> None:
        """Start watching."""
        self._cut = cut
        self._dismissed = threading.Lock()
        self._dismissed.acquire()
        self._thread = threading.Thread(
            target=self._watch, args=(deadline.left(),), name="single-connection-deadline"
        )
        self._thread.daemon = True
        self._thread.start()

    def _watch(self, seconds: float) -> None:
        if not self._dismissed.acquire(timeout=max(0.0, seconds)):
            self._cut()

    def dismiss(self) -> None:
        """Stop watching, and wait for a cut that is under way."""
        self._dismissed.release()
        if self._thread is not threading.current_thread():
            self._thread.join()
