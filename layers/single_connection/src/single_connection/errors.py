"""The layer's errors. Lambda reports the class's name first, so each name makes sense alone.

    SingleConnectionError
    ├── SettingsError               what the environment says cannot work
    ├── CredentialsError            the secret cannot be read, or the server refused what it holds
    ├── OutsideInvocationError      a connection where no invocation is running
    ├── SecondConnectionError       a connection beside the invocation's own
    │   └── TransactionControlError     a transaction beside, or across, the one that is open
    ├── DatabaseBusyError           no connection to be had within the time left
    ├── DeadlineError               the connection was cut shortly before Lambda's deadline
    ├── CommitOutcomeUnknownError   no answer to COMMIT: the work may be written or not
    └── UncommittedWorkError        the handler returned, and rows it had changed are rolled back

None of them is a PyMySQL error, and PyMySQL's own errors pass through the layer as they are.
"""

from ._server_errors import BORROW, FULL


class SingleConnectionError(Exception):
    """The parent of everything this layer raises by itself."""


class SettingsError(SingleConnectionError):
    """The settings are incomplete or wrong; the message names every problem there is, at once."""


class CredentialsError(SingleConnectionError):
    """The database's user or password is not to be had, or the server refused it (1044, 1045).

    Never holds the password; the server's own error is its `__cause__`.
    """


class OutsideInvocationError(SingleConnectionError):
    """A connection was asked for, or used, while its invocation was not running."""


class SecondConnectionError(SingleConnectionError):
    """A connection beside the invocation's own was refused; the message says where that one is."""


class TransactionControlError(SecondConnectionError):
    """A transaction was begun or ended where another one is open that it would spoil.

    One connection has one transaction. The message says whose it is and where it began.
    """


class DatabaseBusyError(SingleConnectionError):
    """The database gave no connection within the time the invocation had left.

    Attributes:
        code: The last refusal's number: 1040 (too many connections), 1203 or 1226 (too many of
            this user), 9501 (RDS Proxy has none to lend), or 2003 and 2013 where the server did
            not answer at all. From MySQL's server and client error references.
        retry_after: Seconds after which trying again is sensible; for a Retry-After header.
        attempts: How many times the database was asked.
        waited: Seconds spent waiting.
    """

    def __init__(self, code: int, *, retry_after: float, attempts: int, waited: float) -> None:
        self.code = code
        self.retry_after = retry_after
        self.attempts = attempts
        self.waited = waited
        tried = f"in {waited:.1f} s and {attempts} attempts (last refusal: error {code})"
        again = f"try again in {retry_after:.0f} s"
        if code in BORROW:
            said = f"RDS Proxy had no database connection to lend {tried}; {again}"
        elif code in FULL:
            said = (
                f"the database gave no connection {tried}; {again}, lower the functions' reserved "
                "concurrency, or raise max_connections"
            )
        else:
            said = (
                f"the database did not answer {tried}: see whether it is running, and check "
                "DATABASE_HOST, DATABASE_PORT and the security groups between"
            )
        super().__init__(said)


class DeadlineError(SingleConnectionError):
    """The connection was destroyed because the invocation's time was nearly over.

    What was not committed is rolled back; the margin that is left is for the handler's answer.
    """


class CommitOutcomeUnknownError(SingleConnectionError):
    """COMMIT was sent, and no answer to it was read: the server may or may not have committed.

    Never run again by this layer. Look before you repeat, or make the work idempotent by a key
    written in the same transaction.
    """


class UncommittedWorkError(SingleConnectionError):
    """The handler returned while a transaction was open that had changed rows: they are gone.

    Raised instead of the handler's answer. The message says where the transaction began.
    """
