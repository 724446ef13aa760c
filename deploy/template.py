"""template.yaml as data: resources, parameters and the connection budget of each class."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "template.yaml"

# SalesReport, ConnectionCensus and Migrate: what runs on a schedule or a deployment runs once.
SINGLE_FUNCTIONS = 3


@dataclass(frozen=True, slots=True)
class Budget:
    """One row of the mapping InstanceClasses; all numbers are connections or invocations."""

    provisioned: str
    max_connections: int
    application_max_user_connections: int
    connections_alarm: int
    orders_api: int
    orders_api_behind_proxy: int
    stock_worker: int
    stock_worker_behind_proxy: int
    requests_per_second: int
    requests_per_second_behind_proxy: int
    concurrency_alarm: int
    concurrency_alarm_behind_proxy: int

    def reserved(self, *, proxy: bool) -> int:
        """Concurrency that the stack takes out of the account's."""
        if proxy:
            return self.orders_api_behind_proxy + self.stock_worker_behind_proxy + SINGLE_FUNCTIONS
        return self.orders_api + self.stock_worker + SINGLE_FUNCTIONS


def read_template(path: Path = TEMPLATE) -> dict[str, Any]:
    """The template with every intrinsic function in its long form."""
    template: dict[str, Any] = yaml_parse(path.read_text(encoding="utf-8"))
    return template


def exists(
    template: Mapping[str, Any], resource: Mapping[str, Any], parameters: Mapping[str, str]
) -> bool:
    """Whether a resource is made for these parameters; the others are at their defaults."""
    name = resource.get("Condition")
    return name is None or holds(template, template["Conditions"][name], parameters)


def holds(
    template: Mapping[str, Any], condition: Mapping[str, Any], parameters: Mapping[str, str]
) -> bool:
    """Whether a condition is true for these parameters."""

    def value(node: Any) -> str:
        if isinstance(node, dict):
            name = node["Ref"]
            return parameters.get(name, str(template["Parameters"][name]["Default"]))
        return str(node)

    [(function, given)] = condition.items()
    if function == "Condition":
        return holds(template, template["Conditions"][given], parameters)
    if function == "Fn::Equals":
        return value(given[0]) == value(given[1])
    results = [holds(template, one, parameters) for one in given]
    return {"Fn::Not": not results[0], "Fn::And": all(results), "Fn::Or": any(results)}[function]


def read_budgets(template: Mapping[str, Any]) -> dict[str, Budget]:
    """The budget of each class that DatabaseInstanceClass allows."""
    names = [field.name for field in fields(Budget)]
    return {
        name: Budget(**{key: row[key.title().replace("_", "")] for key in names})
        for name, row in template["Mappings"]["InstanceClasses"].items()
    }
