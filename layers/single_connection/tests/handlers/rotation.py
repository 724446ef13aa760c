"""A handler whose password is changed under it; see ../test_credentials.py."""

import sys

from single_connection import Database

database = Database.from_environment()
BOTO_AT_IMPORT = "boto3" in sys.modules or "botocore" in sys.modules


@database.invocation
def lambda_handler(event, context):
    with database.connection().cursor() as cursor:
        cursor.execute("SELECT 1")
    return {"boto_at_import": BOTO_AT_IMPORT, "boto": "boto3" in sys.modules}
