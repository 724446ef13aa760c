"""Brings the schema and the application's user up to date, and always answers CloudFormation.

Called by CloudFormation (custom resource) or by hand ({}, or {"action": "migrate"}), as the
database's master user. Plain SQL files in `migrations/` are applied in the order of their numbers,
each once, under a lock. They only go forward: deleting or rolling back the stack takes nothing
away.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from pymysql.cursors import DictCursor
from pymysql.err import MySQLError
from single_connection import Database, SingleConnectionError

MIGRATIONS = Path(__file__).parent / "migrations"

# What each function's statements need, and no more. To take something away again, REVOKE it in a
# migration: a grant taken back and given again at each deployment would fail what runs meanwhile.
GRANTS = {
    "products": "SELECT, UPDATE (stock)",
    "orders": "SELECT, INSERT",
    "order_lines": "SELECT, INSERT",
    "idempotency_keys": "SELECT, INSERT, UPDATE",
    "stock_inbox": "SELECT, INSERT",
    "sales_report": "SELECT, INSERT, UPDATE",
}

logger = Logger()
database = Database.from_environment()


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """What was applied, by hand; what was answered, to CloudFormation."""
    logger.set_correlation_id(event.get("RequestId", context.aws_request_id))
    if "RequestType" in event:
        return answer_cloudformation(event, context)
    if event.get("action", "migrate") != "migrate":
        raise InvalidEventError(f"action must be migrate, and is {event['action']!r}")
    return migrate(event, context)


@database.invocation
def migrate(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Apply what is new, then set the application's user as its secret says."""
    applied = apply_migrations(MIGRATIONS)
    user = set_application_user()
    logger.info("Migrated", extra={"applied": applied, "user": user})
    return {"applied": applied, "user": user}


class InvalidEventError(ValueError):
    """The event asks for something this function does not know."""


class InvalidSettingError(ValueError):
    """Variables of this function's environment are missing or wrong."""


class MigrationError(Exception):
    """A migration cannot be applied; the message names the file and says what to do."""


# ── CloudFormation ────────────────────────────────────────────────────────────────────────────

# Kept from the work for the answer, in seconds: CloudFormation waits an hour for one that is lost.
SECONDS_FOR_ANSWER = 10
ANSWER_BYTES = 4096  # CloudFormation takes no more


