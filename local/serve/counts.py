"""Connections as the server counts them: around each invocation, and from look to look."""

import asyncio
import time
from dataclasses import dataclass, field

import pymysql

from local.database import LocalDatabase

# docs/ways-out.md: an ended session stays on the server's list for a moment.
LIST_SECONDS = 0.1
_NAMES = (
    "Connections",
    "Connection_errors_max_connections",
    "Threads_connected",
    "Max_used_connections",
)


@dataclass(frozen=True, slots=True)
class Count:
    """What the server counted: all it ever opened, those there are now, and most at once."""

    opened: int
    now: int
    peak: int


@dataclass(slots=True)
class Spell:
    """A time in which invocations overlap, or one alone: what the server counted from end to end.

    The server does not say whose a connection was. So where invocations overlap, the figures are
    those of all of them together, known when the last has answered. None where the server did not
    answer, or was started anew.
    """

    invocations: int = 0
    opened: int | None = None
    destroyed: int | None = None
    _under_way: int = 0
    _before: Count | None = None
    _looked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether the last of its invocations has answered."""
        return not self._under_way


class Counter:
    """Asks the server; in a thread, as the answer may take its time."""

    def __init__(self, database: LocalDatabase) -> None:
        self._database = database
        self._spell = Spell()

    async def look(self, *, forget_peak: bool = False) -> Count | None:
        """The counts now, or None where the server does not answer."""
        return await asyncio.to_thread(self._look, forget_peak)

    async def begin(self) -> Spell:
        """To be called before an invocation."""
        if self._spell.over:
            self._spell = Spell()
        spell = self._spell
        spell.invocations += 1
        spell._under_way += 1
        if spell.invocations == 1:
            spell._before = await self.look()
            spell._looked.set()
        await spell._looked.wait()
        return spell

    async def end(self, spell: Spell) -> None:
        """To be called when it has answered."""
        deadline = time.monotonic() + LIST_SECONDS
        try:
            while spell._under_way == 1:  # the last
                after, before = await self.look(), spell._before
                if after is None or before is None or after.opened < before.opened:
                    return
                spell.opened = after.opened - before.opened
                spell.destroyed = spell.opened - (after.now - before.now)
                if spell.destroyed >= spell.opened or time.monotonic() > deadline:
                    return
                await asyncio.sleep(0.005)
        finally:
            spell._under_way -= 1

    def _look(self, forget_peak: bool) -> Count | None:
        names = ", ".join(f"'{name}'" for name in _NAMES)
        try:
            rows = self._database.execute(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names})")
            if forget_peak:
                self._database.execute("FLUSH STATUS")
        except (pymysql.err.MySQLError, OSError):
            return None
        values = {row["Variable_name"]: int(row["Value"]) for row in rows}
        return Count(
            opened=values["Connections"] - values["Connection_errors_max_connections"],
            now=values["Threads_connected"] - self._database.observer.counted,
            peak=values["Max_used_connections"] - 1,  # here MariaDB counts the observer, too
        )
