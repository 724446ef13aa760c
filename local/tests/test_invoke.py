"""`make invoke`: what Lambda would print, and one clear sentence for each bad input."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.environment import ROOT, Answer
from local.invoke import callers_environ, log_lines, main
from local.servers import ServerMissingError, find_servers
from local.template import Function

FUNCTION = Function("Greet", "greet", Path(), "app.lambda_handler", "python3.13", 3, 128, 1, {})
BAD_EVENT = str(ROOT / "events" / "migrate.unknown_action.json")


def answer(**changes: object) -> Answer:
    given = {
        "status": "ok",
        "payload": b"{}",
        "error_type": None,
        "duration": 0.0012,
        "init_duration": None,
        "log": "hello\n",
        "request_id": "id-1",
        "max_memory_mb": 36,
        **changes,
    }
    return Answer(**given)  # type: ignore[arg-type]


def test_the_log_has_start_the_functions_own_lines_end_and_report() -> None:
    *lines, report = log_lines(answer(), FUNCTION).splitlines()
    assert lines == ["START RequestId: id-1 Version: $LATEST", "hello", "END RequestId: id-1"]
    assert report.split("\t") == [
        "REPORT RequestId: id-1",
        "Duration: 1.20 ms",
        "Billed Duration: 2 ms",
        "Memory Size: 128 MB",
        "Max Memory Used: 36 MB",
    ]


def test_a_cold_start_is_reported_and_billed() -> None:
    report = log_lines(answer(init_duration=0.1), FUNCTION).splitlines()[-1]
    assert "Billed Duration: 102 ms" in report
    assert report.endswith("\tInit Duration: 100.00 ms")


def test_a_timeout_has_its_own_line_and_status() -> None:
    lines = log_lines(answer(status="timeout", error_type="Sandbox.Timedout"), FUNCTION)
    assert re.search(r"^\S+Z id-1 Task timed out after 3.00 seconds$", lines, re.MULTILINE)
    assert lines.endswith("\tStatus: timeout\tError Type: Sandbox.Timedout")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such"], "no function is called 'no_such'; template.yaml has: connection_census, "),
        (["orders_api", "nowhere.json"], "there is no event file nowhere.json"),
        (["orders_api", str(ROOT / "template.yaml")], "template.yaml is no JSON: Expecting value"),
        (["orders_api", str(ROOT)], "cannot be read"),
    ],
)
def test_a_bad_input_gets_one_sentence_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert output.err.startswith("invoke: ")
    assert output.err.count("\n") == 1


def test_without_a_server_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot() -> None:
        raise ServerMissingError("There is no mariadb server: run `make install-mariadb`.")

    monkeypatch.delenv("DATABASE_HOST", raising=False)
    monkeypatch.setattr("local.invoke.any_server", cannot)
    assert main(["orders_api"]) == 2
    assert "run `make install-mariadb`" in capsys.readouterr().err


def test_a_function_error_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")  # so that no server is started
    assert main(["migrate", BAD_EVENT]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["errorType"] == "InvalidEventError"
    assert re.search(r"^REPORT RequestId: .*Init Duration: ", output.err, re.MULTILINE)


def test_the_event_may_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"action": "dance"}'))
    assert main(["migrate", "-"]) == 1
    assert "dance" in json.loads(capsys.readouterr().out)["errorMessage"]


def test_only_database_settings_of_the_caller_reach_the_function() -> None:
    given = {"DATABASE_HOST": "db", "DATABASE_PORT": "1", "AWS_PROFILE": "mine", "HOME": "/me"}
    assert callers_environ(given) == {"DATABASE_HOST": "db", "DATABASE_PORT": "1"}
    assert callers_environ({"DATABASE_HOST": "", "DATABASE_PORT": "1"}) is None


def test_a_throw_away_database_is_there_migrated_and_gone_afterwards() -> None:
    if not find_servers():
        pytest.skip("no database server: run `make install-mariadb`")
    environ = {name: value for name, value in os.environ.items() if "DATABASE" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "local.invoke", "orders_api", "events/orders_api.products.json"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statusCode"] == 200
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Starting a throw-away M")
    assert lines[1].startswith("START RequestId: ")
    assert lines[-1].startswith("REPORT RequestId: ")
