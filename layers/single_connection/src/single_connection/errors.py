"""The layer's errors. Lambda reports the class's name first, so each name makes sense alone.

    SingleConnectionError
    ├── SettingsError               what the environment says cannot work
    ├── CredentialsError            the secret cannot be read, or the server refused what it holds
    ├── OutsideInvocationError      a connection where no invocation is running
    ├── SecondConnectionError       a connection beside the invocation's own
    ├── DatabaseBusyError           no connection to be had within the time left
    ├── DeadlineError               the connection was cut shortly before Lambda's deadline
    └── CommitOutcomeUnknownError   the connection was lost while COMMIT was on its way

None of them is a PyMySQL error, and PyMySQL's own errors pass through the layer as they are.
"""

# Too many connections: in all, of this user, of this user by its resource limit.
# MySQL server error reference.
FULL = (1040, 1203, 1226)


class SingleConnectionError(Exception):
    """The parent of everything this layer raises by itself."""


class SettingsError(SingleConnectionError):
    """The settings are incomplete or wrong; the message names every problem there is, at once."""


class CredentialsError(SingleConnectionError):
    """The database's user or password is not to be had, or the server refused it (1044, 1045).

    Never holds the password; the server's own error is its `__cause__`.
    """


class OutsideInvocationError(SingleConnectionError):
    """A connection was asked for while no invocation was running, at import for example."""


class SecondConnectionError(SingleConnectionError):
    """A connection beside the invocation's own was refused; the message says where that one is."""


class DatabaseBusyError(SingleConnectionError):
    """The database gave no connection within the time the invocation had left.

    Attributes:
        code: The last refusal's number: 1040 (too many connections), 1203 or 1226 (too many of
            this user), or 2003 and 2013 where the server did not answer at all. From MySQL's
            server and client error references.
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
        super().__init__(
            f"the database gave no connection {tried}; try again in {retry_after:.0f} s, lower the "
            "functions' reserved concurrency, or raise max_connections"
            if code in FULL
            else f"the database did not answer {tried}: see whether it is running, and check "
            "DATABASE_HOST, DATABASE_PORT and the security groups between"
        )


class DeadlineError(SingleConnectionError):
    """The connection was destroyed because the invocation's time was nearly over.

    What was not committed is rolled back; the margin that is left is for the handler's answer.
    """


class CommitOutcomeUnknownError(SingleConnectionError):
    """The connection was lost during COMMIT: the server may or may not have committed.

    Never run again by this layer. Look before you repeat, or make the work idempotent by a key
    written in the same transaction.
    """
