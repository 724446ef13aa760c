"""What a fault is, and the register of all kinds.

A fault is an asynchronous generator that strikes, yields for as long as it lasts, and mends. What
its docstring says is what the page says of it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.soak.fault import Fault

__all__ = ["KINDS", "Fault", "Kind", "Strike"]

if TYPE_CHECKING:
    from lab.soak.stage import Stage

Strike = Callable[["Stage", random.Random], AsyncIterator[None]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of fault.

    Args:
        name: what reports call it.
        lasts: the shortest and the longest it may last, in seconds.
        strike: makes it so; used as a context manager.
        says: what it is, in a sentence.
        shown_by: the test that shows one of it by itself; empty where only the soak does.
        takes: seconds it takes to strike and mend, about, beyond what it lasts.
        alone: whether another such fault must be over first, which would undo its mending.
    """

    name: str
    lasts: tuple[float, float]
    strike: Callable[[Stage, random.Random], AbstractAsyncContextManager[None]]
    says: str
    shown_by: str
    takes: float
    alone: bool

    @property
    def family(self) -> str:
        """What it befalls: the module it is written in."""
        return self.strike.__module__.rpartition(".")[2]


KINDS: dict[str, Kind] = {}


def fault(
    name: str,
    lasts: tuple[float, float] = (0.0, 0.0),
    *,
    shown_by: str = "",
    takes: float = 0.0,
    alone: bool = False,
) -> Callable[[Strike], Strike]:
    """Enter a generator in the register; without `lasts` it is over when it has struck."""

    def enter(strike: Strike) -> Strike:
        if name in KINDS:
            raise ValueError(f"two faults are called {name!r}: name one of them anew")
        says = " ".join((strike.__doc__ or "").split())
        KINDS[name] = Kind(name, lasts, asynccontextmanager(strike), says, shown_by, takes, alone)
        return strike

    return enter
