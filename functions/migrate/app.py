"""Brings the schema and the users up to date, and always answers CloudFormation.

Called by CloudFormation (custom resource) or by hand ({}, or {"action": "migrate"}), as the
database's master user. Plain SQL files in `migrations/` are applied in the order of their numbers,
each once, under a lock. They only go forward: deleting or rolling back the stack takes nothing
away. What the application's user may do stands in `grants.toml`.
"""

import tomllib
from pathlib import Path
from typing import Any

import application_user
import cloudformation
import migrations
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from single_connection import Database

FOLDER = Path(__file__).parent
MIGRATIONS = FOLDER / "migrations"
GRANTS: dict[str, str] = tomllib.loads((FOLDER / "grants.toml").read_text("utf-8"))

logger = Logger()
database = Database.from_environment()


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """What was applied, by hand; what was answered, to CloudFormation."""
    if not isinstance(event, dict):
        raise cloudformation.InvalidEventError(f"the event must be a JSON object, and is {event!r}")
    logger.set_correlation_id(event.get("RequestId", context.aws_request_id))
    if "RequestType" in event:
        return cloudformation.answer(event, context, migrate)
    if event.get("action", "migrate") != "migrate":
        raise cloudformation.InvalidEventError(
            f"action must be migrate, and is {event['action']!r}"
        )
    return migrate(event, context)


@database.invocation
def migrate(_event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Apply what is new, then set the users as their secrets say."""

    def left() -> float:
        return float(context.get_remaining_time_in_millis()) / 1000

    applied = migrations.apply_new(database, MIGRATIONS, left)
    user = application_user.set_users(database, GRANTS)
    logger.info("Migrated", extra={"applied": applied, "user": user})
    return {"applied": applied, "user": user}
