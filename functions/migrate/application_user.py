"""Sets the users that functions log in as: the application's, and the census's where it has one."""

import json
import logging
import os
from typing import Any

from aws_lambda_powertools.utilities import parameters
from botocore.config import Config
from migrations import MigrationError
from single_connection import Database, DriverError, SingleConnectionError

# At DEBUG, which is a setting of the function away, botocore logs each answer it gets, secrets, and
# each header it sends, the role's session token.
logging.getLogger("botocore").setLevel(logging.INFO)


class Password(str):
    """Not shown where an error's frames are rendered with what is in them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Password(…)"


class InvalidSettingError(ValueError):
    """Variables of this function's environment are missing or wrong."""


def set_users(database: Database, grants: dict[str, str]) -> str:
    """Name of the application's user, who now has the secret's password, TLS only, and his grants.

    To rotate: put a new password into the secret and run this. Functions that still hold the old
    one are refused once, read the secret again, and go on.

    Args:
        database: As a user who may create users.
        grants: Privileges by table.
    """
    limit = application_limit()
    user, password = credentials("APPLICATION")
    set_user(database, user, password, limit)
    for table, privileges in grants.items():
        execute(database, user, f"GRANT {privileges} ON {table} TO %s@'%%'", user)
    if any(os.environ.get(f"CENSUS_{name}") for name in ("SECRET_ARN", "USER")):
        set_census_user(database)
    return user


def set_census_user(database: Database) -> None:
    """The census sees everybody, ends the application's sessions, and has a limit of his own.

    His connections are none of the application's, so he gets in when those are all taken.
    """
    user, password = credentials("CENSUS")
    set_user(database, user, password, limit=2)  # one at work, and one that is just leaving
    execute(database, user, "GRANT PROCESS ON *.* TO %s@'%%'", user)
    # RDS's own way to end other users' sessions: nobody there may have CONNECTION_ADMIN.
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM information_schema.ROUTINES"
            " WHERE ROUTINE_SCHEMA = 'mysql' AND ROUTINE_NAME = 'rds_kill'"
        )
        on_rds = cursor.fetchone() is not None
    if on_rds:
        execute(database, user, "GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO %s@'%%'", user)


def set_user(database: Database, user: str, password: Password, limit: int) -> None:
    """The user is there, with this password, TLS only, and so many connections at once."""
    execute(database, user, "CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s", user, password)
    execute(
        database,
        user,
        "ALTER USER %s@'%%' IDENTIFIED BY %s REQUIRE SSL WITH MAX_USER_CONNECTIONS %s",
        *(user, password, limit),
    )


def execute(database: Database, user: str, statement: str, *arguments: Any) -> None:
    """Run a statement that may hold a password; what is raised never does, nor any frame of it."""
    if problem := attempt(database, statement, arguments):
        raise MigrationError(f"user {user!r} cannot be set up, {problem}")


def attempt(database: Database, statement: str, arguments: tuple[Any, ...]) -> str:
    """What went wrong, if anything: the error itself has the whole statement in its frames."""
    try:
        with database.cursor() as cursor:
            cursor.execute(statement, arguments)
    except DriverError as error:
        # A syntax error (1064) quotes the statement, and with it the password.
        code = error.args[0]
        return f"error {code}" if code == 1064 else f"error {code}: {error.args[1]}"
    except SingleConnectionError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def application_limit() -> int:
    """How many connections the application's user may have, from a checked environment."""
    limit = os.environ.get("APPLICATION_MAX_USER_CONNECTIONS", "")
    problems = missing("APPLICATION")
    if not (limit.isascii() and limit.isdecimal() and int(limit)):
        problems.append(f"APPLICATION_MAX_USER_CONNECTIONS must be above 0, and is {limit!r}")
    if problems:
        raise InvalidSettingError("; ".join(problems))
    return int(limit)


def missing(whose: str) -> list[str]:
    """What is missing of the variables that tell a user's name and password."""
    given = {name: os.environ.get(f"{whose}_{name}") for name in ("SECRET_ARN", "USER", "PASSWORD")}
    if given["SECRET_ARN"] or (given["USER"] and given["PASSWORD"]):
        return []
    return [f"{whose}_SECRET_ARN, or {whose}_USER and {whose}_PASSWORD, missing"]


def credentials(whose: str) -> tuple[str, Password]:
    """Name and password, from the secret of `<whose>_SECRET_ARN` or from the environment."""
    if problems := missing(whose):
        raise InvalidSettingError(problems[0])
    arn = os.environ.get(f"{whose}_SECRET_ARN")
    if not arn:
        return os.environ[f"{whose}_USER"], Password(os.environ[f"{whose}_PASSWORD"])
    # Its own timeouts: botocore's, a minute each, are longer than this function may take.
    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3})
    secrets = parameters.SecretsProvider(boto_config=config)
    found = user_and_password(secrets.get(arn, force_fetch=True))
    if found is None:
        raise InvalidSettingError(
            f"the secret {arn} must be a JSON object with the keys username and password"
        )
    return found


def user_and_password(secret: Any) -> tuple[str, Password] | None:
    """The two, or None; apart, so that no error's frame holds the secret's text."""
    try:
        found = json.loads(secret)
        return str(found["username"]), Password(found["password"])
    except (ValueError, KeyError, TypeError):
        return None
