"""The census counts everyone, and ends only what no invocation can own any more."""

from __future__ import annotations

import json
import time
import types
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from local.database import LocalDatabase
from tests.conftest import load_function
from tests.functions.conftest import Load, context, held_connections


@pytest.fixture
def app(load: Load, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The census of functions that run for a second at the most."""
    monkeypatch.setenv("LONGEST_INVOCATION_SECONDS", "1")
    module = load("connection_census")
    monkeypatch.setattr(module, "MARGIN_SECONDS", 0)
    return module


def census(app: types.ModuleType, **event: object) -> dict[str, Any]:
    answer: dict[str, Any] = app.lambda_handler(event, context())
    return answer


def test_only_what_outlived_any_invocation_is_ended_and_in_a_dry_run_nothing(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    """Whatever it does: idle or at work, its invocation is over. Not a young one, nor another's."""
    application, master = shop.application_environ(), shop.master_environ()
    with (
        held_connections(application, 2) as idle,
        held_connections(application, how="busy") as busy,
        held_connections(master) as others,
    ):
        assert census(app)["outlived"] == []  # how old they are is not known yet
        time.sleep(2.2)
        with held_connections(application) as young:
            answer = census(app, dry_run=True)
            assert (sorted(answer["outlived"]), answer["ended"]) == ([*idle, *busy], [])
            assert ids(shop) == {*idle, *busy, *young, *others}

            answer = census(app)
            assert sorted(answer["outlived"]) == sorted(answer["ended"]) == [*idle, *busy]
            assert ids(shop) == {*young, *others}


def ids(shop: LocalDatabase) -> set[int]:
    return {session.id for session in shop.sessions()}


def test_a_session_that_says_it_is_old_is_none_the_older(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    """MySQL's process list believes `SET timestamp`, as a back-fill uses it."""
    census(app)
    time.sleep(2.2)
    with held_connections(shop.application_environ(), how="backdated") as backdated:
        assert census(app)["outlived"] == []
        assert ids(shop) == {*backdated}


def test_a_server_that_was_restarted_counts_anew() -> None:
    marks = load_function("connection_census").Marks()
    marks.add(5000, uptime=9000, now=100_000)
    marks.add(5100, uptime=9120, now=100_121)
    assert marks.older_than(100) == 5000
    marks.add(40, uptime=9130, now=109_300)  # as old as its last life was, by now
    assert marks.older_than(1) == 0
    marks.add(60, uptime=9142, now=109_312)
    assert marks.older_than(10) == 40


def test_of_the_marks_only_those_that_are_needed_are_kept() -> None:
    marks = load_function("connection_census").Marks()
    for minute in range(100):
        marks.add(100 + minute, uptime=60 * minute, now=1e9 + 60 * minute)
        assert marks.older_than(120) == (100 + minute - 3 if minute >= 3 else 0)
    assert len(marks._marks) == 4


CENSUS = {"CENSUS_USER": "census", "CENSUS_PASSWORD": "not-the-applications"}


@pytest.fixture
def own_user(shop: LocalDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The census as a user of its own, made by the migration on a server like RDS's."""
    shop.execute(
        "CREATE PROCEDURE mysql.rds_kill(IN thread BIGINT) SQL SECURITY DEFINER KILL thread"
    )
    given = {
        **shop.master_environ(),
        **CENSUS,
        "APPLICATION_USER": "application",
        "APPLICATION_PASSWORD": shop.application_environ()["DATABASE_PASSWORD"],
        "APPLICATION_MAX_USER_CONNECTIONS": "2",
    }
    with monkeypatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        load_function("migrate").lambda_handler({}, context())
    for name, value in {
        **shop.master_environ(),
        "DATABASE_USER": CENSUS["CENSUS_USER"],
        "DATABASE_PASSWORD": CENSUS["CENSUS_PASSWORD"],
        "DATABASE_NAME": "information_schema",  # it has no rights in any other
        "WATCHED_USER": "application",
        "LONGEST_INVOCATION_SECONDS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    module = load_function("connection_census")
    monkeypatch.setattr(module, "MARGIN_SECONDS", 0)
    yield module
    shop.execute("DROP PROCEDURE mysql.rds_kill")
    shop.execute("DROP USER census")


def test_the_census_gets_in_when_the_application_has_all_its_connections_and_ends_what_is_left(
    own_user: types.ModuleType, shop: LocalDatabase
) -> None:
    with held_connections(shop.application_environ(), 2) as left:
        answer = census(own_user)
        assert (answer["application"], answer["outlived"]) == ({"Sleep": 2}, [])
        time.sleep(2.2)
        assert sorted(census(own_user)["ended"]) == left
        assert shop.sessions() == []


def test_a_census_that_may_end_nothing_says_so_and_has_counted(
    own_user: types.ModuleType, shop: LocalDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.execute("REVOKE EXECUTE ON PROCEDURE mysql.rds_kill FROM census")
    shop.execute("DROP PROCEDURE mysql.rds_kill")
    shop.execute(
        "CREATE PROCEDURE mysql.rds_kill(IN thread BIGINT) SQL SECURITY INVOKER KILL thread"
    )
    shop.execute("GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO census")
    with held_connections(shop.application_environ()):
        census(own_user)
        time.sleep(2.2)
        with pytest.raises(own_user.NotPermittedError, match="grant it CONNECTION_ADMIN"):
            census(own_user)
    assert '"OrphanedConnections":[1.0]' in capsys.readouterr().out


def test_the_census_user_sees_sessions_and_no_orders(
    own_user: types.ModuleType,
) -> None:
    def read(*_: object) -> None:
        own_user.database.connection().cursor().execute("SELECT * FROM shop.orders")

    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        own_user.database.invocation(read)({}, context())


def test_a_session_that_is_gone_already_is_no_error(app: types.ModuleType) -> None:
    def end_one_that_never_was(*_: object) -> bool:
        ended: bool = app.end(app.database.connection().cursor(), 4_000_000)
        return ended

    assert app.database.invocation(end_one_that_never_was)({}, context()) is False


def test_the_census_counts_everyone_and_publishes(
    app: types.ModuleType, shop: LocalDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    with held_connections(shop.application_environ(), 3), held_connections(shop.master_environ()):
        census(app)  # a first one, so that the observer's own connection is there in both counts
        capsys.readouterr()
        everyone = shop.status("Threads_connected")
        answer = census(app)
    emf = json.loads(capsys.readouterr().out)
    assert answer["connections"] >= 3 + 1 + 1  # theirs, and the census's own
    assert everyone == 3 + 1
    assert emf["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Shop"
    assert answer["limit"] >= 65
    assert emf["ApplicationConnections"] == [3]
    assert emf["ApplicationConnectionsIdle"] == [3]
    assert emf["OrphanedConnections"] == [0]


# Powertools warns where an error left nothing to publish.
nothing_to_publish = pytest.mark.filterwarnings("ignore:No application metrics")


@nothing_to_publish
@pytest.mark.parametrize("longest", ["", "0", "-3", "a minute", "\N{ARABIC-INDIC DIGIT THREE}"])
def test_without_the_longest_timeout_it_ends_nothing_and_says_what_is_missing(
    longest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGEST_INVOCATION_SECONDS", longest)
    app = load_function("connection_census")
    with pytest.raises(app.InvalidSettingError, match="LONGEST_INVOCATION_SECONDS must be"):
        census(app)


@nothing_to_publish
@pytest.mark.parametrize("event", [{"dry_run": "yes"}, {"dry_run": None}, {"dry_run": 1}, [], None])
def test_a_dry_run_that_is_neither_yes_nor_no_is_refused(event: Any) -> None:
    app = load_function("connection_census")
    with pytest.raises(app.InvalidEventError, match="dry_run true or false, and is"):
        app.lambda_handler(event, context())
