"""The server lets go by itself where our code cannot run any more."""

import os
import re
import signal
import time
from typing import Any

import pymysql
import pytest
from single_connection._lease import Lease

from layers.single_connection.tests.conftest import World, body, function, invoke
from layers.single_connection.tests.network import Proxy
from local.delay_proxy import DelayProxy


@pytest.fixture
def things(world: World) -> World:
    world.stock(a=1, open=1)
    return world


def test_an_environment_that_died_without_a_word_is_gone_within_the_lease_and_a_second(
    things: World, proxy: Proxy
) -> None:
    """Killed, and its packets dropped: no FIN ever arrives. Its locks are free with it."""
    timeout = 2.0
    with function("ways_out", things.environ(port=proxy.port), timeout=timeout) as doomed:
        with doomed.invoked(way="open_transaction_sleeping") as answered:
            things.wait_for(lambda: [one for one in things.sessions() if one.command == "Sleep"])
            time.sleep(0.2)
            began = time.monotonic()
            proxy.swallow()
            os.killpg(doomed.pid, signal.SIGKILL)
            assert answered().status == "exit"
        assert len(things.sessions()) == 1, "the server cannot know yet"
        other = things.outsider()
        other.query("SET innodb_lock_wait_timeout = 10")
        other.query("UPDATE things SET number = 7 WHERE name = 'open'")  # waits for the dead one's
        other.commit()
        assert time.monotonic() - began < timeout + 1
    things.wait_for(lambda: not things.sessions(), 1.0)
    assert things.things()["open"] == 7


def test_a_query_of_an_environment_that_died_without_a_word_ends_with_the_lease(
    things: World, proxy: Proxy
) -> None:
    with function("ways_out", things.environ(port=proxy.port), timeout=2.0) as doomed:
        with doomed.invoked(way="killed") as answered:
            things.wait_for(lambda: things.busy("SLEEP"))
            began = time.monotonic()
            proxy.swallow()
            os.killpg(doomed.pid, signal.SIGKILL)
            answered()
        # First the statement's limit, then the idle limit: the lease counts from the last word.
        things.wait_for(lambda: not things.busy("SLEEP"), 3.0)
        things.wait_for(lambda: not things.sessions(), 4.0)
        assert time.monotonic() - began < 2 * 2.0 + 1.5


def test_each_limit_of_the_session_comes_from_the_time_left(things: World) -> None:
    database = things.database()

    def variables() -> dict[str, float]:
        with database.connection().cursor() as cursor:
            cursor.execute("SHOW SESSION VARIABLES")
            return dict(cursor.fetchall())

    found = invoke(database, variables, 7.6)
    assert found["wait_timeout"] == "8"
    assert found["net_write_timeout"] == "8"
    assert found["innodb_lock_wait_timeout"] == "4"
    assert found["lock_wait_timeout"] == "4"
    assert found["autocommit"] == "ON"
    assert found["character_set_client"] == "utf8mb4"
    if things.flavor == "mysql":
        assert 7000 < float(found["max_execution_time"]) <= 7600
    else:
        assert 7.0 < float(found["max_statement_time"]) <= 7.6
    # And the next invocation's session has limits of its own.
    assert invoke(database, variables, 3.0)["wait_timeout"] == "3"


def test_the_lease_counts_from_the_connect_not_from_the_start_of_waiting(things: World) -> None:
    database = things.database()

    def variables() -> dict[str, float]:
        time.sleep(2.1)
        with database.connection().cursor() as cursor:
            cursor.execute("SHOW SESSION VARIABLES LIKE 'wait_timeout'")
            return dict(cursor.fetchall())

    assert invoke(database, variables, 6.0) == {"wait_timeout": "4"}


def test_the_whole_set_up_costs_no_round_trip_of_its_own(
    things: World, far_away: DelayProxy
) -> None:
    """Greeting, TLS, authentication, answer: the limits travel with the first statement."""
    database = things.database(port=far_away.port)

    def query() -> None:
        with database.connection().cursor() as cursor:
            cursor.execute("SELECT 1")

    def turns(work: Any) -> int:
        before = far_away.turns
        invoke(database, work)
        return far_away.turns - before

    turns(query)  # what is learnt once: TLS session, authentication cache
    connected, queried = turns(database.connection), turns(query)
    assert queried <= connected + 1
    assert queried <= 6


def test_a_set_up_the_server_refuses_ends_the_connection(
    things: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its lease a session must not live."""
    monkeypatch.setattr(Lease, "statement", lambda *_: "SET no_such_variable = 1")
    database = things.database()

    def work() -> None:
        with database.connection().cursor() as cursor:
            cursor.execute("SELECT 1")

    with pytest.raises(pymysql.err.OperationalError, match="no_such_variable"):
        invoke(database, work)
    things.wait_for(lambda: not things.sessions(), 1.0)
    # Even where nobody asked anything.
    invoke(database, database.connection)
    things.wait_for(lambda: not things.sessions(), 1.0)


def test_through_a_proxy_only_what_it_tracks_is_set() -> None:
    statement = Lease(7.6, mark="m", through_proxy=True).statement()
    assert statement == "SET NAMES utf8mb4, autocommit = 1, wait_timeout = 8"


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.4, 900.0])
def test_no_limit_is_ever_zero_which_would_mean_none(seconds: float) -> None:
    statement = Lease(seconds).statement()
    limits = re.findall(r"[a-z_]+_(?:timeout|time) = ([\d.]+)", statement)
    assert len(limits) == 6, statement
    assert all(float(limit) > 0 for limit in limits), statement


def test_the_lease_is_what_a_real_environment_gets(things: World) -> None:
    with function("ways_out", things.environ(), timeout=9.0) as real:
        found = dict(body(real.invoke(way="session_variables")))
    assert found["wait_timeout"] == "9"
