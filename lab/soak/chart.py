"""Draws a soak: what struck and what came of it over time, and how long each kind took to mend."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.dark import write_dark
from lab.experiment.chart import COLOURS, FAINT, IN_FLIGHT, INK, STYLE
from lab.soak.faults import KINDS
from lab.soak.play import Played
from lab.soak.recovery import OfKind

GOOD, BAD = COLOURS["ours"], COLOURS["kept"]
WIDTH = 8.0


def draw_course(played: Played, title: str, stem: Path) -> None:
    """Faults, latency, repetitions and connections over time, into `stem`.svg and .png."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 9.2), facecolor="white")
        figure.subplots_adjust(left=0.16, right=0.985, top=0.93, bottom=0.05, hspace=0.32)
        panels = figure.subplots(4, 1, sharex=True, height_ratios=(1.2, 1.6, 1, 1.2))
        _faults(panels[0], played)
        _latency(panels[1], played)
        _repeated(panels[2], played)
        _connections(panels[3], played)
        for panel in panels:
            panel.spines[["top", "right"]].set_visible(False)
            panel.spines[["left", "bottom"]].set_color(FAINT)
            panel.tick_params(length=0)
        panels[-1].set_xlim(0, max((call.ended for call in played.stage.calls), default=1.0))
        panels[-1].set_xlabel("seconds")
        figure.text(0.02, 0.97, title, size=13, weight="bold")
        _save(figure, stem)


def draw_recovery(kinds: Sequence[OfKind], title: str, stem: Path) -> None:
    """For each kind, every fault that stood alone: first success and all served."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.27 * len(kinds)), facecolor="white")
        figure.subplots_adjust(left=0.28, right=0.97, top=0.88, bottom=0.09)
        axes: Axes = figure.subplots()
        for row, of in enumerate(reversed(kinds)):
            axes.plot(of.all, [row] * len(of.all), "o", ms=6, color=BAD, alpha=0.6, mew=0)
            axes.plot(of.first, [row] * len(of.first), "o", ms=5, color=GOOD, alpha=0.8, mew=0)
        axes.set_yticks(range(len(kinds)), [of.kind for of in reversed(kinds)])
        axes.set_ylim(-0.7, len(kinds) - 0.3)
        axes.set_xlim(left=0)
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (5, 3)))
        axes.grid(axis="y", color=IN_FLIGHT, linewidth=0.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(FAINT)
        axes.tick_params(length=0)
        axes.set_xlabel("seconds from the fault's end")
        axes.set_title("first answer", loc="left", size=10, color=GOOD)
        axes.set_title("all customers answered", loc="right", size=10, color=BAD)
        figure.text(0.02, 0.955, title, size=13, weight="bold")
        _save(figure, stem)


def _faults(axes: Axes, played: Played) -> None:
    families = sorted({_family(kind) for kind in KINDS})
    for one in played.stage.struck:
        begin, end = one.began, min(one.ended, played.stage.calls[-1].ended)
        row = families.index(_family(one.fault.kind))
        axes.barh(row, max(0.3, end - begin), left=begin, height=0.6, color=BAD, linewidth=0)
    axes.set_yticks(range(len(families)), families)
    axes.set_ylim(len(families) - 0.5, -0.5)
    axes.set_title("faults at work", loc="left", size=10.5)


def _family(kind: str) -> str:
    """The module a kind is of."""
    return KINDS[kind].family


def _latency(axes: Axes, played: Played) -> None:
    for good, colour, name in ((True, GOOD, "answered"), (False, BAD, "to be repeated")):
        calls = [call for call in played.stage.calls if call.good is good]
        axes.plot(
            [call.at for call in calls],
            [max(0.001, call.seconds) for call in calls],
            ".", ms=2.5, color=colour, alpha=0.5, mew=0, rasterized=True, label=name,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_yticks([0.01, 0.1, 1, 10], ["10 ms", "0.1 s", "1 s", "10 s"])
    axes.minorticks_off()
    axes.set_title("each invocation, by its beginning", loc="left", size=10.5)
    axes.legend(loc="upper right", frameon=False, markerscale=3, ncols=2, fontsize=9.5)


def _repeated(axes: Axes, played: Played) -> None:
    count = Counter(int(call.ended) for call in played.stage.calls if not call.good)
    axes.bar(list(count), list(count.values()), width=1.0, align="edge", color=BAD, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_title("answers that made a client try again, per second", loc="left", size=10.5)


def _connections(axes: Axes, played: Played) -> None:
    samples = played.watch.samples
    at = [sample.at for sample in samples]
    flight = [sample.in_flight for sample in samples]
    sessions = [float("nan") if s.sessions is None else s.sessions for s in samples]
    axes.fill_between(at, flight, step="post", color=IN_FLIGHT, linewidth=0)
    axes.plot(at, sessions, color=GOOD, linewidth=1.2, drawstyle="steps-post")
    axes.set_ylim(bottom=0)
    axes.set_title(
        "sessions the server counts, and invocations in flight (grey)", loc="left", size=10.5
    )


def _save(figure: Figure, stem: Path) -> None:
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None}, dpi=200)
    write_dark(stem.with_suffix(".svg"))
    figure.savefig(stem.with_suffix(".png"), dpi=150, metadata={"Software": None})
