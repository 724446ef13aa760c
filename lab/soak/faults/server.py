"""What befalls the database server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pymysql

from lab.soak.faults.kinds import fault
from lab.soak.visitors import Visitor

if TYPE_CHECKING:
    from lab.soak.stage import Stage


IS_GONE = "test_a_server_that_restarts_half_way_is_the_handlers_error_and_leaves_nothing"
FULL = "test_a_full_database_is_waited_for"


async def _execute(stage: Stage, statement: str, *arguments: object) -> list[dict[str, object]]:
    return await asyncio.to_thread(stage.database.execute, statement, *arguments)


async def _kill_sessions(stage: Stage, what: str) -> None:
    for session in await asyncio.to_thread(stage.database.sessions):
        with contextlib.suppress(pymysql.err.OperationalError):  # 1094: gone already
            await _execute(stage, f"KILL {what} %s", session.id)


@fault(
    "sessions killed",
    (0.3, 1.5),
    shown_by="test_a_session_killed_half_way_is_the_handlers_error_and_leaves_nothing",
    alone=True,
)
async def sessions_killed(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """An operator ends every session, again and again."""
    killing = asyncio.create_task(_again_and_again(stage, "CONNECTION"))
    yield
    killing.cancel()
    await asyncio.gather(killing, return_exceptions=True)


@fault("queries killed", (0.3, 1.5), alone=True)
async def queries_killed(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """An operator ends every statement at work, again and again."""
    killing = asyncio.create_task(_again_and_again(stage, "QUERY"))
    yield
    killing.cancel()
    await asyncio.gather(killing, return_exceptions=True)


async def _again_and_again(stage: Stage, what: str) -> None:
    while True:
        await _kill_sessions(stage, what)
        await asyncio.sleep(0.05)


@fault("server restarted", shown_by=IS_GONE, takes=3.0, alone=True)
async def restarted(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The server shuts down in order and starts again."""
    await asyncio.to_thread(stage.database.restart)
    yield


@fault("server crashed", shown_by=IS_GONE, takes=3.0, alone=True)
async def crashed(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The server dies by SIGKILL and starts again, with its recovery."""
    await asyncio.to_thread(stage.database.kill)
    await asyncio.to_thread(stage.database.restart)
    yield


@fault("server stopped", (1.0, 5.0), shown_by=IS_GONE, takes=2.0, alone=True)
async def stopped(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The server is not running; its port refuses."""
    await asyncio.to_thread(stage.database.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.database.restart)


@fault("server frozen", (0.5, 4.0), alone=True)
async def frozen(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The server's process stands still, its sockets open, and then goes on."""
    os.kill(stage.database.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stage.database.pid, signal.SIGCONT)


@fault("server full", (1.0, 4.0), shown_by=FULL, alone=True)
async def full(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """Somebody else takes every connection there is, each as soon as it is free."""
    async with Visitor(stage.database) as visitor:
        await visitor.take_all()
        yield


@fault("user's limit lowered", (1.0, 4.0), shown_by=FULL, alone=True)
async def limit_lowered(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The application's user may hold one connection."""
    user = stage.database.application_environ()["DATABASE_USER"]
    [row] = await _execute(
        stage, "SELECT max_user_connections AS most FROM mysql.user WHERE User = %s", user
    )
    alter = f"ALTER USER '{user}'@'%%' WITH MAX_USER_CONNECTIONS %s"
    await _execute(stage, alter, 1)
    try:
        yield
    finally:
        await _execute(stage, alter, row["most"])


@fault("server read-only", (0.5, 3.0), alone=True)
async def read_only(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The server takes no writes, as in a failover."""
    await _execute(stage, "SET GLOBAL read_only = ON")
    try:
        yield
    finally:
        await _execute(stage, "SET GLOBAL read_only = OFF")


@fault(
    "rows locked",
    (1.0, 5.0),
    shown_by="test_what_runs_too_long_is_cut_in_time_to_answer_and_rolled_back",
    alone=True,
)
async def rows_locked(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """Somebody else's transaction holds some products."""
    async with Visitor(stage.database) as visitor:
        await visitor.lock(chance.sample(range(1, 21), 5))
        yield
