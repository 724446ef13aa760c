"""What the measurements say: targets, tables, the chart, and the tables in lab/connect/README.md.

`python -m lab.connect.report` writes what is in build/bench/*.json between the marks of
lab/connect/README.md, and the chart beside it.
"""

import json
import re
import shutil
import sys
from math import nan
from pathlib import Path
from typing import Any

from lab.connect.sides import ASIDE, RIVALS, STEPS, UNVERIFIED
from lab.dark import write_dark

DOCUMENT = Path(__file__).with_name("README.md")
SHOWN = {"connect": "speed", "cold": "cold"}
FLAVOR_NAMES = {"mysql": "MySQL", "mariadb": "MariaDB"}
# Okabe and Ito's colours: told apart with any colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#8C8C8C"


def round_trips(server: dict[str, Any], side: str) -> int:
    """What a side waits for, with the TCP handshake, which no proxy can delay or count."""
    return int(server["turns"][side]) + 1


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was measured, at the real MySQL."""
    server = result["servers"].get("mysql", {})
    direct = server.get("doors", {}).get("direct", {})
    if not {"ours", "mysqlclient", "documented", "early"} <= direct.keys():
        return []
    ours = direct["ours"]
    reached = [
        ("of mysqlclient, verified", ours["of_mysqlclient"][1], 0.65),
        ("of PyMySQL as documented", ours["of_documented"][1], round(1 / 12, 3)),
        (
            "of the round trips of PyMySQL as documented, TCP included",
            round_trips(server, "ours") / round_trips(server, "documented"),
            0.7,
        ),
        (
            "guard, deadline and telemetry, ms of each invocation",
            ours["beyond_early_ms"][1],
            0.15,
        ),
    ]
    return [
        {"what": what, "measured": round(measured, 3), "at_most": limit, "met": measured <= limit}
        for what, measured, limit in reached
    ]


# Tables --------------------------------------------------------------------------------------


def _rivals(server: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    doors = server["doors"]
    head = ["connect, SELECT, close", "no delay", "+0.5 ms", "+2 ms", "of mysqlclient", "turns"]
    head += ["client CPU", "server CPU"]
    rows = []
    for side, (_, label) in RIVALS.items():
        if side not in doors["direct"]:
            continue
        one = doors["direct"][side]
        times = [f"{doors[door][side]['median_ms']:.2f}" for door in ("direct", "0.5", "2")]
        ratio = "{1:.2f} ({0:.2f}-{2:.2f})".format(*one.get("of_mysqlclient", (nan, nan, nan)))
        unverified = side not in UNVERIFIED and not server["verified"][side]
        cpu = [f"{one['client_cpu_ms']:.2f}", f"{one['server_cpu_ms']:.2f}"]
        rows.append(
            [
                label + " (NOT VERIFIED)" * unverified,
                *times,
                ratio,
                str(server["turns"][side]),
                *cpu,
            ]
        )
    return head, rows


def _steps(server: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    direct = server["doors"]["direct"]
    head = ["step", "ms", "saved", "turns", "client CPU", "server CPU"]
    rows, before = [], None
    for side, (_, label) in {**STEPS, **ASIDE}.items():
        if side not in direct:
            continue
        one = direct[side]
        saved = "" if before is None else f"{before - one['median_ms']:+.2f}"
        before = one["median_ms"]
        cpu = [f"{one['client_cpu_ms']:.2f}", f"{one['server_cpu_ms']:.2f}"]
        rows.append([label, f"{before:.2f}", saved, str(server["turns"][side]), *cpu])
    if rows and "tls_12" in direct and "early" in direct:  # beside the way, not on it
        difference = direct["early"]["median_ms"] - direct["tls_12"]["median_ms"]
        rows[-1][2] = f"({difference:+.2f})"
    return head, rows


def _targets(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["target (MySQL)", "measured", "at most", ""]
    rows = [
        [t["what"], f"{t['measured']:.3f}", f"{t['at_most']:.3f}", "met" if t["met"] else "NOT MET"]
        for t in result["targets"]
    ]
    return head, rows


def aligned(head: list[str], rows: list[list[str]]) -> str:
    """A table for the terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table for a document."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table(result: dict[str, Any]) -> str:
    """Everything, for the terminal."""
    parts = []
    for server in result["servers"].values():
        parts += [f"\n{server['version']}, milliseconds, medians", aligned(*_rivals(server))]
        parts += ["", aligned(*_steps(server))]
    if result["targets"]:
        parts += ["", aligned(*_targets(result))]
    return "\n".join(parts)


