"""One MySQL connection per Lambda invocation, opened when first needed, destroyed on every way out.

from single_connection import Database

database = Database.from_environment()


@database.invocation
def lambda_handler(event, context):
    with database.transaction() as cursor:
        cursor.execute("SELECT name, stock FROM products WHERE id = %s", (event["id"],))
        return cursor.fetchone()
"""

from ._database import Database
from ._driver import Cursor, DriverError
from ._settings import Settings
from .errors import (
    CommitOutcomeUnknownError,
    CredentialsError,
    DatabaseBusyError,
    DeadlineError,
    OutsideInvocationError,
    SecondConnectionError,
    SettingsError,
    SingleConnectionError,
    TransactionControlError,
    UncommittedWorkError,
)

__version__ = "0.2.0"

__all__ = [
    "CommitOutcomeUnknownError",
    "CredentialsError",
    "Cursor",
    "Database",
    "DatabaseBusyError",
    "DeadlineError",
    "DriverError",
    "OutsideInvocationError",
    "SecondConnectionError",
    "Settings",
    "SettingsError",
    "SingleConnectionError",
    "TransactionControlError",
    "UncommittedWorkError",
]
