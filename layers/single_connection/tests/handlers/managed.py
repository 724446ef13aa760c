"""A handler that is at work for a while; see ../test_managed_instances.py."""

import os

from single_connection import Database

database = Database.from_environment()


@database.invocation
def lambda_handler(event, context):
    with database.cursor() as cursor:
        cursor.execute("SELECT SLEEP(1), CONNECTION_ID() AS id")
        return {"pid": os.getpid(), "connection": cursor.fetchall()[0]["id"]}
