"""200 warm environments, ten of them at work, 65 connections.

Three handlers run the same query in real runtimes, one after the other, each on a new server: a
connection kept in a global, SQLAlchemy's ordinary pool, and this layer. The server itself is asked
for its sessions ten times a second. `python -m lab.experiment` writes the figures,
the samples and the chart to `build/demo`, and fails where the outcome is not the one we claim.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lab.experiment.chart import draw
from lab.experiment.outcome import TITLES, Outcome, Plan
from local.database import LocalDatabase
from local.environment import Environment, run
from local.facts import facts
from local.fleet import Fleet, Sampler, closed_loop, failure_of, summarise
from local.servers import Server, ServerMissingError, any_server

HANDLERS = Path(__file__).parent / "handlers"
OUTPUT = Path("build") / "demo"

Advance = Callable[[str, float], None]
"""Told what is being done and which part of the handler's run (0 to 1) is over."""


async def measure(
    handler: str, server: Server, plan: Plan, directory: Path, advance: Advance
) -> Outcome:
    """Warm up, keep a few at work, then let all of them rest; on a server of its own."""
    event = {"seconds": plan.query_seconds}
    warmed = 0

    def one_more(_answer: object) -> None:
        nonlocal warmed
        warmed += 1
        advance(f"{warmed} environments warm", 0.8 * warmed / plan.environments)

    # The application user's own limit is lifted: it would turn 1040 into 1226 ten sooner.
    with LocalDatabase(
        server, directory, max_connections=plan.limit, max_user_connections=0
    ) as database:
        database.create_application_user()
        environ = database.application_environ()

        def make() -> Environment:
            return Environment(HANDLERS, f"{handler}.lambda_handler", environ=environ, timeout=10)

        def count() -> int:
            # One above the limit is a session that the server is just refusing.
            return min(len(database.sessions()), plan.limit)

        async with (
            Fleet(make, reserved_concurrency=plan.environments) as fleet,
            Sampler(count, fleet) as sampler,
        ):
            answers = await fleet.warm(plan.environments, event, done=one_more)
            work_began = sampler.now
            advance(f"{plan.at_work} at work", 0.8)
            calls = await closed_loop(fleet, event, clients=plan.at_work, seconds=plan.work_seconds)
            await fleet.settle()
            work_ended = sampler.now
            sessions_when_idle = await asyncio.to_thread(count)
            advance("nobody at work", 0.95)
            await asyncio.sleep(plan.idle_seconds)
    summary = summarise(calls, work_ended - work_began)
    samples = sampler.samples
    return Outcome(
        handler=handler,
        title=TITLES[handler],
        warm_up_seconds=work_began,
        warm_up_failures=dict(Counter(failure_of(a) for a in answers if a.status != "ok")),
        init_median_ms=1000 * statistics.median(a.init_duration or 0.0 for a in answers),
        calls=summary.calls,
        ok=summary.ok,
        failures=summary.failures,
        p50_ms=1000 * summary.p50 if summary.ok else None,
        p99_ms=1000 * summary.p99 if summary.ok else None,
        peak_sessions=max(sample.sessions for sample in samples),
        sessions_when_idle=sessions_when_idle,
        most_in_flight=max(sample.in_flight for sample in samples),
        samples_over_in_flight=sum(sample.sessions > sample.in_flight for sample in samples),
        work_began=work_began,
        work_ended=work_ended,
        samples=samples,
    )


def claims(outcomes: Sequence[Outcome], plan: Plan) -> dict[str, bool]:
    """What the experiment is to show, and whether it did."""
    result = {}
    for outcome in outcomes:
        if outcome.handler == "ours":
            result["ours: never more sessions than invocations in flight"] = (
                outcome.samples_over_in_flight == 0
            )
            result["ours: no session when nobody is at work"] = outcome.sessions_when_idle == 0
            result["ours: no error"] = not outcome.failures and not outcome.warm_up_failures
        else:
            name = outcome.handler
            result[f"{name}: all {plan.limit} connections held when nobody is at work"] = (
                outcome.sessions_when_idle == plan.limit
            )
            result[f"{name}: fails with 1040 while {plan.at_work} are at work"] = (
                outcome.failures.get("1040", 0) > 0
            )
    return result


async def perform(
    server: Server, plan: Plan, console: Console, output: Path = OUTPUT
) -> dict[str, Any]:
    """Run the three handlers; returns the report, which is also written, with the chart."""
    outcomes = []
    columns = (TextColumn("{task.description:42}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=float(len(TITLES)))
        for done, handler in enumerate(TITLES):

            def advance(doing: str, part: float, done: int = done, handler: str = handler) -> None:
                progress.update(task, completed=done + part, description=f"{handler}: {doing}")

            advance("starting a server", 0.0)
            outcome = await measure(handler, server, plan, output, advance)
            outcomes.append(outcome)
            console.print(
                f"{handler}: {outcome.title}; all warm after {outcome.warm_up_seconds:.0f} s",
                highlight=False,
            )
        progress.update(task, completed=len(TITLES), description="the three are done")
    held = claims(outcomes, plan)
    report = {
        "facts": facts(server),
        "plan": asdict(plan),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "claims": held,
        "right": all(held.values()),
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "experiment.json").write_text(json.dumps(report, indent=1) + "\n")
    svg, png = draw(outcomes, plan, output / "connections")
    console.print(_table(outcomes, plan))
    for claim, holds in held.items():
        console.print(f"[{'green' if holds else 'red'}]{'✓' if holds else '✗'}[/] {claim}")
    console.print(f"Figures and chart: {output / 'experiment.json'}, {svg}, {png}", soft_wrap=True)
    return report


def _table(outcomes: Sequence[Outcome], plan: Plan) -> Table:
    table = Table(
        title=f"{plan.environments} warm environments, {plan.at_work} at work, "
        f"{plan.limit} connections",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    for heading in ("peak", "idle", "calls", "failed", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        failures = ", ".join(f"{count}x {code}" for code, count in outcome.failures.items())
        table.add_row(
            outcome.handler,
            str(outcome.peak_sessions),
            str(outcome.sessions_when_idle),
            str(outcome.calls),
            failures or "0",
            *(
                "" if value is None else f"{value:.1f}"
                for value in (outcome.p50_ms, outcome.p99_ms)
            ),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m lab.experiment", description=__doc__)
    parser.add_argument("--environments", type=int, default=plan.environments)
    parser.add_argument("--at-work", type=int, default=plan.at_work)
    parser.add_argument("--seconds", type=float, default=plan.work_seconds, help="at work")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of report and chart")
    options = parser.parse_args(arguments)
    if not 0 < options.at_work <= options.environments or options.seconds <= 0:
        print("experiment: expected 0 < at work ≤ environments, and seconds > 0", file=sys.stderr)
        return 2
    plan = Plan(options.environments, options.at_work, work_seconds=options.seconds)
    console = Console()
    try:
        report = run(perform(any_server(), plan, console, options.output))
    except ServerMissingError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    right = report["right"]
    console.print(
        "[bold green]All right.[/]" if right else "[bold red]WRONG: see the claims above.[/]"
    )
    return 0 if right else 1
