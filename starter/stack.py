"""template.yaml as text: a function's entries put in and taken out, all else left as it is.

Places are found by what stays: the two functions that are kept, the log group and the dead letters
of schedules, the alarms that sum over functions, the dashboard's titles.
"""

import re
from collections.abc import Iterable

# What is put in goes before the first line of these.
FUNCTIONS, QUEUES = "  ConnectionCensus:\n", "  ScheduleDeadLetters:\n"
LOGS, ALARMS, OUTPUTS = "  ConnectionCensusLogs:\n", "  Dashboard:\n", "  FunctionDatabaseHost:\n"
SUM = "Expression: SUM(METRICS()), ReturnData: true }\n"
IN_FLIGHT = "Connections, and invocations in flight"
FAILURES, LETTERS = "Errors and throttles", "Queues, and dead letters"
ENTRY = r"(?:    .*\n|\n)*"
METRIC = '["{namespace}", "{metric}", "{key}",\n                  "${{{of}}}", {{{label}}}]'


class StackError(ValueError):
    """The template has no place for it, or something else still needs what is taken out."""


def put_before(text: str, anchor: str, block: str) -> str:
    """The block before the anchor, a line that is there once."""
    if text.count(f"\n{anchor}") != 1:
        raise StackError(f"template.yaml has no place: expected one line {anchor.strip()!r}.")
    return text.replace(f"\n{anchor}", f"\n{block}{anchor}")


def put_in_sum(text: str, alarm: str, metric: str, seconds: int, dimension: str) -> str:
    """One more thing that an alarm sums over; `dimension` is `Name=Logical` or of a queue."""
    start = text.find(f"\n  {alarm}:\n")
    place = text.find(SUM, start) + len(SUM)
    if start < 0 or place < start:
        raise StackError(f"template.yaml has no {alarm} that sums over functions.")
    key, of = dimension.split("=")
    value = f"!GetAtt {of}.QueueName" if key == "QueueName" else f"!Ref {of}"
    namespace = "AWS/SQS" if key == "QueueName" else "AWS/Lambda"
    item = (
        f"        - Id: {of[0].lower()}{of[1:]}\n"
        "          ReturnData: false\n"
        "          MetricStat:\n"
        "            Metric:\n"
        f"              Namespace: {namespace}\n"
        f"              MetricName: {metric}\n"
        f"              Dimensions: [{{ Name: {key}, Value: {value} }}]\n"
        f"            Period: {seconds}\n"
        f"            Stat: {'Maximum' if key == 'QueueName' else 'Sum'}\n"
    )
    return text[:place] + item + text[place:]


def put_on_dashboard(text: str, title: str, metric: str, of: str, *, said: str) -> str:
    """One more line of the widget with that title; `of` is a function or `Queue.QueueName`."""
    start = text.find(f'"title": "{title}"')
    place = text.find('"metrics": [\n', start) + len('"metrics": [\n')
    if start < 0 or place < start:
        raise StackError(f"template.yaml's dashboard has no widget {title!r}.")
    key = "QueueName" if of.endswith(".QueueName") else "FunctionName"
    namespace = "AWS/SQS" if key == "QueueName" else "AWS/Lambda"
    label = f'"label": "{said}"'
    if "Age" in metric:
        label += ', "yAxis": "right"'
    line = METRIC.format(namespace=namespace, metric=metric, key=key, of=of, label=label)
    return f"{text[:place]}                {line},\n{text[place:]}"


def owned_by(resources: dict[str, dict[str, object]], name: str) -> set[str]:
    """The logical ids that go with a function: its logs, and what only it and its own refer to."""
    own = {name, f"{name}Logs"}
    grown = True
    while grown:
        grown = False
        for other, resource in resources.items():
            users = {n for n, r in resources.items() if n != other and refers(r, other)}
            watches = resource["Type"] == "AWS::CloudWatch::Alarm" and not is_sum(resource)
            needed = watches and any(refers(resource, one) for one in own)
            users = {n for n in users if not is_watcher(resources[n])}
            private = resource["Type"] == "AWS::SQS::Queue" and users and users <= own
            if other not in own and (private or needed):
                own.add(other)
                grown = True
    return own


def is_sum(resource: dict[str, object]) -> bool:
    """Whether it is an alarm over several metrics."""
    properties = resource["Properties"]
    return isinstance(properties, dict) and "Metrics" in properties


def is_watcher(resource: dict[str, object]) -> bool:
    """Whether it only looks at others."""
    return str(resource["Type"]).startswith("AWS::CloudWatch")


def refers(node: object, name: str) -> bool:
    """Whether anything in it names this logical id."""
    if isinstance(node, dict):
        return any(
            (key == "Ref" and value == name)
            or (key == "Fn::GetAtt" and [name] == value[:1])
            or refers(value, name)
            for key, value in node.items()
        )
    return isinstance(node, list) and any(refers(one, name) for one in node)


def take_out(text: str, names: Iterable[str]) -> str:
    """Without these resources, without what sums, shows and outputs say of them."""
    for name in names:
        # The comment above stays: it is of the group.
        text = re.sub(rf"^  {name}:\n{ENTRY}", "", text, flags=re.MULTILINE)
        used = rf"(?:!Ref {name}\b|!GetAtt {name}\.)"
        item = rf"^        - Id: \w+\n(?:          .*\n)*?.*{used}.*\n(?:          .*\n)*"
        text = re.sub(item, "", text, flags=re.MULTILINE)
        head, start, outputs = text.partition("\nOutputs:\n")
        output = rf"^  \w+:\n(?:    (?!Value).*\n)*    Value: {used}.*\n"
        text = head + start + re.sub(output, "", outputs, flags=re.MULTILINE)
        text = re.sub(rf"\n *\[[^\[\]]*\$\{{{name}[.}}][^\[\]]*\],(?=\n)", "", text)
        text = re.sub(rf",\n *\[[^\[\]]*\$\{{{name}[.}}][^\[\]]*\](?=\])", "", text)
    return text
