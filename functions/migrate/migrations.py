"""Applies the files of a folder in the order of their numbers, each once, under a lock."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aws_lambda_powertools import Logger
from single_connection import Cursor, Database, DriverError, SingleConnectionError
from sql import SplitError, changes_rows_alone, split

LOCK_SECONDS = 5  # how long to wait for another migration
# A statement that waits for a table stops everybody who comes after it, readers too. So it waits
# for a short turn, lets the others through, and comes again, as long as there is time.
TURN_SECONDS = 2
PAUSE_SECONDS = 1
LOCK_WAIT_TIMEOUT = 1205  # ER_LOCK_WAIT_TIMEOUT; of a table's lock, too

logger = Logger()


class MigrationError(Exception):
    """A migration cannot be applied; the message names the file and says what to do."""


def apply_new(database: Database, directory: Path, left: Callable[[], float]) -> list[str]:
    """The files that were applied now, in order.

    MySQL commits DDL by itself, so a file of several statements cannot be all or nothing. Instead
    each statement is recorded when it is done. A file that failed half-way goes on from there; up
    to there it must be as it was, from there on it may be corrected.

    Args:
        database: As a user who may change the schema.
        directory: Where the files are.
        left: Seconds until there must be an answer.
    """
    cursor = database.cursor()
    # Held until the connection is destroyed, so it needs no release; per schema, not per server.
    cursor.execute("SELECT GET_LOCK(CONCAT(DATABASE(), '.migrate'), %s) AS got", (LOCK_SECONDS,))
    [lock] = cursor.fetchall()
    if lock["got"] != 1:
        raise MigrationError(
            "another migration is running: wait for it to end, then run this again"
        )
    cursor.execute("SET SESSION lock_wait_timeout = %s", (TURN_SECONDS,))
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " file VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,"
        " statements INT UNSIGNED NOT NULL COMMENT 'done so far, in the order of the file',"
        " checksum CHAR(64) CHARACTER SET ascii NOT NULL COMMENT 'SHA-256 of those',"
        " started_at DATETIME NOT NULL DEFAULT (UTC_TIMESTAMP()),"
        " finished_at DATETIME NULL) ENGINE = InnoDB"
    )
    cursor.execute("SELECT file, statements, checksum, finished_at FROM schema_migrations")
    records = {row["file"]: row for row in cursor.fetchall()}
    # Read and judged as a whole before the first is applied.
    todo = [
        (file, statements, done)
        for file, statements in read_migrations(directory).items()
        if (done := statements_done(file, statements, records)) is not None
    ]
    for file, statements, done in todo:
        apply(database, file, statements, done, left)
    return [file for file, _, _ in todo]


def read_migrations(directory: Path) -> dict[str, list[str]]:
    """The statements of each file, in the order of the files' numbers."""
    files = sorted(path.name for path in directory.glob("*.sql"))
    for file, following in zip(files, [*files[1:], ""], strict=True):
        if not re.fullmatch(r"\d{4}_\w+\.sql", file, re.ASCII):
            raise MigrationError(f"{file} must be named like 0007_what_it_does.sql")
        if file[:4] == following[:4]:
            raise MigrationError(f"{file} and {following} have the same number: change the newer's")
    return {file: read_statements(directory / file) for file in files}


def read_statements(path: Path) -> list[str]:
    """The statements of one file."""
    try:
        return list(split(path.read_text("utf-8")))
    except SplitError as error:
        raise MigrationError(f"{path.name}: {error}") from error


def statements_done(
    file: str, statements: list[str], records: dict[str, dict[str, Any]]
) -> int | None:
    """How many of the file's statements are done, None if it is finished; refuses a changed file.

    Records without a file are no error: a stack that rolls back runs an older version of this.
    """
    record = records.get(file)
    if record is None:
        newest = max((name for name, row in records.items() if row["finished_at"]), default="")
        if file < newest:
            raise MigrationError(f"{file} comes before {newest}, which is applied: renumber {file}")
        return 0
    done: int = record["statements"]
    if checksum(statements[:done]) != record["checksum"]:
        raise MigrationError(
            f"{file} was changed after its first {done} statements were applied: restore those, "
            "and put the change into a new file"
        )
    if record["finished_at"] is None:
        return done
    if len(statements) != done:
        raise MigrationError(
            f"{file} was changed after it was applied: restore it, and put what was added into a "
            "new file"
        )
    return None


def apply(
    database: Database, file: str, statements: list[str], done: int, left: Callable[[], float]
) -> None:
    """Run the file's statements after the first `done`, recording each."""
    with database.transaction() as cursor:
        cursor.execute(
            "INSERT INTO schema_migrations (file, statements, checksum) VALUES (%s, %s, %s)"
            " ON DUPLICATE KEY UPDATE started_at = UTC_TIMESTAMP()",
            (file, done, checksum(statements[:done])),
        )
    for number, statement in enumerate(statements[done:], start=done + 1):
        record = (number, checksum(statements[:number]), file)
        try:
            run_in_turns(database, statement, record, left)
        except (DriverError, SingleConnectionError) as error:
            raise MigrationError(
                f"statement {number} of {len(statements)} of {file} failed: {error}. Those before "
                "it are applied and stay. Correct the file from this statement on, and run this "
                "again; if a lost connection cut it off, look first whether it is in place "
                f"already. It begins: {statement[:200]}"
            ) from error
        logger.info("Applied", extra={"file": file, "statement": number, "of": len(statements)})
    if database.connection().in_transaction:
        raise MigrationError(f"{file} begins a transaction and does not end it: add COMMIT")
    with database.transaction() as cursor:
        cursor.execute(
            "UPDATE schema_migrations SET finished_at = UTC_TIMESTAMP() WHERE file = %s", (file,)
        )


def run_in_turns(
    database: Database, statement: str, record: tuple[int, str, str], left: Callable[[], float]
) -> None:
    """Run and record one statement, coming back to a table that is in use while there is time."""
    while True:
        begun_by_the_file = database.connection().in_transaction
        try:
            with committed(database, statement) as cursor:
                cursor.execute(statement)
                cursor.execute(
                    "UPDATE schema_migrations SET statements = %s, checksum = %s WHERE file = %s",
                    record,
                )
        except DriverError as error:
            # A transaction of the file's own is run again as a whole or not at all.
            again = error.args[0] == LOCK_WAIT_TIMEOUT and not begun_by_the_file
            if not again or left() < TURN_SECONDS + PAUSE_SECONDS:
                raise
        else:
            return
        logger.info("Waits for a lock", extra={"seconds_left": left(), "begins": statement[:200]})
        time.sleep(PAUSE_SECONDS)


@contextmanager
def committed(database: Database, statement: str) -> Iterator[Cursor]:
    """Commits changed rows together with their record; leaves alone what commits by itself.

    In a transaction that the file began, the record is part of that one.
    """
    connection = database.connection()
    if changes_rows_alone(statement) and not connection.in_transaction:
        with database.transaction() as cursor:
            yield cursor
    else:
        with database.cursor() as cursor:
            yield cursor


def checksum(statements: list[str]) -> str:
    """SHA-256 of the statements; comments and blank lines between them don't count."""
    return hashlib.sha256(";\n".join(statements).encode()).hexdigest()
