"""What strikes, and when: a schedule that is a pure function of its seed."""

import random

from lab.soak.faults import environments, network, secrets, server  # enter their kinds
from lab.soak.faults.kinds import KINDS, Fault, Kind

__all__ = ["KINDS", "Fault", "Kind", "environments", "network", "schedule", "secrets", "server"]

# Seconds between the end of a fault and the next: long enough to see all clients served again.
GAP = (1.2, 3.0)
# This share of the faults begins while the one before still lasts.
OVERLAPPING = 0.1


def schedule(seed: int, seconds: float, kinds: tuple[str, ...] | None = None) -> tuple[Fault, ...]:
    """The faults of so many seconds: each kind once in random order, then again, until the end.

    Nothing but the arguments decides: the same seed gives the same faults on any machine.
    """
    chance = random.Random(f"faults/{seed}")
    chosen = sorted(kinds or KINDS)
    deck: list[str] = []
    faults: list[Fault] = []
    at = chance.uniform(*GAP)
    while at < seconds:
        if not deck:
            deck = chance.sample(chosen, len(chosen))
        kind = KINDS[deck.pop()]
        lasts = round(chance.uniform(*kind.lasts), 2)
        if at + lasts > seconds:
            break
        faults.append(Fault(round(at, 2), lasts, kind.name, chance.getrandbits(32)))
        gap = chance.uniform(*GAP)
        at += lasts / 2 if chance.random() < OVERLAPPING else lasts + kind.takes + gap
    return tuple(faults)
