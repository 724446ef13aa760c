"""Ends what does not listen: sessions in the middle of something, killed from beside them."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from ._driver import NO_SUCH_THREAD, Connection, OperationalError


class UntellableError(Exception):
    """Which sessions are ours cannot be told from the server's list; never leaves the layer."""


def kill(
    open_killer: Callable[[], Connection],
    until: float,
    *,
    thread_id: int | None = None,
    age: float = 0.0,
    ends: frozenset[str] = frozenset(),
) -> bool:
    """End sessions of our own user from beside them, and wait until they are gone.

    Args:
        open_killer: Opens a connection for the purpose; closed again before this returns.
        until: The monotonic clock's time by which to be done.
        thread_id: The session's number.
        age: Seconds since the session began; a server that has been up for less has forgotten it,
            and may have given its number to somebody else.
        ends: Or the sessions that come from these local ends of ours ("address:port").

    Returns:
        Whether the server's session list no longer has them.
    """
    with contextlib.closing(open_killer()) as killer, killer.cursor() as cursor:

        def rows(statement: str) -> dict[Any, str]:
            cursor.execute(statement)
            return {row[0]: row[2] if len(row) > 2 else row[1] for row in cursor.fetchall()}

        if thread_id and int(rows("SHOW GLOBAL STATUS LIKE 'Uptime'")["Uptime"]) + 1 < age:
            return True

        def alive() -> list[int]:
            sessions = rows("SHOW PROCESSLIST")
            # Lambda's network translates addresses: where the server does not see us as we see
            # ourselves, an end of ours may be that of somebody else's session.
            if ends and sessions.get(killer.thread_id()) != killer.end:
                raise UntellableError("the server sees our connections under other addresses")
            return [id_ for id_, end in sessions.items() if id_ == thread_id or end in ends]

        pause = 0.001
        killed: set[int] = set()
        while sessions := alive():
            if time.monotonic() > until:
                return False
            for session in sessions:
                if session not in killed:
                    killed.add(session)
                    _kill_one(killer, session)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True


def _kill_one(killer: Connection, session: int) -> None:
    try:
        killer.kill(session)
    except OperationalError as error:
        if error.args[0] != NO_SUCH_THREAD:  # else it went by itself
            raise
