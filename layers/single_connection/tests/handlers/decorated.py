"""A handler under and over Powertools' decorators; see ../test_telemetry.py."""

from aws_lambda_powertools import Logger, Metrics
from single_connection import Database

database = Database.from_environment()
logger = Logger()
metrics = Metrics()


def work():
    logger.info("at work")
    metrics.add_metric(name="Own", unit="Count", value=1)
    with database.transaction() as cursor:
        cursor.execute("SELECT CONNECTION_ID() AS id")
        return cursor.fetchone()


@database.invocation
@logger.inject_lambda_context
@metrics.log_metrics
def over(event, context):
    return work()


@logger.inject_lambda_context
@metrics.log_metrics
@database.invocation
def under(event, context):
    return work()


def lambda_handler(event, context):
    return {"over": over, "under": under}[event["order"]](event, context)
