"""On paper: the simulation against what was measured, and from there to 100,000 a second.

    python -m lab.overload.scale                # simulate (about two minutes); report and chart
    python -m lab.overload.scale --write-docs   # the last report into scale.md, with its chart

Prints first what each constant of the layer's policy does, beside other values.
"""

import argparse
import collections
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track
from single_connection import _admission as layer

from lab.overload.measure import HERE
from lab.overload.report import save, write_between_markers
from lab.overload.scenes import FULL
from lab.overload.sides import ROOT
from local.simulation import TWO_CORES, Clock, Cpu, Policy, Run, arrivals, closed_loop, spread

REPORT = ROOT / "build" / "bench" / "scale.json"
MEASURED = HERE / "overload.json"

LIMIT = 65
HELD = 0.024  # SELECT SLEEP(0.02), and 4 ms to connect, set up and close
# AWS's default for max_connections: the instance's memory / 12,582,880 bytes.
BYTES_EACH = 12_582_880
LIMITS = {
    "65: the template's instance, 1 GiB": LIMIT,
    "341: db.t4g.medium, 4 GiB": 4 * 2**30 // BYTES_EACH,
    "2,700: what 100,000 a second need": 2700,
}
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
# Beyond what the connections can do, only until Lambda's timeout ends the wait.
BEYOND = (1.02, 1.1)

# Each constant, and other values for it: smaller and larger.
OTHERS = {
    "FIRST_EXPECTATION": (0.01, 0.2),
    "SLEPT_THROUGH": (0.85, 0.98),
    "REMEMBERED": (0.0, 1.0),
    "FIRST_PAUSE": (0.25, 2.0),
    "LONGEST_PAUSE": (0.5, 2.0),
    "KNOCK": (0.0001, 0.004),
    "KNOCK_SHARE": (0.0, 0.12),
    "KNOCK_OVERDUE": (0.002, 0.2),
    "KNOCK_LOST": (0.0, 1.0),
    "BELIEVED_SHORTER": (0.02, 0.5),
    "BELIEVED_IN": (0.0, 60.0),
    "THINNED": (0.0, 0.8),
}
SITUATIONS: dict[str, tuple[int, Callable[..., Run]]] = {
    "90 % of what is possible": (
        0,
        partial(arrivals, 0.9 * LIMIT / HELD, LIMIT, spread(HELD), seconds=3, warm_up=3),
    ),
    "2x": (130, partial(closed_loop, 130, LIMIT, spread(HELD), seconds=3, warm_up=4)),
    "10x": (650, partial(closed_loop, 650, LIMIT, spread(HELD), seconds=3, warm_up=10)),
    "10x, held 0.1 s": (
        650,
        partial(closed_loop, 650, LIMIT, spread(0.1), seconds=4, warm_up=14, refusal=0.005),
    ),
    "650 at once, none with experience": (
        650,
        partial(closed_loop, 650, LIMIT, spread(HELD), seconds=0.6, warm_up=0),
    ),
    "650 have been there, 65 stay": (
        0,
        partial(
            closed_loop,
            [(0.0, 12.0)] * (9 * LIMIT) + [(0.0, 99.0)] * LIMIT,
            LIMIT,
            spread(HELD),
            seconds=4,
            warm_up=12.5,
        ),
    ),
    "10x on two cores in all, none with experience": (
        650,
        partial(closed_loop, 650, LIMIT, spread(0.02), seconds=8, warm_up=5, cpu=TWO_CORES),
    ),
    "with experience": (
        650,
        partial(closed_loop, 650, LIMIT, spread(0.02), seconds=4, warm_up=15, cpu=TWO_CORES),
    ),
    "the same, held 0.2 s": (
        650,
        partial(closed_loop, 650, LIMIT, spread(0.2), seconds=6, warm_up=15, cpu=TWO_CORES),
    ),
}


def row(run: Run, callers: int) -> dict[str, float]:
    """The figures by which a policy is judged."""
    queue = callers / run.throughput if callers and run.throughput else 0.0
    p99 = run.percentile(0.99)
    return {
        "success": run.success,
        "occupied": run.occupied,
        "attempts": run.attempts_each,
        "p99": p99,
        "of_fifo": p99 / queue if queue else 0.0,
    }


