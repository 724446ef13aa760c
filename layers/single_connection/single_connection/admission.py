"""Who may connect, and when: waiting at a full database, fairly to those who have waited longest.

Environments know nothing of each other, so a queue is not to be had. Waiting times that shrink with
age come close: who has waited longest asks most often. Each environment starts from the wait it met
last, so that the policy fits the load without a setting.
"""

import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from .errors import DatabaseBusyError

R = TypeVar("R")

# Seconds. The shortest interval between two attempts, and the wait an environment expects before
# it has met one; benchmarks/overload.py shows what other values do.
SHORTEST_INTERVAL = 0.005
FIRST_EXPECTATION = 0.05
LONGEST_EXPECTATION = 2.0


class Refused(Exception):  # noqa: N818 - never leaves the layer
    """The database is full, or does not answer: waiting may help."""

    def __init__(self, code: int) -> None:
        """Keep the error number."""
        super().__init__(code)
        self.code = code


class Stop(Protocol):
    """What ends a wait early: a `threading.Event`, or a test's own."""

    def wait(self, timeout: float) -> bool:
        """Sleep `timeout` seconds; True once it is set."""


class Admission:
    """Patience at one database's door, kept for the life of the environment."""

    __slots__ = ("_clock", "_random", "expected")

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Start without experience; `clock` and `uniform` are arguments for simulation."""
        self.expected = FIRST_EXPECTATION
        self._clock = clock
        self._random = uniform

    def admit(self, attempt: Callable[[], R], *, until: float, stop: Stop) -> tuple[R, int, float]:
        """Call `attempt` until it succeeds, waiting after each `Refused`.

        Args:
            attempt: Opens a connection, or raises.
            until: The clock's time at which to give up.
            stop: Set when nobody wants the connection any more.

        Returns:
            What `attempt` gave, how many attempts it took, and the seconds waited.

        Raises:
            DatabaseBusyError: The time is over; has the last refusal's code.
        """
        started = self._clock()
        attempts = 0
        while True:
            attempts += 1
            try:
                admitted = attempt()
            except Refused as refusal:
                waited = self._clock() - started
                pause = self.pause(waited)
                if self._clock() + pause >= until or stop.wait(pause):
                    self.learn(waited)
                    raise DatabaseBusyError(
                        refusal.code,
                        retry_after=max(1.0, round(self.expected)),
                        attempts=attempts,
                        waited=waited,
                    ) from refusal.__cause__
            else:
                waited = self._clock() - started if attempts > 1 else 0.0
                self.learn(waited)
                return admitted, attempts, waited

    def pause(self, age: float) -> float:
        """Seconds to wait before the next attempt, after having waited `age` seconds."""
        interval = 1.2 * self.expected - 0.6 * age
        return max(SHORTEST_INTERVAL, interval) * self._random(0.5, 1.5)

    def learn(self, waited: float) -> None:
        """Expect next time something between what was expected and what was met."""
        met = (self.expected + waited) / 2
        self.expected = min(LONGEST_EXPECTATION, max(SHORTEST_INTERVAL, met))
