"""What each fault did, from the calls that were made around it, as long as no other struck."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.soak.stage import Call, Struck

SERVED_BY = "orders_api"


@dataclass(frozen=True, slots=True)
class Recovery:
    """One fault that was; None where another fault was at work, so that nothing can be said.

    Attributes:
        first: seconds from its end to the first order, or look at one, that was answered.
        all: seconds from its end until every customer had been answered.
        told: what callers were told instead, by function and outcome.
    """

    kind: str
    began: float
    ended: float
    first: float | None
    all: float | None
    told: Counter[str]


def recoveries(struck: Sequence[Struck], calls: Sequence[Call]) -> list[Recovery]:
    """Each fault with its consequences, in the order of time."""
    served = [call for call in calls if call.function == SERVED_BY and call.good]
    customers = {call.client for call in served}
    found = []
    for one in struck:
        after = [call for call in served if call.ended > one.ended]
        nexts = {client: _first(after, client) for client in customers}
        first = min((c.ended for c in after), default=None)
        last = None if None in nexts.values() else max(filter(None, nexts.values()), default=None)
        # Another fault ends what can be said of this one: each figure up to where it is known.
        until = min((o.began for o in struck if o.began > one.began), default=float("inf"))
        if any(o is not one and o.began <= one.began < o.ended for o in struck):
            until = one.began
        found.append(
            Recovery(
                kind=one.fault.kind,
                began=one.began,
                ended=one.ended,
                first=first - one.ended if first is not None and first < until else None,
                all=last - one.ended if last is not None and last < until else None,
                told=_told(one, calls) if one.ended < until else Counter(),
            )
        )
    return found


def _first(served: Sequence[Call], client: str) -> float | None:
    return min((call.ended for call in served if call.client == client), default=None)


def _told(one: Struck, calls: Sequence[Call]) -> Counter[str]:
    return Counter(
        f"{call.function}: {call.outcome}"
        for call in calls
        if not call.good and one.began < call.ended and call.at < one.ended
    )


@dataclass(slots=True)
class OfKind:
    """All faults of one kind; times in seconds, of those that no other cut short."""

    kind: str
    struck: int = 0
    first: list[float] = field(default_factory=list)
    all: list[float] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    def said(self) -> dict[str, object]:
        """For the report: medians and the longest."""
        return {
            "struck": self.struck,
            "seen_through": len(self.all),
            "first_success": _middle_and_longest(self.first),
            "all_served": _middle_and_longest(self.all),
            "told": dict(self.told.most_common()),
        }


def by_kind(found: Sequence[Recovery]) -> dict[str, OfKind]:
    """Summed up, by kind, in the order of the alphabet."""
    kinds = {kind: OfKind(kind) for kind in sorted({one.kind for one in found})}
    for one in found:
        of = kinds[one.kind]
        of.struck += 1
        of.told.update(one.told)
        of.first += [] if one.first is None else [one.first]
        of.all += [] if one.all is None else [one.all]
    return kinds


def _middle_and_longest(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": round(statistics.median(values), 2), "longest": round(max(values), 2)}
