"""User and password, from the settings or from Secrets Manager, kept warm until they are refused.

The only module that needs boto3: imported, through Powertools, when a secret is first read.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from ._settings import Settings
from .errors import CredentialsError

# Seconds a secret is kept. A rotation is noticed sooner, by the server's refusal.
SECRET_MAX_AGE = 3600


class Credentials:
    """What the database is told about who we are."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is read yet."""
        self._settings = settings

    @property
    def can_change(self) -> bool:
        """Whether reading again may give something else, as a secret under rotation does."""
        return self._settings.secret_arn is not None

    def read(self, *, again: bool = False) -> tuple[str, str]:
        """User and password; `again` asks Secrets Manager whatever is cached.

        Raises:
            CredentialsError: The secret cannot be read, or has not the keys it needs.
        """
        settings = self._settings
        if settings.secret_arn is None:
            return str(settings.user), str(settings.password)
        from aws_lambda_powertools.utilities import parameters  # noqa: PLC0415 - brings in boto3

        try:
            with _unlogged():
                pair = _pair(
                    parameters.get_secret(
                        settings.secret_arn, max_age=SECRET_MAX_AGE, force_fetch=again
                    )
                )
        except Exception as error:
            raise CredentialsError(
                f"the secret {settings.secret_arn} cannot be read ({type(error).__name__}): check "
                "DATABASE_SECRET_ARN, the function's permission secretsmanager:GetSecretValue, and "
                "the VPC's endpoint for Secrets Manager"
            ) from error
        if pair is None:
            raise CredentialsError(
                f"the secret {settings.secret_arn} is not a JSON object with the keys 'username' "
                "and 'password'"
            )
        return pair


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """At DEBUG, which is a setting of the function away, botocore logs each answer it gets."""
    import logging  # noqa: PLC0415 - needed by secrets alone, and 3 ms at each cold start

    logger = logging.getLogger("botocore.parsers")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _pair(secret: Any) -> tuple[str, str] | None:
    """User and password; apart, so that no error's frame or message holds the secret's text."""
    try:
        pair = json.loads(secret)
        return str(pair["username"]), str(pair["password"])
    except (ValueError, KeyError, TypeError):
        return None
