"""Whatever the handler does, the server has let go when the response leaves.

Each way out is taken in a real execution environment, and judged by the server's session list.
docs/ways-out.md is the table of these tests.
"""

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layers.single_connection.tests.conftest import Function, World, body, function
from local.database import LocalDatabase
from local.environment import Answer


@pytest.fixture(scope="module")
def warm(server: LocalDatabase) -> Iterator[Function]:
    """One execution environment, kept warm over all tests of a server."""
    environ = server.application_environ() | {"POWERTOOLS_METRICS_NAMESPACE": "test"}
    with function("ways_out", environ, timeout=10.0) as warm:
        yield warm


@pytest.fixture
def tables(world: World) -> World:
    world.stock(open=0, other=0)
    world.server.execute("CREATE TABLE seq (n INT PRIMARY KEY)")
    world.server.execute("INSERT INTO seq VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")
    world.server.execute("CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, filler TEXT)")
    return world


# Seconds. The layer waits until the server has closed its side; right after that, the server's
# thread takes itself off the session list, and on a busy machine we may look in between.
BETWEEN_CLOSE_AND_LIST = 0.1


def gone(world: World) -> bool:
    """The answer is there, so the session must not be."""
    until = time.monotonic() + BETWEEN_CLOSE_AND_LIST
    while world.sessions():
        if time.monotonic() > until:
            return False
    return True


RETURNING = [
    "nothing",
    "return",
    "half_read_cursor",
    "half_read_generator",
    "unread_result",
    "locked_table",
    "busy_thread",
    "busy_thread_without_a_first_connection",
    "thread_pool",
    "thread_that_keeps_asking",
    "asyncio_run",
    "asyncio_run_left_behind",
    "fork_that_exits",
    "fork_that_asks",
    "fork_that_uses_the_parents",
    "fork_that_opens_its_own",
    "fork_that_lingers",
    "fork_that_raises_through_the_handler",
    "closed_by_hand",
    "closed_and_opened",
]
RAISING = {
    "raise": "OwnError",
    "open_transaction": "UncommittedWorkError",
    "open_transaction_block": "UncommittedWorkError",
    "exception_in_transaction": "OwnError",
    "broken_clean_up": "OwnError",
    "big_transaction": "OwnError",
    "interrupted_query": "OwnError",
}


@pytest.mark.parametrize("way", RETURNING)
def test_no_session_is_left_when_the_answer_is_there(
    warm: Function, tables: World, way: str
) -> None:
    answer = warm.invoke(way=way)
    assert gone(tables), tables.sessions()
    assert answer.status == "ok", answer.log
    assert tables.things() == {"open": 0, "other": 0}
    assert body(warm.invoke(way="return")) == [[1]]  # and the next invocation starts clean
    assert gone(tables)


@pytest.mark.parametrize(("way", "error"), RAISING.items())
def test_no_session_is_left_when_the_handler_raises_and_its_error_comes_out_unchanged(
    warm: Function, tables: World, way: str, error: str
) -> None:
    answer = warm.invoke(way=way)
    assert gone(tables), tables.sessions()
    assert (answer.status, answer.error_type) == ("error", error)
    assert tables.things() == {"open": 0, "other": 0}
    assert tables.server.execute("SELECT COUNT(*) AS n FROM big") == [{"n": 0}]


def test_the_handlers_own_error_keeps_type_message_and_traceback(
    warm: Function, tables: World
) -> None:
    said = json.loads(warm.invoke(way="raise").payload)
    assert said["errorType"] == "OwnError"
    assert said["errorMessage"] == "the handler's own words"
    assert "ways_out.py" in said["stackTrace"][-1]
    assert "raise OwnError" in said["stackTrace"][-1]


def test_a_clean_up_that_fails_never_hides_the_handlers_own_error(
    warm: Function, tables: World
) -> None:
    answer = warm.invoke(way="broken_clean_up")
    said = json.loads(answer.payload)
    assert (said["errorType"], said["errorMessage"]) == (
        "OwnError",
        "still the handler's own words",
    )
    assert "a clean-up failed" in answer.log
    assert answer.request_id in answer.log


