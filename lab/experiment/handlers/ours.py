"""One connection per invocation, opened at the query, destroyed when the handler returns."""

from typing import Any

from single_connection import Database

database = Database.from_environment()


@database.invocation
def lambda_handler(event: dict[str, Any], _context: object) -> Any:
    with database.connection().cursor() as cursor:
        cursor.execute("SELECT SLEEP(%s)", (event["seconds"],))
        return cursor.fetchone()
