"""The same as Powertools and PyMySQL document it: a cached secret, a verified server."""

import json
import os

import pymysql
from aws_lambda_powertools.utilities import parameters
from pymysql.cursors import DictCursor


def lambda_handler(event, context):
    secret = json.loads(parameters.get_secret(os.environ["DATABASE_SECRET_ARN"]))
    connection = pymysql.connect(
        host=os.environ["DATABASE_HOST"],
        port=int(os.environ["DATABASE_PORT"]),
        user=secret["username"],
        password=secret["password"],
        database=os.environ["DATABASE_NAME"],
        ssl_ca=os.environ["DATABASE_CA_FILE"],
        cursorclass=DictCursor,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT name, stock FROM products WHERE id = %s", (event["id"],))
        return cursor.fetchone()
