"""`make demo`: what counts as right, the report it leaves, and that it leaves nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.database import LocalDatabase
from local.demo import Case, Line, invoke_case, is_right, matches, problem_of, read_cases, verdict
from local.environment import ROOT, Answer
from local.events import InputError
from local.template import Function, read_functions

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def answer(payload: object, **changes: Any) -> Answer:
    status = changes.get("status", "ok")
    error_type = changes.get("error_type")
    return Answer(status, json.dumps(payload).encode(), error_type, 0.1, None, "", "id", 30)


@given(JSON)
def test_every_answer_matches_itself_also_as_a_string_of_json(value: Any) -> None:
    assert matches(value, value)
    if isinstance(value, (dict, list)):
        assert matches(json.dumps(value), value)


@given(st.dictionaries(st.text(max_size=4), JSON, min_size=1), st.data())
def test_more_keys_than_expected_are_fine_and_fewer_are_not(
    value: dict[str, Any], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    less = {name: part for name, part in value.items() if name != key}
    assert matches(value, less)
    assert not matches(less, value)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ({"statusCode": 500}, {"statusCode": 201}),
        ([1, 2], [1]),
        ([1], [1, 2]),
        (1, True),
        ("{no json", {}),
        (None, {}),
        ("1", 1),
    ],
)
def test_what_differs_does_not_match(actual: Any, expected: Any) -> None:
    assert not matches(actual, expected)


def test_status_error_type_and_body_must_all_be_right() -> None:
    good = answer({"statusCode": 201, "body": '{"id": 7, "total": 3}'})
    assert is_right(good, {"status": "ok", "match": {"statusCode": 201, "body": {"id": 7}}})
    assert not is_right(good, {"status": "ok", "match": {"body": {"id": 8}}})
    assert not is_right(good, {"status": "error"})
    bad = answer({"errorMessage": "no"}, status="error", error_type="ValueError")
    assert is_right(bad, {"status": "error", "error_type": "ValueError"})
    assert not is_right(bad, {"status": "error", "error_type": "KeyError"})
    assert not is_right(bad, {"status": "ok"})


def test_every_event_needs_a_line_and_every_line_an_event_and_all_are_named(
    tmp_path: Path,
) -> None:
    functions = read_functions()
    (tmp_path / "orders_api.place.json").write_text("{}")
    (tmp_path / "expected.json").write_text('{"orders_api.gone": {}, "dance.now": {}}')
    with pytest.raises(InputError) as refused:
        read_cases(tmp_path, functions)
    said = str(refused.value)
    assert "orders_api.gone is expected and has no event file" in said
    assert "orders_api.place.json has no line in expected.json" in said
    assert "dance.now is of no function in the template" in said
    assert "migrate has no event" in said


def test_the_projects_own_events_all_have_a_right_answer() -> None:
    assert len(read_cases(ROOT / "events", read_functions())) >= 10


CONNECT = """
import os, pymysql
kept = []
def lambda_handler(event, context):
    for _ in range(event["connections"]):
        kept.append(pymysql.connect(
            host=os.environ["DATABASE_HOST"], port=int(os.environ["DATABASE_PORT"]),
            user=os.environ["DATABASE_USER"], password=os.environ["DATABASE_PASSWORD"],
            ssl_ca=os.environ["DATABASE_CA_FILE"],
        ))
    if event["close"]:
        while kept:
            kept.pop().close()
        import time; time.sleep(0.1)
    return "done"
