"""A handler that takes longer than it may; see ../test_deadline.py."""

import time

from single_connection import Database, DeadlineError

database = Database.from_environment()


def loop():
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pass


@database.invocation
def lambda_handler(event, context):
    database.connection().begin()
    with database.connection().cursor() as cursor:
        cursor.execute("UPDATE things SET number = number + 1 WHERE name = 'a'")
        if event["way"] == "loop":
            loop()
        try:
            cursor.execute(event["way"])
        except DeadlineError as error:
            return {"error": str(error), "left": context.get_remaining_time_in_millis()}
    database.connection().rollback()
    return None
