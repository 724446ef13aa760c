"""What a function must be told to find its database, checked as a whole."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ._deadline import LONGEST_INVOCATION
from .errors import SettingsError

DEFAULT_PORT = 3306
# Time for one KILL over a new connection, and for the handler's answer: a connect takes some 1.4 ms
# of CPU (docs/speed.md), so some 20 ms with 128 MB of memory, which is about 1/14 of a core; the
# rest is for the answer, and for a network that is not at its best.
DEFAULT_DEADLINE_MARGIN = 0.5
RDS_ROOTS = Path(__file__).parent / "rds_roots"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
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

    host: str
    name: str
    port: int = DEFAULT_PORT
    secret_arn: str | None = None
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    ca_file: str | None = None
    deadline_margin: float = DEFAULT_DEADLINE_MARGIN
    tag_statements: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"{name} is missing"
            for name, value in (("DATABASE_HOST", self.host), ("DATABASE_NAME", self.name))
            if not value
        ]
        if self.secret_arn and (self.user or self.password):
            problems.append(
                "DATABASE_SECRET_ARN stands beside DATABASE_USER or DATABASE_PASSWORD: give one"
            )
        elif not self.secret_arn and not (self.user and self.password):
            problems.append("DATABASE_SECRET_ARN, or DATABASE_USER and DATABASE_PASSWORD, missing")
        if not 0 < self.port < 65536:
            problems.append(f"DATABASE_PORT must be 1 to 65535, and is {self.port}")
        if not 0 < self.deadline_margin < LONGEST_INVOCATION:
            problems.append(
                f"DATABASE_DEADLINE_MARGIN must be above 0 and below {LONGEST_INVOCATION} seconds, "
                f"and is {self.deadline_margin}"
            )
        if self.ca_file and not Path(self.ca_file).is_file():
            problems.append(f"DATABASE_CA_FILE names {self.ca_file!r}, which is no file")
        _refuse(problems)

    @property
    def through_proxy(self) -> bool:
        """Whether the host is an RDS Proxy endpoint, told by its name (`….proxy-….rds.…`)."""
        return _is_proxy(self.host)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`; an empty variable counts as missing.

        Raises:
            SettingsError: Naming every missing or wrong variable at once.
        """
        given = {name: value for name, value in environ.items() if value}
        problems: list[str] = []
        host = given.get("DATABASE_HOST", "")
        ca_file = given.get("DATABASE_CA_FILE")
        if ca_file is None and not _is_proxy(host):
            ca_file = _regional_roots(given.get("AWS_REGION"), problems)
        port = int(_number(given, "DATABASE_PORT", DEFAULT_PORT, problems, of=int))
        margin = _number(given, "DATABASE_DEADLINE_MARGIN", DEFAULT_DEADLINE_MARGIN, problems)
        try:
            settings = cls(
                host=host,
                port=port,
                name=given.get("DATABASE_NAME", ""),
                secret_arn=given.get("DATABASE_SECRET_ARN"),
                user=given.get("DATABASE_USER"),
                password=given.get("DATABASE_PASSWORD"),
                ca_file=ca_file,
                deadline_margin=margin,
                tag_statements=given.get("DATABASE_TAG_STATEMENTS", "").lower() in ("1", "true"),
            )
        except SettingsError as error:
            problems.append(str(error))
        _refuse(problems)
        return settings


def _is_proxy(host: str) -> bool:
    return ".proxy-" in host


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SettingsError("; ".join(problems))


def _number(
    given: Mapping[str, str],
    name: str,
    default: float,
    problems: list[str],
    of: type[float] = float,
) -> float:
    try:
        return of(given.get(name, default))
    except ValueError:
        kind = "a whole number" if of is int else "a number"
        problems.append(f"{name} must be {kind}, and is {given[name]!r}")
        return default


def _regional_roots(region: str | None, problems: list[str]) -> str | None:
    """The RDS roots of `region` that are shipped with the layer (see rds_roots/README.md)."""
    if region is None:
        problems.append("DATABASE_CA_FILE is missing, and AWS_REGION too, which would stand in")
        return None
    roots = RDS_ROOTS / f"{region}.pem"
    if not roots.is_file():
        problems.append(
            f"no RDS roots of region {region!r} are shipped: put https://truststore.pki.rds."
            f"amazonaws.com/{region}/{region}-bundle.pem beside your code and name it in "
            "DATABASE_CA_FILE"
        )
        return None
    return str(roots)
