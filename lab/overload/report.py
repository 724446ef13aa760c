"""What was measured, as Markdown and as a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.dark import write_dark
from lab.overload.scenes import NAMES

# The share of invocations that must succeed before their p99 says something.
HALF = 0.5

Results = dict[str, dict[str, dict[str, Any]]]
"""Figures by side, by callers in times the limit or in numbers."""


def targets(
    parts: dict[str, Results],
    of_queue: dict[str, dict[str, dict[str, list[float]]]],
) -> list[dict[str, Any]]:
    """What was aimed at, what came out, and whether it was reached.

    Args:
        parts: Figures by load, for each part of the benchmark.
        of_queue: By part and load, our figures in times the queue's, round by round.
    """
    found: list[dict[str, Any]] = []
    loads = parts["loads"]

    def target(
        at: str, what: str, values: float | Sequence[float] | None, aim: float, *, below: bool
    ) -> None:
        given = values if isinstance(values, Sequence) else [values]
        every = [value for value in given if value is not None]
        if not every:
            return
        reached = all(value <= aim if below else value >= aim for value in every)
        found.append({"at": at, "what": what, "values": every, "aim": aim, "reached": reached})

    if one := loads.get("1", {}).get("ours"):
        target("1x", "refusals that reached a caller", sum(one["failures"].values()), 0, below=True)
        target("1x", "attempts per success", one["attempts"], 1.05, below=True)
    if two := loads.get("2", {}).get("ours"):
        target("2x", "p99, seconds", two["p99"], 0.3, below=True)
    if ten := loads.get("10", {}).get("ours"):
        rival = loads["10"].get("serverless_mysql")
        if rival and rival["throughput"]:
            times = ten["throughput"] / rival["throughput"]
            target("10x", "throughput, times serverless-mysql's", times, 12, below=False)
        target("10x", "throughput, of limit ÷ time held", ten["of_possible"], 0.9, below=False)
    for part, at in (("loads", "10x"), ("again", "10x, known"), ("slow", "10x, 0.2 s")):
        ours = parts[part].get("10", {}).get("ours")
        if ours:
            target(at, "success", ours["success"], 1.0, below=False)
            target(at, "attempts per success", ours["attempts"], 2.5, below=True)
        if times := of_queue[part].get("10"):
            target(at, "throughput, times the queue's", times["throughput"], 0.95, below=False)
            target(at, "p99, times the queue's", times["p99"], 2.0, below=True)
    return found


def table(results: Results, limit: int) -> str:
    """The results as Markdown; `limit` is what a load is counted in, 1 for callers themselves."""
    lines = [
        (
            "| callers | side | success | per second | p50 | p95 | p99 | max | "
            "attempts per success | peak |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for load, sides in results.items():
        callers = load if limit == 1 else f"{load}x ({limit * int(load)})"
        for side, f in sides.items():
            times = " | ".join(_seconds(f[name]) for name in ("p50", "p95", "p99", "max"))
            attempts = "-" if f["attempts"] is None or side == "queue" else f"{f['attempts']:.2f}"
            lines.append(
                f"| {callers} | {NAMES[side]} | {_percent(f['success'])} | "
                f"{f['throughput']:,.0f} | {times} | {attempts} | {f['peak']:.0f} |"
            )
    return "\n".join(lines)


def target_table(report: dict[str, Any]) -> str:
    """The targets as Markdown; what is measured by round must be reached in each of them."""
    lines = ["| at | target | aimed at | measured | |", "|---|---|---|---|---|"]
    for t in report["targets"]:
        verdict = "reached" if t["reached"] else "**missed**"
        measured = f"{statistics.median(t['values']):.2f}"
        if len(t["values"]) > 1:
            measured += f" ({min(t['values']):.2f} to {max(t['values']):.2f})"
        lines.append(f"| {t['at']} | {t['what']} | {t['aim']} | {measured} | {verdict} |")
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> str:
    """What stands between the markers in lab/overload/README.md."""
    ten = report["results"].get("10", {}).get("ours")
    held = f" A success held its connection for {ten['held'] * 1000:.0f} ms at 10x." if ten else ""
    shortest, longest = report["windows"][0], report["windows"][-1]
    return (
        f"{report['server']}, `SELECT SLEEP(0.02)`, {report['limit']} connections, "
        f"{report['cores']} cores for everything, Python {report['python']}; medians of "
        f"{report['rounds']} rounds of {shortest:g} to {longest:g} s, load average "
        f"{report['load_average_before']} before the start.{held}\n\n"
        f"{table(report['results'], report['limit'])}\n\n"
        "**Once more, by callers who were there a moment ago** (five rounds, in turns)\n\n"
        f"{table(report['again'], report['limit'])}\n\n"
        "**Statements ten times as long, `SELECT SLEEP(0.2)`**\n\n"
        f"{table(report['slow'], report['limit'])}\n\n"
        "**serverless-mysql's own benchmark: `SELECT SLEEP(0.02)`, 30 connections.** Published: "
        "100 % at each; 127, 238, 171 and 157 a second and a p99 of 24, 24, 35 and 40 ms at 5, "
        "10, 20 and 30 callers, in Lambda as LocalStack has it (its repository, June 2026)\n\n"
        f"{table(report['published'], 1)}\n\n{target_table(report)}"
    )


def write_between_markers(file: Path, text: str) -> None:
    """Replace what stands between `<!-- bench:begin -->` and `<!-- bench:end -->` in `file`."""
    before, _, rest = file.read_text().partition("<!-- bench:begin -->")
    _, end, after = rest.partition("<!-- bench:end -->")
    if not end:
        raise SystemExit(f"{file.name} lacks the markers bench:begin and bench:end")
    file.write_text(f"{before}<!-- bench:begin -->\n{text}\n<!-- bench:end -->{after}")


def _percent(share: float) -> str:
    # 100 % is said only where not one failed.
    return "100 %" if share == 1 else f"{min(share * 100, 99.9):.3g} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def chart(report: dict[str, Any], stem: Path) -> None:
    """Success, throughput and p99 against the load; SVG and PNG beside each other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    # Okabe and Ito's colours, told apart by those who see few of them; shapes say the same again.
    looks = {
        "plain": ("#E69F00", "v", "--"),
        "null_pool": ("#CC79A7", "^", "--"),
        "backoff": ("#D55E00", "D", "-"),
        "queue": ("#000000", "x", ":"),
        "serverless_mysql": ("#009E73", "s", "-"),
        "ours": ("#0072B2", "o", "-"),
    }
    mpl.rcParams.update({"font.size": 10, "svg.hashsalt": "overload", "svg.fonttype": "none"})
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.5), layout="constrained")
    loads = [int(load) for load in report["results"]]
    panels = (
        ("success", 100.0, "Invocations that succeed", "%"),
        ("throughput", 1.0, "Successes a second", ""),
        ("p99", 1.0, "p99, where half or more succeed", " s"),
    )
    for axis, (key, factor, title, unit) in zip(axes, panels, strict=True):
        for side, (colour, shape, line) in looks.items():
            points = [
                (load, report["results"][str(load)][side][key] * factor)
                for load in loads
                if _is_drawn(report["results"][str(load)].get(side, {}), key)
            ]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    line,
                    color=colour,
                    marker=shape,
                    label=NAMES[side],
                    linewidth=2.5 if side == "ours" else 1.5,
                    zorder=3 if side == "ours" else 2,
                )
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(loads))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}x"))
        axis.set_title(title, fontsize=10.5, loc="left")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if key == "p99":
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(FixedLocator((0.1, 0.2, 0.5, 1, 2, 5, 10)))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} s"))
        else:
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _, u=unit: f"{y:,.0f}{u}"))
    axes[1].set_xlabel(f"callers at once, in times the limit of {report['limit']} connections")
    handles, labels = axes[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, stem)


def _is_drawn(figures: dict[str, Any], key: str) -> bool:
    """Whether there is a point: the p99 of the few that came through says nothing of a caller's."""
    return figures.get(key) is not None and (key != "p99" or figures["success"] >= HALF)


def save(figure: Any, stem: Path) -> None:
    """Write a chart as SVG and PNG, the same bytes for the same figures, and let go of it."""
    import matplotlib.pyplot as plt

    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    write_dark(stem.with_suffix(".svg"))
    figure.savefig(stem.with_suffix(".png"), dpi=160, metadata={"Software": None})
    plt.close(figure)
