"""The stack on localhost: `make serve [PORT=8000]`.

    python -m local.serve --port 8000

Every function of template.yaml in Lambda's real runtime client: the HTTP API at /, its queues and
schedules on the page at /_local/. On the database that `make database` keeps while that runs, else
on a throw-away one. An edited handler, layer, template or migration is taken up with the next
request. Ends with Ctrl-C.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from local.database import LocalDatabase, LocalDatabaseError
from local.environment import UnsupportedSystemError, run
from local.kept import KEPT, KeptDatabase
from local.migration import MigrationError
from local.serve.actions import Actions
from local.serve.application import PREFIX
from local.serve.journal import Journal
from local.serve.server import PortTakenError, listen, serve
from local.serve.stack import Stack
from local.servers import FLAVORS, ServerMissingError, any_server, require_server
from local.template import TemplateError


def announce(console: Console, port: int) -> None:
    """Where it is."""
    console.print(
        f"\nThe API is at [bold]http://127.0.0.1:{port}/[/], the page at "
        f"[bold]http://127.0.0.1:{port}{PREFIX}/[/]. Ctrl-C ends it.\n",
        highlight=False,
        soft_wrap=True,
    )


def find_database(
    chosen: argparse.Namespace, held: contextlib.ExitStack, console: Console
) -> LocalDatabase:
    """The one that stays, while it runs; else a throw-away one."""
    if kept := KeptDatabase.running(chosen.database):
        console.print(f"{kept.server} on port {kept.port}, which stays", highlight=False)
        return kept
    server = require_server(chosen.server) if chosen.server else any_server()
    said = f"A throw-away {server} (`make database` starts one that stays)"
    console.print(said, highlight=False, soft_wrap=True)
    folder = held.enter_context(tempfile.TemporaryDirectory(prefix="serve-"))
    return held.enter_context(LocalDatabase(server, Path(folder)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for any; the default is 8000")
    parser.add_argument("--database", type=Path, default=KEPT, help="where one is kept")
    parser.add_argument("--server", choices=FLAVORS, help="for a throw-away one")
    chosen = parser.parse_args(arguments)
    console = Console()
    with contextlib.ExitStack() as held:
        try:
            listener = held.enter_context(listen(chosen.port))
            journal = Journal(console)
            stack = Stack(find_database(chosen, held, console), journal.tell)
            port = listener.getsockname()[1]
            run(serve(listener, Actions(stack, journal), lambda: announce(console, port)))
        except (PortTakenError, ServerMissingError, TemplateError, UnsupportedSystemError) as error:
            print(f"serve: {error}", file=sys.stderr)
            return 2
        except (LocalDatabaseError, MigrationError) as error:
            print(f"serve: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
