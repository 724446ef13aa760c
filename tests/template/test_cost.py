"""The README's cost table adds up to what the template provisions."""

from decimal import Decimal

import pytest

from deploy import cost
from deploy.template import ROOT, read_budgets
from tests.template.conftest import Document


def test_the_readme_has_the_table_that_the_template_makes(template: Document) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if "## Cost" not in readme:
        pytest.skip("README.md has no section '## Cost' yet; python -m deploy.cost prints it")
    section = readme.partition("## Cost")[2].partition("\n## ")[0]
    assert cost.markdown(cost.price(template, {})) in section


def test_what_is_billed_by_the_hour_is_counted(template: Document) -> None:
    """A type that costs money while nobody uses it must have its line in deploy/cost.py."""
    counted = {
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::RDS::DBProxy",
        "AWS::SecretsManager::Secret",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
        "AWS::EC2::VPCEndpoint",
    }
    free = ("Backup", "EC2", "RDS", "Logs", "Serverless", "SQS", "SNS", "IAM")
    for name, resource in template["Resources"].items():
        kind = resource["Type"]
        assert kind in counted or kind.startswith(("Custom::", *(f"AWS::{f}::" for f in free))), (
            name
        )
    assert not [
        name
        for name, resource in template["Resources"].items()
        if resource["Type"] in {"AWS::EC2::NatGateway", "AWS::EC2::EIP", "AWS::KMS::Key"}
    ]


def test_the_default_costs_under_thirty_dollars_a_month_with_its_ten_first_metrics_watched(
    template: Document,
) -> None:
    """Each function of one's own adds some, at ten cents."""
    rows = cost.price(template, {})
    others = sum(row.month for row in rows if row.each != cost.ALARM_METRIC)
    assert others + 10 * cost.ALARM_METRIC < Decimal(30)
    assert rows[0].month == Decimal("12.41")


def test_every_class_has_a_price(template: Document) -> None:
    for name in read_budgets(template):
        assert cost.price(template, {"DatabaseInstanceClass": name})


def test_a_proxy_and_a_standby_are_on_the_bill(template: Document) -> None:
    plain = cost.price(template, {})
    proxied = cost.price(template, {"UseProxy": "true"})
    assert cost.Row("RDS Proxy", 1, Decimal("21.90")) in set(proxied) - set(plain)
    double = cost.price(template, {"HighAvailability": "true"})
    assert [row.quantity for row in double[:4]] == [2, 40, 3, 2]


def test_the_page_has_the_table_of_what_is_cheaper(template: Document) -> None:
    assert cost.cheaper(template) in (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")


def test_always_on_is_to_be_had_under_sixteen_dollars_and_asleep_under_five(
    template: Document,
) -> None:
    parameters: dict[str, str] = {}
    totals = []
    for _, step, lost in cost.CHEAPER:
        parameters |= step
        totals.append(cost.total(cost.price(template, parameters)))
        assert bool(lost) is bool(step)
    assert totals == sorted(totals, reverse=True)
    *_, always_on, asleep = totals
    assert always_on < Decimal(16)
    assert asleep < Decimal(5)


def test_a_database_that_is_awake_is_billed_by_the_capacity_unit(template: Document) -> None:
    sleeping = {"DatabaseInstanceClass": "aurora.serverless"}
    hours = cost.price(template, sleeping, unit_hours=10)[0]
    assert hours.month == Decimal("1.20")
    assert cost.price(template, sleeping)[0].month == 0


def test_functions_without_data_cost_what_watches_them(template: Document) -> None:
    what = {row.what for row in cost.price(template, {"DatabaseHost": "db.example"})}
    assert not [w for w in what if "Database" in w or "Endpoint" in w or "storage" in w]


def test_the_steady_metrics_are_what_the_code_sends() -> None:
    census = (ROOT / "functions/connection_census/app.py").read_text(encoding="utf-8")
    telemetry = ROOT / "layers/single_connection/src/single_connection/_telemetry.py"
    code = census + telemetry.read_text(encoding="utf-8")
    for name in cost.STEADY_METRICS:
        assert f'"{name}"' in code
    assert census.count("metrics.add_metric(") == 3


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cost.main(["DatabaseInstanceClass=db.t4g.micro"]) == 0
    assert "| Database, db.t4g.micro | 1 | 11.68 | 11.68 |" in capsys.readouterr().out
