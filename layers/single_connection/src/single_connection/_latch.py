"""Something that happens once: told in one thread, waited for in another."""

import _thread
import contextlib


class Latch:
    """What `threading.Event` is, for whoever may be struck by a handler's own alarm.

    An Event is written in Python: an exception out of a signal's handler that strikes inside of it
    leaves its own lock taken, and who sets it next waits for ever. This has one lock, and between
    two calls of C functions nothing that must be undone.
    """

    __slots__ = ("_lock", "_set")

    def __init__(self) -> None:
        """It has not happened."""
        self._set = False
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._set

    def set(self) -> None:
        """It happens; harmless when repeated."""
        self._set = True
        with contextlib.suppress(RuntimeError):  # released by who set it first
            self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait `timeout` seconds at most; whether it has happened."""
        if not self._set and self._lock.acquire(timeout=max(0.0, timeout)):
            self.set()  # for whoever waits beside
        return self._set
