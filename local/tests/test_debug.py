"""Stepping through a handler: at the terminal, and from an editor."""

import asyncio
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from local.debug import Debug
from local.environment import ROOT, Environment
from local.ports import free_port

HANDLER = """
def lambda_handler(event, context):
    secret = event["n"] * 2
    breakpoint()
    return {"secret": secret, "left": context.get_remaining_time_in_millis()}
"""

# What `make invoke DEBUG=1` does, with a function of the test's own.
INVOKE = """
import sys
from local.debug import Debug
from local.environment import Environment, run
async def main():
    async with Environment(sys.argv[1], debug=Debug.asked_for("1"), timeout=0.1) as environment:
        return await environment.invoke({"n": 21})
print("ANSWER", run(main()).payload.decode())
print("AGAIN", input())
"""


class Terminal:
    """A pseudo-terminal with our program in its foreground."""

    def __init__(self, command: list[str]) -> None:
        self.said = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execv(command[0], command)

    def wait_for(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said)):
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.descriptor], [], [], max(0, left))
            assert readable, f"{pattern!r} did not come; the terminal shows:\n{self.said}"
            try:
                self.said += os.read(self.descriptor, 4096).decode()
            except OSError as error:  # it has ended
                raise AssertionError(f"{pattern!r} never came:\n{self.said}") from error
        return found

    def type(self, line: str) -> None:
        os.write(self.descriptor, f"{line}\n".encode())


def test_a_breakpoint_stops_at_this_terminal_longer_than_any_timeout_and_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(HANDLER)
    terminal = Terminal([sys.executable, "-c", INVOKE, str(tmp_path)])
    terminal.wait_for(r"\(Pdb\) ")
    time.sleep(0.5)  # the function's own timeout is over
    terminal.type("p 'it is', secret")
    terminal.wait_for(r"\('it is', 42\)")
    terminal.type("c")
    answer = json.loads(terminal.wait_for(r"ANSWER (\{.*\})")[1])
    assert answer["secret"] == 42
    assert answer["left"] > 23 * 3600 * 1000
    terminal.type("the terminal is ours again")
    terminal.wait_for("AGAIN the terminal is ours again")
    assert os.waitpid(terminal.pid, 0)[1] == 0
    os.close(terminal.descriptor)


@pytest.mark.slow
async def test_with_a_port_the_handler_waits_for_an_editor_and_runs_when_it_attaches(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(HANDLER.replace("breakpoint()", "pass"))
    debug = Debug.asked_for(str(free_port("127.0.0.1")))
    assert debug
    assert debug.port
    async with Environment(tmp_path, debug=debug, init_limit=0.1) as environment:
        work = asyncio.create_task(environment.invoke({"n": 4}))
        editor = await connect(debug.port)
        assert not work.done()
        editor.send("initialize", adapterID="test")
        editor.send("attach", justMyCode=False)
        await asyncio.wait_for(editor.wait_for("initialized"), 30)
        editor.send("configurationDone")
        answer = await asyncio.wait_for(work, 30)
        await editor.close()
    assert answer.json()["secret"] == 8


async def connect(port: int) -> "Editor":
    deadline = time.monotonic() + 20
    while True:
        try:
            return Editor(*await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline, "debugpy does not listen"
            await asyncio.sleep(0.05)


class Editor:
    """As much of the Debug Adapter Protocol as an editor speaks to attach."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, command: str, **arguments: Any) -> None:
        message = {"seq": 1, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self._writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    async def wait_for(self, event: str) -> None:
        while True:
            head = await self._reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"Content-Length: (\d+)", head)
            assert size
            message = json.loads(await self._reader.readexactly(int(size[1])))
            assert message.get("success", True), message
            if message.get("event") == event:
                return

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.mark.parametrize("given", ["", "0"])
def test_nothing_or_0_debugs_nothing(given: str) -> None:
    assert Debug.asked_for(given) is None


def test_without_a_terminal_the_sentence_names_the_other_way() -> None:
    command = [sys.executable, "-m", "local.invoke", "orders_api", "products", "--debug", "1"]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "invoke: there is no terminal here to debug at: DEBUG=5678 waits for an editor instead\n"
    )


def jsonc(file: Path) -> Any:
    """JSON with comments on lines of their own, as VS Code reads it."""
    lines = file.read_text().splitlines()
    return json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))


def test_the_editors_settings_attach_where_make_invoke_waits() -> None:
    launch = jsonc(ROOT / ".vscode" / "launch.json")
    attach = [one for one in launch["configurations"] if one["request"] == "attach"]
    assert attach
    for one in attach:
        assert one["type"] == "debugpy"
        debug = Debug.asked_for(str(one["connect"]["port"]))
        assert debug
        assert f"127.0.0.1:{one['connect']['port']}" in debug.command(sys.executable)
    for one in launch["configurations"]:
        if "module" in one:
            subprocess.run([sys.executable, "-c", f"import {one['module']}"], cwd=ROOT, check=True)


def test_the_tasks_and_the_dev_container_call_targets_that_exist() -> None:
    called = [task["command"] for task in jsonc(ROOT / ".vscode" / "tasks.json")["tasks"]]
    container = jsonc(ROOT / ".devcontainer" / "devcontainer.json")
    called.append(container["postCreateCommand"])
    makefile = (ROOT / "Makefile").read_text()
    for command in called:
        program, target, *_ = command.split()
        assert program == "make"
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command
