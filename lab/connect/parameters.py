"""What the parameter group's values are worth to short connections, each against its opposite.

Two servers at a time, alike but for one setting, in turn; this layer, and PyMySQL with a CA file,
connect to both.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.connect.sides import Batch, Door, Runner
from local.database import LocalDatabase
from local.servers import Flavor, require_server

BUILD = Path("build/bench")
SIDES = ("ours", "with_ca")
REPETITIONS = 5


@dataclass(frozen=True)
class Setting:
    """One parameter: what the template sets, and its opposite, as server options."""

    name: str
    flavor: Flavor
    template: str
    opposite: str


SETTINGS = (
    Setting(
        "thread_cache_size 65, not 0", "mysql", "--thread-cache-size=65", "--thread-cache-size=0"
    ),
    Setting("skip_name_resolve on", "mysql", "--skip-name-resolve=ON", "--skip-name-resolve=OFF"),
    Setting(
        "performance_schema off", "mysql", "--performance-schema=OFF", "--performance-schema=ON"
    ),
    Setting(
        "ssl_session_cache_mode on",
        "mysql",
        "--ssl-session-cache-mode=ON",
        "--ssl-session-cache-mode=OFF",
    ),
    Setting(
        "thread_cache_size 65, not 0", "mariadb", "--thread-cache-size=65", "--thread-cache-size=0"
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and write build/bench/parameters.json."""
    parser = argparse.ArgumentParser(prog="python -m lab.connect.parameters", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, default=BUILD)
    asked = parser.parse_args(arguments)
    measured = [measure(setting, asked.rounds) for setting in SETTINGS]
    head = ["the template's value / its opposite, ms", "this layer", "server CPU"]
    head += ["PyMySQL, ssl_ca", "server CPU", "server memory"]
    rows = [_row(one) for one in measured]
    result = {"rounds": asked.rounds, "settings": measured, "tables": {"parameters": (head, rows)}}
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "parameters.json").write_text(json.dumps(result, indent=1) + "\n")
    from lab.connect.report import aligned

    print(aligned(head, rows))
    return 0


def measure(setting: Setting, rounds: int) -> dict[str, Any]:
    """Medians with the template's value and with its opposite."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runners: dict[tuple[str, str], Runner] = {}
        databases = {}
        for which, option in (("template", setting.template), ("opposite", setting.opposite)):
            database = stack.enter_context(
                LocalDatabase(require_server(setting.flavor), directory / which, options=(option,))
            )
            database.create_application_user()
            databases[which] = database
            environ = database.application_environ()
            door = Door(
                host=database.host,
                port=database.port,
                name=database.name,
                user=environ["DATABASE_USER"],
                password=environ["DATABASE_PASSWORD"],
                ca_file=environ["DATABASE_CA_FILE"],
            )
            for side in SIDES:
                runners[side, which] = stack.enter_context(Runner(side, [door], database.pid))
        batches: dict[tuple[str, str], list[Batch]] = {key: [] for key in runners}
        for turn in range(rounds):
            for key in list(runners) if turn % 2 else reversed(runners):
                batches[key].append(runners[key].run(0, REPETITIONS))
        return {
            "name": setting.name,
            "server": str(databases["template"].server),
            "sides": {side: _compared(batches, side) for side in SIDES},
            "memory_mb": {which: _resident_mb(one.pid) for which, one in databases.items()},
        }


def _compared(batches: dict[tuple[str, str], list[Batch]], side: str) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for which in ("template", "opposite"):
        taken = batches[side, which]
        figures[which] = {
            "median_ms": round(1000 * statistics.median(w for b in taken for w in b.wall), 3),
            "server_cpu_ms": round(1000 * statistics.median(b.server_cpu for b in taken), 3),
        }
    return figures


def _row(one: dict[str, Any]) -> list[str]:
    cells = [f"{one['name']} ({one['server']})"]
    for side in SIDES:
        compared = one["sides"][side]
        for figure in ("median_ms", "server_cpu_ms"):
            here, there = compared["template"][figure], compared["opposite"][figure]
            cells.append(f"{here:.2f} / {there:.2f} ({here / there - 1:+.0%})")
    memory = one["memory_mb"]
    return [*cells, f"{memory['template']} / {memory['opposite']} MiB"]


def _resident_mb(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    sys.exit(main())
