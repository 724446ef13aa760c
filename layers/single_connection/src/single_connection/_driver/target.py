"""Where and as whom to connect."""

import dataclasses

from .._early import EarlyRequest
from .._tls import ResumingContext


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to connect; `password` never shows."""

    host: str
    port: int
    addresses: tuple[str, ...]
    name: str
    user: str
    password: str = dataclasses.field(repr=False)
    tls: ResumingContext = dataclasses.field(repr=False)
    early: EarlyRequest | None = dataclasses.field(default=None, repr=False)
