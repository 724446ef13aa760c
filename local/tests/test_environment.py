"""What Lambda does to an execution environment, done to AWS's own runtime client."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local.ascii import ascii_path
from local.environment import LAYER, ROOT, Environment, EnvironmentBusyError

HANDLER = """
import os, subprocess, sys, time

calls = 0
beats = 0

def beat():
    global beats
    while True:
        beats += 1
        time.sleep(0.005)

def lambda_handler(event, context):
    global calls
    calls += 1
    print("call", calls)
    match event.get("do"):
        case "raise":
            raise ValueError("no such product")
        case "exit":
            os._exit(event["code"])
        case "sys.exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), 9)
        case "sleep":
            time.sleep(event["seconds"])
        case "big":
            return "x" * event["size"]
        case "unserialisable":
            return object()
        case "environ":
            return dict(os.environ)
        case "context":
            return {
                "id": context.aws_request_id, "name": context.function_name,
                "memory": context.memory_limit_in_mb, "arn": context.invoked_function_arn,
                "left": context.get_remaining_time_in_millis(),
                "custom": context.client_context.custom if context.client_context else None,
                "trace": os.environ["_X_AMZN_TRACE_ID"], "path": sys.path[:3],
            }
        case "beat":
            import threading
            if not beats:
                threading.Thread(target=beat, daemon=True).start()
            return beats
        case "child":
            return subprocess.Popen(["sleep", "60"]).pid
    return {"calls": calls, "event": event}
"""

MakeFunction = Callable[[str], Path]


@pytest.fixture
def make_function(tmp_path: Path) -> MakeFunction:
    def make(source: str) -> Path:
        directory = tmp_path / "greet"
        directory.mkdir(exist_ok=True)
        (directory / "app.py").write_text(source)
        return directory

    return make


@pytest.fixture
def function(make_function: MakeFunction) -> Path:
    return make_function(HANDLER)


def state(pid: int) -> str:
    """The kernel's letter for it: T is stopped, S asleep, R running, Z dead but not reaped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(true: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def is_stopped(pid: int | None) -> bool:
    """Whether it stops: SIGSTOP takes effect when the kernel next schedules the process."""
    return pid is not None and wait_until(lambda: state(pid) == "T", 2)


