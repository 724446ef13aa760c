"""Where and as whom to connect."""

from .._early import EarlyRequest
from .._tls import ResumingContext


class Target:
    """Where and as whom to connect; `password` never shows."""

    __slots__ = ("addresses", "early", "host", "name", "password", "port", "tls", "user")

    def __init__(
        self,
        *,
        host: str,
        port: int,
        addresses: tuple[str, ...],
        name: str,
        user: str,
        password: str,
        tls: ResumingContext,
        early: EarlyRequest | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.addresses = addresses
        self.name = name
        self.user = user
        self.password = password
        self.tls = tls
        self.early = early

    def __repr__(self) -> str:
        return f"Target({self.user!r} at {self.host}:{self.port}, {self.name!r})"
