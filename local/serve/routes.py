"""Which function of the template answers a request, and what calls the others."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from local.template import Function

Trigger = Literal["http", "queue", "schedule", "direct"]

# API Gateway quota for HTTP APIs: 30 seconds at most.
INTEGRATION_SECONDS = 30.0

_TRIGGERS: Mapping[str, Trigger] = {
    "HttpApi": "http",
    "SQS": "queue",
    "Schedule": "schedule",
    "ScheduleV2": "schedule",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the HTTP API. `seconds`: how long the gateway waits for the function."""

    function: str
    method: str
    path: str
    seconds: float

    @property
    def key(self) -> str:
        """As the gateway writes it; a route without path takes what no other takes."""
        return f"{self.method} {self.path}" if self.path else "$default"


@dataclass(frozen=True, slots=True)
class Match:
    """A route that takes a request, with the values of its path's parameters."""

    route: Route
    parameters: Mapping[str, str]

    @property
    def route_key(self) -> str:
        return self.route.key


def trigger_of(function: Function) -> Trigger:
    """What calls it; "direct" where it is called by its name, or by what is not simulated here."""
    for event in function.events.values():
        if found := _TRIGGERS.get(event.get("Type")):
            return found
    return "direct"


def read_routes(functions: Iterable[Function]) -> list[Route]:
    """The routes of every function."""
    return [
        _route(function.name, event.get("Properties") or {})
        for function in functions
        for event in function.events.values()
        if event.get("Type") == "HttpApi"
    ]


def find_route(routes: Iterable[Route], method: str, path: str) -> Match | None:
    """The most specific route that takes it: a full match, then a greedy one, then $default.

    Source: AWS API Gateway Developer Guide, "Create routes for HTTP APIs".
    """
    best: tuple[tuple[int, int, int], Match] | None = None
    for route in routes:
        parameters = _parameters(route, path)
        if parameters is None or route.method not in {method, "ANY"}:
            continue
        rank = (
            0 if not route.path else 1 if "+}" in route.path else 2,
            -len(parameters),
            route.method != "ANY",
        )
        if best is None or rank > best[0]:
            best = (rank, Match(route, parameters))
    return best[1] if best else None


def _route(function: str, properties: Mapping[str, Any]) -> Route:
    milliseconds = properties.get("TimeoutInMillis")
    return Route(
        function=function,
        method=str(properties.get("Method", "ANY"))
        .upper()
        .replace("X-AMAZON-APIGATEWAY-ANY-METHOD", "ANY"),
        path=str(properties.get("Path", "")).removeprefix("$default"),
        seconds=float(milliseconds) / 1000 if milliseconds else INTEGRATION_SECONDS,
    )


def _parameters(route: Route, path: str) -> dict[str, str] | None:
    """The path's parameters, or None where the route does not take it."""
    if not route.path:
        return {}
    pattern = ""
    for part in re.split(r"(\{[^}]+\})", route.path):
        if part.startswith("{"):
            # Names may have characters that a group's name may not: so they are numbered.
            pattern += "(.+)" if part.endswith("+}") else "([^/]+)"
        else:
            pattern += re.escape(part)
    found = re.fullmatch(pattern, path)
    names = [name.removesuffix("+") for name in re.findall(r"\{([^}]+)\}", route.path)]
    return dict(zip(names, found.groups(), strict=True)) if found else None
