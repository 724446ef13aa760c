"""One line of a schedule of faults."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a schedule; `at` and `lasts` in seconds, `seed` for what it leaves to chance."""

    at: float
    lasts: float
    kind: str
    seed: int
