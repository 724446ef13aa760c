"""Adds a function of your own, or takes one away: `make function`, `make function-remove`.

    python -m starter.function add venue_admin http
    python -m starter.function remove venue_admin

A function is a folder, its tests, its events with their answers, its entries in template.yaml, and
a table with rights. A migration that was deployed has run: removing a function leaves its table.
"""

import itertools
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.template import FUNCTION, ROOT, read_template
from starter import budget, pages, stack

PARTS = Path(__file__).parent / "parts"
TRIGGERS = ("http", "queue", "schedule", "direct")
KEPT = ("migrate", "connection_census", "rotate_secret")
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class RefusedError(ValueError):
    """It cannot be done; the sentence says why and what to do."""


def logical_id(name: str) -> str:
    """venue_admin is VenueAdmin."""
    return "".join(word.capitalize() for word in name.split("_"))


def part(file: str, name: str) -> str:
    """A part with its names filled in."""
    text = (PARTS / file).read_text(encoding="utf-8")
    given = {"name": name, "path": name.replace("_", "-"), "Logical": logical_id(name)}
    given["logical"] = given["Logical"]
    return re.sub(r"@(name|path|Logical|logical)@", lambda match: given[match[1]], text)


def add(name: str, trigger: str, root: Path = ROOT) -> list[Path]:
    """Write all of it; the files that are new.

    Raises:
        RefusedError: the name or the trigger is none, or is taken.
        BudgetError: no class has connections to spare for it; nothing is written.
    """
    if trigger not in TRIGGERS:
        raise RefusedError(f"TRIGGER is {trigger!r}; expected one of {', '.join(TRIGGERS)}.")
    if not NAME.fullmatch(name) or len(name) > 40:
        raise RefusedError(
            f"NAME is {name!r}; expected words of lower-case letters and digits with an "
            "underscore between, like venue_admin, 40 characters at most."
        )
    template = root / "template.yaml"
    grants = root / "functions" / "migrate" / "grants.toml"
    own = logical_id(name)
    granted = grants.read_text(encoding="utf-8")
    if own in read_template(template)["Resources"] or any((root / "functions" / name).glob("*.*")):
        raise RefusedError(f"There is a function {name} already; choose another name.")
    if re.search(rf"^{name} =", granted, re.MULTILINE):
        raise RefusedError(
            f"There is a table {name} already; choose another name, or take its line out of "
            "functions/migrate/grants.toml and drop it by a migration."
        )
    before = template.read_text(encoding="utf-8")
    template.write_text(entries(before, name, trigger), encoding="utf-8")
    try:
        rows = budget.compute(read_template(template))
    except budget.BudgetError:
        template.write_text(before, encoding="utf-8")
        raise
    after = budget.written(template.read_text(encoding="utf-8"), rows)
    template.write_text(after, encoding="utf-8")
    migrations = root / "functions" / "migrate" / "migrations"
    number = 1 + max((int(p.name[:4]) for p in migrations.glob("[0-9]*.sql")), default=0)
    new = {
        root / "functions" / name / "app.py": part(f"{trigger}.py.txt", name),
        migrations / f"{number:04}_{name}.sql": part("migration.sql", name),
        root / "tests" / "functions" / f"test_{name}.py": part("test.py.txt", name)
        + part(f"{trigger}.test.txt", name),
    }
    expected = json.loads((root / "events" / "expected.json").read_text(encoding="utf-8"))
    for event, (content, answer) in json.loads(part("events.json", name))[trigger].items():
        new[root / "events" / f"{name}.{event}.json"] = json.dumps(content, indent=2) + "\n"
        expected[f"{name}.{event}"] = answer
    for path, text in new.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    write_expected(root, expected)
    grants.write_text(f'{granted}{name} = "SELECT, INSERT"\n', encoding="utf-8")
    pages.renew(root)
    return list(new)