def is_gone(pid: int) -> bool:
    try:
        return state(pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_the_first_invocation_is_a_cold_start_and_the_second_finds_it_warm(
    function: Path,
) -> None:
    async with Environment(function) as environment:
        assert environment.pid is None
        first = await environment.invoke({"n": 1})
        second = await environment.invoke({"n": 2})
    assert first.status == second.status == "ok"
    assert first.json() == {"calls": 1, "event": {"n": 1}}
    assert second.json() == {"calls": 2, "event": {"n": 2}}
    assert first.init_duration is not None
    assert second.init_duration is None
    assert first.log == "call 1\n"
    assert second.log == "call 2\n"
    assert first.request_id != second.request_id
    assert 5 < first.max_memory_mb < 200


async def test_it_is_frozen_between_invocations_and_nothing_in_it_runs(function: Path) -> None:
    async with Environment(function) as environment:
        await environment.invoke({"do": "beat"})
        await environment.idle()
        assert is_stopped(environment.pid)
        before = (await environment.invoke({"do": "beat"})).json()
        await environment.idle()
        await asyncio.sleep(0.5)
        after = (await environment.invoke({"do": "beat"})).json()
    assert after - before < 20  # running, it would have been about a hundred


async def test_it_is_free_only_when_the_runtime_asks_for_the_next_invocation(
    make_function: MakeFunction,
) -> None:
    slow_to_return = make_function(
        "import time, awslambdaric.lambda_runtime_client as client\n"
        "post = client.BaseLambdaRuntimeClient.post_invocation_result\n"
        "def slowly(*a, **k):\n"
        "    post(*a, **k)\n"
        "    time.sleep(0.3)\n"
        "client.BaseLambdaRuntimeClient.post_invocation_result = slowly\n"
        "def lambda_handler(event, context):\n"
        "    return 'done'\n"
    )
    async with Environment(slow_to_return) as environment:
        await environment.invoke({})
        assert environment.pid is not None
        assert environment.busy
        assert state(environment.pid) != "T"
        await environment.idle()
        assert not environment.busy
        assert is_stopped(environment.pid)


async def test_two_invocations_at_once_are_refused(function: Path) -> None:
    async with Environment(function) as environment:
        first = asyncio.create_task(environment.invoke({"do": "sleep", "seconds": 0.2}))
        await asyncio.sleep(0.05)
        with pytest.raises(EnvironmentBusyError, match="one invocation at a time"):
            await environment.invoke({})
        assert (await first).status == "ok"


async def test_an_exception_is_answered_as_lambda_answers_it(function: Path) -> None:
    async with Environment(function) as environment:
        answer = await environment.invoke({"do": "raise"})
        assert answer.status == "error"
        assert answer.error_type == "ValueError"
        assert answer.json()["errorMessage"] == "no such product"
        assert "[ERROR] ValueError: no such product\nTraceback" in answer.log
        assert (await environment.invoke({})).json()["calls"] == 2  # the environment lives on


async def test_an_answer_that_is_no_json_is_a_marshalling_error(function: Path) -> None:
    async with Environment(function) as environment:
        answer = await environment.invoke({"do": "unserialisable"})
    assert (answer.status, answer.error_type) == ("error", "Runtime.MarshalError")


async def test_the_deadline_is_a_kill_and_then_a_cold_start(function: Path) -> None:
    async with Environment(function, timeout=0.3) as environment:
        await environment.invoke({})
        pid = environment.pid
        assert pid is not None
        answer = await environment.invoke({"do": "sleep", "seconds": 5})
        assert is_gone(pid)
        assert (answer.status, answer.error_type) == ("timeout", "Sandbox.Timedout")
        assert answer.json()["errorMessage"].endswith("Task timed out after 0.30 seconds")
        assert 0.3 <= answer.duration < 1
        after = await environment.invoke({})
    assert after.json()["calls"] == 1
    assert after.init_duration is not None


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"do": "exit", "code": 2}, "exit status 2"),
        ({"do": "exit", "code": 0}, "without providing a reason"),
        ({"do": "sys.exit"}, "exit status 3"),
        ({"do": "kill"}, "signal: killed"),
    ],
)
async def test_an_exit_during_an_invocation_is_told_and_then_a_cold_start(
    function: Path, event: dict[str, object], reason: str
) -> None:
    async with Environment(function) as environment:
        answer = await environment.invoke(event)
        assert (answer.status, answer.error_type) == ("exit", "Runtime.ExitError")
        assert reason in answer.json()["errorMessage"]
        assert answer.init_duration is not None
        assert (await environment.invoke({})).json()["calls"] == 1


async def test_a_runtime_killed_while_frozen_is_replaced(function: Path) -> None:
    async with Environment(function) as environment:
        await environment.invoke({})
        await environment.idle()
        assert environment.pid is not None
        os.kill(environment.pid, signal.SIGKILL)
        while environment.pid is not None:
            await asyncio.sleep(0.01)
        assert (await environment.invoke({})).json()["calls"] == 1


@pytest.mark.parametrize(
    ("source", "error_type", "said"),
    [
        ("import nothing_like_it", "Runtime.ImportModuleError", "No module named"),
        ("def lambda_handler(:", "Runtime.UserCodeSyntaxError", "invalid syntax"),
        ("def other(): ...", "Runtime.HandlerNotFound", "missing on module"),
        ("raise KeyError('DATABASE_HOST')", "KeyError", "DATABASE_HOST"),
        ("import os; os._exit(4)", "Runtime.ExitError", "exit status 4"),
    ],
)
async def test_a_failed_init_is_told_and_tried_again_by_the_next_invocation(
    make_function: MakeFunction, source: str, error_type: str, said: str
) -> None:
    directory = make_function(source)
    async with Environment(directory) as environment:
        answer = await environment.invoke({})
        assert (answer.status, answer.error_type) == ("init_error", error_type)
        assert said in answer.json()["errorMessage"]
        (directory / "app.py").write_text("def lambda_handler(event, context): return 'fine now'")
        assert (await environment.invoke({})).json() == "fine now"


