"""The connection is kept in a global, as most samples do: a warm environment reuses it."""

import os
from typing import Any

import pymysql

connection: "pymysql.Connection[Any] | None" = None


def lambda_handler(event: dict[str, Any], _context: object) -> Any:
    global connection  # noqa: PLW0603 - what is shown
    if connection is None:
        connection = pymysql.connect(
            host=os.environ["DATABASE_HOST"],
            port=int(os.environ["DATABASE_PORT"]),
            user=os.environ["DATABASE_USER"],
            password=os.environ["DATABASE_PASSWORD"],
            database=os.environ["DATABASE_NAME"],
            ssl_ca=os.environ["DATABASE_CA_FILE"],
            ssl_verify_cert=True,
            ssl_verify_identity=True,
        )
    with connection.cursor() as cursor:
        cursor.execute("SELECT SLEEP(%s)", (event["seconds"],))
        return cursor.fetchone()