class Told(layer.Admission):
    """As the layer's, but environments hear how long those who are in have waited."""

    def __init__(self, heard: "collections.deque[float]", **more: Any) -> None:
        """`heard` is everybody's: it stands for a place to write that a database does not give."""
        super().__init__(**more)
        self._heard = heard

    def learn(self, waited: float, shut: float, number: int | None = None) -> None:
        """As the layer's, then half the way to what the others say."""
        super().learn(waited, shut, number)
        if waited > 0 and number is not None:
            if self._heard:
                self.expected += (statistics.fmean(self._heard) - self.expected) / 2
            self._heard.append(waited)


def told() -> Callable[[Clock, random.Random], Policy]:
    """Makes environments of one crowd, that tell each other."""
    heard: collections.deque[float] = collections.deque(maxlen=LIMIT)
    return lambda clock, chance: Told(heard, clock=clock, uniform=chance.uniform)


def constants() -> dict[str, dict[str, dict[str, float]]]:
    """Each situation under the layer's policy and others, and with one constant changed."""
    found: dict[str, dict[str, dict[str, float]]] = {}

    def try_out(name: str, **how: Any) -> None:
        found[name] = {
            what: row(run(**{key: value() for key, value in how.items()}), callers)
            for what, (callers, run) in SITUATIONS.items()
        }

    try_out("a queue", queue=lambda: True)
    try_out("if they told each other how long they waited", policy=told)
    try_out("as it is")
    changes = [(name, value) for name, values in OTHERS.items() for value in values]
    for name, value in track(changes, description="constants"):
        kept = getattr(layer, name)
        setattr(layer, name, value)
        try:
            try_out(f"{name} = {value:g}, not {kept:g}")
        finally:
            setattr(layer, name, kept)
    return found


def curves() -> dict[str, list[dict[str, float]]]:
    """Arrivals a second against p99: our waiting and a queue, for each number of connections."""
    found: dict[str, list[dict[str, float]]] = {}
    points = [(name, limit, load) for name, limit in LIMITS.items() for load in LOADS + BEYOND]
    for name, limit, load in track(points, description="arrivals"):
        rate = load * limit / HELD
        seconds = 3.0 if limit < 1000 else 0.7
        both = [
            arrivals(rate, limit, spread(HELD), seconds=seconds, warm_up=seconds, queue=queue)
            for queue in (False, True)
        ]
        found.setdefault(name, []).append(
            {
                "rate": rate,
                "load": load,
                "p50": both[0].percentile(0.5),
                "p99": both[0].percentile(0.99),
                "attempts": both[0].attempts_each,
                "queue_p99": both[1].percentile(0.99),
            }
        )
    return found


def compare(measured: dict[str, Any]) -> list[dict[str, float]]:
    """What was measured, and the same simulated: as many cores, the same ramp and window, and
    environments without experience, as whoever plays a minute after the last round has none.

    A machine is not equally fast all day: what work takes of its cores goes by what the queue got
    out of them in the same rounds, less what its proxy costs where nobody waits.
    """
    compared = []
    alone = measured["results"]["1"]
    for load, scene in FULL.loads.items():
        ours, queue = (measured["results"][load].get(side) for side in ("ours", "queue"))
        simulate = partial(
            closed_loop,
            scene.callers,
            measured["limit"],
            spread(scene.sleep),
            warm_up=scene.ramp,
            seconds=scene.window,
        )
        cpu = TWO_CORES
        if queue:
            proxied = alone["queue"]["throughput"] / alone["ours"]["throughput"]
            slower = simulate(cpu=cpu, queue=True).throughput / queue["throughput"] * proxied
            cpu = Cpu(cpu.cores, refusal=cpu.refusal * slower, success=cpu.success * slower)
        run = simulate(cpu=cpu)
        compared.append(
            {
                "load": int(load),
                "throughput": ours["throughput"],
                "throughput_simulated": run.throughput,
                "attempts": ours["attempts"],
                "attempts_simulated": run.attempts_each,
                "p50": ours["p50"],
                "p50_simulated": run.percentile(0.5),
                "p99": ours["p99"],
                "p99_simulated": run.percentile(0.99),
            }
        )
    return compared


