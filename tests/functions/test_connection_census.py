"""The census counts everyone, and ends only what no invocation can own any more."""

from __future__ import annotations

import json
import time
import types
from typing import Any

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
    """Not a session that is at work however old it is, a young one, or another user's."""
    application, master = shop.application_environ(), shop.master_environ()
    with (
        held_connections(application, 2) as old,
        held_connections(application, how="busy") as busy,
        held_connections(master) as others,
    ):
        time.sleep(2.2)
        with held_connections(application) as young:
            answer = census(app, dry_run=True)
            assert (sorted(answer["outlived"]), answer["ended"]) == (old, [])
            assert {session.id for session in shop.sessions()} == {*old, *busy, *young, *others}

            answer = census(app)
            assert sorted(answer["outlived"]) == sorted(answer["ended"]) == old
            assert {session.id for session in shop.sessions()} == {*busy, *young, *others}


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
    assert emf["Connections"] == [answer["connections"]]
    assert emf["ConnectionsOfLimit"] == [100 * answer["connections"] / answer["limit"]]
    assert emf["ApplicationConnections"] == [3]
    assert emf["ApplicationConnectionsIdle"] == [3]
    assert emf["OrphanedConnections"] == [0]


# Powertools warns where an error left nothing to publish.
nothing_to_publish = pytest.mark.filterwarnings("ignore:No application metrics")


@nothing_to_publish
@pytest.mark.parametrize("longest", ["", "0", "-3", "a minute"])
def test_without_the_longest_timeout_it_ends_nothing_and_says_what_is_missing(
    longest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGEST_INVOCATION_SECONDS", longest)
    app = load_function("connection_census")
    with pytest.raises(app.InvalidSettingError, match="LONGEST_INVOCATION_SECONDS must be"):
        census(app)


@nothing_to_publish
def test_a_dry_run_that_is_neither_yes_nor_no_is_refused() -> None:
    app = load_function("connection_census")
    with pytest.raises(app.InvalidEventError, match="dry_run must be true or false"):
        census(app, dry_run="yes")
