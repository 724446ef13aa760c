"""What befalls the network between functions and server, for all of them at once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from lab.soak.faults.kinds import fault

if TYPE_CHECKING:
    from lab.soak.stage import Stage
    from lab.soak.weather import CommitFate


UNKNOWN = "test_a_connection_lost_during_commit_is_an_unknown_outcome_and_never_replayed"


@fault(
    "network slow",
    (1.0, 5.0),
    shown_by="test_the_handler_answers_before_lambda_kills_its_environment",
)
async def slow(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """A round trip takes 40 to 240 ms more."""
    stage.network.weather.pause = chance.uniform(0.02, 0.12)
    try:
        yield
    finally:
        stage.network.weather.pause = 0.0


@fault("network trickling", (1.0, 4.0))
async def trickling(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """Bytes come in drops, 20 ms from one to the next."""
    stage.network.weather.trickle = chance.choice((40, 100, 400))
    try:
        yield
    finally:
        stage.network.weather.trickle = 0


@fault(
    "connections reset", shown_by="test_inside_a_block_that_lost_its_connection_no_new_one_is_given"
)
async def reset(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """Every connection is reset at the same moment."""
    for link in stage.network.links:
        link.reset()
    yield


@fault("connections break", (1.0, 3.0))
async def breaking(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """Each new connection is reset after some bytes: in its handshake, or later."""
    stage.network.weather.break_after = lambda: chance.randint(0, 12_000)
    try:
        yield
    finally:
        stage.network.weather.break_after = None


@fault(
    "network silent",
    (0.5, 4.0),
    shown_by="test_a_network_that_fell_silent_does_not_keep_the_answer",
)
async def silent(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """Nothing arrives; all of it comes later, as TCP sends again."""
    stage.network.weather.flows.clear()
    try:
        yield
    finally:
        stage.network.weather.flows.set()


@fault("port refused", (0.5, 3.0), shown_by="test_a_full_database_is_waited_for")
async def refused(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """New connections are reset at once, as while a security group or an address changes."""
    stage.network.weather.refuse = True
    try:
        yield
    finally:
        stage.network.weather.refuse = False


def _at_commit(fate: CommitFate, says: str) -> None:
    async def strike(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
        stage.network.weather.commit = fate
        try:
            yield
        finally:
            stage.network.weather.commit = None

    strike.__doc__ = says
    fault(f"COMMIT {fate}", (0.5, 2.5), shown_by=UNKNOWN)(strike)


_at_commit("never sent, reset", "Each COMMIT is lost and its connection reset.")
_at_commit("half sent, reset", "Half of each COMMIT arrives, then the connection is reset.")
_at_commit("done, reset", "Each COMMIT is done, its answer lost, the connection reset.")
_at_commit("never sent, silence", "Each COMMIT is lost, and nothing passes after it.")
_at_commit("done, silence", "Each COMMIT is done, its answer lost, and nothing passes after it.")
_at_commit("late", "Each COMMIT takes a second more.")
