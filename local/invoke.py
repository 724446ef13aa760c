"""Invoke one function as Lambda would: `make invoke FUNCTION=orders_api EVENT=products`.

    python -m local.invoke                              the functions there are
    python -m local.invoke orders_api                   the events it has
    python -m local.invoke orders_api products          events/orders_api.products.json
    python -m local.invoke orders_api path/to/any.json
    python -m local.invoke connection_census '{"dry_run": true}'

The log goes to standard error and the answer to standard output, so that the answer can be piped.
It runs on the database of your `DATABASE_*` variables where `DATABASE_HOST` is set, else on the one
that `make database` keeps while that runs, else on a throw-away one with the migrations applied.
With `--debug` nothing times out: a `breakpoint()` in the handler stops here, at this terminal; with
`--debug 5678` the handler waits until an editor attaches to that port.
Exit codes: 0 an answer, 1 a function error, 2 a bad input.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from local.database import LocalDatabase, LocalDatabaseError
from local.debug import Debug, DebugError
from local.environment import Answer, run
from local.events import InputError, event_names, read_event
from local.kept import KeptDatabase
from local.logs import log_lines, readable
from local.migration import MigrationError, bring_up_to_date, database_environ, migrate
from local.servers import ServerMissingError, any_server
from local.template import Function, TemplateError, find_function, read_functions

MAX_CONNECTIONS = 65
"""What RDS gives a database of 1 GiB, and what the template sets."""

REACH_SECONDS = 2.0


def callers_environ(environ: Mapping[str, str]) -> Mapping[str, str] | None:
    """The caller's own database settings, or None where no host is given."""
    if not environ.get("DATABASE_HOST"):
        return None
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(("DATABASE_", "APPLICATION_"))
    }


def require_reachable(environ: Mapping[str, str]) -> None:
    """Say at once that nobody listens, where the layer would go on trying until its deadline.

    Raises:
        InputError: nobody accepts a connection there within two seconds, or the port is none.
    """
    host, port = environ["DATABASE_HOST"], environ.get("DATABASE_PORT", "3306")
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"no database answers at {host}:{port} ({error}): check DATABASE_HOST and "
            "DATABASE_PORT, or unset DATABASE_HOST to have one here"
        ) from error


async def invoke(
    function: Function, event: Any, environ: Mapping[str, str] | None, debug: Debug | None = None
) -> Answer:
    """Invoke once in a new environment; without settings, on a database of this machine."""
    with ExitStack() as stack:
        if environ is None:
            environ = database_environ(function, await _database(stack))
        async with function.environment(environ, debug=debug) as environment:
            return await environment.invoke(event)


async def _database(stack: ExitStack) -> LocalDatabase:
    if kept := KeptDatabase.running():
        if await bring_up_to_date(kept):
            print(f"Migrated {kept.server} on port {kept.port}.", file=sys.stderr)
        return kept
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="invoke-"))
    server = any_server()
    print(
        f"Starting a throw-away {server} … (`make database` starts one that stays)", file=sys.stderr
    )
    database = stack.enter_context(
        LocalDatabase(server, Path(directory), max_connections=MAX_CONNECTIONS)
    )
    await migrate(database)
    return database


def _list(name: str) -> None:
    """What there is to choose from: functions, or the events of one."""
    for function in [find_function(name)] if name else read_functions().values():
        events = ", ".join(event_names(function.name)) or "no event in events/"
        print(f"{function.name}: {events}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.invoke",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("function", nargs="?", default="", help="its folder or logical id")
    parser.add_argument(
        "event", nargs="?", help="a name, a JSON file, JSON itself, or - for standard input"
    )
    parser.add_argument("--debug", nargs="?", const="1", default="", metavar="PORT")
    options = parser.parse_args(arguments)
    try:
        if not options.event:
            _list(options.function)
            return 0
        function = find_function(options.function)
        event = read_event(options.event, function.name)
        if (environ := callers_environ(os.environ)) is not None:
            require_reachable(environ)
        debug = Debug.asked_for(options.debug)
        answer = run(invoke(function, event, environ, debug))
    except (InputError, TemplateError, ServerMissingError, FileNotFoundError, DebugError) as error:
        print(f"invoke: {error}", file=sys.stderr)
        return 2
    except (LocalDatabaseError, MigrationError) as error:
        print(f"invoke: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    log = log_lines(answer, function)
    print(readable(log) if sys.stderr.isatty() else log, file=sys.stderr)
    print(_pretty(answer) if sys.stdout.isatty() else answer.payload.decode(errors="replace"))
    return 0 if answer.status == "ok" else 1


def _pretty(answer: Answer) -> str:
    """The answer for a person: indented, and with a body of JSON read."""
    try:
        read = answer.json()
        if isinstance(read, dict) and isinstance(read.get("body"), str):
            read["body"] = json.loads(read["body"])
    except ValueError:
        return answer.payload.decode(errors="replace")
    return json.dumps(read, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
