"""One function for a database that you have: its version, and how many connections it takes."""

from typing import Any

from single_connection import Database

database = Database.from_environment()  # settings only; nothing is opened


@database.invocation
def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer with what the server says of itself; put your own statements in its place."""
    with database.transaction() as cursor:
        cursor.execute("SELECT VERSION() AS version, @@max_connections AS max_connections")
        [row] = cursor.fetchall()
    return {"version": row["version"], "max_connections": row["max_connections"]}