def answer_cloudformation(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what RequestType asks, and PUT the outcome to ResponseURL before the time is over.

    A failure is answered and not raised: Lambda would run the event twice again. An answer that
    does not get through is raised: then those two runs are two more chances for it.
    """
    answer = Answer(event)
    # A connection is cut in time by itself; this is for anything else that hangs.
    left = context.get_remaining_time_in_millis() / 1000
    too_late = ("FAILED", f"Not done within this function's timeout, {left:.0f} seconds.")
    watchdog = threading.Timer(
        max(left - 0.7 * SECONDS_FOR_ANSWER, left / 2), answer.give, too_late
    )
    watchdog.daemon = True
    watchdog.start()
    try:
        return answer.give(*outcome_of(event, context))
    finally:
        watchdog.cancel()


def outcome_of(event: dict[str, Any], context: LambdaContext) -> tuple[str, str]:
    """Status and reason for CloudFormation; never an exception."""
    request = event["RequestType"]
    if request == "Delete":
        return "SUCCESS", "The schema and its data stay as they are."
    if request not in ("Create", "Update"):
        return "FAILED", f"RequestType must be Create, Update or Delete, and is {request!r}."
    try:
        done = migrate(event, ShorterContext(context))
    except BaseException as error:  # SystemExit too: whatever it was, CloudFormation is told
        logger.exception("Answered FAILED")
        return "FAILED", f"{type(error).__name__}: {error}"
    return "SUCCESS", f"Applied: {', '.join(done['applied']) or 'nothing new'}."


class ShorterContext:
    """The invocation's context with less time left, so that a deadline can still be answered."""

    def __init__(self, context: LambdaContext) -> None:
        self._context = context

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds for the work: all but the answer's, or half where that is more."""
        left = self._context.get_remaining_time_in_millis()
        return max(left - SECONDS_FOR_ANSWER * 1000, left // 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Answer:
    """What CloudFormation waits for: given once, by whoever comes first."""

    def __init__(self, event: dict[str, Any]) -> None:
        names = ("ResponseURL", "StackId", "RequestId", "LogicalResourceId")
        if missing := [name for name in names if not event.get(name)]:
            raise InvalidEventError(f"no event of CloudFormation's: {', '.join(missing)} missing")
        self._event = event
        self._given: dict[str, Any] | None = None
        self._giving = threading.Lock()

    def give(self, status: str, reason: str) -> dict[str, Any]:
        """The answer that was given, this one or an earlier; raises if it is not delivered."""
        with self._giving:
            if self._given is None:
                self._given = self._put(status, reason)
            return self._given

    def _put(self, status: str, reason: str) -> dict[str, Any]:
        answer = {
            "Status": status,
            "Reason": reason,
            # Always the same: a new one would make CloudFormation delete this resource.
            "PhysicalResourceId": self._event.get("PhysicalResourceId", "database-migration"),
            **{name: self._event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
        }
        while len(body := json.dumps(answer).encode()) > ANSWER_BYTES:
            answer["Reason"] = answer["Reason"][: len(answer["Reason"]) * 3 // 4]
        try:
            response = urllib3.PoolManager().request(
                "PUT",
                self._event["ResponseURL"],
                body=body,
                headers={"Content-Type": ""},  # the URL is signed without one
                timeout=urllib3.Timeout(connect=1, read=1.5),
                retries=urllib3.Retry(2, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]),
            )
        except urllib3.exceptions.HTTPError as error:
            raise UnansweredError("CloudFormation's answer could not be delivered") from error
        if response.status >= 400:
            raise UnansweredError(f"CloudFormation's answer was refused: HTTP {response.status}")
        logger.info("Answered CloudFormation", extra={"answer": answer})
        return answer


class UnansweredError(Exception):
    """CloudFormation did not take the answer and goes on waiting."""


# ── Migrations ────────────────────────────────────────────────────────────────────────────────

LOCK_SECONDS = 5  # how long to wait for another migration


def apply_migrations(directory: Path) -> list[str]:
    """The files that were applied now, in order.

    MySQL commits DDL by itself, so a file of several statements cannot be all or nothing. Instead
    each statement is recorded when it is done. A file that failed half-way goes on from there; up
    to there it must be as it was, from there on it may be corrected.
    """
    cursor = database.connection().cursor(DictCursor)
    # Held until the connection is destroyed, so it needs no release; per schema, not per server.
    cursor.execute("SELECT GET_LOCK(CONCAT(DATABASE(), '.migrate'), %s) AS got", (LOCK_SECONDS,))
    if cursor.fetchone()["got"] != 1:
        raise MigrationError(
            "another migration is running: wait for it to end, then run this again"
        )
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
        apply(file, statements, done)
    return [file for file, _, _ in todo]


def read_migrations(directory: Path) -> dict[str, list[str]]:
    """The statements of each file, in the order of the files' numbers."""
    files = sorted(path.name for path in directory.glob("*.sql"))
    for file, following in zip(files, [*files[1:], ""], strict=True):
        if not re.fullmatch(r"\d{4}_\w+\.sql", file, re.ASCII):
            raise MigrationError(f"{file} must be named like 0007_what_it_does.sql")
        if file[:4] == following[:4]:
            raise MigrationError(f"{file} and {following} have the same number: change the newer's")
    return {file: list(split(file, (directory / file).read_text("utf-8"))) for file in files}


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


def apply(file: str, statements: list[str], done: int) -> None:
    """Run the file's statements after the first `done`, recording each."""
    with database.transaction() as cursor:
        cursor.execute(
            "INSERT INTO schema_migrations (file, statements, checksum) VALUES (%s, %s, %s)"
            " ON DUPLICATE KEY UPDATE started_at = UTC_TIMESTAMP()",
            (file, done, checksum(statements[:done])),
        )
    for number, statement in enumerate(statements[done:], start=done + 1):
        try:
            # A statement that is no DDL is committed together with its record.
            with database.transaction() as cursor:
                cursor.execute(statement)
                cursor.execute(
                    "UPDATE schema_migrations SET statements = %s, checksum = %s WHERE file = %s",
                    (number, checksum(statements[:number]), file),
                )
        except (MySQLError, SingleConnectionError) as error:
            raise MigrationError(
                f"statement {number} of {len(statements)} of {file} failed: {error}. Those before "
                "it are applied and stay. Correct the file from this statement on, and run this "
                "again; if a lost connection cut it off, look first whether it is in place "
                f"already. It begins: {statement[:200]}"
            ) from error
        logger.info("Applied", extra={"file": file, "statement": number, "of": len(statements)})
    with database.transaction() as cursor:
        cursor.execute(
            "UPDATE schema_migrations SET finished_at = UTC_TIMESTAMP() WHERE file = %s", (file,)
        )


def checksum(statements: list[str]) -> str:
    """SHA-256 of the statements; comments and blank lines between them don't count."""
    return hashlib.sha256(";\n".join(statements).encode()).hexdigest()


PIECE = re.compile(
    r"""(?P<text> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `[^`]*` | /\*[!+].*?\*/ )
      | (?P<comment> --(?=\s|$)[^\n]* | \#[^\n]* | /\*.*?\*/ )
      | (?P<end> ; )
      | (?P<open> ['"`] | /\* )""",
    re.DOTALL | re.VERBOSE,
)


def split(file: str, sql: str) -> Iterator[str]:
    """The file's statements, without comments; `;` in a string, a name or a comment ends none.

    Stored programs with a body of several statements would need DELIMITER, which is a command of
    the mysql client and no SQL; they are refused.
    """
    statement, position = "", 0
    for piece in PIECE.finditer(sql + "\n;"):
        statement += sql[position : piece.start()]
        position = piece.end()
        if piece["open"]:
            line = sql.count("\n", 0, piece.start()) + 1
            raise MigrationError(f"{file}, line {line}: {piece['open']} is opened and never closed")
        statement += piece["text"] or (" " if piece["comment"] else "")
        if piece["end"]:
            statement, whole = "", statement.strip()
            if re.match(r"DELIMITER\b|CREATE\b.*\bBEGIN\b", whole, re.DOTALL | re.IGNORECASE):
                raise MigrationError(
                    f"{file}: DELIMITER and stored programs with BEGIN … END are not supported; "
                    "keep logic in the functions, or write a body of one statement"
                )
            if whole:
                yield whole


# ── The application's user ────────────────────────────────────────────────────────────────────


def set_application_user() -> str:
    """Name of the user, who now has the secret's password, TLS only, a limit and his grants.

    To rotate: put a new password into the secret and run this. Functions that still hold the old
    one are refused once, read the secret again, and go on.
    """
    user, password, limit = application_settings()
    cursor = database.connection().cursor(DictCursor)
    try:
        cursor.execute("CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s", (user, password))
        cursor.execute(
            "ALTER USER %s@'%%' IDENTIFIED BY %s REQUIRE SSL WITH MAX_USER_CONNECTIONS %s",
            (user, password, limit),
        )
        for table, privileges in GRANTS.items():
            cursor.execute(f"GRANT {privileges} ON {table} TO %s@'%%'", (user,))
    except MySQLError as error:
        # A syntax error (1064) quotes the statement, and with it the password.
        code = error.args[0]
        why = "" if code == 1064 else f": {error.args[1]}"
        raise MigrationError(f"user {user!r} cannot be set up, error {code}{why}") from None
    return user


def application_settings() -> tuple[str, str, int]:
    """Name and password of the application's user, and how many connections it may have."""
    arn = os.environ.get("APPLICATION_SECRET_ARN", "")
    user = os.environ.get("APPLICATION_USER", "")
    password = os.environ.get("APPLICATION_PASSWORD", "")
    limit = os.environ.get("APPLICATION_MAX_USER_CONNECTIONS", "")
    problems = []
    if not arn and not (user and password):
        problems.append(
            "APPLICATION_SECRET_ARN, or APPLICATION_USER and APPLICATION_PASSWORD, missing"
        )
    if not limit.isdecimal() or int(limit) == 0:
        problems.append(f"APPLICATION_MAX_USER_CONNECTIONS must be above 0, and is {limit!r}")
    if problems:
        raise InvalidSettingError("; ".join(problems))
    if arn:
        # Its own timeouts: botocore's, a minute each, are longer than this function may take.
        config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3})
        secrets = parameters.SecretsProvider(boto_config=config)
        secret: Any = secrets.get(arn, transform="json", force_fetch=True)
        user, password = secret["username"], secret["password"]
    return user, password, int(limit)
