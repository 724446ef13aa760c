"""`make invoke`: what Lambda would print, and one clear sentence for each bad input."""

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.environment import ROOT, Answer
from local.events import EVENTS, InputError, event_names, read_event
from local.invoke import callers_environ, main, require_reachable
from local.kept import KeptDatabase
from local.logs import log_lines, readable
from local.servers import ServerMissingError
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
        (
            ["orders_api", "nowhere.json"],
            "there is no event nowhere.json; orders_api has: products, product, ",
        ),
        (["orders_api", "{oops"], "the event is no JSON: Expecting property name"),
        (["orders_api", "products", "--debug", "maybe"], "DEBUG is 1 for this terminal, or a port"),
        (["orders_api", "products", "--debug", "80"], "DEBUG is 1 for this terminal, or a port"),
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
    monkeypatch.setattr("local.invoke.KeptDatabase.running", lambda: None)
    assert main(["orders_api", "products"]) == 2
    assert "run `make install-mariadb`" in capsys.readouterr().err


@pytest.fixture
def someone_listens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The caller's own database, as far as a function needs one that does not connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
        monkeypatch.setenv("DATABASE_PORT", str(listener.getsockname()[1]))
        yield


@pytest.mark.usefixtures("someone_listens")
def test_a_function_error_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", BAD_EVENT]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["errorType"] == "InvalidEventError"
    assert re.search(r"^REPORT RequestId: .*Init Duration: ", output.err, re.MULTILINE)


@pytest.mark.usefixtures("someone_listens")
def test_the_event_may_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"action": "dance"}'))
    assert main(["migrate", "-"]) == 1
    assert "dance" in json.loads(capsys.readouterr().out)["errorMessage"]


@pytest.mark.parametrize("port", ["1", "70000", "many"])
def test_a_wrong_port_is_said_within_two_seconds(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
    monkeypatch.setenv("DATABASE_PORT", port)
    started = time.monotonic()
    with pytest.raises(InputError):
        require_reachable({"DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": port})
    assert time.monotonic() - started < 2
    assert main(["orders_api", "products"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"invoke: no database answers at 127.0.0.1:{port} (")
    assert said.count("\n") == 1


def test_a_host_that_says_nothing_is_given_up_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as deaf:  # bound, full, and nobody accepts
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with contextlib.ExitStack() as held:
            for _ in range(4):
                client = held.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(deaf.getsockname())
            monkeypatch.setenv("DATABASE_HOST", "127.0.0.1")
            monkeypatch.setenv("DATABASE_PORT", str(deaf.getsockname()[1]))
            started = time.monotonic()
            with pytest.raises(InputError, match="timed out"):
                require_reachable(os.environ)
            assert time.monotonic() - started < 3


def test_an_event_goes_by_its_short_name_its_file_name_or_a_path() -> None:
    wanted = json.loads((EVENTS / "orders_api.place.json").read_text())
    for given in ("place", "place.json", "orders_api.place", str(EVENTS / "orders_api.place.json")):
        assert read_event(given, "orders_api") == wanted
    assert read_event(' {"id": 3}', "orders_api") == {"id": 3}
    assert "place" in event_names("orders_api")


def test_without_an_event_it_lists_those_of_the_function_and_without_one_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["OrdersApi"]) == 0
    assert re.match(r"orders_api: .*\bplace, place_again, ", capsys.readouterr().out)
    assert main([]) == 0
    listed = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"orders_api", "migrate"} <= set(listed)


def test_a_traceback_inside_a_line_of_json_is_written_out_below_it() -> None:
    powertools = {
        "level": "ERROR",
        "message": "Answered 503",
        "exception": "Traceback (most recent call last):\n  File \"app.py\"\nKeyError: 'é'",
        "stack_trace": {"type": "KeyError"},
    }
    runtime = {
        "level": "ERROR",
        "errorType": "KeyError",
        "errorMessage": "'x'",
        "stackTrace": ['  File "app.py", line 1, in f\n', "    g()\n"],
    }
    log = f"plain\n{json.dumps(powertools)}\n{json.dumps(runtime)}\n{{no json"
    assert readable(log).split("\n") == [
        "plain",
        '{"level": "ERROR", "message": "Answered 503"}',
        "    Traceback (most recent call last):",
        '      File "app.py"',
        "    KeyError: 'é'",
        '{"level": "ERROR", "errorType": "KeyError", "errorMessage": "\'x\'"}',
        "    Traceback (most recent call last):",
        '      File "app.py", line 1, in f',
        "        g()",
        "    KeyError: 'x'",
        "{no json",
    ]


def test_only_database_settings_of_the_caller_reach_the_function() -> None:
    given = {"DATABASE_HOST": "db", "DATABASE_PORT": "1", "AWS_PROFILE": "mine", "HOME": "/me"}
    assert callers_environ(given) == {"DATABASE_HOST": "db", "DATABASE_PORT": "1"}
    assert callers_environ({"DATABASE_HOST": "", "DATABASE_PORT": "1"}) is None


@pytest.mark.usefixtures("either_server")
def test_a_throw_away_database_is_there_migrated_and_gone_afterwards() -> None:
    if KeptDatabase.running():
        pytest.skip("a database that stays is running: `make database-stop`")
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
