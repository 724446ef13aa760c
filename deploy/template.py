"""template.yaml as data: resources, parameters and the connection budget of each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "template.yaml"
FUNCTION = "AWS::Serverless::Function"


@dataclass(frozen=True, slots=True)
class Budget:
    """One row of the mapping InstanceClasses; all numbers are connections or invocations."""

    provisioned: str
    max_connections: int
    application_max_user_connections: int
    connections_alarm: int
    functions: Mapping[str, int]  # what each function reserves, by logical id
    functions_behind_proxy: Mapping[str, int]

    def reserved(self, *, proxy: bool) -> int:
        """Concurrency that the stack takes out of the account's."""
        return sum((self.functions_behind_proxy if proxy else self.functions).values())


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
    wanted = reservations(template)

    def reserved(row: Mapping[str, Any], *, proxy: bool) -> dict[str, int]:
        chosen = {name: pair[proxy] for name, pair in wanted.items()}
        return {name: row[one] if isinstance(one, str) else one for name, one in chosen.items()}

    return {
        name: Budget(
            row["Provisioned"],
            row["MaxConnections"],
            row["ApplicationMaxUserConnections"],
            row["ConnectionsAlarm"],
            reserved(row, proxy=False),
            reserved(row, proxy=True),
        )
        for name, row in template["Mappings"]["InstanceClasses"].items()
    }


def reservations(template: Mapping[str, Any]) -> dict[str, tuple[int | str, int | str]]:
    """What each function reserves, without a proxy and behind one: a number, or a column."""
    return {
        name: (_reservation(given, proxy=False), _reservation(given, proxy=True))
        for name, resource in template["Resources"].items()
        if resource["Type"] == FUNCTION
        if (given := resource["Properties"].get("ReservedConcurrentExecutions")) is not None
    }


def _reservation(given: Any, *, proxy: bool) -> int | str:
    match given:
        case {"Fn::If": ["ReservesConcurrency", reserved, _]}:
            return _reservation(reserved, proxy=proxy)
        case {"Fn::If": ["HasProxy", behind, without]}:
            return _reservation(behind if proxy else without, proxy=proxy)
        case {"Fn::FindInMap": ["InstanceClasses", _, str(column)]}:
            return column
        case int(number):
            return number
    raise ValueError(
        f"ReservedConcurrentExecutions is {given!r}; expected a number or a column of "
        "InstanceClasses, under the conditions ReservesConcurrency and HasProxy alone."
    )
