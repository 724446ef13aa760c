"""All that knows PyMySQL: one invocation's connection, and what is borrowed from the driver."""

from .connection import (
    CONFIRM_SECONDS,
    NO_SUCH_THREAD,
    Connection,
    DictCursor,
    DriverError,
    Killer,
    OperationalError,
    Target,
    is_denied,
    open_connection,
)

__all__ = [
    "CONFIRM_SECONDS",
    "NO_SUCH_THREAD",
    "Connection",
    "DictCursor",
    "DriverError",
    "Killer",
    "OperationalError",
    "Target",
    "is_denied",
    "open_connection",
]
