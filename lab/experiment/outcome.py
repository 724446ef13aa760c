"""How large an experiment is, and what became of each of its handlers."""

from dataclasses import dataclass

from local.fleet import Sample

TITLES = {
    "kept": "Connection kept in a global",
    "pooled": "SQLAlchemy's pool",
    "ours": "One connection per invocation",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How large and how long; times in seconds."""

    environments: int = 200
    at_work: int = 10
    limit: int = 65
    work_seconds: float = 8.0
    idle_seconds: float = 3.0
    query_seconds: float = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one handler. Failures are counted by the server's error number."""

    handler: str
    title: str
    warm_up_seconds: float
    warm_up_failures: dict[str, int]
    init_median_ms: float
    calls: int
    ok: int
    failures: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    peak_sessions: int
    sessions_when_idle: int
    most_in_flight: int
    samples_over_in_flight: int
    work_began: float
    work_ended: float
    samples: list[Sample]

    @property
    def failed_share(self) -> float:
        """The part of the calls that failed while only a few were at work."""
        return 1 - self.ok / self.calls if self.calls else 0.0