@pytest.mark.parametrize("way", ["leave", "interrupt"])
def test_no_session_is_left_when_the_handler_ends_the_process(
    warm: Function, tables: World, way: str
) -> None:
    answer = warm.invoke(way=way)
    assert answer.status == "exit", answer
    assert gone(tables), tables.sessions()


def test_os_exit_leaves_the_session_to_the_kernel_which_ends_it(
    warm: Function, tables: World
) -> None:
    assert warm.invoke(way="exit_at_once").status == "exit"
    # Nothing of ours runs: the kernel closes the socket, and the server takes a moment to see it.
    tables.wait_for(lambda: not tables.sessions(), 1.0)


@pytest.mark.parametrize("way", ["fork_that_asks", "fork_that_uses_the_parents"])
def test_a_forked_child_gets_no_connection_and_does_not_disturb_its_parents(
    warm: Function, tables: World, way: str
) -> None:
    said = body(warm.invoke(way=way))
    assert said in ("OutsideInvocationError", "InterfaceError")
    assert gone(tables)


def test_a_forked_child_may_not_open_a_connection_of_its_own(warm: Function, tables: World) -> None:
    assert body(warm.invoke(way="fork_that_opens_its_own")) in (
        "SecondConnectionError",
        "OutsideInvocationError",
    )


def test_a_session_killed_half_way_is_the_handlers_error_and_leaves_nothing(
    warm: Function, tables: World
) -> None:
    with warm.invoked(way="killed") as answered:
        session = tables.wait_for(lambda: tables.busy("SLEEP"))
        tables.server.execute("KILL CONNECTION %s", session.id)
        answer = answered()
    assert gone(tables), tables.sessions()
    assert (answer.status, answer.error_type) == ("error", "OperationalError")


def test_a_handler_that_lost_its_session_may_go_on_with_a_new_one(
    warm: Function, tables: World
) -> None:
    with warm.invoked(way="lost_and_found") as answered:
        session = tables.wait_for(lambda: tables.busy("SLEEP"))
        tables.server.execute("KILL CONNECTION %s", session.id)
        answer = answered()
    assert gone(tables), tables.sessions()
    assert body(answer) == [["again"]]


def test_a_server_that_restarts_half_way_is_the_handlers_error_and_leaves_nothing(
    warm: Function, tables: World
) -> None:
    with warm.invoked(way="killed") as answered:
        tables.wait_for(lambda: tables.busy("SLEEP"))
        tables.server.kill()
        answer = answered()
        tables.server.restart()
    assert (answer.status, answer.error_type) == ("error", "OperationalError")
    assert gone(tables)
    assert body(warm.invoke(way="return")) == [[1]]


def test_the_environment_killed_half_way_is_noticed_by_the_server_as_its_socket_closes(
    warm: Function, tables: World
) -> None:
    with warm.invoked(way="half_read_cursor") as answered:
        answered()
    with warm.invoked(way="open_transaction_sleeping") as answered:
        time.sleep(0.1)
        os.killpg(warm.pid, signal.SIGKILL)
        assert answered().status == "exit"
    tables.wait_for(lambda: not tables.sessions())
    assert tables.things() == {"open": 0, "other": 0}


def test_a_handler_that_wants_no_connection_opens_none(warm: Function, tables: World) -> None:
    warm.invoke(way="nothing")
    before = tables.server.status("Connections")
    answer = warm.invoke(way="nothing")
    assert tables.server.status("Connections") == before
    assert "ConnectTime" not in answer.log


def test_a_warm_environment_that_waits_holds_no_connection(warm: Function, tables: World) -> None:
    for _ in range(3):
        body(warm.invoke(way="return"))
        warm.idle()
        assert tables.server.status("Threads_connected") == 0


WAYS = st.sampled_from([*RETURNING, *RAISING])


@given(ways=st.lists(WAYS, min_size=1, max_size=5))
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_sequence_of_ways_out_over_one_warm_environment_leaves_nothing(
    warm: Function, tables: World, ways: list[str]
) -> None:
    answers: list[Answer] = []
    for way in ways:
        answers.append(warm.invoke(way=way))
        assert gone(tables), (way, tables.sessions())
    assert [answer.error_type for answer in answers] == [RAISING.get(way) for way in ways]
    assert tables.things() == {"open": 0, "other": 0}
    assert body(warm.invoke(way="return")) == [[1]]
