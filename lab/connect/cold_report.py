"""What the cold starts say: targets, tables, the estimate by memory size, and the chart."""

import json
from pathlib import Path
from typing import Any

from lab.connect.report import BLUE, GREY, ORANGE, aligned
from lab.dark import write_dark

FULL_CORE_MB = 1769  # AWS Lambda Developer Guide, "Configure Lambda function memory"
MEMORY_MB = (128, 256, 512, 1024, FULL_CORE_MB)
# The targets in milliseconds are of a machine on which the documented way takes so long: on any
# other, and beside any load, they are held in proportion.
REFERENCE_MS = 245
STAGES = ("import", "first call", "all")
LABELS = {
    "ours": "ten lines on this layer, secret",
    "ours, password": "the same, password in the environment",
    "documented": "documented: Powertools and PyMySQL, secret",
    "ours, TLS": "ten lines on this layer, secret over TLS",
    "documented, TLS": "documented, secret over TLS",
    "orders_api": "orders_api, secret",
    "stock_worker": "stock_worker, secret",
    "sales_report": "sales_report, secret",
    "connection_census": "connection_census, secret",
}


def targets(sides: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Each target with what was measured."""
    whole = sides["documented"]["all"]
    scale = REFERENCE_MS / whole
    added = sides["layer"]["added"]
    ratios = [
        ("ten lines with a secret", sides["ours"]["all"] / whole, 0.45),
        ("the same, Secrets Manager behind TLS", _ratio(sides, ", TLS"), 0.45),
        # In the proportion that is asked of orders_api, to what they took with boto3.
        ("stock_worker", sides["stock_worker"]["all"] / whole, 0.97),
        ("connection_census", sides["connection_census"]["all"] / whole, 0.74),
    ]
    times = [
        ("first call of ten lines with a secret", sides["ours"]["first call"], 40),
        ("the layer's import over PyMySQL's", added, 12),
        ("orders_api", sides["orders_api"]["all"], 230),
        ("sales_report", sides["sales_report"]["all"], 300),
    ]
    reached = [(f"{what}, of the documented way", ratio, most) for what, ratio, most in ratios]
    reached += [(f"{what}, ms at the reference", ms * scale, most) for what, ms, most in times]
    return [
        {"what": what, "measured": round(measured, 2), "at_most": most, "met": measured <= most}
        for what, measured, most in reached
    ]


def _ratio(sides: dict[str, dict[str, float]], how: str) -> float:
    return sides[f"ours{how}"]["all"] / sides[f"documented{how}"]["all"]


def write(result: dict[str, Any], folder: Path) -> int:
    """The figures, the tables and the chart into `folder`; 1 if a target is missed."""
    sides = result["sides"]
    result["targets"] = reached = targets(sides)
    result["tables"] = {
        "cold-start-targets": _targets(reached),
        "cold-start": _stages(sides),
        "cold-start-imports": _imports(sides),
        "cold-start-memory": _by_memory(sides),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cold_start.json").write_text(json.dumps(result, indent=1) + "\n")
    chart(sides, folder / "cold")
    for head, rows in result["tables"].values():
        print(aligned(head, rows), end="\n\n")
    return 0 if all(one["met"] for one in reached) else 1


def _targets(reached: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [t["what"], str(t["measured"]), str(t["at_most"]), "met" if t["met"] else "NOT MET"]
        for t in reached
    ]
    return ["target", "measured", "at most", ""], rows


def _stages(sides: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    whole = sides["documented"]["all"]
    rows = [
        [
            label,
            *(f"{sides[side][stage]:.0f}" for stage in STAGES),
            f"{sides[side]['all'] / whole:.2f}",
        ]
        for side, label in LABELS.items()
        if side in sides
    ]
    return ["CPU ms of a new process", *STAGES, "of documented"], rows


def _imports(sides: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    named = {
        "python": "Python itself",
        "pymysql": "import pymysql",
        "layer": "this layer, settings read",
    }
    rows = [[label, f"{sides[side]['all']:.1f}"] for side, label in named.items()]
    added = sides["layer"]["added"]
    return ["CPU ms of a new process", ""], [*rows, ["the layer over pymysql", f"{added:+.1f}"]]


def _by_memory(sides: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Init at a full core, the invocation at its share of one."""
    rows = []
    for side, label in LABELS.items():
        if side not in sides:
            continue
        stages = sides[side]
        estimates = [
            stages["import"] + stages["first call"] * FULL_CORE_MB / mb for mb in MEMORY_MB
        ]
        rows.append([label, *(f"{estimate:.0f}" for estimate in estimates)])
    return ["estimate for Lambda, ms", *(f"{mb} MB" for mb in MEMORY_MB)], rows


def chart(sides: dict[str, dict[str, float]], path: Path) -> None:
    """A bar for each side, import and first call."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "cold"
    from matplotlib import pyplot as plt

    shown = [side for side in LABELS if side in sides]
    figure, axis = plt.subplots(figsize=(10, 0.55 * len(shown) + 1.4), layout="constrained")
    for row, side in enumerate(shown):
        stages = sides[side]
        theirs = side.startswith("documented")
        axis.barh(row, stages["import"], 0.7, color=GREY if theirs else BLUE)
        call = stages["first call"]
        axis.barh(row, call, 0.7, left=stages["import"], color=ORANGE, alpha=0.5 if theirs else 1)
        said = f"{stages['import']:.0f} + {call:.0f} = {stages['all']:.0f}"
        axis.text(stages["all"] + 3, row, said, va="center", fontsize=10)
    axis.set_yticks(range(len(shown)), [LABELS[side] for side in shown])
    axis.invert_yaxis()
    axis.set_xlim(0, max(sides[side]["all"] for side in shown) * 1.25)
    axis.set_xlabel("milliseconds of CPU: import, then the first call (orange)")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    figure.suptitle("Until the first answer of a new process", x=0.01, ha="left", fontsize=12.5)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    write_dark(path.with_suffix(".svg"))
    figure.savefig(path.with_suffix(".png"), dpi=100, metadata={"Software": None})
    plt.close(figure)
