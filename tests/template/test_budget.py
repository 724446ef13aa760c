"""Connections ≤ invocations in flight ≤ Σ reservations ≤ the user's limit < max_connections."""

import re
from pathlib import Path

import pytest
from cfnlint.api import ManualArgs, lint

from deploy.template import TEMPLATE as TEMPLATE_FILE
from deploy.template import read_budgets, read_template
from starter.budget import BudgetError, Want, compute, share_out, wants, written
from starter.budget import main as write_budget
from tests.template.conftest import KEPT, Document, Resolve, functions

TEMPLATE = read_template()
CLASSES = TEMPLATE["Parameters"]["DatabaseInstanceClass"]["AllowedValues"]
BUDGETS = read_budgets(TEMPLATE)
KEPT_FOR_PEOPLE = 10
KEPT_FOR_KILLS = 5
INVOCATIONS_PER_PROXIED_CONNECTION = 4
SECONDS_A_CONNECTION_IS_HELD = 0.05
# The usual quotas of an account: Lambda's concurrency, API Gateway's rate and burst.
CONCURRENCY_OF_AN_ACCOUNT = 1000
MUST_STAY_UNRESERVED = 100
REQUESTS_A_SECOND_OF_AN_ACCOUNT = 10_000
BURST_OF_AN_ACCOUNT = 5_000


def test_every_allowed_class_has_a_budget_and_no_other_has(template: Document) -> None:
    assert list(template["Mappings"]["InstanceClasses"]) == CLASSES


def test_the_default_class_is_db_t2_micro_and_stands_for_its_successor(resolve: Resolve) -> None:
    database = resolve()["DatabaseInstance"]["Properties"]
    assert CLASSES[0] == TEMPLATE["Parameters"]["DatabaseInstanceClass"]["Default"]
    assert CLASSES[0] == "db.t2.micro"
    assert database["DBInstanceClass"] == "db.t3.micro"


def test_the_default_class_takes_65_connections(resolve: Resolve) -> None:
    parameters = resolve()["DatabaseParameters"]["Properties"]["Parameters"]
    assert parameters["max_connections"] == 65


@pytest.mark.parametrize("name", CLASSES)
def test_reservations_fit_the_users_limit_and_that_fits_the_database(
    resolve: Resolve, name: str
) -> None:
    resources = resolve(DatabaseInstanceClass=name)
    [most] = {
        parameters["max_connections"]
        for group in resources.values()
        if group["Type"] == "AWS::RDS::DBParameterGroup"
        if "max_connections" in (parameters := group["Properties"]["Parameters"])
    }
    migrate = resources["Migrate"]["Properties"]["Environment"]["Variables"]
    user = migrate["APPLICATION_MAX_USER_CONNECTIONS"]
    reserved = {n: f["ReservedConcurrentExecutions"] for n, f in functions(resources).items()}
    assert user <= most - KEPT_FOR_PEOPLE
    assert sum(reserved.values()) <= user - KEPT_FOR_KILLS
    assert sum(reserved.values()) == BUDGETS[name].reserved(proxy=False)


def test_a_larger_class_raises_the_budget_and_never_lowers_it() -> None:
    for family in ("t3", "t4g"):
        sizes = [BUDGETS[f"db.{family}.{size}"] for size in ("micro", "small", "medium", "large")]
        for name in wants(TEMPLATE):
            values = [size.functions[name] for size in sizes]
            assert values == sorted(set(values)), name
        connections = [size.max_connections for size in sizes]
        assert connections == sorted(set(connections))


def test_what_is_written_is_what_make_budget_computes(template: Document) -> None:
    computed = compute(template)
    assert template["Mappings"]["InstanceClasses"] == computed, "run `make budget`"
    text = TEMPLATE_FILE.read_text(encoding="utf-8")
    assert written(text, computed) == text


