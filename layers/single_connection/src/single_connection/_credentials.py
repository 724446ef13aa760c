"""User and password, from the settings or from Secrets Manager, kept until they are refused."""

from collections.abc import Mapping

from ._clock import clock
from ._settings import Settings

# Seconds a secret is kept. A rotation is noticed sooner, by the server's refusal.
SECRET_MAX_AGE = 3600
# Seconds for reading it where the caller names none.
READ_SECONDS = 5.0

Pair = tuple[str, str]


def prepare(environ: Mapping[str, str]) -> None:
    """Import what reads a secret while the function starts, with a whole core, if it has one."""
    if environ.get("DATABASE_SECRET_ARN"):
        from . import _reading  # noqa: F401, PLC0415 - who has no secret need not import it


class Credentials:
    """What the database is told about who we are."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is read yet."""
        self._settings = settings
        self._kept: Pair | None = None
        self._good_until = 0.0

    @property
    def can_change(self) -> bool:
        """Whether reading again may give something else, as a secret under rotation does."""
        return self._settings.secret_arn is not None

    def read(self, *, again: bool = False, within: float = READ_SECONDS) -> Pair:
        """User and password.

        Args:
            again: Ask Secrets Manager whatever is kept.
            within: Seconds left. There is an error before they are over, whatever the network does.

        Raises:
            CredentialsError: The secret cannot be read in time, or has not the keys it needs.
        """
        if self._settings.secret_arn is None:
            return str(self._settings.user), str(self._settings.password)
        if self._kept is None or again or clock.now() > self._good_until:
            until = clock.now() + within
            from ._reading import read_secret  # noqa: PLC0415 - see `prepare`

            self._kept = read_secret(self._settings.secret_arn, until)
            self._good_until = clock.now() + SECRET_MAX_AGE
        return self._kept

    def forget(self) -> None:
        """Keep nothing: a snapshot of this process is about to be taken, or was."""
        self._kept = None
