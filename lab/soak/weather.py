"""How the network is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

CommitFate = Literal[
    "never sent, reset", "half sent, reset", "done, reset", "never sent, silence", "done, silence",
    "late",
]  # fmt: skip


@dataclass
class Weather:
    """How the network is; each attribute is one thing that may be wrong with it."""

    pause: float = 0.0  # seconds that each chunk takes more
    trickle: int = 0  # bytes at a time, each with a pause; 0 for all at once
    refuse: bool = False  # nobody listens
    break_after: Callable[[], int] | None = None  # bytes after which a new connection is reset
    commit: CommitFate | None = None
    flows: asyncio.Event = field(default_factory=asyncio.Event)  # clear: silence, nothing is lost

    def __post_init__(self) -> None:
        self.flows.set()
