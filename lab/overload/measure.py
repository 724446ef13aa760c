"""Beyond the limit: 1, 2, 5 and 10 times as many callers as the database takes connections.

    python -m lab.overload                # measure, report, chart (five to six minutes)
    python -m lab.overload --quick        # a smoke test of the same, a few seconds
    python -m lab.overload --write-docs   # the last report's numbers into lab/overload/README.md

Four sides take turns in short rounds against one server, so that a busy moment of the machine hits
all of them. Everything shares this machine's cores, the server too: compare the sides with each
other, not with a database that has its cores to itself.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lab.overload.clients import ROOT, STATEMENT, TIMEOUT, Crowd, Sample
from local.database import LocalDatabase
from local.fleet import percentile
from local.servers import Flavor, Server, find_servers, how_to_install, locked

REPORT = ROOT / "build" / "bench" / "overload.json"
HERE = Path(__file__).parent
NODE = HERE / "serverless_mysql"
INSTALLED = ROOT / "build" / "bench" / "serverless_mysql"
NODE_MISSING = "no Node.js: install `node` and `npm` (Debian: `apt-get install nodejs npm`)"
# Its environments share these: one process each, as Lambda has it, would cost them more.
NODE_PROCESSES = 2

LIMIT = 65
NAMES = {
    "plain": "PyMySQL, a connection per call",
    "null_pool": "SQLAlchemy, NullPool",
    "serverless_mysql": "serverless-mysql",
    "ours": "single_connection",
}


@dataclass(frozen=True)
class Plan:
    """How much to measure: for each load seconds of ramp and window, and how many rounds."""

    loads: dict[int, tuple[float, float]]
    rounds: int


# The ramp lets queues form, and environments meet them: as long as one caller's few turns take.
FULL = Plan({1: (1.0, 2.0), 2: (1.0, 3.0), 5: (2.0, 3.0), 10: (5.0, 4.0)}, rounds=3)
QUICK = Plan({1: (0.3, 0.7), 2: (0.3, 0.7)}, rounds=1)


class NodeMissingError(Exception):
    """serverless-mysql cannot run here."""


def install_serverless_mysql() -> None:
    """What package-lock.json names, once, into build/.

    Raises:
        NodeMissingError: There is no Node.js, or npm cannot fetch the package.
    """
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        raise NodeMissingError(NODE_MISSING)
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with locked(INSTALLED / ".lock"):
        if (INSTALLED / "node_modules" / "serverless-mysql").exists():
            return
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(NODE / name, INSTALLED / name)
        command = [npm, "ci", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, cwd=INSTALLED, check=False).returncode:
            raise NodeMissingError("`npm ci` failed: does npm reach its registry?")


class NodeCrowd:
    """serverless-mysql's callers: an instance of the module for each, in a few Node processes."""

    def __init__(self, size: int, environ: dict[str, str]) -> None:
        """Start them."""
        install_serverless_mysql()
        each = -(-size // NODE_PROCESSES)
        self._processes = [
            subprocess.Popen(
                ["node", str(NODE / "client.js"), str(each), str(TIMEOUT), STATEMENT],
                env={**os.environ, **environ, "NODE_PATH": str(INSTALLED / "node_modules")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent
            )
            for _ in range(NODE_PROCESSES)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def play(self, _side: str, callers: int, begin: float, end: float) -> None:
        """As `Crowd.play`."""
        for index, process in enumerate(self._processes):
            share = callers // NODE_PROCESSES + (index < callers % NODE_PROCESSES)
            order = {"callers": share, "begin": begin, "end": end}
            assert process.stdin
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()

    def collect(self, _callers: int) -> Sample:
        """As `Crowd.collect`."""
        whole = Sample()
        for process in self._processes:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the Node process died: see what it printed above")
            told = json.loads(line)
            whole.latencies.extend(told["latencies"])
            whole.attempts += told["attempts"]
            whole.completed += told["completed"]
            whole.failures.update(told["failures"])
        return whole


def measure(
    database: LocalDatabase,
    crowd: Crowd | NodeCrowd,
    side: str,
    callers: int,
    seconds: tuple[float, float],
) -> dict[str, Any]:
    """One round of one side."""
    ramp, window = seconds
    database.execute("FLUSH STATUS")  # the peak counts from here
    refused = database.status("Connection_errors_max_connections")
    begin = time.monotonic() + ramp
    crowd.play(side, callers, begin, begin + window)
    sample = crowd.collect(callers)
    refused = database.status("Connection_errors_max_connections") - refused
    successes = len(sample.latencies)
    failures = sum(sample.failures.values())
    held = statistics.mean(sample.held) if sample.held else None
    throughput = sample.completed / window
    figures: dict[str, Any] = {
        "success": successes / max(1, successes + failures),
        "throughput": throughput,
        "attempts": sample.attempts / successes if successes else None,
        "peak": database.status("Max_used_connections") - database.observer.counted,
        "held": held,
        "held_spread": statistics.pstdev(sample.held) if sample.held else None,
        "of_possible": throughput * held / LIMIT if held else None,
        "of_fifo": None,
        "refused_by_server": max(0, refused),
        "failures": dict(sample.failures),
    }
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        figures[name] = percentile(sorted(sample.latencies), share) if successes else None
    if successes:
        figures["of_fifo"] = figures["p99"] * throughput / callers
    return figures


def middle(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the rounds that have it; failures are added up."""
    whole: dict[str, Any] = {}
    for name in rounds[0]:
        if name == "failures":
            added: dict[str, int] = {}
            for one in rounds:
                for code, count in one[name].items():
                    added[code] = added.get(code, 0) + count
            whole[name] = added
        else:
            known = [one[name] for one in rounds if one[name] is not None]
            whole[name] = statistics.median(known) if known else None
    return whole


@contextlib.contextmanager
def crowds(size: int, database: LocalDatabase) -> Iterator[dict[str, Crowd | NodeCrowd]]:
    """Everybody's callers, started before anything else of this process has threads."""
    environ = database.master_environ()  # the limit is the server's own, not the user's
    with contextlib.ExitStack() as stack:
        playing: dict[str, Crowd | NodeCrowd] = {}
        rivals = stack.enter_context(Crowd(size, environ, ("plain", "null_pool")))
        playing["plain"] = playing["null_pool"] = rivals
        try:
            playing["serverless_mysql"] = stack.enter_context(NodeCrowd(size, environ))
        except NodeMissingError as missing:
            print(f"serverless-mysql is left out: {missing}", file=sys.stderr)
        playing["ours"] = stack.enter_context(Crowd(size, environ, ("ours",)))
        yield playing


def benchmark(server: Server, plan: Plan, directory: Path) -> dict[str, Any]:
    """All sides at all loads, in turns."""
    _raise_file_limit()
    began = time.time()
    load_before = os.getloadavg()[0]
    rounds: dict[int, dict[str, list[dict[str, Any]]]] = {}
    with (
        # The default backlog, 50 + limit / 5, drops what ten times the limit may send at once.
        LocalDatabase(server, directory, max_connections=LIMIT, options=("--back-log=1024",)) as db,
        crowds(LIMIT * max(plan.loads), db) as playing,
        Progress(
            TextColumn("{task.description:40}"), BarColumn(), TimeRemainingColumn()
        ) as progress,
    ):
        steps = len(plan.loads) * plan.rounds * len(playing)
        task = progress.add_task("starting", total=steps)
        for load, seconds in plan.loads.items():
            sides = rounds.setdefault(load, {side: [] for side in playing})
            for turn in range(plan.rounds):
                for side, crowd in playing.items():
                    text = f"{load}x, round {turn + 1} of {plan.rounds}: {NAMES[side]}"
                    progress.update(task, description=text)
                    sides[side].append(measure(db, crowd, side, LIMIT * load, seconds))
                    progress.advance(task)
    results = {
        str(load): {side: middle(measured) for side, measured in sides.items()}
        for load, sides in rounds.items()
    }
    return {
        "server": str(server),
        "statement": STATEMENT,
        "limit": LIMIT,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": round(load_before, 2),
        "seconds": round(time.time() - began, 1),
        "rounds": plan.rounds,
        "windows": sorted({window for _, window in plan.loads.values()}),
        "results": results,
        "targets": targets(results),
    }


def targets(results: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """What was aimed at, what came out, and whether it was reached."""
    found: list[dict[str, Any]] = []

    def target(at: int, what: str, value: float | None, aim: float, *, below: bool) -> None:
        if value is not None:
            reached = value <= aim if below else value >= aim
            found.append({"at": at, "what": what, "value": value, "aim": aim, "reached": reached})

    if one := results.get("1", {}).get("ours"):
        target(1, "refusals that reached a caller", sum(one["failures"].values()), 0, below=True)
        target(1, "attempts per success", one["attempts"], 1.05, below=True)
    if two := results.get("2", {}).get("ours"):
        target(2, "p99, seconds", two["p99"], 0.3, below=True)
    if ten := results.get("10", {}).get("ours"):
        target(10, "success", ten["success"], 1.0, below=False)
        rival = results["10"].get("serverless_mysql")
        if rival and rival["throughput"]:
            times = ten["throughput"] / rival["throughput"]
            target(10, "throughput, times serverless-mysql's", times, 12, below=False)
        target(10, "throughput, of limit ÷ time held", ten["of_possible"], 0.9, below=False)
        target(10, "p99, times a queue's", ten["of_fifo"], 2.0, below=True)
        target(10, "attempts per success", ten["attempts"], 2.5, below=True)
    return found


def _raise_file_limit() -> None:
    """A socket for each caller, and the server's own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# The report ---------------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        (
            "| callers | side | success | per second | p50 | p95 | p99 | max | "
            "attempts per success | peak |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for load, sides in report["results"].items():
        for side, f in sides.items():
            times = " | ".join(_seconds(f[name]) for name in ("p50", "p95", "p99", "max"))
            attempts = "-" if f["attempts"] is None else f"{f['attempts']:.2f}"
            lines.append(
                f"| {load}x ({report['limit'] * int(load)}) | {NAMES[side]} | "
                f"{_percent(f['success'])} | {f['throughput']:,.0f} | {times} | {attempts} | "
                f"{f['peak']:.0f} |"
            )
    return "\n".join(lines)


def target_table(report: dict[str, Any]) -> str:
    """The targets as Markdown."""
    lines = ["| at | target | aimed at | measured | |", "|---|---|---|---|---|"]
    for t in report["targets"]:
        verdict = "reached" if t["reached"] else "**missed**"
        lines.append(f"| {t['at']}x | {t['what']} | {t['aim']} | {t['value']:.2f} | {verdict} |")
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> str:
    """What stands between the markers in lab/overload/README.md."""
    ten = report["results"].get("10", {}).get("ours")
    held = f" A success held its connection for {ten['held'] * 1000:.0f} ms at 10x." if ten else ""
    shortest, longest = report["windows"][0], report["windows"][-1]
    return (
        f"{report['server']}, `{report['statement']}`, {report['limit']} connections, "
        f"{report['cores']} cores for everything, Python {report['python']}; medians of "
        f"{report['rounds']} rounds of {shortest:g} to {longest:g} s, load average "
        f"{report['load_average_before']} before the start.{held}\n\n"
        f"{table(report)}\n\n{target_table(report)}"
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
        "serverless_mysql": ("#0072B2", "s", "-"),
        "ours": ("#009E73", "o", "-"),
    }
    mpl.rcParams.update({"font.size": 10, "svg.hashsalt": "overload", "svg.fonttype": "none"})
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.5), layout="constrained")
    loads = [int(load) for load in report["results"]]
    panels = (
        ("success", 100.0, "Invocations that succeed", "%"),
        ("throughput", 1.0, "Successes a second", ""),
        ("p99", 1.0, "Slowest 1 %: p99 of successes", " s"),
    )
    for axis, (key, factor, title, unit) in zip(axes, panels, strict=True):
        for side, (colour, shape, line) in looks.items():
            points = [
                (load, report["results"][str(load)][side][key] * factor)
                for load in loads
                if report["results"][str(load)].get(side, {}).get(key) is not None
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
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} s"))
        else:
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _, u=unit: f"{y:,.0f}{u}"))
    ours = report["results"]
    fifo = [(x, x * report["limit"] / ours[str(x)]["ours"]["throughput"]) for x in loads]
    axes[2].plot(
        *zip(*fifo, strict=True),
        ":",
        color="#000000",
        linewidth=1.3,
        label="a first-come-first-served queue at our throughput",
    )
    axes[1].set_xlabel(f"callers at once, in times the limit of {report['limit']} connections")
    handles, labels = axes[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, stem)


def save(figure: Any, stem: Path) -> None:
    """Write a chart as SVG and PNG, the same bytes for the same figures, and let go of it."""
    import matplotlib.pyplot as plt

    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=160, metadata={"Software": None})
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or write the docs from what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: 1x and 2x, one round")
    parser.add_argument("--server", choices=("mysql", "mariadb"), help="default: MySQL, as RDS")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the JSON goes")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="write the last report into lab/overload/README.md; measures nothing",
    )
    options = parser.parse_args(arguments)
    if options.write_docs:
        if not options.report.exists():
            raise SystemExit(f"no report at {options.report.name}: run `make bench-overload` first")
        report = json.loads(options.report.read_text())
        write_between_markers(HERE / "README.md", summary(report))
        chart(report, HERE / "overload")
        # Beside the page: what scale.md compares the simulation with.
        (HERE / "overload.json").write_text(json.dumps(report, indent=2) + "\n")
        return 0
    wanted: tuple[Flavor, ...] = (options.server,) if options.server else ("mysql", "mariadb")
    found = {server.flavor: server for server in find_servers()}
    server = next((found[flavor] for flavor in wanted if flavor in found), None)
    if server is None:
        raise SystemExit(f"no {wanted[0]} server: {how_to_install(wanted[0])}")
    options.report.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        report = benchmark(server, QUICK if options.quick else FULL, options.report.parent)
    except KeyboardInterrupt:
        print("interrupted: all callers and the server are ended", file=sys.stderr)
        return 130
    options.report.write_text(json.dumps(report, indent=2) + "\n")
    chart(report, options.report.with_suffix(""))
    print(summary(report))
    return 0