def entries(text: str, name: str, trigger: str) -> str:
    """The template with the function, and with its place in alarms, dashboard and outputs."""
    own = logical_id(name)
    text = stack.put_before(text, stack.FUNCTIONS, part(f"{trigger}.function.yaml", name))
    text = stack.put_before(text, stack.LOGS, part("logs.yaml", name))
    for kind, anchor in (
        ("queues", stack.QUEUES),
        ("alarms", stack.ALARMS),
        ("outputs", stack.OUTPUTS),
    ):
        if (PARTS / f"{trigger}.{kind}.yaml").exists():
            text = stack.put_before(text, anchor, part(f"{trigger}.{kind}.yaml", name))
    show = stack.put_on_dashboard
    text = show(text, stack.FAILURES, "Errors", own, said=f"{own} errors")
    if trigger in ("queue", "direct"):
        text = stack.put_in_sum(text, "FunctionErrorsAlarm", "Errors", 300, f"FunctionName={own}")
    if trigger in ("queue", "http"):
        text = stack.put_in_sum(text, "ThrottlesAlarm", "Throttles", 60, f"FunctionName={own}")
        text = show(text, stack.FAILURES, "Throttles", own, said=f"{own} throttles")
        text = show(text, stack.IN_FLIGHT, "ConcurrentExecutions", own, said=own)
    if trigger == "queue":
        queue, letters = f"{own}Queue", f"{own}DeadLetters"
        visible = "ApproximateNumberOfMessagesVisible"
        of = f"QueueName={letters}"
        text = stack.put_in_sum(text, "DeadLettersAlarm", visible, 300, of)
        for metric, resource, said in (
            (visible, letters, "dead letters"),
            ("ApproximateAgeOfOldestMessage", queue, "oldest, seconds"),
            (visible, queue, "waiting"),
        ):
            of = f"{resource}.QueueName"
            text = show(text, stack.LETTERS, metric, of, said=f"{own} {said}")
    return text


def remove(name: str, root: Path = ROOT, *, keep: bool = True) -> list[Path]:
    """Take all of it away but its migrations; the files that are gone, kept in `build/removed/`.

    Raises:
        RefusedError: there is none of that name, or it stays.
    """
    path = root / "template.yaml"
    template = read_template(path)
    found = [
        n
        for n, r in template["Resources"].items()
        if r["Type"] == FUNCTION and r["Properties"]["CodeUri"].strip("/") == f"functions/{name}"
    ]
    if not found or name in KEPT:
        raise RefusedError(
            f"There is no function {name!r} of yours in template.yaml; {', '.join(KEPT)} stay."
        )
    text = stack.take_out(path.read_text(encoding="utf-8"), _owned(template["Resources"], found[0]))
    path.write_text(text, encoding="utf-8")
    rows = budget.compute(read_template(path))
    path.write_text(budget.written(text, rows), encoding="utf-8")
    gone = [p for p in (root / "functions" / name).rglob("*") if p.is_file()]
    gone += (root / "events").glob(f"{name}.*.json")
    gone += [p for p in [root / "tests" / "functions" / f"test_{name}.py"] if p.exists()]
    if keep:
        _keep(gone, _free(root / "build" / "removed" / name), root)
    for file in gone:
        file.unlink()
    shutil.rmtree(root / "functions" / name)
    expected = json.loads((root / "events" / "expected.json").read_text(encoding="utf-8"))
    write_expected(root, {k: v for k, v in expected.items() if k.split(".")[0] != name})
    pages.renew(root)
    return gone


def _keep(files: list[Path], place: Path, root: Path) -> None:
    for file in files:
        kept = place / file.relative_to(root)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, kept)


def _free(path: Path) -> Path:
    """The path, or the first with a number behind it that is not taken."""
    numbered = (path.with_name(f"{path.name}-{n}") for n in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def _owned(resources: dict[str, Any], name: str) -> list[str]:
    return sorted(stack.owned_by(resources, name))


def write_expected(root: Path, expected: Mapping[str, Any]) -> None:
    """events/expected.json, an answer a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in expected.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (root / "events" / "expected.json").write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Do it and list the files; 1 and a sentence if it cannot be done."""
    try:
        match arguments:
            case ["add", name, trigger]:
                files = add(name, trigger)
            case ["remove", name]:
                files = remove(name)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (RefusedError, budget.BudgetError, stack.StackError) as error:
        print(f"Nothing was done. {error}", file=sys.stderr)
        return 1
    for file in files:
        print(file.relative_to(ROOT))
    print("template.yaml, events/expected.json; README.md, docs/cost.md and the picture with them")
    print(left_to_do(arguments[0], name))
    return 0


def left_to_do(command: str, name: str) -> str:
    """What comes next, in a sentence."""
    if command == "add":
        return f"Rights: functions/migrate/grants.toml. Try: make invoke FUNCTION={name} EVENT=good"
    return (
        "What it was lies in build/removed/ until `make clean`. Its migrations and its lines in "
        f"functions/migrate/grants.toml are left. If {name} was never deployed, take them away by "
        "hand; else drop its table by a migration."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
