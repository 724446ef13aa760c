"""Ends what does not listen: sessions in the middle of something, killed from beside them."""

import time
from typing import Any, Protocol

from pymysql.err import OperationalError

from ._clock import clock
from ._server_errors import NO_SUCH_SESSION


class Killer(Protocol):
    """A connection for the purpose."""

    @property
    def local_end(self) -> str:
        """Where it comes from, as the server should have it."""

    def cursor(self) -> Any:
        """A cursor."""

    def thread_id(self) -> int:
        """Its own number."""

    def kill(self, thread_id: int) -> None:
        """End the session of that number."""


class UntellableError(Exception):
    """Which sessions are ours cannot be told from the server's list; never leaves the layer."""


def kill_marked(killer: Killer, mark: str, hint: int, until: float) -> bool:
    """End the session that holds the lock named `mark`, and wait until it is gone.

    The lock is taken in the session's set-up, through TLS: whoever holds it is the session that we
    opened, whatever a greeting said, and whatever server has the number by now.

    Args:
        killer: Connected as the same user.
        mark: The lock's name.
        hint: The session's number as its greeting had it; only to know whether nobody has it.
        until: The clock's time by which to be done.

    Returns:
        Whether the server's session list no longer has it.
    """
    with killer.cursor() as cursor:
        cursor.execute("SELECT IS_USED_LOCK(%s)", (mark,))
        (session,) = cursor.fetchone()
        if session is None:  # it has gone by itself, or its set-up never arrived
            return hint not in _sessions(cursor)
        return _kill(killer, cursor, {int(session)}, until)


def kill_ends(killer: Killer, ends: frozenset[str], until: float) -> bool:
    """End the sessions that come from these addresses and ports of ours, and wait for it.

    Raises:
        UntellableError: Lambda's network translates addresses: where the server does not see us as
            we see ourselves, an address of ours may be that of somebody else's session.
    """
    with killer.cursor() as cursor:
        sessions = _sessions(cursor)
        if sessions.get(killer.thread_id()) != killer.local_end:
            raise UntellableError("the server sees our connections under other addresses")
        return _kill(killer, cursor, {id_ for id_, end in sessions.items() if end in ends}, until)


def _sessions(cursor: Any) -> dict[int, str]:
    """The user's own sessions by number, with where each comes from."""
    cursor.execute("SHOW PROCESSLIST")
    return {row[0]: row[2] for row in cursor.fetchall()}


def _kill(killer: Killer, cursor: Any, wanted: set[int], until: float) -> bool:
    for session in wanted:
        try:
            killer.kill(session)
        except OperationalError as error:
            if error.args[0] != NO_SUCH_SESSION:  # else it went by itself
                raise
    pause = 0.001
    while wanted & _sessions(cursor).keys():
        left = until - clock.now()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)
    return True
