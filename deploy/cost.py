"""What the stack costs by the month while nobody uses it, counted from the template.

    python -m deploy.cost DatabaseInstanceClass=db.t4g.medium UseProxy=true
    python -m deploy.cost --cheaper

US dollars, us-east-1, list prices of November 2026, 730 hours. Requests, log lines, traffic and
backups beyond the database's size come on top; so do CPU credits beyond those a class earns.
"""

import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from deploy.template import exists, read_budgets, read_template

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
    "db.m7g.large": Decimal("0.168"),
    "db.r7g.large": Decimal("0.239"),
}
STORAGE_GIB = Decimal("0.115")
# Aurora: by the capacity unit and hour while it is awake, by the GiB that is used.
CAPACITY_UNIT_HOUR = Decimal("0.12")
AURORA_STORAGE_GIB = Decimal("0.10")
SECRET = Decimal("0.40")
ENDPOINT_ZONE = HOURS * Decimal("0.01")
PROXY = HOURS * 2 * Decimal("0.015")  # two vCPUs are the least it bills
ALARM_METRIC = Decimal("0.10")
CUSTOM_METRIC = Decimal("0.30")
DASHBOARD = Decimal("3.00")

# What ConnectionCensus sends each hour, traffic or not.
CENSUS_METRICS = (
    "ApplicationConnections",
    "ApplicationConnectionsIdle",
    "OrphanedConnections",
)
# What the layer sends for each connection, and so in each hour in which there was one.
LAYER_METRICS = ("ConnectTime", "ConnectAttempts", "ConnectionsDestroyed")
STEADY_METRICS = (*CENSUS_METRICS, *LAYER_METRICS)

# Cheaper than the defaults, step by step; each goes on from the one before.
CHEAPER: tuple[tuple[str, dict[str, str], str], ...] = (
    ("the defaults", {}, ""),
    (
        "`DatabaseInstanceClass=db.t4g.micro`",
        {"DatabaseInstanceClass": "db.t4g.micro"},
        "half of the memory that MySQL caches in (128 MB for 256)",
    ),
    ("`MakeDashboard=false`", {"MakeDashboard": "false"}, "the one picture of it all"),
    (
        "`SecretsBy=ipv6`",
        {"SecretsBy": "ipv6"},
        "a network without a way out: code may then reach any IPv6 address at port 443",
    ),
    (
        "`RunCensus=false`",
        {"RunCensus": "false"},
        "the third net under the connections, and their number by state",
    ),
    ("`MakeAlarms=false`", {"MakeAlarms": "false"}, "being told"),
    (
        "`MakeMetrics=false`",
        {"MakeMetrics": "false"},
        "how long connecting and waiting take, and leaks counted",
    ),
    (
        "`DatabaseInstanceClass=aurora.serverless`, asleep all month",
        {"DatabaseInstanceClass": "aurora.serverless"},
        "some 15 seconds of the first request after each pause",
    ),
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


def price(
    template: Mapping[str, Any], parameters: Mapping[str, str], unit_hours: int = 0
) -> list[Row]:
    """The lines of the bill for these parameters; the others are at their defaults.

    Args:
        template: As `read_template` gives it.
        parameters: What is overridden.
        unit_hours: Capacity units times hours that aurora.serverless is awake in the month.
    """

    def parameter(name: str) -> str:
        return parameters.get(name, str(template["Parameters"][name]["Default"]))

    def of_type(name: str) -> list[Mapping[str, Any]]:
        resources = template["Resources"].values()
        return [
            r["Properties"]
            for r in resources
            if r["Type"] == name and exists(template, r, parameters)
        ]

    zones = 2 if parameter("HighAvailability") == "true" else 1
    name = read_budgets(template)[parameter("DatabaseInstanceClass")].provisioned
    databases = [*of_type("AWS::RDS::DBInstance"), *of_type("AWS::RDS::DBCluster")]
    rows = []
    for cluster in of_type("AWS::RDS::DBCluster"):
        least = cluster["ServerlessV2ScalingConfiguration"]["MinCapacity"]
        units = unit_hours or least * HOURS
        rows.append(Row("Aurora, capacity unit hours awake", units, CAPACITY_UNIT_HOUR))
        rows.append(Row("Its storage, GiB used", 1, AURORA_STORAGE_GIB))
    for instance in databases:
        if "AllocatedStorage" in instance:
            rows.append(Row(f"Database, {name}", zones, HOURS * INSTANCE_HOUR[name]))
            storage = zones * int(instance["AllocatedStorage"])
            rows.append(Row("Its storage, GiB of gp3", storage, STORAGE_GIB))
    if of_type("AWS::RDS::DBProxy"):
        rows.append(Row("RDS Proxy", 1, PROXY))
    secrets = len(of_type("AWS::SecretsManager::Secret"))
    secrets += sum(r.get("ManageMasterUserPassword", False) for r in databases)
    rows.append(Row("Secrets, of the master, the application user and the census", secrets, SECRET))
    interface = [e for e in of_type("AWS::EC2::VPCEndpoint") if e["VpcEndpointType"] == "Interface"]
    endpoints = zones * len(interface)
    rows.append(Row("Endpoint of Secrets Manager, availability zones", endpoints, ENDPOINT_ZONE))
    alarms = sum(
        sum("MetricStat" in m for m in alarm["Metrics"]) if "Metrics" in alarm else 1
        for alarm in of_type("AWS::CloudWatch::Alarm")
    )
    rows.append(Row("Metrics that alarms watch", alarms, ALARM_METRIC))
    counts = exists(template, {"Condition": "CountsConnections"}, parameters)
    asleep = of_type("AWS::RDS::DBCluster") and not unit_hours
    metrics = len(CENSUS_METRICS) * counts
    metrics += len(LAYER_METRICS) * (parameter("MakeMetrics") == "true" and not asleep)
    rows.append(Row("Metrics of our own that are always sent", metrics, CUSTOM_METRIC))
    rows.append(Row("Dashboard", len(of_type("AWS::CloudWatch::Dashboard")), DASHBOARD))
    return [row for row in rows if row.quantity or row.what.startswith("Aurora")]


def total(rows: list[Row]) -> Decimal:
    """Dollars a month."""
    return sum((row.month for row in rows), Decimal(0))


def cheaper(template: Mapping[str, Any]) -> str:
    """The table of docs/cost.md: what each step saves, and what it takes away."""
    lines = ["| and then | a month | what you give up |", "|---|---:|---|"]
    parameters: dict[str, str] = {}
    for what, step, lost in CHEAPER:
        parameters |= step
        lines.append(f"| {what} | {total(price(template, parameters))} | {lost} |")
    return "\n".join(lines)


def markdown(rows: list[Row]) -> str:
    """The table of the README."""
    lines = ["| what | count | each | a month |", "|---|---:|---:|---:|"]
    lines += [f"| {r.what} | {r.quantity} | {r.each.normalize():f} | {r.month} |" for r in rows]
    lines.append(f"| **all** | | | **{total(rows)}** |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table."""
    if arguments == ["--cheaper"]:
        print(cheaper(read_template()))
        return 0
    parameters = {name: value for name, _, value in (a.partition("=") for a in arguments)}
    print(markdown(price(read_template(), parameters)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
