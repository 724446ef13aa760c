"""How long this invocation may hold a connection, and who takes it away in time."""

import _thread
import functools
import operator
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
    another thread than the main one. It is gone before the answer leaves.

    It is put together of C functions: a thread that never enters a Python frame, unless it has to
    cut, costs half (docs/speed.md). Start and release it just before waiting for the server, which
    is when it can have the interpreter for nothing.
    """

    __slots__ = ("_cut", "_ended", "_released", "_turn")

    def __init__(self, deadline: Deadline, cut: Callable[[], None]) -> None:
        """Start watching."""
        self._cut = cut
        self._turn = threading.Lock()  # whoever takes it first: the cut, or the dismissal
        self._released = threading.Lock()
        self._released.acquire()
        self._ended = threading.Lock()
        self._ended.acquire()
        released = functools.partial(self._released.acquire, True, max(0.0, deadline.left()))
        watch = functools.partial(any, map(self._expire, iter(released, True)))
        steps: tuple[Callable[[], object], ...] = (watch, self._ended.release)
        # threading.Thread would wait here until the thread runs.
        _thread.start_new_thread(any, (map(operator.call, steps),))

    def _expire(self, _released: bool) -> bool:
        """The time is over: `iter` goes on until the lock is released, and True ends it all."""
        try:
            if self._turn.acquire(blocking=False):
                self._cut()
        finally:
            self._ended.release()
        return True

    def dismiss(self) -> None:
        """Stop watching: no cut begins after this, and one that is under way is waited for."""
        if not self._turn.acquire(blocking=False):
            self.join()

    def release(self) -> None:
        """Let the thread end, once dismissed; harmless when repeated."""
        if self._released.locked():
            self._released.release()

    def join(self) -> None:
        """Let the thread end, and wait until it has."""
        self.release()
        with self._ended:
            pass
