"""Invoke one function as Lambda would: `python -m local.invoke orders_api events/….json`.

The log goes to standard error and the answer to standard output, so that the answer can be piped.
Uses the database of your `DATABASE_*` variables where `DATABASE_HOST` is set, else a throw-away one
with the migrations applied. Exit codes: 0 an answer, 1 a function error, 2 a bad input.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.database import LocalDatabase
from local.environment import ROOT, Answer, run
from local.servers import ServerMissingError, any_server
from local.template import Function, TemplateError, find_function

EVENTS = ROOT / "events"
MAX_CONNECTIONS = 65
"""What RDS gives a database of 1 GiB, and what the template sets."""


class InputError(ValueError):
    """What was asked for cannot be done; the sentence says what was expected."""


class MigrationError(RuntimeError):
    """`migrate` did not answer CloudFormation with success."""


def read_event(path: str) -> Any:
    """The event in that file; "-" is standard input.

    Raises:
        InputError: there is no such file, or it is no JSON.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        return json.loads(text)
    except FileNotFoundError as error:
        raise InputError(f"there is no event file {path}; events/ has some") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the event file {path} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def database_environ(function: Function, database: LocalDatabase) -> Mapping[str, str]:
    """The local database's settings for that function; the master user's for `migrate` alone."""
    application = database.application_environ()
    if "APPLICATION_USER" not in function.environ:
        return application
    return {
        **database.master_environ(),
        "APPLICATION_USER": application["DATABASE_USER"],
        "APPLICATION_PASSWORD": application["DATABASE_PASSWORD"],
    }


def callers_environ(environ: Mapping[str, str]) -> Mapping[str, str] | None:
    """The caller's own database settings, or None where no host is given."""
    if not environ.get("DATABASE_HOST"):
        return None
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(("DATABASE_", "APPLICATION_"))
    }


async def migrate(database: LocalDatabase) -> Answer:
    """Bring the database up to date as a deployment does, through the function itself.

    Raises:
        MigrationError: it answered anything but success; carries its answer and log.
    """
    function = find_function("migrate")
    async with function.environment(database_environ(function, database)) as environment:
        answer = await environment.invoke({})
    if answer.status != "ok":
        raise MigrationError(
            f"migrate answered {answer.payload.decode(errors='replace')}\n{answer.log}"
        )
    return answer


def log_lines(answer: Answer, function: Function) -> str:
    """What CloudWatch would show: START, the function's own lines, END and REPORT."""
    request_id = answer.request_id
    milliseconds = answer.duration * 1000
    initialised = (answer.init_duration or 0.0) * 1000
    report = [
        f"REPORT RequestId: {request_id}",
        f"Duration: {milliseconds:.2f} ms",
        # Since August 2025 the init phase is billed, too.
        f"Billed Duration: {math.ceil(milliseconds + initialised)} ms",
        f"Memory Size: {function.memory} MB",
        f"Max Memory Used: {answer.max_memory_mb} MB",
    ]
    if answer.init_duration is not None:
        report.append(f"Init Duration: {initialised:.2f} ms")
    if answer.status not in {"ok", "error"}:
        report.append(f"Status: {'timeout' if answer.status == 'timeout' else 'error'}")
        report.append(f"Error Type: {answer.error_type}")
    lines = [f"START RequestId: {request_id} Version: $LATEST", answer.log.rstrip("\n")]
    if answer.status == "timeout":
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
        lines.append(f"{now}Z {request_id} Task timed out after {function.timeout:.2f} seconds")
    lines += [f"END RequestId: {request_id}", "\t".join(report)]
    return "\n".join(line for line in lines if line)


async def invoke(function: Function, event: Any, environ: Mapping[str, str] | None) -> Answer:
    """Invoke once in a new environment; without settings, on a throw-away migrated database."""
    with ExitStack() as stack:
        if environ is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="invoke-"))
            server = any_server()
            print(f"Starting a throw-away {server} …", file=sys.stderr)
            database = stack.enter_context(
                LocalDatabase(server, Path(directory), max_connections=MAX_CONNECTIONS)
            )
            await migrate(database)
            environ = database_environ(function, database)
        async with function.environment(environ) as environment:
            return await environment.invoke(event)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.invoke", description=__doc__)
    parser.add_argument("function", help="its folder under functions/")
    parser.add_argument("event", nargs="?", help="a JSON file, or - for standard input; default {}")
    options = parser.parse_args(arguments)
    try:
        function = find_function(options.function)
        event = read_event(options.event) if options.event else {}
        answer = run(invoke(function, event, callers_environ(os.environ)))
    except (InputError, TemplateError, ServerMissingError, FileNotFoundError) as error:
        print(f"invoke: {error}", file=sys.stderr)
        return 2
    except MigrationError as error:
        print(f"invoke: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(log_lines(answer, function), file=sys.stderr)
    print(answer.payload.decode(errors="replace"))
    return 0 if answer.status == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
