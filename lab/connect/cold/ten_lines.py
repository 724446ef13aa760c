"""The README's handler: what a cold start costs that has nothing of its own."""

from single_connection import Database

database = Database.from_environment()


@database.invocation
def lambda_handler(event, context):
    with database.transaction() as cursor:
        cursor.execute("SELECT name, stock FROM products WHERE id = %s", (event["id"],))
        return cursor.fetchone()
