"""Gives the application's user a new password, on a schedule and without a failed call.

Where the server knows two passwords for a user (MySQL since 8.0.14), the new one is added, then the
secret is written, then the old one is discarded: whatever a function has read is good at any
moment. Another server (MariaDB) is told after the secret, and who comes in between reads again
until it fits, as the layer does.

It may fail at any point and be run again: each run first sets what the secret says.
"""

import json
import logging
import os
import secrets
import string
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from single_connection import Database, DriverError, SingleConnectionError

LOCK_SECONDS = 5  # how long to wait for a migration, which sets the same password
LETTERS = string.ascii_letters + string.digits  # they need quoting nowhere; 40 are 238 bits
SYNTAX_ERROR = 1064  # ER_PARSE_ERROR quotes the statement, and with it the password

# At DEBUG, botocore logs each answer it gets, and so the secret.
logging.getLogger("botocore").setLevel(logging.INFO)

logger = Logger()
database = Database.from_environment()


class RotationError(Exception):
    """It was not changed, or not to its end, and whoever reads the secret gets in all the same."""


class Secret(dict[str, Any]):
    """What the secret says; not shown where an error's frames are rendered."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


@database.invocation
def lambda_handler(_event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """The user who has a new password."""
    arn = os.environ.get("APPLICATION_SECRET_ARN")
    if not arn:
        raise RotationError("APPLICATION_SECRET_ARN is missing: it says which secret is written")
    # Its own timeouts: botocore's, a minute each, are longer than this function may take.
    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3})
    store = boto3.client("secretsmanager", config=config)
    wait_for_migrations()
    old = read_secret(store, arn)
    new = Secret(old, password="".join(secrets.choice(LETTERS) for _ in range(40)))
    set_password(old)
    if knows_two_passwords():
        set_password(new, " RETAIN CURRENT PASSWORD")
        write_secret(store, arn, new)
        run("ALTER USER %s@'%%' DISCARD OLD PASSWORD", old["username"])
    else:
        write_secret(store, arn, new)
        set_password(new)
    logger.info("Rotated", extra={"user": old["username"]})
    return {"rotated": old["username"]}


def wait_for_migrations() -> None:
    """Hold the lock of Migrate, who could else set a password that it had read before.

    It ends with the connection.
    """
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT GET_LOCK(CONCAT(DATABASE(), '.migrate'), %s) AS got", (LOCK_SECONDS,)
        )
        [lock] = cursor.fetchall()
    if lock["got"] != 1:
        raise RotationError("a migration is running: this is tried again")


def knows_two_passwords() -> bool:
    """Whether a user may have a second password on this server."""
    with database.cursor() as cursor:
        cursor.execute("SELECT VERSION() AS version")
        [row] = cursor.fetchall()
    return "MariaDB" not in row["version"]


def set_password(secret: Secret, how: str = "") -> None:
    """The user's password on the server is what the secret says.

    Without `RETAIN CURRENT PASSWORD` a second password, if there is one, stays good.
    """
    run(f"ALTER USER %s@'%%' IDENTIFIED BY %s{how}", secret["username"], secret["password"])


def run(statement: str, *arguments: str) -> None:
    """Run it; what is raised never has a password in it, nor any frame of it."""
    if problem := attempt(statement, arguments):
        raise RotationError(f"{statement.partition(' IDENTIFIED')[0]} failed, {problem}")


def attempt(statement: str, arguments: tuple[str, ...]) -> str:
    """What went wrong, if anything: the error itself has the whole statement in its frames."""
    try:
        with database.cursor() as cursor:
            cursor.execute(statement, arguments)
    except DriverError as error:
        code = error.args[0]
        return f"error {code}" if code == SYNTAX_ERROR else f"error {code}: {error.args[1]}"
    except SingleConnectionError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def read_secret(store: Any, arn: str) -> Secret:
    """All keys of the secret, of which username and password must be there."""
    found = parse(store.get_secret_value(SecretId=arn)["SecretString"])
    if not {"username", "password"} <= found.keys():
        raise RotationError(
            f"the secret {arn} must be a JSON object with the keys username and password"
        )
    return found


def parse(text: str) -> Secret:
    """What the secret says, or nothing; apart, so that no error's frame holds its text."""
    try:
        return Secret(json.loads(text))
    except (ValueError, TypeError):
        return Secret()


def write_secret(store: Any, arn: str, secret: Secret) -> None:
    """The secret says this from now on, to everybody who reads it."""
    # Nothing of what is raised is kept: its frames have the request, and so the password.
    if problem := put(store, arn, secret):
        raise RotationError(
            f"the secret {arn} could not be written, {problem}. The old password is good as before"
        )


def put(store: Any, arn: str, secret: Secret) -> str:
    """What went wrong, if anything."""
    try:
        store.put_secret_value(SecretId=arn, SecretString=json.dumps(secret))
    except Exception as error:  # noqa: BLE001 - botocore's errors have no common parent
        return f"{type(error).__name__}: {error}"
    return ""
