"""Who may connect, and when: waiting at a full database, fairly to those who have waited longest.

Environments know nothing of each other, so a queue is not to be had. What comes close: each sleeps
for nearly as long as it last had to wait, then knocks in short intervals. Who was refused a moment
ago goes to the end of the queue, instead of taking the very connection it has just given back.
Whether the others are still there is seen by the number that the server gives each connection.
"""

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

from ._clock import clock
from ._jitter import uniform
from ._server_errors import FULL
from .errors import DatabaseBusyError

R = TypeVar("R")

# `python -m lab.overload.scale` prints what each of these does, and what other values would do.
FIRST_EXPECTATION = 0.03  # seconds of waiting that an environment without experience expects
FORGOTTEN = 60.0  # seconds after which the wait last met says nothing any more
REMEMBERED = 5.0  # expected waits during which a door found full is taken for full
# What is missing to the whole makes environments come early, so that they notice a shorter queue.
SLEPT_THROUGH = 0.95
# Seconds: however long the wait was last, it may be over. One wait may have been an outage, which
# ends for all at once; with each refusal more, now or in invocations in a row, it is a crowd, whose
# queue is slept through whole.
FIRST_PAUSE = 0.6
LONGEST_PAUSE = 4.0
SHORTEST_PAUSE = 0.002
# Intervals between knocks grow with the square root of the wait: in proportion to it alone, who
# expects little would stay ahead for ever; constant, a long queue would drown the server in knocks.
# A part of the wait at least: knocks are what costs a crowded server, and few of them suffice.
KNOCK = 0.001
KNOCK_SHARE = 0.06
KNOCK_OVERDUE = 0.015
# Of what exceeds twice the expected wait: then nothing is known of it but its age.
KNOCK_LOST = 0.15
# A longer wait is believed by more than half at once, a shorter one by little: who forgot a queue
# as fast as it was learned would come early, be let in by chance, and stay ahead of all others.
BELIEVED_LONGER = 0.6
BELIEVED_SHORTER = 0.15
# A crowd (two invocations refused in a row) is believed in for so many seconds after its last
# refusal, while the server is asked for connections more than this part as often as at refusals.
BELIEVED_IN = 15.0
THINNED = 0.5


class Refused(Exception):  # noqa: N818 - never leaves the layer
    """The database is full, or does not answer: waiting may help."""

    def __init__(self, code: int) -> None:
        """Keep the error number."""
        what = "every connection is taken" if code in FULL else "the server did not answer"
        super().__init__(f"{what} (error {code})")
        self.code = code


class Stop(Protocol):
    """What ends a wait early: a `Latch`, or a test's own."""

    def wait(self, timeout: float) -> bool:
        """Sleep `timeout` seconds; True once it is set."""


