"""Draws docs/architecture*.svg from template.yaml: `python -m deploy.picture`.

Text as text, the same bytes for the same template; once for light pages, once for dark ones.
Functions, what calls them, reservations, class, connections and alarms are read, not typed in.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from deploy.template import ROOT, exists, holds, read_template

STEM = ROOT / "docs" / "architecture"
LIGHT = {"paper": "#ffffff", "ink": "#222222", "faint": "#666666", "line": "#b0b7bf",
         "box": "#f4f6f8", "ours": "#0072B2", "on_ours": "#ffffff"}  # fmt: skip
DARK = {"paper": "#0d1117", "ink": "#e6edf3", "faint": "#9198a1", "line": "#4a525c",
        "box": "#1b222c", "ours": "#56a8de", "on_ours": "#0d1117"}  # fmt: skip
WIDTH, ROW, TOP = 880, 78, 96
SOURCES, FUNCTIONS, DATABASE = 10, 236, 664  # where each column begins
FUNCTION_WIDTH, DATABASE_WIDTH = 272, 196


class Function(NamedTuple):
    """A function of the template: what calls it, and how many of it may run at once."""

    name: str
    sources: list[str]
    reserved: int


def functions(template: Mapping[str, Any]) -> list[Function]:
    """In the template's order, at the defaults of its parameters."""
    resources = template["Resources"]
    deployed = {
        resource["Properties"]["ServiceToken"]["Fn::GetAtt"][0]
        for resource in resources.values()
        if resource["Type"].startswith("Custom::")
    }
    found = []
    for name, resource in resources.items():
        if resource["Type"] != "AWS::Serverless::Function" or not exists(template, resource, {}):
            continue
        own = resource["Properties"]
        sources = [_source(event, resources) for event in own.get("Events", {}).values()]
        if name in deployed:
            sources.append("each deployment")
        reserved = _number(template, own.get("ReservedConcurrentExecutions", 0))
        found.append(Function(name, sources or ["by hand"], reserved))
    return found


def _source(event: Mapping[str, Any], resources: Mapping[str, Any]) -> str:
    kind, own = event["Type"], event["Properties"]
    if kind == "HttpApi":
        api = resources[own["ApiId"]["Ref"]]["Properties"]
        return "HTTP API, signed" if "DefaultAuthorizer" in api.get("Auth", {}) else "HTTP API"
    if kind == "SQS":
        queue = resources[own["Queue"]["Fn::GetAtt"][0]]["Properties"]
        return "queue, dead letters" if "RedrivePolicy" in queue else "queue"
    if kind in ("Schedule", "ScheduleV2"):
        return str(own.get("ScheduleExpression", own.get("Schedule")))
    return str(kind)


def _number(template: Mapping[str, Any], node: Any) -> int:
    """A number of the template, at the defaults of its parameters."""
    if not isinstance(node, dict):
        return int(node)
    [(function, given)] = node.items()
    if function == "Fn::If":
        chosen = given[1] if holds(template, template["Conditions"][given[0]], {}) else given[2]
        return _number(template, chosen)
    if function == "Fn::FindInMap":
        mapping, first, second = (_text(template, one) for one in given)
        return int(template["Mappings"][mapping][first][second])
    return int(_text(template, node))


def _text(template: Mapping[str, Any], node: Any) -> str:
    return str(template["Parameters"][node["Ref"]]["Default"]) if isinstance(node, dict) else node