@pytest.mark.parametrize("name", CLASSES)
def test_the_columns_of_a_class_follow_from_each_other(name: str, resolve: Resolve) -> None:
    budget = BUDGETS[name]
    assert budget.connections_alarm == budget.reserved(proxy=False) * 8 // 10
    assert budget.application_max_user_connections == budget.max_connections - KEPT_FOR_PEOPLE
    factor = INVOCATIONS_PER_PROXIED_CONNECTION
    for function, number in budget.functions.items():
        assert number <= budget.functions_behind_proxy[function] <= factor * number
    for proxy in ("false", "true"):
        resources = resolve(DatabaseInstanceClass=name, UseProxy=proxy)
        for api in (r for r in resources.values() if r["Type"] == "AWS::Serverless::HttpApi"):
            limits = api["Properties"]["DefaultRouteSettings"]
            called = [f for f in functions(resources).values() if calls_by(f, "HttpApi")]
            environments = sum(f["ReservedConcurrentExecutions"] for f in called)
            served = round(environments / SECONDS_A_CONNECTION_IS_HELD)
            assert limits["ThrottlingRateLimit"] == min(served, REQUESTS_A_SECOND_OF_AN_ACCOUNT)


def test_shares_are_kept_and_whoever_needs_a_least_gets_it_first() -> None:
    assert share_out(40, {"A": Want(3, 1), "B": Want(1, 1)}) == {"A": 30, "B": 10}
    assert share_out(40, {"A": Want(3, 1), "B": Want(1, 16)}) == {"A": 24, "B": 16}
    assert share_out(20, {"A": Want(9, 1), "B": Want(1, 5), "C": Want(0, 3)}) == {
        "A": 12,
        "B": 5,
        "C": 3,
    }


def test_an_over_committed_class_says_which_function_wants_how_many(template: Document) -> None:
    [name, *_] = wants(template)
    template["Resources"][name]["Metadata"]["Connections"]["AtLeast"] = 300
    with pytest.raises(BudgetError) as refused:
        compute(template)
    said = str(refused.value)
    assert said.startswith("db.t2.micro has 50 connections for functions (65 less 10 for people")
    assert f": {name} 300, " in said
    assert all(f"{kept} 1" in said for kept in KEPT)


def test_a_column_that_no_function_stands_behind_is_named(template: Document) -> None:
    where = {"Fn::FindInMap": ["InstanceClasses", {"Ref": "DatabaseInstanceClass"}, "Dance"]}
    template["Outputs"]["Dance"] = {"Value": where}
    with pytest.raises(BudgetError, match="looks up Dance in InstanceClasses, which no function"):
        compute(template)


def test_a_function_that_takes_a_share_and_says_none_is_named(template: Document) -> None:
    [name, *_] = wants(template)
    del template["Resources"][name]["Metadata"]["Connections"]
    with pytest.raises(BudgetError, match=f"{name} reserves what .*in its Metadata `Connections"):
        compute(template)


def test_the_rows_are_written_from_nothing_and_comments_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "template.yaml"
    text = TEMPLATE_FILE.read_text(encoding="utf-8")
    copy.write_text(
        re.sub(r"(Alarm|Burst|PerSecond)(\w*): \d+", r"\1\2: 0", text), encoding="utf-8"
    )
    assert write_budget(copy) == 0
    assert capsys.readouterr().out == "Written: template.yaml.\n"
    assert copy.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("proxy", ["false", "true"])
