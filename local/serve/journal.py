"""What happened, for the terminal and for the page: one line per request."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from local.logs import readable
from local.serve.stack import Outcome

KEPT_ENTRIES = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, as client and server saw it. Times in milliseconds; `at` is Unix time."""

    number: int
    at: float
    function: str
    trigger: str
    what: str
    status: str
    good: bool
    ms: float
    init_ms: float | None
    opened: int | None
    destroyed: int | None
    among: int  # how many overlapped, itself included: then the counts are those of all of them
    answer: str
    log: str


@dataclass(slots=True)
class Journal:
    """Keeps the latest entries and tells them, and sentences, to all who listen."""

    console: Console
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=KEPT_ENTRIES))
    _number: int = 0
    _listeners: set[asyncio.Queue[tuple[str, Any] | None]] = field(default_factory=set)

    def tell(self, sentence: str) -> None:
        """A sentence that belongs to no request."""
        self.console.print(f"[cyan]{escape(sentence)}[/]", highlight=False, soft_wrap=True)
        self._send("sentence", {"at": time.time(), "text": sentence})

    def send_state(self, state: dict[str, Any]) -> None:
        """The state of things, for the page alone."""
        self._send("state", state)

    def record(
        self, function: str, trigger: str, what: str, status: str, *, good: bool, outcome: Outcome
    ) -> Entry:
        """One request that has been answered."""
        answer, counted = outcome.answer, outcome.counted
        self._number += 1
        init = answer.init_duration if answer else None
        entry = Entry(
            number=self._number,
            at=time.time(),
            function=function,
            trigger=trigger,
            what=what,
            status=status,
            good=good,
            ms=round(outcome.seconds * 1000, 1),
            init_ms=None if init is None else round(init * 1000),
            opened=counted.opened,
            destroyed=counted.destroyed,
            among=counted.invocations,
            answer=answer.payload.decode(errors="replace") if answer else "",
            log=readable(answer.log) if answer else "",
        )
        self.entries.append(entry)
        self._print(entry)
        self._send("request", asdict(entry))
        if counted.over and counted.invocations > 1 and counted.opened is not None:
            self.tell(
                f"{counted.invocations} at once: {counted.opened} connections opened, "
                f"{counted.destroyed} destroyed"
            )
        return entry

    async def listen(self) -> AsyncIterator[str]:
        """Server-sent events: what is told from now on, after the entries so far."""
        queue: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            for entry in list(self.entries):
                yield _event("request", asdict(entry))
            while told := await queue.get():
                yield _event(*told)
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """Nothing more will be told: let those who listen go."""
        for queue in self._listeners:
            queue.put_nowait(None)

    def _send(self, kind: str, data: Any) -> None:
        for queue in self._listeners:
            queue.put_nowait((kind, data))

    def _print(self, entry: Entry) -> None:
        colour = "green" if entry.good else "red"
        line = (
            f"[dim]{datetime.now():%H:%M:%S}[/]  [{colour}]{escape(entry.status):>3}[/]  "  # noqa: DTZ005
            f"{escape(entry.what)}  [dim]{entry.function}[/]  {entry.ms:.1f} ms  {counts(entry)}"
        )
        if entry.init_ms is not None:
            line += f"  [dim]cold start {entry.init_ms} ms[/]"
        self.console.print(line, highlight=False, soft_wrap=True)
        if not entry.good and entry.log.strip():
            self.console.print(f"[dim]{escape(entry.log.rstrip())}[/]", soft_wrap=True)


def counts(entry: Entry) -> str:
    """The server's counts in words."""
    if entry.among > 1:
        return f"[dim]one of {entry.among} at once[/]"
    if entry.opened is None or entry.destroyed is None:
        return "[red]the database does not answer[/]"
    said = f"{entry.opened} opened, {entry.destroyed} destroyed"
    return said if entry.destroyed == entry.opened <= 1 else f"[bold red]{said}[/]"


def _event(kind: str, data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
