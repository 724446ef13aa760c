"""What the stack costs by the month while nobody uses it, counted from the template.

    python -m deploy.cost DatabaseInstanceClass=db.t4g.medium UseProxy=true

US dollars, us-east-1, list prices of November 2026, 730 hours. Requests, log lines, traffic and
backups beyond the database's size come on top; so do CPU credits beyond those a class earns.
"""

import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from deploy.template import read_budgets, read_template

HOURS = 730
INSTANCE_HOUR = {
    "db.t3.micro": Decimal("0.017"),
    "db.t3.small": Decimal("0.034"),
    "db.t3.medium": Decimal("0.068"),
    "db.t3.large": Decimal("0.136"),
    "db.t4g.micro": Decimal("0.016"),
    "db.t4g.small": Decimal("0.032"),
    "db.t4g.medium": Decimal("0.065"),
    "db.t4g.large": Decimal("0.129"),
}
STORAGE_GIB = Decimal("0.115")
SECRET = Decimal("0.40")
ENDPOINT_ZONE = HOURS * Decimal("0.01")
PROXY = HOURS * 2 * Decimal("0.015")  # two vCPUs are the least it bills
ALARM_METRIC = Decimal("0.10")
CUSTOM_METRIC = Decimal("0.30")
DASHBOARD = Decimal("3.00")

# What ConnectionCensus and the layer send each hour, traffic or not. The layer's other metrics are
# sent, and billed, only in hours in which there was something to count.
STEADY_METRICS = (
    "ApplicationConnections",
    "ApplicationConnectionsIdle",
    "OrphanedConnections",
    "ConnectTime",
    "ConnectAttempts",
    "ConnectionsDestroyed",
)


class Row(NamedTuple):
    """One line of the bill."""

    what: str
    quantity: int
    each: Decimal

    @property
    def month(self) -> Decimal:
        """Dollars, to the cent."""
        return (self.quantity * self.each).quantize(Decimal("0.01"))


def price(template: Mapping[str, Any], parameters: Mapping[str, str]) -> list[Row]:
    """The lines of the bill for these parameters; the others are at their defaults."""

    def parameter(name: str) -> str:
        return parameters.get(name, str(template["Parameters"][name]["Default"]))

    def of_type(name: str) -> list[Mapping[str, Any]]:
        return [r["Properties"] for r in template["Resources"].values() if r["Type"] == name]

    zones = 2 if parameter("HighAvailability") == "true" else 1
    instance = template["Resources"]["DatabaseInstance"]["Properties"]
    name = read_budgets(template)[parameter("DatabaseInstanceClass")].provisioned
    secrets = len(of_type("AWS::SecretsManager::Secret"))
    secrets += sum(
        r.get("ManageMasterUserPassword", False) for r in of_type("AWS::RDS::DBInstance")
    )
    alarms = sum(
        sum("MetricStat" in m for m in alarm["Metrics"]) if "Metrics" in alarm else 1
        for alarm in of_type("AWS::CloudWatch::Alarm")
    )
    rows = [
        Row(f"Database, {name}", zones, HOURS * INSTANCE_HOUR[name]),
        Row("Its storage, GiB of gp3", zones * int(instance["AllocatedStorage"]), STORAGE_GIB),
        Row("Secrets, of the master, the application user and the census", secrets, SECRET),
        Row("Endpoint of Secrets Manager, availability zones", zones, ENDPOINT_ZONE),
        Row("Metrics that alarms watch", alarms, ALARM_METRIC),
        Row("Metrics of our own that are always sent", len(STEADY_METRICS), CUSTOM_METRIC),
        Row("Dashboard", len(of_type("AWS::CloudWatch::Dashboard")), DASHBOARD),
    ]
    if parameter("UseProxy") == "true":
        rows.insert(1, Row("RDS Proxy", 1, PROXY))
    return rows


def markdown(rows: list[Row]) -> str:
    """The table of the README."""
    lines = ["| what | count | each | a month |", "|---|---:|---:|---:|"]
    lines += [f"| {r.what} | {r.quantity} | {r.each.normalize():f} | {r.month} |" for r in rows]
    lines.append(f"| **all** | | | **{sum((r.month for r in rows), Decimal(0))}** |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table."""
    parameters = {name: value for name, _, value in (a.partition("=") for a in arguments)}
    print(markdown(price(read_template(), parameters)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
