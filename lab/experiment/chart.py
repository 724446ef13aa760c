"""Draws the experiment: connections over time, one panel for each handler, the limit dashed.

SVG with its text as text, and PNG; the same bytes for the same samples. The colours are those of
Okabe and Ito, which the colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.dark import write_dark
from lab.experiment.outcome import Outcome, Plan
from local.fleet import Sample

COLOURS = {"kept": "#D55E00", "pooled": "#CC79A7", "ours": "#0072B2"}
INK, FAINT = "#222222", "#767676"
IN_FLIGHT = "#D0D0D0"

# The warm-up takes each handler another time, so it is drawn by environments, not by seconds.
WARM_UP_WIDTH = 9.0

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "font.size": 10.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "connections",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


def draw(outcomes: Sequence[Outcome], plan: Plan, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.svg and `stem`.png; returns both paths."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 6.2), facecolor="white")
        figure.subplots_adjust(left=0.065, right=0.985, top=0.84, bottom=0.085, hspace=0.5)
        panels = figure.subplots(len(outcomes), 1, sharex=True, sharey=True, squeeze=False)
        for number, (panel, outcome) in enumerate(zip(panels[:, 0], outcomes, strict=True)):
            _panel(panel, outcome, plan, is_first=number == 0)
        _phases(panels[0, 0], plan)
        _ticks(panels[-1, 0], plan)
        title = f"{plan.environments} warm environments, {plan.at_work} at work"
        figure.text(0.065, 0.955, title, size=14, weight="bold")
        figure.text(0.985, 0.955, "connections the database counts", size=10.5, ha="right")
        paths = (stem.with_suffix(".svg"), stem.with_suffix(".png"))
        figure.savefig(paths[0], metadata={"Date": None, "Creator": None})
        write_dark(paths[0])
        figure.savefig(paths[1], dpi=200, metadata={"Software": None})
    return paths


def _panel(axes: Axes, outcome: Outcome, plan: Plan, *, is_first: bool) -> None:
    samples = _turns(outcome.samples)
    x = [_position(sample, outcome, plan) for sample in samples]
    sessions = [sample.sessions for sample in samples]
    in_flight = [sample.in_flight for sample in samples]
    colour = COLOURS[outcome.handler]
    axes.fill_between(x, in_flight, step="post", color=IN_FLIGHT, linewidth=0)
    axes.axhline(plan.limit, color=INK, linewidth=1, linestyle=(0, (5, 3)))
    axes.plot(x, sessions, color=colour, linewidth=2.2, drawstyle="steps-post")
    axes.set_title(outcome.title, loc="left", size=11, weight="bold", pad=6)
    axes.set_title(_verdict(outcome), loc="right", size=10, pad=6)
    axes.set_ylim(0, plan.limit * 1.12)
    axes.set_yticks([0, plan.limit])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0)
    for boundary in (WARM_UP_WIDTH, WARM_UP_WIDTH + plan.work_seconds):
        axes.axvline(boundary, color=FAINT, linewidth=0.7)
    if is_first:
        end = WARM_UP_WIDTH + plan.work_seconds
        axes.text(
            end - 0.15, plan.at_work + 2, f"{plan.at_work} invocations in flight",
            ha="right", va="bottom", size=9.5, color=FAINT,
        )  # fmt: skip
        axes.text(0.1, plan.limit - 4, f"limit: {plan.limit}", va="top", size=9.5, color=INK)


def _turns(samples: Sequence[Sample]) -> list[Sample]:
    """The samples at which a count changes, and the first and last: the picture is the same."""
    counts = [(sample.sessions, sample.in_flight) for sample in samples]
    last = len(samples) - 1
    return [
        sample
        for n, sample in enumerate(samples)
        if n in {0, last} or counts[n] != counts[n - 1] or counts[n] != counts[n + 1]
    ]


def _position(sample: Sample, outcome: Outcome, plan: Plan) -> float:
    """Where a sample stands: by environments while warming up, by seconds afterwards."""
    if sample.at < outcome.work_began:
        return WARM_UP_WIDTH * sample.environments / plan.environments
    return WARM_UP_WIDTH + sample.at - outcome.work_began


def _verdict(outcome: Outcome) -> str:
    idle = f"{outcome.sessions_when_idle} held when idle"
    if not outcome.failures:
        return f"{idle} · no call failed"
    code = max(outcome.failures, key=lambda name: outcome.failures[name])
    return f"{idle} · {outcome.failed_share:.0%} of calls fail ({code})"


def _phases(axes: Axes, plan: Plan) -> None:
    """Name the three phases once, above the panels."""
    begins = (0.0, WARM_UP_WIDTH, WARM_UP_WIDTH + plan.work_seconds)
    ends = (*begins[1:], begins[-1] + plan.idle_seconds)
    names = (
        f"warming up {plan.environments} environments", f"{plan.at_work} at work", "none at work",
    )  # fmt: skip
    for begin, end, name in zip(begins, ends, names, strict=True):
        axes.text(
            (begin + end) / 2, 1.36, name,
            transform=axes.get_xaxis_transform(), ha="center", size=10, color=INK,
        )  # fmt: skip


def _ticks(axes: Axes, plan: Plan) -> None:
    end = WARM_UP_WIDTH + plan.work_seconds + plan.idle_seconds
    step = max(1, round(plan.work_seconds / 4))
    seconds = range(0, int(plan.work_seconds + plan.idle_seconds) + 1, step)
    warm = [plan.environments * quarter // 4 for quarter in range(1, 4)]
    axes.set_xticks(
        [
            *(WARM_UP_WIDTH * count / plan.environments for count in warm),
            *(WARM_UP_WIDTH + second for second in seconds),
        ],
        [*map(str, warm), *map(str, seconds)],
    )
    axes.set_xlim(0, end)
    for middle, caption in (
        (WARM_UP_WIDTH / 2, "environments warm"),
        ((WARM_UP_WIDTH + end) / 2, "seconds"),
    ):
        axes.text(
            middle, -0.34, caption,
            transform=axes.get_xaxis_transform(), ha="center", size=10, color=FAINT,
        )  # fmt: skip
