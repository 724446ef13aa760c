"""The shop under bad hours, then its books: `python -m lab.soak`.

Writes a report and pictures for each server to the output folder, and ends with 1 where anything
was found that must not be.
"""

import argparse
import re
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lab.soak import report
from lab.soak.chart import draw_course, draw_recovery
from lab.soak.faults import schedule
from lab.soak.play import play
from lab.soak.recovery import by_kind, recoveries
from lab.soak.stage import Stage
from local.database import LocalDatabase, LocalDatabaseError
from local.environment import ROOT, run
from local.invoke import MAX_CONNECTIONS
from local.migration import MigrationError
from local.servers import FLAVORS, Server, ServerMissingError, find_servers, require_server

OUTPUT = ROOT / "build" / "soak"
SHOWN = 20  # findings on the screen; the report has all


def soak(
    server: Server, *, seed: int, seconds: float, customers: int, output: Path, console: Console
) -> dict[str, Any]:
    """One server's soak; returns its report, which is also written, with the pictures."""
    faults = schedule(seed, seconds)
    console.print(
        f"[bold]{server}[/], seed {seed}: {seconds:.0f} s under {len(faults)} faults; the same "
        f"again: python -m lab.soak --server {server.flavor} --seed {seed} --seconds {seconds:.0f}",
        soft_wrap=True,
    )
    columns = (TextColumn("{task.description:58}"), BarColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as directory,
        LocalDatabase(server, Path(directory), max_connections=MAX_CONNECTIONS) as database,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("starting", total=seconds)

        def tell(stage: Stage, doing: str) -> None:
            said = f"{len(stage.calls):6} invocations, {doing}"
            progress.update(task, completed=min(seconds, stage.now), description=said[:58])

        played = run(
            play(database, faults, seed=seed, seconds=seconds, customers=customers, tell=tell)
        )
        summary = report.summarise(played, database, seed=seed, seconds=seconds)
    output.mkdir(parents=True, exist_ok=True)
    report.write(summary, output / f"{server.flavor}.json")
    kinds = list(by_kind(recoveries(played.stage.struck, played.stage.calls)).values())
    draw_course(played, f"{server}: {seconds:.0f} s, seed {seed}", output / server.flavor)
    draw_recovery(kinds, f"{server}: until all is well again", output / f"{server.flavor}-recovery")
    _show(summary, output / f"{server.flavor}.json", console)
    return summary


def _show(summary: dict[str, Any], file: Path, console: Console) -> None:
    violations = summary["violations"]
    console.print(
        f"{summary['invocations']} invocations, {summary['orders_placed']} orders placed, "
        f"{summary['orders_refused']} refused, {summary['deliveries_booked']} deliveries booked, "
        f"{summary['faults']} faults: "
        + ("[green]no violation[/]" if not violations else f"[red]{len(violations)} violations[/]")
        + f". Report: {file}",
        soft_wrap=True,
    )
    # The same words at many moments are one finding.
    alike = Counter(re.sub(r"^[\d.]+ s: ", "", violation) for violation in violations)
    for violation, times in alike.most_common(SHOWN):
        console.print(f"  [red]✗[/] {times} x {escape(violation)}", soft_wrap=True)


def chosen(name: str) -> list[Server]:
    """The servers to soak, all that there are for "all".

    Raises:
        ServerMissingError: it is not there; says how to install it.
    """
    return (find_servers() if name == "all" else []) or [
        require_server("mariadb" if name == "all" else name)  # type: ignore[arg-type]
    ]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with a seed that was drawn where none is given."""
    parser = argparse.ArgumentParser(prog="python -m lab.soak", description=__doc__)
    parser.add_argument("--server", choices=("all", *FLAVORS), default="all")
    parser.add_argument("--seconds", type=float, default=600, help="shared by the servers; 600")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--customers", type=int, default=6, help="who order at once; 6")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of reports, pictures")
    parser.add_argument(
        "--write-docs", action="store_true", help="put figures and pictures into docs and lab/soak"
    )
    given = parser.parse_args(arguments)
    if given.seconds < 1 or given.customers < 1:
        parser.error("--seconds and --customers must be 1 at least")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    options, console, started = parsed(arguments), Console(), time.monotonic()
    try:
        servers = chosen(options.server)
        reports = [
            soak(
                server,
                seed=options.seed,
                seconds=options.seconds / len(servers),
                customers=options.customers,
                output=options.output,
                console=console,
            )
            for server in servers
        ]
        if options.write_docs:
            report.write_page(reports)
            for picture in (*options.output.glob("*.svg"), *options.output.glob("*.png")):
                (report.PICTURES / picture.name).write_bytes(picture.read_bytes())
    except ServerMissingError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    except (LocalDatabaseError, MigrationError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soak: ended before it was done; nothing is left running", file=sys.stderr)
        return 130
    wrong = any(one["violations"] for one in reports)
    console.print(f"{'WRONG' if wrong else 'All right'} after {time.monotonic() - started:.0f} s.")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
