"""What befalls execution environments."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from lab.soak.faults.kinds import fault

if TYPE_CHECKING:
    from lab.soak.proxy import Door
    from lab.soak.stage import Stage
    from local.environment import Environment


async def _at_work(stage: Stage, chance: random.Random) -> list[tuple[Environment, Door]]:
    """One to three environments that hold a connection now, or work at least."""
    for _ in range(200):
        if busy := [pair for pair in stage.busy() if pair[0].pid and pair[1].links]:
            return chance.sample(busy, min(len(busy), chance.randint(1, 3)))
        await asyncio.sleep(0.005)
    return stage.busy()[:1]


@fault(
    "environment killed",
    shown_by="test_the_environment_killed_half_way_is_noticed_by_the_server_as_its_socket_closes",
)
async def killed(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """SIGKILL to up to three environments that hold a connection, as when memory runs out."""
    for environment, _ in await _at_work(stage, chance):
        stage.signal(environment, signal.SIGKILL)
    yield


@fault(
    "environment frozen",
    (1.0, 8.0),
    shown_by="test_a_handler_stuck_in_its_own_code_loses_the_connection_all_the_same",
)
async def frozen(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """Up to three environments stop in the middle of their work, some beyond Lambda's deadline."""
    struck = [(one, one.pid) for one, _ in await _at_work(stage, chance)]
    for environment, _ in struck:
        stage.signal(environment, signal.SIGSTOP)
    try:
        yield
    finally:
        for environment, pid in struck:
            if environment.busy and environment.pid == pid:
                stage.signal(environment, signal.SIGCONT)


@fault(
    "environment cut off",
    (1.0, 4.0),
    shown_by="test_an_environment_that_died_without_a_word_is_gone_within_the_lease_and_a_second",
)
async def cut_off(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """No packet passes between up to three environments and the server, for good."""
    doors = [door for _, door in await _at_work(stage, chance)]
    for door in doors:
        door.cut()
    try:
        yield
    finally:
        for door in doors:
            door.mend()