def test_an_account_of_the_usual_quotas_can_have_every_class(
    resolve: Resolve, name: str, proxy: str
) -> None:
    resources = resolve(DatabaseInstanceClass=name, UseProxy=proxy)
    reserved = [f["ReservedConcurrentExecutions"] for f in functions(resources).values()]
    assert sum(reserved) <= CONCURRENCY_OF_AN_ACCOUNT - MUST_STAY_UNRESERVED


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("proxy", ["false", "true"])
def test_the_api_lets_in_no_burst_that_its_function_has_no_environments_for(
    resolve: Resolve, name: str, proxy: str
) -> None:
    resources = resolve(DatabaseInstanceClass=name, UseProxy=proxy)
    for api in (r for r in resources.values() if r["Type"] == "AWS::Serverless::HttpApi"):
        limits = api["Properties"]["DefaultRouteSettings"]
        called = [f for f in functions(resources).values() if calls_by(f, "HttpApi")]
        environments = sum(f["ReservedConcurrentExecutions"] for f in called)
        assert limits["ThrottlingBurstLimit"] <= environments
        assert limits["ThrottlingBurstLimit"] <= BURST_OF_AN_ACCOUNT
        assert limits["ThrottlingRateLimit"] <= REQUESTS_A_SECOND_OF_AN_ACCOUNT


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("proxy", ["false", "true"])
def test_the_connections_alarm_is_within_the_functions_reach(
    resolve: Resolve, name: str, proxy: str
) -> None:
    resources = resolve(DatabaseInstanceClass=name, UseProxy=proxy)
    reach = sum(f["ReservedConcurrentExecutions"] for f in functions(resources).values())
    for alarm in (r["Properties"] for r in resources.values() if r["Type"].endswith("::Alarm")):
        if alarm.get("MetricName") == "DatabaseConnections":
            assert alarm["Threshold"] < min(reach, BUDGETS[name].max_connections * 80 // 100)


def calls_by(function: Document, kind: str) -> bool:
    """Whether an event of this kind calls it."""
    return any(event["Type"] == kind for event in function.get("Events", {}).values())


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("proxy", ["false", "true"])
@pytest.mark.parametrize("reserve", ["false", "true"])
def test_the_queue_never_asks_for_more_than_its_function_reserves(
    resolve: Resolve, name: str, proxy: str, reserve: str
) -> None:
    resources = resolve(DatabaseInstanceClass=name, UseProxy=proxy, ReserveConcurrency=reserve)
    for function in functions(resources).values():
        for event in function.get("Events", {}).values():
            if event["Type"] != "SQS":
                continue
            pollers = event["Properties"]["ScalingConfig"]["MaximumConcurrency"]
            assert 2 <= pollers <= 1000  # what Lambda allows
            if reserve == "true":
                assert pollers <= function["ReservedConcurrentExecutions"]
            else:
                assert "ReservedConcurrentExecutions" not in function


@pytest.mark.parametrize("name", CLASSES)
def test_a_proxys_own_connections_fit_the_users_limit(resolve: Resolve, name: str) -> None:
    resources = resolve(DatabaseInstanceClass=name, UseProxy="true")
    pool = resources["DatabaseProxyTargets"]["Properties"]["ConnectionPoolConfigurationInfo"]
    budget = BUDGETS[name]
    pooled = budget.max_connections * pool["MaxConnectionsPercent"] // 100
    census = 1
    assert pooled + census <= budget.application_max_user_connections


def test_a_class_with_credits_is_watched_for_them_and_no_other_is(resolve: Resolve) -> None:
    for name in CLASSES:
        watched = "CpuCreditsAlarm" in resolve(DatabaseInstanceClass=name)
        assert watched is BUDGETS[name].provisioned.startswith("db.t")


def test_the_two_that_stay_run_once_at_a_time(resolve: Resolve) -> None:
    for name in KEPT:
        assert functions(resolve())[name]["ReservedConcurrentExecutions"] == 1


def test_no_reservation_where_the_account_cannot_spare_one(resolve: Resolve) -> None:
    for function in functions(resolve(ReserveConcurrency="false")).values():
        assert "ReservedConcurrentExecutions" not in function


def test_cfn_lint_knows_each_provisioned_class_for_this_mysql(template: Document) -> None:
    """cfn-lint looks through no parameter or mapping, so each class is put to it literally."""
    version = template["Resources"]["DatabaseInstance"]["Properties"]["EngineVersion"]
    provisioned = {budget.provisioned for budget in BUDGETS.values()} - {"db.serverless"}
    assert refused_classes({*provisioned, "db.t2.micro"}, version) == {"db.t2.micro"}


def refused_classes(classes: set[str], version: str) -> set[str]:
    """Those that rule E3062 (class, engine and licence) refuses in us-east-1."""
    order = sorted(classes)
    lines = ["Resources:"]
    for number, name in enumerate(order):
        lines += [
            f"  D{number}:",
            "    Type: AWS::RDS::DBInstance",
            f"    Properties: {{DBInstanceClass: {name}, AllocatedStorage: '20', Engine: mysql,",
            f"      EngineVersion: '{version}.10', MasterUsername: master,",
            "      ManageMasterUserPassword: true}",
        ]
    found = lint("\n".join(lines), config=ManualArgs(regions=["us-east-1"]))
    return {order[int(str(m.path[1])[1:])] for m in found if m.rule.id == "E3062"}