# The chart -----------------------------------------------------------------------------------


def chart(result: dict[str, Any], path: Path) -> None:
    """Bars of each side's time at MySQL and MariaDB, as SVG and PNG; `path` without its suffix."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "connect"  # the same numbers give the same file
    from matplotlib import pyplot as plt

    servers = {f: result["servers"][f] for f in ("mysql", "mariadb") if f in result["servers"]}
    sides = [s for s in RIVALS if all(s in one["doors"]["direct"] for one in servers.values())]
    figure, axes = plt.subplots(
        1, len(servers), figsize=(10, 5.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (flavor, server) in zip(axes[0], servers.items(), strict=True):
        longest = max(server["doors"]["2"][side]["median_ms"] for side in sides)
        for row, side in enumerate(sides):
            times = [server["doors"][d][side]["median_ms"] for d in ("direct", "0.5", "2")]
            own = side == "ours"
            axis.barh(row, times[2], 0.74, color=BLUE if own else GREY, alpha=0.25)
            axis.barh(row, times[1], 0.74, color=BLUE if own else GREY, alpha=0.45)
            axis.barh(row, times[0], 0.74, color=BLUE if own else GREY)
            axis.text(
                times[2] + longest * 0.015,
                row,
                " / ".join(f"{time:.1f}" for time in times),
                va="center",
                fontsize=11,
                fontweight="bold" if own else "normal",
            )
        axis.set_title(FLAVOR_NAMES[flavor], loc="left", fontsize=13, fontweight="bold")
        axis.set_xlim(0, longest * 1.42)
        axis.set_xlabel("milliseconds", fontsize=11)
        axis.tick_params(labelsize=11)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0][0].set_yticks(range(len(sides)), [_two_lines(RIVALS[s][1]) for s in sides])
    axes[0][0].invert_yaxis()
    figure.suptitle(
        "Connect over TLS, one SELECT, close: median ms at 0 / 0.5 / 2 ms of added round trip",
        x=0.01,
        ha="left",
        fontsize=12.5,
    )
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    write_dark(path.with_suffix(".svg"))
    figure.savefig(path.with_suffix(".png"), dpi=100, metadata={"Software": None})
    plt.close(figure)


def _two_lines(label: str) -> str:
    return re.sub(r", | \(", lambda m: m[0].replace(" ", "\n", 1), label, count=1)


# The document --------------------------------------------------------------------------------


def blocks(folder: Path) -> dict[str, str]:
    """Name and text of each part of the document that is measured."""
    made = {}
    if (folder / "connect.json").exists():
        result = json.loads((folder / "connect.json").read_text())
        result["targets"] = targets(result)
        for flavor, server in result["servers"].items():
            made[f"rivals-{flavor}"] = markdown(*_rivals(server))
            made[f"steps-{flavor}"] = markdown(*_steps(server))
        if result["targets"]:
            made["targets"] = markdown(*_targets(result))
        on = result["machine"]
        made["machine"] = (
            f"Measured with {', '.join(s['version'] for s in result['servers'].values())}, Python "
            f"{on['python']}, {on['openssl']}, {on['cores']} cores, {result['rounds']} rounds, "
            f"beside a load of {on['load']}."
        )
    for name in ("parameters", "cold_start"):
        file = folder / f"{name}.json"
        if file.exists():
            for key, (head, rows) in json.loads(file.read_text())["tables"].items():
                made[key] = markdown(head, rows)
    return made


def fill(text: str, made: dict[str, str]) -> str:
    """`text` with each measured part between its marks replaced."""
    for name, block in made.items():
        begin, end = f"<!-- bench:begin {name} -->", f"<!-- bench:end {name} -->"
        pattern = re.escape(begin) + r".*?" + re.escape(end)
        replaced = f"{begin}\n{block}\n{end}"
        text = re.sub(pattern, lambda _, r=replaced: r, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def main() -> int:
    """Write the document's tables and chart anew from what was measured last."""
    folder = Path("build/bench")
    made = blocks(folder)
    if not made:
        print("Nothing was measured yet: run `make bench` first.", file=sys.stderr)
        return 1
    DOCUMENT.write_text(fill(DOCUMENT.read_text(), made))
    for name in ("connect", "cold"):
        for suffix in (".svg", "-dark.svg", ".png"):
            source = folder / f"{name}{suffix}"
            if source.exists():
                shutil.copy(source, DOCUMENT.with_name(SHOWN[name] + suffix))
    print(f"{DOCUMENT}: {', '.join(sorted(made))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
