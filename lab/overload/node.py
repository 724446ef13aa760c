"""serverless-mysql, the rival that is not Python: its callers, in a few Node processes."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from lab.overload.clients import Sample
from lab.overload.sides import ROOT, SECONDS, TIMEOUT
from local.servers import locked

NODE = Path(__file__).parent / "serverless_mysql"
INSTALLED = ROOT / "build" / "bench" / "serverless_mysql"
NODE_MISSING = "no Node.js: install `node` and `npm` (Debian: `apt-get install nodejs npm`)"
# Its environments share these: one process each, as Lambda has it, would cost them more.
NODE_PROCESSES = 2


class NodeMissingError(Exception):
    """serverless-mysql cannot run here."""


def install_serverless_mysql() -> None:
    """What package-lock.json names, once, into build/.

    Raises:
        NodeMissingError: There is no Node.js, or npm cannot fetch the package.
    """
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        raise NodeMissingError(NODE_MISSING)
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with locked(INSTALLED / ".lock"):
        if (INSTALLED / "node_modules" / "serverless-mysql").exists():
            return
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(NODE / name, INSTALLED / name)
        command = [npm, "ci", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, cwd=INSTALLED, check=False).returncode:
            raise NodeMissingError("`npm ci` failed: does npm reach its registry?")


class NodeCrowd:
    """serverless-mysql's callers: an instance of the module for each, in a few Node processes."""

    def __init__(self, size: int, environ: dict[str, str]) -> None:
        """Start them."""
        install_serverless_mysql()
        self._each = -(-size // NODE_PROCESSES)
        self._environ = {**os.environ, **environ, "NODE_PATH": str(INSTALLED / "node_modules")}
        self._processes = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.communicate()

    def _start(self) -> list[subprocess.Popen[str]]:
        return [
            subprocess.Popen(
                ["node", str(NODE / "client.js"), str(self._each), str(TIMEOUT)],
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent
            )
            for _ in range(NODE_PROCESSES)
        ]

    def play(
        self, _side: str, callers: int, begin: float, end: float, sleep: float = SECONDS
    ) -> None:
        """As `Crowd.play`."""
        for index, process in enumerate(self._processes):
            share = callers // NODE_PROCESSES + (index < callers % NODE_PROCESSES)
            order = {"callers": share, "begin": begin, "end": end, "sleep": sleep}
            assert process.stdin
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()

    def collect(self, _callers: int) -> Sample:
        """As `Crowd.collect`.

        What timed out goes on asking for connections, since the module cannot be told to stop, and
        would do so in the next side's round: new processes play the next one.
        """
        whole = Sample()
        for process in self._processes:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the Node process died: see what it printed above")
            told = json.loads(line)
            whole.latencies.extend(told["latencies"])
            whole.attempts += told["attempts"]
            whole.completed += told["completed"]
            whole.failures.update(told["failures"])
        self._stop()
        self._processes = self._start()
        return whole
