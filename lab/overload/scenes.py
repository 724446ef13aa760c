"""What is measured: how many callers, on how many connections, for how long, and who plays."""

from dataclasses import dataclass

from lab.overload.sides import SECONDS

LIMIT = 65
NAMES = {
    "plain": "PyMySQL, a connection per call",
    "null_pool": "SQLAlchemy, NullPool",
    "backoff": "PyMySQL, full-jitter backoff",
    "serverless_mysql": "serverless-mysql",
    "queue": "PyMySQL behind a queue (HAProxy)",
    "ours": "single_connection",
}


@dataclass(frozen=True)
class Scene:
    """One row of rounds.

    Args:
        callers: who invoke again as soon as they are done.
        ramp, window: seconds until it counts, and for which it counts.
        sleep: seconds the statement takes.
        limit: connections the database gives.
        sides: who plays; all by default.
        rounds: how often each of them does.
    """

    callers: int
    ramp: float
    window: float
    sleep: float = SECONDS
    limit: int = LIMIT
    sides: tuple[str, ...] = tuple(NAMES)
    rounds: int = 3


@dataclass(frozen=True)
class Plan:
    """The scenes by what they show and by name.

    Args:
        loads: callers in times the limit.
        again: the last of these once more, by callers whose last round is seconds ago.
        slow: as `loads`, with statements ten times as long.
        published: serverless-mysql's own benchmark, by its numbers of callers.
    """

    loads: dict[str, Scene]
    again: dict[str, Scene]
    slow: dict[str, Scene]
    published: dict[str, Scene]

    def scenes(self) -> dict[tuple[str, str], Scene]:
        """All of them, by part and name, in their order."""
        return {
            (part, name): scene
            for part in ("loads", "again", "slow", "published")
            for name, scene in getattr(self, part).items()
        }


# Who gives up at once only makes room for others: that is seen at 20 ms, and costs time at 200.
QUEUES = ("queue", "ours")
PATIENT = ("backoff", "serverless_mysql", "queue", "ours")
# Its repository, benchmark/results.md of 27 June 2026: SELECT SLEEP(0.02), max_connections 30.
PUBLISHED = {
    callers: Scene(callers, 1.0, 3.0, limit=30, sides=("plain", "serverless_mysql", "ours"))
    for callers in (5, 10, 20, 30)
}

# The ramp lets queues form, and environments meet them: as long as one caller's few turns take.
FULL = Plan(
    loads={
        "1": Scene(LIMIT, 1.0, 3.0),
        "2": Scene(2 * LIMIT, 1.0, 4.0),
        "5": Scene(5 * LIMIT, 2.0, 5.0),
        "10": Scene(10 * LIMIT, 5.0, 8.0),
    },
    again={"10": Scene(10 * LIMIT, 5.0, 8.0, sides=QUEUES, rounds=5)},
    slow={
        "2": Scene(2 * LIMIT, 3.0, 8.0, sleep=0.2, sides=PATIENT),
        "10": Scene(10 * LIMIT, 8.0, 12.0, sleep=0.2, sides=PATIENT),
    },
    published={str(callers): scene for callers, scene in PUBLISHED.items()},
)
QUICK = Plan(
    loads={
        "1": Scene(LIMIT, 0.3, 0.7, rounds=1),
        "2": Scene(2 * LIMIT, 0.3, 0.7, rounds=1),
    },
    again={"2": Scene(2 * LIMIT, 0.3, 0.7, sides=QUEUES, rounds=1)},
    slow={"2": Scene(2 * LIMIT, 0.5, 1.0, sleep=0.2, sides=PATIENT, rounds=1)},
    published={
        "30": Scene(30, 0.3, 0.7, limit=30, sides=("plain", "serverless_mysql", "ours"), rounds=1)
    },
)
