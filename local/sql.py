"""A client on the local database: `make sql`, or `make sql QUERY="SELECT …"`.

The server's own client where there is one on this machine, else a small prompt. As the master user,
with verified TLS. Without `make database` there is nothing to look into.
"""

import argparse
import os
import shutil
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import pymysql
from rich.console import Console
from rich.table import Table

from local.database import LocalDatabaseError
from local.kept import KEPT, KeptDatabase
from local.servers import ServerMissingError

PROGRAMS = {"mariadb": ("mariadb", "mysql"), "mysql": ("mysql",)}


def client(kept: KeptDatabase) -> list[str] | None:
    """The command line of the server's own client, or None where there is no client here."""
    for name in PROGRAMS[kept.server.flavor]:
        if program := shutil.which(name):
            return kept.client_command(program)
    return None


def connect(kept: KeptDatabase) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    """A connection of the master user."""
    given = kept.master_environ()
    return pymysql.connect(
        host=given["DATABASE_HOST"],
        port=int(given["DATABASE_PORT"]),
        user=given["DATABASE_USER"],
        password=given["DATABASE_PASSWORD"],
        database=given["DATABASE_NAME"],
        ssl=ssl.create_default_context(cafile=given["DATABASE_CA_FILE"]),
        autocommit=True,
    )


def show(connection: "pymysql.Connection[pymysql.cursors.Cursor]", statement: str) -> bool:
    """Run one statement and print what comes; returns whether it could be run."""
    console = Console()
    try:
        with connection.cursor() as cursor:
            changed = cursor.execute(statement)
            if cursor.description is None:
                console.print(f"{changed} rows changed", style="dim")
                return True
            table = Table(*(column[0] for column in cursor.description), safe_box=True)
            for row in cursor.fetchall():
                table.add_row(*("NULL" if value is None else str(value) for value in row))
            console.print(table)
            return True
    except pymysql.err.MySQLError as error:
        code, message = error.args if len(error.args) == 2 else ("", error)
        print(f"error {code}: {message}", file=sys.stderr)
        return False


def prompt(kept: KeptDatabase) -> int:
    """Statements until the end of the input, each up to its semicolon at the end of a line."""
    import readline  # noqa: F401, PLC0415 - gives input() a history, where there is a terminal

    print(f"{kept.server}, schema {kept.name}. End a statement with ; and leave with Ctrl-D.")
    with connect(kept) as connection:
        lines: list[str] = []
        while True:
            try:
                lines.append(input("   > " if lines else "sql> "))
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                lines.clear()
                continue
            if (statement := "\n".join(lines).strip()).endswith(";"):
                show(connection, statement)
                lines.clear()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.sql", description=__doc__)
    parser.add_argument("query", nargs="?", help="one statement, instead of a prompt")
    parser.add_argument("--directory", type=Path, default=KEPT, help="where the database is kept")
    parser.add_argument("--prompt", action="store_true", help="our own, even if there is a client")
    chosen = parser.parse_args(arguments)
    try:
        kept = KeptDatabase.running(chosen.directory)
    except (LocalDatabaseError, ServerMissingError) as error:
        print(f"sql: {error}", file=sys.stderr)
        return 2
    if kept is None:
        print("sql: no database is running: `make database` starts one that stays", file=sys.stderr)
        return 2
    if chosen.query:
        with connect(kept) as connection:
            return 0 if show(connection, chosen.query) else 1
    command = None if chosen.prompt else client(kept)
    if command:
        os.execv(command[0], command)  # noqa: S606 - the client takes our place at the terminal
    return prompt(kept)


if __name__ == "__main__":
    sys.exit(main())