def draw(template: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    """The picture as SVG."""
    return "\n".join(_draw(template, colours)) + "\n"


def _draw(template: Mapping[str, Any], c: Mapping[str, str]) -> Iterator[str]:
    found = functions(template)
    chosen = template["Parameters"]["DatabaseInstanceClass"]["Default"]
    row = template["Mappings"]["InstanceClasses"][chosen]
    bottom = TOP + ROW * len(found)
    height = bottom + 74
    most = sum(one.reserved for one in found)
    alarms = sum(one["Type"] == "AWS::CloudWatch::Alarm" for one in template["Resources"].values())

    def text(x: float, y: float, words: str, size: int = 15, *, look: str = "") -> str:
        return f'<text x="{x}" y="{y}" font-size="{size}" {look or ink}>{escape(words)}</text>'

    def box(x: float, y: float, wide: float, high: float, look: str) -> str:
        return f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="6" {look}/>'

    def arrow(x: float, y: float, to: float, at: float) -> str:
        return (
            f'<path d="M{x} {y}L{to} {at}" stroke="{c["line"]}" stroke-width="2" fill="none" '
            'marker-end="url(#tip)"/>'
        )

    ink, faint, bold = (
        f'fill="{c["ink"]}"',
        f'fill="{c["faint"]}"',
        f'fill="{c["ink"]}" font-weight="bold"',
    )
    plain = f'fill="{c["box"]}" stroke="{c["line"]}"'
    dashed = f'fill="{c["paper"]}" stroke="{c["line"]}" stroke-dasharray="6 4"'
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="Helvetica, Arial, sans-serif">'
    )
    yield f'<rect width="{WIDTH}" height="{height}" fill="{c["paper"]}"/>'
    yield (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{c["line"]}"/></marker>'
    )
    yield box(FUNCTIONS - 22, 12, WIDTH - FUNCTIONS + 14, bottom - 4, dashed)
    closed = not holds(template, template["Conditions"]["MakesIpv6"], {})
    gate = "no way to the internet or from it" if closed else "no way in from the internet"
    yield text(FUNCTIONS - 8, 36, f"VPC of private subnets, {gate}", 15, look=faint)
    yield text(FUNCTIONS, 72, "Functions", 17, look=bold)
    yield text(FUNCTIONS + 128, 72, "reserved concurrency", 14, look=faint)
    yield text(SOURCES, 72, "What calls them", 17, look=bold)

    middle = (TOP + bottom - 14) / 2
    for number, one in enumerate(found):
        y = TOP + ROW * number
        for place, source in enumerate(one.sources):
            yield text(SOURCES, y + 34 + 20 * place, source)
        yield arrow(SOURCES + 160, y + 29, FUNCTIONS - 2, y + 29)
        yield box(FUNCTIONS, y, FUNCTION_WIDTH, 62, plain)
        yield text(FUNCTIONS + 12, y + 25, one.name, 16, look=bold)
        yield text(
            FUNCTIONS + FUNCTION_WIDTH - 12, y + 25, f"≤ {one.reserved}", 16,
            look=f'{bold} text-anchor="end"',
        )  # fmt: skip
        yield box(FUNCTIONS, y + 38, FUNCTION_WIDTH, 24, f'fill="{c["ours"]}"')
        layer = f'fill="{c["on_ours"]}"'
        yield text(FUNCTIONS + 12, y + 55, "layer: one connection, then none", 14, look=layer)
        yield arrow(
            FUNCTIONS + FUNCTION_WIDTH, y + 31, DATABASE - 4, middle + (y + 31 - middle) / 6
        )

    yield box(DATABASE, middle - 84, DATABASE_WIDTH, 168, plain)
    name = "Aurora" if row["Provisioned"] == "db.serverless" else "RDS MySQL"
    for place, (words, look) in enumerate(
        (
            (name, bold),
            (row["Provisioned"], ink),
            ("TLS only, encrypted", ink),
            (f"{row['MaxConnections']} connections,", bold),
            (f"≤ {most} for functions", bold),
        )
    ):
        yield text(
            DATABASE + 16, middle - 52 + 28 * place, words, 17 if not place else 15, look=look
        )
    yield box(DATABASE, TOP - 6, DATABASE_WIDTH, 40, dashed)
    yield text(DATABASE + 16, TOP + 19, "RDS Proxy, if asked for", 14, look=faint)
    yield box(DATABASE, bottom - 56, DATABASE_WIDTH, 42, plain)
    yield text(DATABASE + 16, bottom - 30, "Secrets Manager", 15)
    yield text(
        SOURCES, bottom + 40,
        f"{alarms} alarms, a dashboard, log groups. Drawn from template.yaml at its defaults.",
        14, look=faint,
    )  # fmt: skip
    yield "</svg>"


def pictures(template: Mapping[str, Any]) -> dict[Path, str]:
    """What stands in docs/, by file."""
    return {
        STEM.with_suffix(".svg"): draw(template, LIGHT),
        STEM.with_name(f"{STEM.name}-dark.svg"): draw(template, DARK),
    }


def main() -> int:
    """Write them."""
    for path, picture in pictures(read_template()).items():
        path.write_text(picture, "utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