class Admission:
    """Patience at one database's door, kept for the life of the environment."""

    __slots__ = (
        "_admitted",
        "_clock",
        "_crowd",
        "_full_at",
        "_rate_when_full",
        "_refusals",
        "_refused_in_a_row",
        "_uniform",
        "expected",
    )

    def __init__(
        self,
        *,
        clock: Callable[[], float] = clock.now,
        uniform: Callable[[float, float], float] = uniform,
    ) -> None:
        """Start without experience; `clock` and `uniform` are arguments for simulation."""
        self.expected = FIRST_EXPECTATION
        self._full_at = float("-inf")
        self._refusals = 0  # by a full server, in this invocation
        self._refused_in_a_row = 0  # invocations
        self._crowd = False  # met, and not seen to have gone
        self._admitted: tuple[float, int] | None = None  # when last, and as which connection
        self._rate_when_full = 0.0  # connections asked for in a second
        self._clock = clock
        self._uniform = uniform

    def admit(
        self,
        attempt: Callable[[], R],
        *,
        until: float,
        stop: Stop,
        number: Callable[[R], int | None] = lambda _: None,
    ) -> tuple[R, int, float]:
        """Call `attempt` until it succeeds, pausing before it and after each `Refused`.

        No pause is longer than half of the time left: the other half is for the work.

        Args:
            attempt: Opens a connection, or raises.
            until: The clock's time at which to give up.
            stop: Set when nobody wants the connection any more.
            number: Which of all its connections the server calls the one that `attempt` gave; None
                where it is not known.

        Returns:
            What `attempt` gave, how many attempts it took, and the seconds waited.

        Raises:
            DatabaseBusyError: The time is over; has the last refusal's code.
        """
        started = began = self._clock()
        attempts, shut, code = 0, 0.0, 0
        if pause := min(self.first_pause(), max(0.0, until - started) / 2):
            stop.wait(pause)
            began = self._clock()
        while True:
            attempts += 1
            try:
                admitted = attempt()
            except Refused as refusal:
                now = self._clock()
                # The last attempt may be cut by the end of the time: "full" says more than that.
                code = refusal.code if refusal.code in FULL or code not in FULL else code
                shut, half = now - started, (until - now) / 2
                pause = self.pause(shut, full=refusal.code in FULL)
                if half < SHORTEST_PAUSE or stop.wait(min(pause, half)):
                    self.learn(shut, shut)
                    after = max(1.0, round(self.expected))
                    raise DatabaseBusyError(
                        code, retry_after=after, attempts=attempts, waited=shut
                    ) from refusal.__cause__
                began = self._clock()
            else:
                # Of a server that did not answer, or nobody could reach, the numbers say nothing.
                known = number(admitted) if not code or code in FULL else None
                self.learn(began - started, shut, known)
                return admitted, attempts, began - started

    def first_pause(self) -> float:
        """Seconds to wait before the first attempt: none, unless the door was full just now."""
        self._refusals = 0
        remembered = min(REMEMBERED * self.expected, self._longest())
        if self._crowd:
            remembered = max(remembered, BELIEVED_IN)
        if self._clock() - self._full_at > remembered:
            return 0.0
        return self._sleep(0.0)

    def pause(self, age: float, *, full: bool = True) -> float:
        """Seconds to wait after a refusal, `age` seconds after asking first.

        Args:
            age: Those seconds.
            full: The server said so; otherwise it said nothing, and may be there again at any time.
        """
        now = self._clock()
        self._refusals += full
        if now - self._full_at > FORGOTTEN:
            self.expected, self._refused_in_a_row = FIRST_EXPECTATION, 0
        self._full_at = now
        if age + self._knock(0.0) < SLEPT_THROUGH * self.expected:
            return self._sleep(age)
        return min(self._longest(), self._knock(age) * self._uniform(0.5, 1.5))

    def learn(self, waited: float, shut: float, number: int | None = None) -> None:
        """Expect from now on what lies between the expectation and what was met.

        Invocations refused in a row are counted: let in at the first knock after a sleep is no end
        of a crowd, let in without any is.

        Args:
            waited: Seconds from first asking to the last attempt.
            shut: Seconds from first asking to the last refusal; what followed was our own pause.
            number: The server's, of the connection, which counts what is asked for (with what it
                refuses, mostly); None if not admitted or not known.
        """
        rate = self._rate(number)
        if shut > 0:
            self._refused_in_a_row += 1
            self._crowd = self._refused_in_a_row > 1 and rate is not None
            if rate is not None:
                self._rate_when_full = (rate + (self._rate_when_full or rate)) / 2
        elif waited == 0:
            self._refused_in_a_row, self._crowd = 0, False
        elif rate is None or rate < THINNED * self._rate_when_full:
            self._crowd = False
        if waited > 0:
            known = max(SLEPT_THROUGH * self.expected, shut + self._knock(0.0))
            more = min(waited, known) - self.expected
            self.expected += more * (BELIEVED_LONGER if more > 0 else BELIEVED_SHORTER)

    def _rate(self, number: int | None) -> float | None:
        """Connections a second that the server was asked for since we were last admitted."""
        now, before = self._clock(), self._admitted
        self._admitted = None if number is None else (now, number)
        if number is None or before is None or not (before[0] < now and before[1] < number):
            return None  # it has started anew, or another one answers
        return (number - before[1]) / (now - before[0])

    def _sleep(self, age: float) -> float:
        due = SLEPT_THROUGH * self.expected - age
        return min(self._longest(), due) * self._uniform(0.95, 1.05)

    def _longest(self) -> float:
        doublings = max(0, self._refusals - 1) + max(0, self._refused_in_a_row - 1)
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(doublings, 8))

    def _knock(self, age: float) -> float:
        overdue = max(0.0, age - self.expected)
        root = math.sqrt(KNOCK * self.expected + KNOCK_OVERDUE * overdue)
        lost = min(FIRST_PAUSE, KNOCK_LOST * (age - 2 * self.expected))
        return max(SHORTEST_PAUSE, root, KNOCK_SHARE * self.expected, lost)