"""


@pytest.mark.parametrize(
    ("connections", "close", "left", "right"),
    [(1, True, 0, True), (0, True, 0, True), (1, False, 1, False), (2, True, 0, False)],
)
async def test_the_server_counts_what_was_opened_and_what_is_left(
    database_server: LocalDatabase,
    tmp_path: Path,
    connections: int,
    close: bool,
    left: int,
    right: bool,
) -> None:
    (tmp_path / "app.py").write_text(CONNECT)
    event_file = tmp_path / "leaky.case.json"
    event_file.write_text(json.dumps({"connections": connections, "close": close}))
    function = Function("Leaky", "leaky", tmp_path, "app.lambda_handler", "", 10, 128, 1, {})
    case = Case(function, event_file, {"status": "ok", "match": "done"})
    async with function.environment(database_server.application_environ()) as environment:
        line = await invoke_case(case, environment, database_server)
    assert (line.connections_opened, line.sessions_after) == (connections, left)
    assert line.right is right


LET_GO_LATER = CONNECT.replace("kept.pop().close()", "kept.pop()._force_close()").replace(
    "import time; time.sleep(0.1)", ""
)


async def test_the_servers_list_has_its_moment_after_the_answer(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    """A socket that was just closed: on the list still, for less than 0.1 s."""
    (tmp_path / "app.py").write_text(LET_GO_LATER)
    event_file = tmp_path / "late.case.json"
    event_file.write_text(json.dumps({"connections": 1, "close": True}))
    function = Function("Late", "late", tmp_path, "app.lambda_handler", "", 10, 128, 1, {})
    case = Case(function, event_file, {"status": "ok"})
    async with function.environment(database_server.application_environ()) as environment:
        for _ in range(20):
            line = await invoke_case(case, environment, database_server)
            assert line.right, line


def test_the_last_line_says_what_was_wrong_and_is_green_only_when_all_was_right() -> None:
    good = Line("f", "f.e", "ok", None, None, 1.0, None, 1, 0, {}, right=True)
    assert verdict([], 3) == "[bold green]All right after 3 s.[/]"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"sessions_after": 2}, "f.e left 2 sessions"),
        ({"connections_opened": 2}, "f.e opened 2 connections"),
        ({}, "f.e answered otherwise than expected"),
    ]
    for change, said in changes:
        problem = problem_of(replace(good, right=False, **change))
        assert problem == said
        assert verdict([problem], 3) == f"[bold red]WRONG after 3 s: {said}.[/]"


def start(output: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "local.demo", "--output", str(output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.usefixtures("either_server")
def test_the_demo_is_right_and_its_report_says_of_each_invocation_what_the_server_saw(
    tmp_path: Path,
) -> None:
    with start(tmp_path) as demo:
        said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["right"] is True
    assert {line["function"] for line in report["invocations"]} == set(read_functions())
    for line in report["invocations"]:
        assert line["right"], line
        assert line["sessions_after"] == 0
        assert line["connections_opened"] <= 1
        assert {"event", "status", "answer", "duration_ms", "expected"} <= line.keys()
    assert any(line["connections_opened"] == 1 for line in report["invocations"])
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def processes() -> Iterator[tuple[int, int, str]]:
    """Id, parent and command line of each living process."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_text().replace("\0", " ")
                if fields[0] != "Z":
                    yield int(entry.name), int(fields[1]), command
        except (FileNotFoundError, ProcessLookupError):
            continue


def descendants(of: int) -> dict[int, str]:
    found: dict[int, str] = {}
    parents = {of}
    while parents:
        children = {pid: command for pid, parent, command in processes() if parent in parents}
        parents = children.keys() - found.keys()
        found |= children
    return found


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@pytest.mark.usefixtures("either_server")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_demo_is_ended_no_process_and_no_file_of_it_is_left(
    tmp_path: Path, number: signal.Signals
) -> None:
    with start(tmp_path) as demo:
        children: dict[int, str] = {}

        def everything_runs() -> bool:
            children.update(descendants(demo.pid))
            commands = " ".join(children.values())
            return "awslambdaric" in commands and ("mariadbd" in commands or "mysqld" in commands)

        assert wait_until(everything_runs, 60)
        os.kill(demo.pid, number)
        said, _ = demo.communicate(timeout=30)
    if number is not signal.SIGKILL:
        assert demo.returncode == 130, said
        assert "nothing is left running" in said
    assert wait_until(lambda: not children.keys() & {pid for pid, _, _ in processes()}, 15)
    assert wait_until(lambda: not list(tmp_path.iterdir()), 5)
