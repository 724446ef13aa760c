"""Beyond the limit: 1, 2, 5 and 10 times as many callers as the database takes connections.

    python -m lab.overload                # measure, report, chart (twenty minutes)
    python -m lab.overload --quick        # a smoke test of the same, half a minute
    python -m lab.overload --write-docs   # the last report's numbers into lab/overload/README.md

The sides take turns in short rounds against one server, so that a busy moment of the machine hits
all of them. Everything shares this machine's cores, the server too: compare the sides with each
other, not with a database that has its cores to itself.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import resource
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lab.overload.clients import Crowd
from lab.overload.haproxy import HaproxyMissingError, Queue
from lab.overload.node import NodeCrowd, NodeMissingError
from lab.overload.report import chart, summary, targets, write_between_markers
from lab.overload.scenes import FULL, LIMIT, NAMES, QUICK, Plan, Scene
from lab.overload.sides import ROOT, STATEMENT, TIMEOUT
from local.database import LocalDatabase
from local.fleet import percentile
from local.servers import Flavor, Server, find_servers, how_to_install

REPORT = ROOT / "build" / "bench" / "overload.json"
HERE = Path(__file__).parent
NO_BACKOFF = "no tenacity: `make .venv/rivals` installs it"


def measure(
    database: LocalDatabase, crowd: Crowd | NodeCrowd, side: str, scene: Scene
) -> dict[str, Any]:
    """One round of one side, once the server has let go of the one before."""
    settled = time.monotonic() + 10.0
    while database.sessions() and time.monotonic() < settled:
        time.sleep(0.1)
    most = scene.limit + database.observer.counted
    database.execute(f"SET GLOBAL max_connections = {most}")
    database.execute("FLUSH STATUS")  # the peak counts from here
    refused = database.status("Connection_errors_max_connections")
    begin = time.monotonic() + scene.ramp
    crowd.play(side, scene.callers, begin, begin + scene.window, scene.sleep)
    sample = crowd.collect(scene.callers)
    refused = database.status("Connection_errors_max_connections") - refused
    successes = len(sample.latencies)
    failures = sum(sample.failures.values())
    held = statistics.mean(sample.held) if sample.held and side != "queue" else None
    throughput = sample.completed / scene.window
    figures: dict[str, Any] = {
        "success": successes / max(1, successes + failures),
        "throughput": throughput,
        "attempts": sample.attempts / successes if successes else None,
        "peak": database.status("Max_used_connections") - database.observer.counted,
        "held": held,
        "held_spread": statistics.pstdev(sample.held) if held else None,
        "of_possible": throughput * held / scene.limit if held else None,
        "of_fifo": None,
        "refused_by_server": max(0, refused),
        "failures": dict(sample.failures),
    }
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        figures[name] = percentile(sorted(sample.latencies), share) if successes else None
    if successes:
        figures["of_fifo"] = figures["p99"] * throughput / scene.callers
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


def against(
    ours: Sequence[dict[str, Any]], queue: Sequence[dict[str, Any]]
) -> dict[str, list[float]]:
    """Throughput and p99 in times those of the queue that played just before, round by round."""
    return {
        name: [one[name] / other[name] for one, other in zip(ours, queue, strict=True) if one[name]]
        for name in ("throughput", "p99")
    }


@contextlib.contextmanager
def crowds(size: int, database: LocalDatabase) -> Iterator[dict[str, Crowd | NodeCrowd]]:
    """Everybody's callers, started before anything else of this process has threads."""
    environ = database.master_environ()  # the limit is the server's own, not the user's
    with contextlib.ExitStack() as stack:
        names = ["plain", "null_pool"]
        if importlib.util.find_spec("tenacity"):
            names.append("backoff")
        else:
            print(f"full-jitter backoff is left out: {NO_BACKOFF}", file=sys.stderr)
        try:
            line = Queue(database.host, database.port, most=LIMIT - 1, patience=TIMEOUT)
            environ["QUEUE_PORT"] = str(stack.enter_context(line).port)
            names.append("queue")
        except HaproxyMissingError as missing:
            print(f"the queue is left out: {missing}", file=sys.stderr)
        playing: dict[str, Crowd | NodeCrowd] = {}
        playing |= dict.fromkeys(names, stack.enter_context(Crowd(size, environ, names)))
        try:
            playing["serverless_mysql"] = stack.enter_context(NodeCrowd(size, environ))
        except NodeMissingError as missing:
            print(f"serverless-mysql is left out: {missing}", file=sys.stderr)
        playing["ours"] = stack.enter_context(Crowd(size, environ, ("ours",)))
        yield {side: playing[side] for side in NAMES if side in playing}


def benchmark(server: Server, plan: Plan, directory: Path) -> dict[str, Any]:
    """All sides in all scenes, in turns."""
    _raise_file_limit()
    began = time.time()
    load_before = os.getloadavg()[0]
    scenes = plan.scenes()
    rounds: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    with (
        # The default backlog, 50 + limit / 5, drops what ten times the limit may send at once.
        LocalDatabase(server, directory, max_connections=LIMIT, options=("--back-log=1024",)) as db,
        crowds(max(scene.callers for scene in scenes.values()), db) as playing,
        Progress(
            TextColumn("{task.description:58}"), BarColumn(), TimeRemainingColumn()
        ) as progress,
    ):
        task = progress.add_task(
            "starting", total=sum(scene.rounds * _cost(scene) for scene in scenes.values())
        )
        for place, scene in scenes.items():
            sides = {side: crowd for side, crowd in playing.items() if side in scene.sides}
            rounds[place] = {side: [] for side in sides}
            for turn in range(scene.rounds):
                for side, crowd in sides.items():
                    text = f"{scene.callers} callers, {scene.sleep:g} s, round {turn + 1}: "
                    progress.update(task, description=text + NAMES[side])
                    rounds[place][side].append(measure(db, crowd, side, scene))
                    progress.advance(task, _cost(scene) / len(scene.sides))
    middles: dict[str, dict[str, dict[str, dict[str, Any]]]] = {part: {} for part, _ in scenes}
    of_queue: dict[str, dict[str, dict[str, list[float]]]] = {part: {} for part, _ in scenes}
    for (part, name), played in rounds.items():
        middles[part][name] = {side: middle(measured) for side, measured in played.items()}
        if "queue" in played:
            of_queue[part][name] = against(played["ours"], played["queue"])
    return {
        "server": str(server),
        "statement": STATEMENT,
        "limit": LIMIT,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_before": round(load_before, 2),
        "seconds": round(time.time() - began, 1),
        "rounds": max(scene.rounds for scene in plan.loads.values()),
        "windows": sorted({scene.window for scene in scenes.values()}),
        "results": middles["loads"],
        "again": middles["again"],
        "slow": middles["slow"],
        "published": middles["published"],
        "targets": targets(middles, of_queue),
    }


def _cost(scene: Scene) -> float:
    """Seconds that a round of all its sides takes."""
    return (scene.ramp + scene.window) * len(scene.sides)


def _raise_file_limit() -> None:
    """A socket for each caller, and the server's own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
