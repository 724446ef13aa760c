"""One EMF line per invocation at most, and a log line for anything unusual."""

import json
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics
from single_connection import Database
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World, body, function

NAMESPACE = {"POWERTOOLS_METRICS_NAMESPACE": "Shop", "POWERTOOLS_SERVICE_NAME": "orders"}


def named(world: World) -> dict[str, str]:
    """A service of its own: Powertools keeps a logger by name, with the output it first saw."""
    return world.environ() | NAMESPACE | {"POWERTOOLS_SERVICE_NAME": f"orders-{uuid4()}"}


def lines(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def figure(line: dict[str, Any], name: str) -> float:
    """EMF allows a number or a list of numbers."""
    value = line[name]
    return float(value[0] if isinstance(value, list) else value)


def invoke(database: Database, work: Any, context: Any = None) -> Any:
    return database.invocation(lambda _e, _c: work())({}, context or LambdaContext())


def quiet(database: Database) -> None:
    database.connection().ping()


def test_an_invocation_says_what_its_connection_cost_in_one_line(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    database = Database.from_environment(named(world))
    invoke(database, lambda: quiet(database))
    (line,) = lines(capsys.readouterr().out)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Shop"
    assert line["service"].startswith("orders-")
    assert figure(line, "ConnectAttempts") == 1
    assert 0 < figure(line, "ConnectTime") < 1000
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert units["ConnectTime"] == "Milliseconds"
    assert units["ConnectAttempts"] == "Count"


def test_the_line_is_the_one_powertools_writes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace, service = "50 % off", "%(shop)s"
    environ = named(world) | {
        "POWERTOOLS_METRICS_NAMESPACE": namespace,
        "POWERTOOLS_SERVICE_NAME": service,
    }
    database = Database.from_environment(environ)
    for _ in range(2):
        invoke(database, lambda: quiet(database))
        (ours,) = lines(capsys.readouterr().out)
        theirs = EphemeralMetrics(namespace=namespace, service=service)
        theirs.add_metric(
            name="ConnectTime", unit="Milliseconds", value=figure(ours, "ConnectTime")
        )
        theirs.add_metric(name="ConnectAttempts", unit="Count", value=1)
        theirs.add_metric(name="ConnectionsDestroyed", unit="Count", value=1)
        theirs.flush_metrics()
        (powertools,) = lines(capsys.readouterr().out)
        said = powertools["_aws"].pop("Timestamp") - ours["_aws"].pop("Timestamp")
        assert 0 <= said < 10_000
        assert ours == powertools


def test_metrics_that_powertools_was_told_to_disable_are_not_sent(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    database = Database.from_environment(named(world))
    invoke(database, lambda: quiet(database))
    assert capsys.readouterr().out == ""


def test_without_a_namespace_or_without_a_connection_nothing_is_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = Database.from_environment(world.environ())
    invoke(silent, lambda: quiet(silent))
    unused = Database.from_environment(named(world))
    invoke(unused, lambda: None)
    assert capsys.readouterr().out == ""


def test_what_was_unusual_is_counted_and_logged_with_function_and_request(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    database = Database.from_environment(named(world))
    context = LambdaContext(function_name="orders")

    def work() -> None:
        database.connection().begin()
        database.connection().query("SELECT 1")

    invoke(database, work, context)
    log, metrics = lines(capsys.readouterr().out)
    assert log["level"] == "WARNING"
    assert log["message"] == "a transaction was left open, and is rolled back"
    assert log["function_name"] == "orders"
    assert log["function_request_id"] == context.aws_request_id
    assert figure(metrics, "ConnectAttempts") == 1


def test_a_deadline_cut_and_a_repeated_transaction_are_counted(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    import pymysql

    database = Database.from_environment(named(world))
    runs = []

    @database.transactional
    def twice(cursor: Any) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise pymysql.err.OperationalError(1213, "as the server would")
        cursor.execute("SELECT SLEEP(9)")

    with pytest.raises(Exception, match="time is over"):
        invoke(database, twice, LambdaContext(2.0))
    said = lines(capsys.readouterr().out)[-1]
    assert figure(said, "TransactionRetries") == 1
    assert figure(said, "DeadlineCuts") == 1


def test_the_process_list_can_be_read_by_function_and_request(world: World) -> None:
    environ = world.environ(tag_statements="1")
    with function("ways_out", environ, timeout=3.0, name="orders") as tagged:
        with tagged.invoked(way="killed") as answered:
            session = world.wait_for(lambda: world.busy("SLEEP"))
            assert session.info.startswith("SELECT SLEEP(10) /*function='orders',request_id='")
            world.server.execute("KILL CONNECTION %s", session.id)
            answered()


@pytest.mark.parametrize("statement", ["SELECT 1", "SELECT 1 -- why", "SELECT '/* %% */'", "DO 1"])
def test_a_tag_changes_no_statement(world: World, statement: str) -> None:
    database = world.database(tag_statements="true")
    context = LambdaContext(function_name="a */ function' ; --")

    def work() -> int:
        with database.transaction() as cursor:
            return cursor.execute(statement)

    invoke(database, work, context)


def test_without_tags_a_statement_goes_out_as_it_is(world: World) -> None:
    database = world.database()

    def work() -> None:
        with database.connection().cursor() as cursor:
            cursor.execute("SELECT INFO FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SEL%'")
            assert "function=" not in str(cursor.fetchall())

    invoke(database, work)


@pytest.mark.parametrize("order", ["over", "under"])
def test_a_marked_handler_works_under_and_over_powertools_decorators(
    world: World, order: str
) -> None:
    with function("decorated", world.environ() | NAMESPACE, timeout=5.0) as decorated:
        first, second = decorated.invoke(order=order), decorated.invoke(order=order)
        assert body(first)["id"] != body(second)["id"]
        assert world.sessions() == []
        said = lines(second.log)
        assert [line["Own"] for line in said if "Own" in line] == [[1.0]]
        assert len([line for line in said if "ConnectTime" in line]) == 1
        (at_work,) = [line for line in said if line.get("message") == "at work"]
        assert at_work["function_request_id"] == second.request_id


def test_a_telemetry_that_fails_does_not_reach_the_handler(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.from_environment(named(world))

    def broken(*_: Any) -> None:
        raise RuntimeError("no metrics today")

    monkeypatch.setattr(database._telemetry, "emit", broken)
    assert invoke(database, lambda: "the answer") == "the answer"
