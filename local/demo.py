"""Every function with every event, in the real runtime, against a real database: `make demo`.

Starts a throw-away server limited to 65 connections, migrates it through `migrate`, and invokes
each function with each of its events as `events/expected.json` lists them. Around each invocation
the server itself is asked: how many connections were opened, and how many sessions are left at the
moment the answer arrives: it lets go first and takes a session off its list a moment later, so the
list is given that moment. A wrong answer, a second connection or a session that is left fails the
command. `make demo` ends with the experiment of lab/, where that is there.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.database import LocalDatabase, LocalDatabaseError
from local.environment import Answer, Environment, run
from local.events import EVENTS, InputError, read_event
from local.facts import facts
from local.invoke import MAX_CONNECTIONS
from local.migration import MigrationError, database_environ, migrate
from local.servers import Server, ServerMissingError, any_server
from local.template import Function, TemplateError, read_functions

OUTPUT = Path("build") / "demo"
# docs/ways-out.md: an ended session stays on the server's list for a moment, without its place
# among the connections.
LIST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """One event of one function, and what a right answer to it is."""

    function: Function
    event_file: Path
    expected: dict[str, Any]

    @property
    def name(self) -> str:
        return self.event_file.stem


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report: what was asked, what came, and what the server counted."""

    function: str
    event: str
    status: str
    answer: Any
    error_type: str | None
    duration_ms: float
    init_ms: float | None
    connections_opened: int
    sessions_after: int
    expected: dict[str, Any]
    right: bool


def read_cases(events: Path, functions: dict[str, Function]) -> list[Case]:
    """The cases of expected.json, in its order, which is that of a day in the shop.

    Raises:
        InputError: a case has no event or no function, or an event has no case; names all of them.
    """
    expected = read_event(str(events / "expected.json"))
    files = {path.stem for path in events.glob("*.*.json")}
    problems = [f"{name} is expected and has no event file" for name in expected.keys() - files]
    problems += [f"{name}.json has no line in expected.json" for name in files - expected.keys()]
    problems += [
        f"{name} is of no function in the template"
        for name in expected
        if name.split(".")[0] not in functions
    ]
    problems += [
        f"{function} has no event"
        for function in functions.keys() - {n.split(".")[0] for n in files}
    ]
    if problems:
        raise InputError(f"{events}: {'; '.join(sorted(problems))}")
    return [
        Case(functions[name.split(".")[0]], events / f"{name}.json", value)
        for name, value in expected.items()
    ]


def is_right(answer: Answer, expected: dict[str, Any]) -> bool:
    """Whether status, error type and the expected part of the answer agree."""
    if answer.status != expected.get("status", "ok"):
        return False
    if "error_type" in expected and answer.error_type != expected["error_type"]:
        return False
    return "match" not in expected or matches(read(answer), expected["match"])


def matches(actual: Any, expected: Any) -> bool:
    """Whether all that is expected is there: more keys may be; strings of JSON are read first."""
    if isinstance(expected, (dict, list)) and isinstance(actual, str):
        try:
            actual = json.loads(actual)
        except ValueError:
            return False
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            key in actual and matches(actual[key], value) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(map(matches, actual, expected))
        )
    return bool(actual == expected) and isinstance(actual, bool) == isinstance(expected, bool)


def read(answer: Answer) -> Any:
    """The answer as data, or as text where it is no JSON."""
    try:
        return answer.json()
    except ValueError:
        return answer.payload.decode(errors="replace")


async def invoke_case(case: Case, environment: Environment, database: LocalDatabase) -> Line:
    """Invoke once, and ask the server before and at the moment of the answer."""
    event = read_event(str(case.event_file))
    before = database.status("Connections")
    answer = await environment.invoke(event)
    sessions = await sessions_left(database)
    opened = database.status("Connections") - before
    return Line(
        function=case.function.name,
        event=case.name,
        status=answer.status,
        answer=read(answer),
        error_type=answer.error_type,
        duration_ms=round(answer.duration * 1000, 2),
        init_ms=None if answer.init_duration is None else round(answer.init_duration * 1000, 1),
        connections_opened=opened,
        sessions_after=sessions,
        expected=case.expected,
        right=is_right(answer, case.expected) and sessions == 0 and opened <= 1,
    )


async def sessions_left(database: LocalDatabase) -> int:
    """How many sessions the server lists, once its list has had its moment."""
    deadline = time.monotonic() + LIST_SECONDS
    while (left := len(database.sessions())) and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    return left


async def invoke_all(
    cases: Sequence[Case], database: LocalDatabase, console: Console
) -> list[Line]:
    """Each case in turn; one environment per function, which stays warm and frozen in between."""
    environments: dict[str, Environment] = {}
    lines = []
    async with AsyncExitStack() as stack:
        for case in cases:
            name = case.function.name
            if name not in environments:
                environment = case.function.environment(database_environ(case.function, database))
                environments[name] = await stack.enter_async_context(environment)
            line = await invoke_case(case, environments[name], database)
            lines.append(line)
            _show(line, case, console)
    return lines


