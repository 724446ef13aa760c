"""Start and stop the database that stays: `make database`, `make database-stop`.

    python -m local.keep start | stop | status | remove

It keeps its data in build/database (or --directory), listens on 127.0.0.1, and runs until it is
stopped; the next start finds everything as it was. `make invoke`, `make serve` and `make sql` use
it while it runs. `remove` takes the data away.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from local.database import LocalDatabaseError
from local.environment import run
from local.kept import KEPT, KeptDatabase
from local.migration import MigrationError, bring_up_to_date
from local.servers import FLAVORS, ServerMissingError
from local.sql import client
from local.template import TemplateError


def start(chosen: argparse.Namespace) -> int:
    """Start it, made anew where there is none, and migrate it as a deployment does."""
    kept = KeptDatabase.at(chosen.directory)
    if kept is None:
        print("Making a new database …", file=sys.stderr)
        kept = KeptDatabase.create(chosen.directory, flavor=chosen.server, port=chosen.port)
    elif chosen.server not in {None, kept.server.flavor} or chosen.port not in {None, kept.port}:
        raise LocalDatabaseError(
            f"There is a {kept.server} on port {kept.port} in {chosen.directory} already: "
            "`make database-remove` first, which takes its data away."
        )
    kept.start()
    run(bring_up_to_date(kept))
    return status(chosen)


def stop(chosen: argparse.Namespace) -> int:
    """Shut it down; its data stays."""
    if kept := KeptDatabase.running(chosen.directory):
        kept.stop()
        print(f"{kept.server} is stopped; its data is in {chosen.directory}.")
    else:
        print("No database is running.")
    return 0


def status(chosen: argparse.Namespace) -> int:
    """Say whether it runs, and how to reach it; 1 where it does not."""
    kept = KeptDatabase.running(chosen.directory)
    if not kept:
        made = (chosen.directory / "database.json").exists()
        print(f"{'Stopped' if made else 'There is none'}: `make database` starts one.")
        return 1
    connections = kept.status("Threads_connected")
    print(
        f"{kept.server} on {kept.host}:{kept.port}, TLS only, {connections} of "
        f"{kept.max_connections} connections taken.\n"
        f"It stays until `make database-stop`; its data is in {chosen.directory}.\n\n"
        f"{kept.exports()}\n\n{shlex.join(client(kept) or ['make', 'sql'])}"
    )
    return 0


def remove(chosen: argparse.Namespace) -> int:
    """Stop it and take its data away."""
    if kept := KeptDatabase.at(chosen.directory):
        kept.remove()
        print(f"The database in {chosen.directory} is gone, with its data.")
    else:
        print(f"There is no database in {chosen.directory}.")
    return 0


COMMANDS = {"start": start, "stop": stop, "status": status, "remove": remove}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.keep", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--directory", type=Path, default=KEPT, help="where its data is kept")
    parser.add_argument("--server", choices=FLAVORS, help="for a new one; the default is any")
    parser.add_argument("--port", type=int, help="for a new one; the default is a free one")
    chosen = parser.parse_args(arguments)
    try:
        return COMMANDS[chosen.command](chosen)
    except (LocalDatabaseError, ServerMissingError, TemplateError) as error:
        print(f"database: {error}", file=sys.stderr)
        return 2
    except MigrationError as error:
        print(f"database: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
