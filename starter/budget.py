"""Shares out each class's connections among the functions: `make budget`.

A function whose ReservedConcurrentExecutions is a number has that many. One whose Metadata says
`Connections: { Share: 2, AtLeast: 5 }` gets so many parts of what is left, and never fewer than 5.
The columns of template.yaml's mapping InstanceClasses that something in it looks up are written:

    Function, FunctionBehindProxy              what that function reserves
    FunctionAlarm, FunctionAlarmBehindProxy    80 % of it
    RequestsPerSecond, Burst (…BehindProxy)    what the functions of the HTTP API can serve

On Managed Instances so many of a function run at once as MaxExecutionEnvironments times
PerExecutionEnvironmentMaxConcurrency: keep that product, set by hand, within its figure here.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.template import FUNCTION, TEMPLATE, read_template, reservations
from starter import pages

KEPT_FOR_PEOPLE = 10
KEPT_FOR_KILLS = 5
INVOCATIONS_PER_PROXIED_CONNECTION = 4
REQUESTS_A_CONNECTION_SERVES = 20  # a second, if each holds it for 50 ms
# API Gateway gives an account so many requests a second, and so many at one moment.
MOST_REQUESTS, MOST_AT_ONCE = 10_000, 5_000
# An account may reserve 900 of the usual 1,000, and has other functions.
MOST_SHARED_OUT = 850
LEAST_POLLERS = 2  # the least that MaximumConcurrency of a queue may be

ROW = re.compile(r"^(    ([\w.]+):\n(?:      #.*\n)*)      \{[^}]*\}\n", re.MULTILINE)


class BudgetError(ValueError):
    """The connections of a class do not suffice, or the template asks for what nobody computes."""


@dataclass(frozen=True, slots=True)
class Want:
    """What one function asks of the connections that are shared out."""

    share: int
    at_least: int


def wants(template: Mapping[str, Any]) -> dict[str, Want]:
    """By logical id, of each function that has a share."""
    found = {}
    for name, columns in reservations(template).items():
        if isinstance(columns[0], int):
            continue
        resource = template["Resources"][name]
        said = resource.get("Metadata", {}).get("Connections")
        if columns != (name, f"{name}BehindProxy") or not said:
            raise BudgetError(
                f"{name} reserves what {columns[0]} and {columns[1]} say: expected {name} and "
                f"{name}BehindProxy, and in its Metadata `Connections: {{ Share: 1 }}`."
            )
        least = LEAST_POLLERS if called_by(resource, "SQS") else 1
        found[name] = Want(said["Share"], max(said.get("AtLeast", 1), least))
    return found


def called_by(resource: Mapping[str, Any], kind: str) -> bool:
    """Whether an event of this kind calls the function."""
    events = resource["Properties"].get("Events", {}).values()
    return any(event["Type"] == kind for event in events)


def share_out(connections: int, wanted: Mapping[str, Want]) -> dict[str, int]:
    """So many each, by their shares; who would get less than its least gets that, first."""
    given: dict[str, int] = {}
    left = connections
    while open_ := {name: want for name, want in wanted.items() if name not in given}:
        parts = sum(want.share for want in open_.values())
        short = {n: w for n, w in open_.items() if left * w.share // parts < w.at_least}
        if not short:
            given |= {n: left * w.share // parts for n, w in open_.items()}
            break
        for name, want in short.items():
            given[name] = want.at_least
            left -= want.at_least
    return {name: given[name] for name in wanted}


def compute(template: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every row of InstanceClasses, from its Provisioned and MaxConnections.

    Raises:
        BudgetError: the functions want more than a class has, or a column is looked up that
            nothing computes; the sentence says which.
    """
    return {
        name: _row(template, name, row["Provisioned"], row["MaxConnections"])
        for name, row in template["Mappings"]["InstanceClasses"].items()
    }


