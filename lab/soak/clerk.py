"""Who makes the report and counts the connections, as the schedules do, only more often."""

import asyncio
from collections.abc import Callable

from lab.soak.ledger import Ledger
from lab.soak.stage import Stage
from local.events import read_event

JOBS = {"sales_report": ("nightly", 4.0), "connection_census": ("each_minute", 3.0)}
LAST_REPORT_WITHIN = 30.0  # seconds after all else is quiet


class Clerk:
    """Runs each job at its beat; the last report after everything else must succeed."""

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        self._stage = stage
        self._ledger = ledger

    async def run(self, seconds: float) -> None:
        """Until then."""
        await asyncio.gather(
            *(self._repeat(name, lambda: self._stage.now < seconds) for name in JOBS)
        )

    async def _repeat(self, name: str, goes_on: Callable[[], bool]) -> None:
        event_name, every = JOBS[name]
        event = read_event(event_name, name)
        while goes_on():
            await self._stage.invoke(name, event, name)
            await asyncio.sleep(every)

    async def last_report(self) -> None:
        """Bring the report up to date, when no order comes any more."""
        event = read_event("nightly", "sales_report")
        until = self._stage.now + LAST_REPORT_WITHIN
        while self._stage.now < until:
            answer = await self._stage.invoke("sales_report", event, "sales_report")
            if answer is not None and answer.status == "ok":
                return
            await asyncio.sleep(0.2)
        self._ledger.complaints.append(f"no report in {LAST_REPORT_WITHIN:.0f} quiet seconds")
