"""How long this invocation may hold a connection, and who takes it away in time."""

import _thread
import functools
import math
import operator
import threading
from collections.abc import Callable
from typing import Any

from ._clock import clock

# Lambda's longest timeout, in seconds.
LONGEST_INVOCATION = 900
# Seconds; more than the server's limits or a lock could be told to wait, and no invocation has it.
LONGEST_DEADLINE = 86_400.0
# Seconds to wait for the end of a thread of which it is not known whether it was started.
UNSURE_SECONDS = 0.2
_CLOCK = "get_remaining_time_in_millis"


class Deadline:
    """The moment, on the monotonic clock, by which the connection is gone.

    Attributes:
        hard: When Lambda ends the environment.
        soft: When the connection is cut: `margin` seconds before, or half-way where less is left.
    """

    __slots__ = ("hard", "soft")

    def __init__(self, left: float, margin: float) -> None:
        """Count from now.

        Args:
            left: Seconds until Lambda ends the environment.
            margin: Seconds that are kept for the answer.
        """
        self.hard = clock.now() + left
        self.soft = self.hard - min(margin, left / 2)

    def left(self) -> float:
        """Seconds until the cut; negative after it."""
        return self.soft - clock.now()


def seconds_left(context: Any) -> float:
    """The seconds that Lambda gives, from the `context` it passes to a handler.

    Raises:
        TypeError: It has no clock, or one that tells no time. Without an end there is no lease
            and no cut, so none is assumed.
    """
    method = getattr(context, _CLOCK, None)
    problem: Exception | None = None
    try:
        milliseconds = float(method())  # type: ignore[misc] # what is no clock is said below
    except OverflowError:
        milliseconds = math.inf
    except (TypeError, ValueError) as error:  # what else it raises passes as it is
        milliseconds, problem = math.nan, error
    if math.isnan(milliseconds):
        raise TypeError(
            "the handler was not given Lambda's context: what it got as one "
            f"({type(context).__name__}) tells no time by {_CLOCK}(). Call it as "
            "handler(event, context); in a test, with single_connection.testing.LambdaContext()"
        ) from problem
    return min(max(0.0, milliseconds / 1000), LONGEST_DEADLINE)


def context_among(arguments: tuple[Any, ...], named: Any) -> Any:
    """Lambda's context among what a handler was called with: behind `self`, where it is a method.

    Args:
        arguments: `(event, context)`, or `(self, event, context)`.
        named: What was passed as `context=`, or None.
    """
    if named is not None:
        return named
    for argument in arguments[1:]:
        if callable(getattr(argument, _CLOCK, None)):
            return argument
    return arguments[1] if len(arguments) > 1 else None


class Watchdog:
    """Calls `cut` at the deadline, from a thread of its own, unless it is dismissed before.

    A thread, not a signal: it also reaches a handler that hangs in native code or was called from
    another thread than the main one. It is gone before the answer leaves.

    It is put together of C functions: a thread that never enters a Python frame, unless it has to
    cut, costs half (lab/connect/README.md). Start and release it just before waiting for the
    server, which is when it can have the interpreter for nothing.
    """

    __slots__ = (
        "_cut", "_deadline", "_ended", "_released", "_started", "_turn", "_unsure",
    )  # fmt: skip

    def __init__(self, deadline: Deadline, cut: Callable[[], None]) -> None:
        """Nothing runs yet."""
        self._cut = cut
        self._deadline = deadline
        self._turn = threading.Lock()  # whoever takes it first: the cut, or the dismissal
        self._released = threading.Lock()
        self._ended = threading.Lock()
        self._started = False
        self._unsure = False

    def start(self) -> None:
        """Start watching; harmless when repeated, and after a dismissal."""
        if self._started or self._turn.locked():
            return
        self._released.acquire(blocking=False)
        self._ended.acquire(blocking=False)
        wait = max(0.0, min(self._deadline.left(), threading.TIMEOUT_MAX))
        released = functools.partial(self._released.acquire, True, wait)
        watch = functools.partial(any, map(self._expire, iter(released, True)))
        steps: tuple[Callable[[], object], ...] = (watch, self._ended.release)
        try:
            self._started = True
            # threading.Thread would wait here until the thread runs.
            _thread.start_new_thread(any, (map(operator.call, steps),))
        except BaseException:
            self._unsure = True  # whether it was started
            raise

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
        if self._started and self._released.locked():
            self._released.release()

    def join(self) -> None:
        """Let the thread end, and wait until it has."""
        self.release()
        if not self._started:
            return
        if self._unsure:
            if self._ended.acquire(timeout=UNSURE_SECONDS):
                self._ended.release()
        else:
            # In one call of C functions: an exception between the two would lock us out for good.
            steps: tuple[Callable[[], object], ...] = (self._ended.acquire, self._ended.release)
            all(map(operator.call, steps))