async def test_in_a_folder_whose_name_is_not_latin_errors_and_answers_are_as_anywhere(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "Łódź 预订"
    folder.mkdir()
    app = folder / "app.py"
    async with Environment(folder) as environment:
        app.write_text("import nowhere")
        failed = await environment.invoke({})
        assert (failed.status, failed.error_type) == ("init_error", "Runtime.ImportModuleError")
        app.write_text("def lambda_handler(event, context):\n    raise ValueError(event['say'])\n")
        failed = await environment.invoke({"say": "Größe 预订"})
        assert (failed.status, failed.error_type) == ("error", "ValueError")
        assert failed.json()["errorMessage"] == "Größe 预订"
        await environment.invoke({"say": "again"})
    async with Environment(folder) as environment:
        app.write_text("def lambda_handler(event, context):\n    return event, __file__\n")
        answered = await environment.invoke({"say": "Größe 预订"})
        assert answered.json()[0] == {"say": "Größe 预订"}
        assert Path(answered.json()[1]).name == "app.py"


async def test_an_init_that_takes_too_long_is_killed(make_function: MakeFunction) -> None:
    directory = make_function("import time; time.sleep(30)")
    async with Environment(directory, init_limit=0.5) as environment:
        answer = await environment.invoke({})
    assert (answer.status, answer.error_type) == ("init_error", "Sandbox.Timedout")
    assert "Init phase timed out" in answer.json()["errorMessage"]


async def test_an_answer_over_six_megabytes_is_an_error_and_one_below_is_not(
    function: Path,
) -> None:
    async with Environment(function) as environment:
        over = await environment.invoke({"do": "big", "size": 6_300_000})
        below = await environment.invoke({"do": "big", "size": 6_200_000})
    assert (over.status, over.error_type) == ("error", "Function.ResponseSizeTooLarge")
    assert below.status == "ok"
    assert len(below.payload) == 6_200_002


async def test_an_event_over_six_megabytes_is_refused(function: Path) -> None:
    async with Environment(function) as environment:
        with pytest.raises(ValueError, match="Lambda takes 6291556"):
            await environment.invoke("x" * 6_300_000)


async def test_the_context_has_the_deadline_and_what_else_lambda_puts_there(
    function: Path,
) -> None:
    async with Environment(function, timeout=2, memory=256) as environment:
        answer = await environment.invoke(
            {"do": "context"}, client_context={"custom": {"tenant": "a"}}
        )
    seen = answer.json()
    assert seen["id"] == answer.request_id
    assert (seen["name"], seen["memory"]) == ("greet", "256")
    assert seen["arn"].endswith(":function:greet")
    assert 1500 < seen["left"] <= 2000
    assert seen["custom"] == {"tenant": "a"}
    assert seen["trace"].startswith("Root=1-")
    assert [str(function), str(ascii_path(LAYER))] == [entry for entry in seen["path"] if entry][
        -2:
    ]


async def test_nothing_of_the_callers_environment_reaches_the_function(
    function: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("HTTP_PROXY", "mine")
    async with Environment(function, environ={"DATABASE_HOST": "db"}) as environment:
        seen = (await environment.invoke({"do": "environ"})).json()
    assert "mine" not in seen.values()
    assert seen["DATABASE_HOST"] == "db"
    assert seen["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.13"
    assert seen["LAMBDA_TASK_ROOT"] == str(function)
    assert seen["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert "HOME" not in seen


async def test_a_cancelled_invocation_does_not_poison_the_next(function: Path) -> None:
    async with Environment(function) as environment:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(environment.invoke({"do": "sleep", "seconds": 9}), 0.5)
        with pytest.raises(TimeoutError):  # during the cold start, too
            await asyncio.wait_for(environment.invoke({}), 0.001)
        assert (await environment.invoke({})).json()["calls"] == 1


async def test_closing_ends_the_whole_group_even_frozen(function: Path) -> None:
    async with Environment(function) as environment:
        child = (await environment.invoke({"do": "child"})).json()
        await environment.idle()
        runtime = environment.pid
        assert runtime is not None
        assert is_stopped(child)
    assert is_gone(runtime)
    assert wait_until(lambda: is_gone(child))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder"):
        Environment(tmp_path / "nowhere")


PARENT = """
import asyncio, json, sys
from local.environment import Environment

async def main():
    async with Environment(sys.argv[1], timeout=60) as frozen, \
            Environment(sys.argv[1], timeout=60) as working:
        child = (await frozen.invoke({"do": "child"})).json()
        await frozen.idle()
        await working.start()
        task = asyncio.create_task(working.invoke({"do": "sleep", "seconds": 60}))
        await asyncio.sleep(0.1)
        print(json.dumps([frozen.pid, child, working.pid]), flush=True)
        await task

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_parent_ends_no_process_of_an_environment_is_left(
    function: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(function)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        assert all(map(is_stopped, pids[:2]))
        assert state(pids[2]) != "T"
        parent.send_signal(number)
        parent.wait(10)
    assert wait_until(lambda: all(map(is_gone, pids)))