# The report ---------------------------------------------------------------------------------------


def constants_table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Attempts each and p99 for every variant."""
    names = list(SITUATIONS)
    lines = [
        "| attempts per success / p99 | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for variant, situations in found.items():
        cells = [
            f"{situations[name]['attempts']:.2f} / {situations[name]['p99']:.2f} s"
            for name in names
        ]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compared_table(compared: Sequence[dict[str, float]]) -> str:
    """Simulated against measured."""
    lines = [
        "| callers | per second | attempts per success | p50 | p99 |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['load']:.0f}x | {one['throughput_simulated']:,.0f} / {one['throughput']:,.0f} "
        f"| {one['attempts_simulated']:.2f} / {one['attempts']:.2f} "
        f"| {one['p50_simulated']:.2f} / {one['p50']:.2f} s "
        f"| {one['p99_simulated']:.2f} / {one['p99']:.2f} s |"
        for one in compared
    ]
    return "\n".join(lines)


def curves_table(found: dict[str, list[dict[str, float]]]) -> str:
    """A few points of the chart in figures."""
    lines = [
        "| connections | arrivals a second | of possible | p50 | p99 | p99 of a queue | attempts |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, points in found.items():
        lines += [
            f"| {name} | {point['rate']:,.0f} | {point['load']:.0%} | "
            f"{point['p50'] * 1000:.0f} ms | {point['p99'] * 1000:.0f} ms | "
            f"{point['queue_p99'] * 1000:.0f} ms | {point['attempts']:.2f} |"
            for point in points
            if point["load"] in (0.5, 0.9, 0.98, 1.1)
        ]
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> str:
    """What stands between the markers in lab/overload/scale.md."""
    parts = [curves_table(report["curves"])]
    if report["compared"]:
        parts += ["**Simulated / measured**", compared_table(report["compared"])]
    parts += ["**The policy's constants, one changed at a time**"]
    parts += [constants_table(report["constants"])]
    return "\n\n".join(parts)


def chart(report: dict[str, Any], stem: Path) -> None:
    """Arrivals a second against p99, both logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    mpl.rcParams.update({"font.size": 10, "svg.hashsalt": "scale", "svg.fonttype": "none"})
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for (name, points), colour, shape in zip(
        report["curves"].items(), ("#D55E00", "#0072B2", "#009E73"), "os^", strict=True
    ):
        rates = [point["rate"] for point in points]
        axis.plot(
            rates,
            [point["p99"] for point in points],
            color=colour,
            marker=shape,
            markersize=5,
            label=name,
            linewidth=2,
        )
        axis.plot(rates, [point["queue_p99"] for point in points], ":", color=colour, linewidth=1.5)
        possible = points[0]["rate"] / points[0]["load"]
        axis.axvline(possible, color=colour, linewidth=1, alpha=0.5)
        axis.annotate(
            f"{possible:,.0f}/s\npossible",
            (possible, 9),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="top",
        )
    axis.plot([], [], ":", color="#000000", label="dotted: first come, first served, as a proxy")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(0.02, 10)
    axis.set_xlim(200, 400_000)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} s"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("invocations that arrive in a second, each holding its connection for 24 ms")
    axis.set_title("Slowest 1 %: time from asking to closing (p99)", fontsize=11, loc="left")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, stem)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, or write the docs from what was simulated."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.overload.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="the last report into lab/overload/scale.md"
    )
    options = parser.parse_args(arguments)
    if options.write_docs:
        if not REPORT.exists():
            raise SystemExit("nothing simulated yet: run `python -m lab.overload.scale` first")
        report = json.loads(REPORT.read_text())
        report["compared"] = compare(json.loads(MEASURED.read_text())) if MEASURED.exists() else []
        write_between_markers(HERE / "scale.md", summary(report))
        chart(report, HERE / "scale")
        return 0
    try:
        report = {
            "constants": constants(),
            "curves": curves(),
            "compared": [],  # with the latest measurement, when the docs are written
        }
    except KeyboardInterrupt:
        return 130
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    chart(report, REPORT.with_suffix(""))
    print(summary(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
