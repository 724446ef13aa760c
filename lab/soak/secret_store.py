"""Where the functions' passwords are: a Secrets Manager that may be silent, or refuse."""

import json
import threading
from typing import Any, Literal

from local.secrets_manager import Request, SecretsManager

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:{user}-AbCdEf"

Mood = Literal["well", "silent", "refusing"]


class SecretStore(SecretsManager):
    """Users and their passwords, by the ARN of their secret.

    Attributes:
        passwords: all there ever were, which no log may hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.passwords: set[str] = set()
        self._secrets: dict[str, str] = {}
        self._mood: Mood = "well"
        self._answering = threading.Event()
        self._answering.set()

    def put(self, user: str, password: str) -> str:
        """Keep the user's password, from now on this one; the secret's ARN."""
        arn = ARN.format(user=user)
        self.passwords.add(password)
        self._secrets[arn] = json.dumps({"username": user, "password": password})
        return arn

    def arn_of(self, user: str) -> str | None:
        """The ARN of that user's secret, if it has one."""
        arn = ARN.format(user=user)
        return arn if arn in self._secrets else None

    def become(self, mood: Mood) -> None:
        """Change the mood; who waited in silence is answered after it."""
        self._mood = mood
        if mood == "silent":
            self._answering.clear()
        else:
            self._answering.set()

    def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Status and content of the answer, which may take a while."""
        self._answering.wait()
        arn = json.loads(request.body)["SecretId"]
        if self._mood == "refusing":
            return 400, {"__type": "ThrottlingException", "Message": "Rate exceeded"}
        if arn not in self._secrets:
            return 400, {"__type": "ResourceNotFoundException", "Message": "no such secret"}
        return 200, {"ARN": arn, "Name": arn, "SecretString": self._secrets[arn]}

    def server_close(self) -> None:
        """Let those go who wait in silence, and close."""
        self.become("well")
        super().server_close()
