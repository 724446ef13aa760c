"""One soak from the first order to the audit."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.soak.books import Opening, audit, open_shop
from lab.soak.clerk import Clerk
from lab.soak.customers import Customer
from lab.soak.faults import KINDS, Fault
from lab.soak.ledger import Ledger
from lab.soak.stage import Stage, Struck
from lab.soak.supplier import Supplier
from lab.soak.watch import Watch, left_in_environments
from local.database import LocalDatabase
from local.events import read_event


@dataclass(slots=True)
class Played:
    """A soak that is over: who was on stage, what they know, what the server showed."""

    stage: Stage
    ledger: Ledger
    watch: Watch
    opening: Opening
    violations: list[str]


async def play(
    database: LocalDatabase,
    faults: Sequence[Fault],
    *,
    seed: int,
    seconds: float,
    customers: int = 6,
    tell: Callable[[Stage, str], None] = lambda _stage, _doing: None,
) -> Played:
    """Run the shop for so long under these faults, let it come to rest, and audit.

    Args:
        database: running and empty.
        faults: when what strikes.
        seed: decides what is ordered and delivered.
        seconds: of orders; seeing the last of them through comes on top.
        customers: who order at once.
        tell: hears now and then what is going on.
    """
    async with Stage(database) as stage:
        opening = await asyncio.to_thread(open_shop, database)
        await stage.warm("orders_api", customers, read_event("products", "orders_api"))
        ledger, watch = Ledger(), Watch(stage)
        clerk = Clerk(stage, ledger)
        watching = asyncio.create_task(watch.run())
        telling = asyncio.create_task(_tell(stage, tell))
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(strike(stage, fault))
            for number in range(customers):
                group.create_task(Customer(number, seed, stage, ledger).run(seconds))
            group.create_task(Supplier(seed, stage, ledger).run(seconds))
            group.create_task(clerk.run(seconds))
        telling.cancel()
        tell(stage, "the books are audited")
        await clerk.last_report()
        await stage.settle()
        left = left_in_environments(stage) + await watch.none_is_left()
        watching.cancel()
        await asyncio.gather(watching, telling, return_exceptions=True)
        books = await asyncio.to_thread(audit, database, ledger, opening)
        violations = [*stage.violations, *ledger.complaints, *left, *books]
        return Played(stage, ledger, watch, opening, violations)


async def strike(stage: Stage, fault: Fault) -> None:
    """At its time, and for as long as it lasts."""
    kind = KINDS[fault.kind]
    await asyncio.sleep(max(0.0, fault.at - stage.now))
    if kind.alone:
        async with stage.one_at_a_time:
            await _strike(stage, fault)
    else:
        await _strike(stage, fault)


async def _strike(stage: Stage, fault: Fault) -> None:
    struck = Struck(fault, stage.now)
    stage.struck.append(struck)
    try:
        async with KINDS[fault.kind].strike(stage, random.Random(fault.seed)):
            await asyncio.sleep(fault.lasts)
    finally:
        struck.ended = stage.now


async def _tell(stage: Stage, tell: Callable[[Stage, str], None]) -> None:
    while True:
        at_work = [one.fault.kind for one in stage.struck if one.ended > stage.now]
        tell(stage, ", ".join(at_work) or "no fault")
        await asyncio.sleep(0.25)
