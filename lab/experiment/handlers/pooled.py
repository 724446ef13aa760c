"""SQLAlchemy's ordinary pool: the connection goes back to the pool, and the pool keeps it."""

import os
from typing import Any

from sqlalchemy import URL, create_engine, text

engine = create_engine(
    URL.create(
        "mysql+pymysql",
        host=os.environ["DATABASE_HOST"],
        port=int(os.environ["DATABASE_PORT"]),
        username=os.environ["DATABASE_USER"],
        password=os.environ["DATABASE_PASSWORD"],
        database=os.environ["DATABASE_NAME"],
    ),
    connect_args={
        "ssl_ca": os.environ["DATABASE_CA_FILE"],
        "ssl_verify_cert": True,
        "ssl_verify_identity": True,
    },
)


def lambda_handler(event: dict[str, Any], _context: object) -> Any:
    with engine.connect() as connection:
        row = connection.execute(text("SELECT SLEEP(:seconds)"), {"seconds": event["seconds"]})
        return list(row.one())
