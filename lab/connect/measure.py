"""What a connection costs: connect, one SELECT, close; against what people use today.

Each side in a process of its own, all in turn, many rounds, so that a busy machine is as busy for
one as for the other. Reported are medians, and ratios with their quartiles; never a single time.
"""

import argparse
import contextlib
import json
import os
import platform
import ssl
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.connect import report
from lab.connect.sides import ALL, RIVALS, Batch, Door, Runner, SideMissingError
from local.certificates import write_certificates
from local.database import LocalDatabase
from local.delay_proxy import DelayProxy, delayed
from local.servers import FLAVORS, Server, find_servers, how_to_install

BUILD = Path("build/bench")
# Added round-trip delay in milliseconds; "direct" has no proxy in between, "0" measures the proxy.
DOORS = ("direct", "0", "0.5", "2")
# Calls in a turn. A side that gets but three calls before the others take the processor measures
# how cold its caches are: then everybody's Python is some 0.5 ms slower, and C is not. And the
# kernel takes some twenty calls to settle which core serves which end: half of the turn is after.
REPETITIONS = {"direct": 40, "0": 4, "0.5": 4, "2": 2}
COUNTING_ROUND_TRIP = 0.02  # seconds; long beside what anything here takes, so that turns are clear


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and write build/bench/connect.json and its chart."""
    parser = argparse.ArgumentParser(prog="python -m lab.connect", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="12 take about three minutes")
    parser.add_argument("--server", choices=FLAVORS, help="only this one")
    parser.add_argument("--sides", nargs="+", choices=list(ALL), default=list(ALL))
    parser.add_argument("--quick", action="store_true", help="two rounds: does it work at all")
    parser.add_argument("--output", type=Path, default=BUILD)
    asked = parser.parse_args(arguments)
    rounds = 2 if asked.quick else asked.rounds
    servers = [s for s in find_servers() if asked.server in (None, s.flavor)]
    for flavor in FLAVORS:
        if asked.server in (None, flavor) and flavor not in {s.flavor for s in servers}:
            print(f"SKIPPED: no {flavor} server: {how_to_install(flavor)}", file=sys.stderr)
    if not servers:
        return 1
    began = time.monotonic()
    result = {
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "openssl": ssl.OPENSSL_VERSION,
            "load": round(os.getloadavg()[0], 1),
        },
        "rounds": rounds,
        "servers": {s.flavor: measure(s, asked.sides, rounds) for s in servers},
    }
    result["seconds"] = round(time.monotonic() - began)
    result["targets"] = report.targets(result)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "connect.json").write_text(json.dumps(result, indent=1) + "\n")
    print(report.table(result))
    report.chart(result, asked.output / "connect")
    print(f"\n{asked.output}/connect.json, .svg, .png; {result['seconds']} s")
    return 0


def measure(server: Server, sides: list[str], rounds: int) -> dict[str, Any]:
    """All sides at one server."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(LocalDatabase(server, directory / "database"))
        database.create_application_user()
        environ = database.application_environ()
        counting = stack.enter_context(
            DelayProxy(database.host, database.port, COUNTING_ROUND_TRIP)
        )
        ports = [database.port, *_proxies(stack, database), counting.port]
        doors = [
            Door(
                host=database.host,
                port=port,
                name=database.name,
                user=environ["DATABASE_USER"],
                password=environ["DATABASE_PASSWORD"],
                ca_file=environ["DATABASE_CA_FILE"],
            )
            for port in ports
        ]
        wrong = str(write_certificates(directory / "wrong").ca_file)
        runners = []
        for side in sides:
            try:
                runners.append(stack.enter_context(Runner(side, doors, database.pid)))
            except SideMissingError as missing:
                print(f"SKIPPED: {missing}", file=sys.stderr)
        return {
            "version": str(server),
            "verified": {r.side: r.refuses(wrong) for r in runners},
            "turns": {r.side: _turns(r, counting) for r in runners},
            "doors": _summary(_in_turn(runners, rounds)),
        }


def _proxies(stack: contextlib.ExitStack, database: LocalDatabase) -> Iterator[int]:
    for door in DOORS[1:]:
        yield stack.enter_context(delayed(database.host, database.port, float(door) / 1000))


def _turns(runner: Runner, counting: DelayProxy) -> int:
    """How often the side waits for the server, from its connect to its close."""
    before = counting.turns
    runner.run(len(DOORS), 1)
    return counting.turns - before


def _in_turn(runners: list[Runner], rounds: int) -> dict[str, dict[str, list[Batch]]]:
    batches: dict[str, dict[str, list[Batch]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(rounds):
        first = turn % len(runners)  # nobody always comes after the same
        for number, door in enumerate(DOORS):
            for runner in runners[first:] + runners[:first]:
                if door == "direct" or runner.side in RIVALS:
                    batch = runner.run(number, REPETITIONS[door])
                    batches[door][runner.side].append(batch)
        if sys.stderr.isatty():
            print(f"\r\x1b[Kround {turn + 1} of {rounds}", end="\r", file=sys.stderr, flush=True)
    return batches


def _summary(batches: dict[str, dict[str, list[Batch]]]) -> dict[str, Any]:
    return {
        door: {side: _side_summary(taken, sides) for side, taken in sides.items()}
        for door, sides in batches.items()
    }


def _side_summary(taken: list[Batch], beside: dict[str, list[Batch]]) -> dict[str, Any]:
    """Medians in milliseconds; what is compared is compared round by round, as quartiles."""
    summary = {
        "median_ms": _ms(statistics.median(_walls(taken))),
        "quartiles_ms": [_ms(q) for q in quartiles(_walls(taken))],
        "client_cpu_ms": _ms(statistics.median(batch.client_cpu for batch in taken)),
        "server_cpu_ms": _ms(statistics.median(batch.server_cpu for batch in taken)),
    }
    for other in ("mysqlclient", "documented"):
        if other in beside:
            pairs = zip(taken, beside[other], strict=True)
            ratios = [statistics.median(a.wall) / statistics.median(b.wall) for a, b in pairs]
            summary[f"of_{other}"] = [round(q, 3) for q in quartiles(ratios)]
    if "early" in beside:
        pairs = zip(taken, beside["early"], strict=True)
        more = [statistics.median(a.wall) - statistics.median(b.wall) for a, b in pairs]
        summary["beyond_early_ms"] = [_ms(q) for q in quartiles(more)]
    return summary


def _walls(batches: list[Batch]) -> list[float]:
    return [wall for batch in batches for wall in batch.wall]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")
