"""Who is killed is ours, is in the server's list no longer, or is said to be there still."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from single_connection._clock import clock
from single_connection._kill import kill_ends, kill_marked
from single_connection.testing import unguarded

from layers.single_connection.tests.conftest import World
from layers.single_connection.tests.test_guard import where

MARK = "mark-of-a-session"
# One row, between whose columns the server does not look whether it was killed.
DEAF = "SELECT " + ", ".join(["SHA2(REPEAT('x', 15000000), 512)"] * 20)


class Application(pymysql.connections.Connection):
    """A session of the application's user, beside the layer."""

    @property
    def local_end(self) -> str:
        """As the layer's own connection has it."""
        host, port = self._sock.getsockname()  # type: ignore[attr-defined] # the stubs lack it
        return f"{host}:{port}"


@pytest.fixture
def connect(world: World) -> Iterator[Callable[..., Application]]:
    opened: list[Application] = []

    def connect(kind: type[Application] = Application) -> Application:
        opened.append(kind(**where(world), ssl_ca=str(world.server.ca_file)))
        return opened[-1]

    with unguarded():
        yield connect
    for one in opened:
        one._force_close()  # type: ignore[attr-defined] # the stubs lack it


def mark(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (MARK,))


def run(connection: Application, statement: str) -> threading.Thread:
    """The statement, in a thread; that its session is killed under it is no error."""

    def ask() -> None:
        with pytest.raises(pymysql.err.OperationalError):
            connection.query(statement)
            connection.ping(reconnect=False)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["by its mark", "by its end"])
@pytest.mark.parametrize("statement", ["SELECT SLEEP(20)", DEAF], ids=["sleeping", "deaf"])
def test_a_session_in_mid_statement_is_killed_and_waited_for(
    world: World, connect: Callable[..., Application], statement: str, how: str
) -> None:
    killer, doomed = connect(), connect()
    mark(doomed)
    number, end = doomed.thread_id(), doomed.local_end
    thread = run(doomed, statement)
    world.wait_for(lambda: world.busy(statement[:10]))
    until = clock.now() + 10
    if how == "by its mark":
        assert kill_marked(killer, MARK, number, until)
    else:
        assert kill_ends(killer, frozenset({end}), until)
    assert [one.id for one in world.sessions()] == [killer.thread_id()]
    thread.join()


def test_a_killer_whose_time_is_over_says_that_the_session_is_there_still(
    world: World, connect: Callable[..., Application]
) -> None:
    killer, doomed = connect(), connect()
    mark(doomed)
    thread = run(doomed, DEAF)
    world.wait_for(lambda: world.busy(DEAF[:10]))
    assert not kill_marked(killer, MARK, doomed.thread_id(), clock.now())
    thread.join()
    world.wait_for(lambda: len(world.sessions()) == 1)


class Late(Application):
    """Whoever it wants to kill has gone a moment before."""

    def kill(self, thread_id: int) -> None:
        super().kill(thread_id)
        while any(row[0] == thread_id for row in self.listed()):
            pass
        super().kill(thread_id)

    def listed(self) -> Any:
        with self.cursor() as cursor:
            cursor.execute("SHOW PROCESSLIST")
            return cursor.fetchall()


def test_a_session_that_went_by_itself_before_the_kill_is_gone_and_no_error(
    world: World, connect: Callable[..., Application]
) -> None:
    killer, doomed = connect(Late), connect()
    mark(doomed)
    assert kill_marked(killer, MARK, doomed.thread_id(), clock.now() + 5)
    assert [one.id for one in world.sessions()] == [killer.thread_id()]


def test_a_kill_that_the_server_refuses_is_an_error_and_not_an_end(
    world: World, connect: Callable[..., Application]
) -> None:
    """The lock's name in another user's hands: killing that one is not ours to do."""
    killer, theirs = connect(), world.outsider()
    mark(theirs)
    with pytest.raises(pymysql.err.MySQLError, match="not owner"):
        kill_marked(killer, MARK, 0, clock.now() + 5)
    theirs.ping(reconnect=False)


def test_where_nobody_has_the_mark_the_number_tells_whether_the_session_is_gone(
    world: World, connect: Callable[..., Application]
) -> None:
    killer, other = connect(), connect()
    assert not kill_marked(killer, MARK, other.thread_id(), clock.now() + 5), "it may be that one"
    other.ping(reconnect=False)
    assert kill_marked(killer, MARK, 0, clock.now() + 5)