def _show(line: Line, case: Case, console: Console) -> None:
    mark = "[green]✓[/]" if line.right else "[red]✗[/]"
    counts = f"{line.connections_opened} opened, {line.sessions_after} left"
    texts = [
        f"{mark} [bold]{line.event}[/]  {escape(_request(case))}",
        f"    [dim]{escape(_short(_essence(line.answer)))}[/]",
        f"    [dim]{line.status}, {line.duration_ms:.1f} ms, {counts}[/]",
    ]
    for text in texts:
        console.print(text, highlight=False, no_wrap=True, overflow="ellipsis")
    if not line.right:
        console.print(f"    [red]expected: {escape(json.dumps(line.expected))}[/]", soft_wrap=True)


def _request(case: Case) -> str:
    """An event in a few words."""
    event = read_event(str(case.event_file))
    match event:
        case {"requestContext": {"http": {"method": method}}, "rawPath": path}:
            return f"{method} {path} {_short(event.get('body') or '')}".rstrip()
        case {"Records": [*records]}:
            return f"{len(records)} messages"
        case {"RequestType": kind}:
            return f"CloudFormation {kind}"
        case {"source": str(source)}:
            return f"from {source}"
    return _short(json.dumps(event))


def _essence(answer: Any) -> str:
    """What a reader looks for: the status and the body, or the error's message."""
    match answer:
        case {"statusCode": status, "body": body}:
            return f"{status} {body}"
        case {"errorType": kind, "errorMessage": message}:
            return f"{kind}: {message}"
    return json.dumps(answer)


def _short(text: str, width: int = 200) -> str:
    """One line; the console cuts it to its own width."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _table(lines: Sequence[Line]) -> Table:
    """One row per function."""
    table = Table(title="Each function, as the server saw it", title_justify="left")
    table.add_column("function", no_wrap=True)
    for heading in ("events", "right", "median ms", "most opened", "most left"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(line.function for line in lines):
        own = [line for line in lines if line.function == name]
        durations = sorted(line.duration_ms for line in own)
        table.add_row(
            name,
            str(len(own)),
            str(sum(line.right for line in own)),
            f"{durations[len(durations) // 2]:.1f}",
            str(max(line.connections_opened for line in own)),
            str(max(line.sessions_after for line in own)),
        )
    return table


def problem_of(line: Line) -> str:
    """What was wrong with it, in a few words."""
    if line.sessions_after:
        return f"{line.event} left {line.sessions_after} sessions"
    if line.connections_opened > 1:
        return f"{line.event} opened {line.connections_opened} connections"
    return f"{line.event} answered otherwise than expected"


async def perform(
    server: Server, console: Console, output: Path, events: Path = EVENTS
) -> list[str]:
    """Invoke everything and write the report; returns what was wrong, nothing if all was right."""
    cases = read_cases(events, read_functions())
    console.print(f"A throw-away [bold]{server}[/], {MAX_CONNECTIONS} connections, TLS only …")
    with LocalDatabase(server, output, max_connections=MAX_CONNECTIONS) as database:
        answer = await migrate(database)
        console.print(
            f"Migrated through functions/migrate in {answer.duration:.1f} s: "
            f"{', '.join(answer.json()['applied'])}"
        )
        lines = await invoke_all(cases, database, console)
        left = await sessions_left(database)
    problems = [problem_of(line) for line in lines if not line.right]
    if left:
        problems.append(f"{left} sessions were left at the end")
    report = {
        "facts": facts(server),
        "max_connections": MAX_CONNECTIONS,
        "right": not problems,
        "sessions_at_the_end": left,
        "invocations": [asdict(line) for line in lines],
    }
    file = output / "report.json"
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(_table(lines))
    wrong = sum(not line.right for line in lines)
    colour = "red" if problems else "green"
    console.print(
        f"[{colour}]{len(lines)} invocations, {wrong} wrong.[/] Report: {escape(str(file))}",
        soft_wrap=True,
    )
    return problems


def verdict(problems: Sequence[str], seconds: float) -> str:
    """The last line, in the colour of what it says."""
    if not problems:
        return f"[bold green]All right after {seconds:.0f} s.[/]"
    return f"[bold red]WRONG after {seconds:.0f} s: {escape('; '.join(problems))}.[/]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the report")
    options = parser.parse_args(arguments)
    console = Console()
    started = time.monotonic()
    try:
        problems = run(perform(any_server(), console, options.output))
    except (InputError, TemplateError, ServerMissingError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except (MigrationError, LocalDatabaseError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: ended before it was done; nothing is left running", file=sys.stderr)
        return 130
    console.print(verdict(problems, time.monotonic() - started), soft_wrap=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
