"""What a function must be told to find its database, checked as a whole."""

from collections.abc import Mapping
from typing import Any, NoReturn

from ._environment import (
    DEFAULT_DEADLINE_MARGIN,
    DEFAULT_PORT,
    is_proxy,
    problems_of,
    values_of,
)
from .errors import SettingsError

__all__ = ["DEFAULT_DEADLINE_MARGIN", "Settings"]


class Settings:
    """Where the database is, who asks, and whom to trust; frozen, and the password never shows.

    Args:
        host: The server's name, as its certificate has it.
        name: The schema to use.
        port: TCP port; 3306 by default.
        secret_arn: A Secrets Manager secret with the keys `username` and `password`.
        user: With `password`, instead of `secret_arn`.
        password: Never part of `repr`.
        ca_file: PEM file of the certificate authorities to trust; None trusts the system's roots,
            which is right for RDS Proxy alone.
        deadline_margin: Seconds before Lambda's deadline at which the connection is cut.
        tag_statements: Append a comment with function and request id to every statement.

    Raises:
        SettingsError: With every problem at once.
    """

    # Not a dataclass: `dataclasses` takes a third of this layer's import, and the `__init__` that
    # it writes would hold the password in a frame of the error.
    __slots__ = (
        *("host", "name", "port", "secret_arn", "user", "password", "ca_file"),
        *("deadline_margin", "tag_statements"),
    )
    host: str
    name: str
    port: int
    secret_arn: str | None
    user: str | None
    password: str | None
    ca_file: str | None
    deadline_margin: float
    tag_statements: bool

    def __init__(
        self,
        *,
        host: str,
        name: str,
        port: int = DEFAULT_PORT,
        secret_arn: str | None = None,
        user: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        deadline_margin: float = DEFAULT_DEADLINE_MARGIN,
        tag_statements: bool = False,
    ) -> None:
        """All of them, by keyword."""
        values = {
            "host": host,
            "name": name,
            "port": port,
            "secret_arn": secret_arn,
            "user": user,
            "password": password,
            "ca_file": ca_file,
            "deadline_margin": deadline_margin,
            "tag_statements": tag_statements,
        }
        problems = problems_of(values)
        if problems:
            del password, values  # the error's frames are shown by error trackers
            _refuse(problems)
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @property
    def through_proxy(self) -> bool:
        """Whether the host is an RDS Proxy endpoint, told by its name (`….proxy-….rds.…`)."""
        return is_proxy(self.host)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`; an empty variable counts as missing.

        Raises:
            SettingsError: Naming every missing or wrong variable at once.
        """
        values, problems = values_of(environ)
        problems += problems_of(values)
        if problems:
            del environ, values  # as above
            _refuse(problems)
        return cls(**values)

    def _values(self) -> dict[str, Any]:
        return {field: getattr(self, field, None) for field in self.__slots__}

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("settings are frozen: make new ones")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("settings are frozen: make new ones")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(tuple(self._values().values()))

    def __repr__(self) -> str:
        shown = [f"{f}={v!r}" for f, v in self._values().items() if f != "password"]
        return f"Settings({', '.join(shown)})"

    def __reduce__(self) -> Any:
        return _again, (self._values(),)

    def __replace__(self, **changes: Any) -> "Settings":
        """For `copy.replace` (Python 3.13)."""
        return Settings(**(self._values() | changes))


def _again(values: dict[str, Any]) -> Settings:
    return Settings(**values)


def _refuse(problems: list[str]) -> NoReturn:
    raise SettingsError("; ".join(problems))