def _row(template: Mapping[str, Any], name: str, provisioned: str, most: int) -> dict[str, Any]:
    user = most - KEPT_FOR_PEOPLE
    fixed = {n: c[0] for n, c in reservations(template).items() if isinstance(c[0], int)}
    wanted = wants(template)
    least = fixed | {n: want.at_least for n, want in wanted.items()}
    there = user - KEPT_FOR_KILLS
    if sum(least.values()) > there:
        each = ", ".join(f"{n} {number}" for n, number in sorted(least.items(), key=_most_first))
        raise BudgetError(
            f"{name} has {there} connections for functions ({most} less {KEPT_FOR_PEOPLE} for "
            f"people and {KEPT_FOR_KILLS} for KILL), and they want {sum(least.values())}: {each}. "
            "Lower an AtLeast or a reservation, remove a function, or remove the class from "
            "InstanceClasses and DatabaseInstanceClass."
        )
    shared = share_out(there - sum(fixed.values()), wanted)
    shared = (
        shared if sum(shared.values()) <= MOST_SHARED_OUT else share_out(MOST_SHARED_OUT, wanted)
    )
    behind = {n: INVOCATIONS_PER_PROXIED_CONNECTION * number for n, number in shared.items()}
    if sum(behind.values()) > MOST_SHARED_OUT:
        behind = share_out(MOST_SHARED_OUT, wanted)
    called = [n for n, r in _functions(template) if called_by(r, "HttpApi")]
    columns = {
        "Provisioned": provisioned,
        "MaxConnections": most,
        "ApplicationMaxUserConnections": user,
        "ConnectionsAlarm": (sum(shared.values()) + sum(fixed.values())) * 8 // 10,
    }
    for suffix, reserved in (("", shared), ("BehindProxy", behind)):
        at_once = sum((fixed | reserved)[n] for n in called)
        columns |= {
            f"RequestsPerSecond{suffix}": min(
                at_once * REQUESTS_A_CONNECTION_SERVES, MOST_REQUESTS
            ),
            f"Burst{suffix}": min(at_once, MOST_AT_ONCE),
        }
        for n, number in reserved.items():
            columns |= {f"{n}{suffix}": number, f"{n}Alarm{suffix}": number * 8 // 10}
    looked_up = set(_columns(template)) | {"Provisioned", "MaxConnections"}
    if unknown := looked_up - columns.keys():
        raise BudgetError(
            f"template.yaml looks up {', '.join(sorted(unknown))} in InstanceClasses, which no "
            f"function stands behind; there are: {', '.join(columns)}."
        )
    return {column: value for column, value in columns.items() if column in looked_up}


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _functions(template: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(n, r) for n, r in template["Resources"].items() if r["Type"] == FUNCTION]


def _columns(node: Any) -> Iterator[str]:
    """Every column of InstanceClasses that is looked up anywhere."""
    if isinstance(node, dict):
        match node:
            case {"Fn::FindInMap": ["InstanceClasses", _, str(column)]}:
                yield column
        for value in node.values():
            yield from _columns(value)
    elif isinstance(node, list):
        for value in node:
            yield from _columns(value)


def written(text: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The template's text with these rows; all else, comments too, as it was."""
    head, start, rest = text.partition("  InstanceClasses:\n")
    body, end, tail = rest.partition("\n# ── Conditions")

    def row(match: re.Match[str]) -> str:
        lines = ["      {"]
        pairs = [f"{column}: {value}" for column, value in rows[match[2]].items()]
        for pair, stop in zip(pairs, [","] * (len(pairs) - 1) + [" }"], strict=True):
            if len(lines[-1]) + len(pair) + 3 > 100:
                lines.append("       ")
            lines[-1] += f" {pair}{stop}"
        return match[1] + "\n".join(lines) + "\n"

    return head + start + ROW.sub(row, body) + end + tail


def main(path: Path = TEMPLATE) -> int:
    """Write the figures into the template; 1 and a sentence if they cannot be."""
    text = path.read_text(encoding="utf-8")
    try:
        new = written(text, compute(read_template(path)))
    except BudgetError as error:
        print(f"Nothing was written. {error}", file=sys.stderr)
        return 1
    path.write_text(new, encoding="utf-8")
    pages.renew(path.parent)
    print("The budget was as it should be." if new == text else f"Written: {path.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
