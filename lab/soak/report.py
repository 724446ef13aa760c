"""What a soak came to, as JSON, and as the table of faults in docs/faults.md."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.soak.faults import KINDS
from lab.soak.play import Played
from lab.soak.recovery import by_kind, recoveries
from local.database import LocalDatabase
from local.environment import ROOT
from local.facts import facts
from local.fleet import percentile

PAGE = ROOT / "docs" / "faults.md"
PICTURES = ROOT / "lab" / "soak"
BEGIN, END = "<!-- soak:begin -->", "<!-- soak:end -->"
# Attempts until an answer, as a histogram: the last holds all that took more.
MOST_ATTEMPTS = 10


def summarise(
    played: Played, database: LocalDatabase, *, seed: int, seconds: float
) -> dict[str, Any]:
    """Everything worth keeping."""
    stage, ledger = played.stage, played.ledger
    calls = stage.calls
    outcomes = Counter((call.function, call.outcome) for call in calls)
    attempts = Counter(min(MOST_ATTEMPTS, one.attempts) for one in ledger.patience)
    return {
        "facts": facts(database.server),
        "seed": seed,
        "seconds": seconds,
        "invocations": len(calls),
        "violations": played.violations,
        "faults": len(stage.struck),
        "kinds_struck": len({one.fault.kind for one in stage.struck}),
        "orders_placed": len(ledger.placed),
        "orders_refused": len(ledger.refused),
        "deliveries_booked": len(ledger.booked),
        "outcomes": {
            f"{function}: {outcome}": n for (function, outcome), n in outcomes.most_common()
        },
        "latency_seconds": {
            "answered": _ranks([call.seconds for call in calls if call.good]),
            "to be repeated": _ranks([call.seconds for call in calls if not call.good]),
            "until a client was answered": _ranks([one.seconds for one in ledger.patience]),
        },
        "attempts": {str(n): attempts[n] for n in sorted(attempts)},
        "sessions_cut_before_their_lease": len(played.watch.without_lease),
        "most_sessions": max((s.sessions or 0 for s in played.watch.samples), default=0),
        "most_in_flight": max((s.in_flight for s in played.watch.samples), default=0),
        "kinds": {kind: of.said() for kind, of in by_kind(recoveries(stage.struck, calls)).items()},
        "schedule": [
            {
                "kind": one.fault.kind,
                "planned": one.fault.at,
                "began": round(one.began, 2),
                "ended": round(one.ended, 2),
            }
            for one in stage.struck
        ],
    }


def _ranks(seconds: list[float]) -> dict[str, float | None]:
    ranked = sorted(seconds)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}
    return {
        name: round(percentile(ranked, share), 3) if ranked else None
        for name, share in shares.items()
    }


def write(report: dict[str, Any], file: Path) -> None:
    """As JSON, indented, so that two reports can be compared."""
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_page(reports: Sequence[dict[str, Any]], page: Path = PAGE) -> None:
    """Put what was measured between the page's two marks.

    Raises:
        ValueError: the page has lost its marks.
    """
    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} must hold {BEGIN} and {END}: the figures go between them")
    parts = [*map(_summary, reports), _table(reports)]
    page.write_text("\n".join([head + BEGIN, *parts, END + tail]), encoding="utf-8")


def _summary(report: dict[str, Any]) -> str:
    found = len(report["violations"])
    until = report["latency_seconds"]["until a client was answered"]
    return (
        f"- {report['facts']['server']}, seed {report['seed']}, {report['seconds']:.0f} s: "
        f"{report['invocations']:,} invocations under {report['faults']} faults of "
        f"{report['kinds_struck']} kinds; {report['orders_placed']:,} orders and "
        f"{report['deliveries_booked']:,} deliveries acknowledged; "
        f"{'no violation' if not found else f'**{found} violations**'}. Until a customer was "
        f"answered: median {until['p50']} s, p99 {until['p99']} s, longest {until['longest']} s, "
        f"repetitions included. Sessions cut off between login and set-up, so without a lease: "
        f"{report['sessions_cut_before_their_lease']}."
    )


def _table(reports: Sequence[dict[str, Any]]) -> str:
    lines = [
        "",
        "| fault | what it is | told meanwhile | seconds to mend | shown alone by |",
        "|---|---|---|---|---|",
    ]
    for kind in sorted(KINDS.values(), key=lambda kind: (kind.family, kind.name)):
        of = [r["kinds"][kind.name] for r in reports if kind.name in r["kinds"]]
        test = f"`{kind.shown_by}`" if kind.shown_by else "the soak"
        lines.append(f"| {kind.name} | {kind.says} | {_told(of)} | {_times(of)} | {test} |")
    return "\n".join(lines)


def _told(of: Sequence[dict[str, Any]]) -> str:
    told: Counter[str] = Counter()
    for one in of:
        told.update({key.partition(": ")[2]: n for key, n in one["told"].items()})
    return ", ".join(f"{n}x {outcome}" for outcome, n in told.most_common(5)) or "nothing"


def _times(of: Sequence[dict[str, Any]]) -> str:
    cells = []
    for name in ("first_success", "all_served"):
        known = [one[name] for one in of if one[name]]
        if known:
            longest = max(one["longest"] for one in known)
            medians = " / ".join(f"{one['median']:.2f}" for one in known)
            cells.append(f"{medians} ({longest:.2f})")
    return "; ".join(cells) or "never alone"
