"""All that knows PyMySQL: the connection of one invocation, and how it is opened."""

from pymysql.cursors import DictCursor
from pymysql.err import Error as DriverError
from pymysql.err import InterfaceError, OperationalError

from .connection import Connection
from .cursor import Cursor
from .opening import addresses, open_connection
from .target import Target

__all__ = [
    "Connection",
    "Cursor",
    "DictCursor",
    "DriverError",
    "InterfaceError",
    "OperationalError",
    "Target",
    "addresses",
    "open_connection",
]
