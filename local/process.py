"""The process group of one Lambda runtime: frozen and thawed, watched, its log and memory read."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.debug import terminal_for


class RuntimeProcess:
    """A runtime in a process group of its own; its exit is a future, its log is drained on demand.

    Built on pidfd rather than asyncio's child watcher, which takes a thread per process on 3.11.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        directory: Path,
        *,
        at_terminal: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._log = bytearray()
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        self._terminal = contextlib.ExitStack()
        # The answer has standard output to itself.
        output = sys.stderr.fileno() if at_terminal else write_end
        try:
            self._popen = subprocess.Popen(
                _dying_with_us(command),
                env=dict(environ),
                cwd=directory,
                stdin=None if at_terminal else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self.pid = self._popen.pid
        if at_terminal:
            self._terminal.enter_context(terminal_for(self.pid))
        self.max_memory_mb = 0
        self.exited: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)
        loop.add_reader(self._pipe, self._drain)

    def signal(self, number: int) -> None:
        """Send to the whole group; a group that is gone takes no signal and needs none."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def kill(self) -> None:
        if not self.exited.done():
            self.measure()
        # Also after the leader's exit: its children are of the group and would outlive it.
        self.signal(signal.SIGKILL)
        await asyncio.shield(self.exited)
        self.close()

    def take_log(self) -> str:
        self._drain()
        text = self._log.decode(errors="replace")
        self._log.clear()
        # The runtime client separates the lines of a traceback by carriage returns, so that
        # CloudWatch keeps them in one event; a terminal would print them over each other.
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def measure(self) -> int:
        """The highest resident size so far, in MB, from the kernel's own high-water mark."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return self.max_memory_mb
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.max_memory_mb = -(-int(line.split()[1]) // 1024)
        return self.max_memory_mb

    def close(self) -> None:
        self._terminal.close()
        self._drain()
        if self._pipe >= 0:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.exited.set_result(self._popen.wait())

    def _drain(self) -> None:
        while self._pipe >= 0:
            try:
                chunk = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                asyncio.get_running_loop().remove_reader(self._pipe)
                return
            self._log += chunk


def _dying_with_us(command: Sequence[str]) -> Sequence[str]:
    """Have the kernel kill the process with its parent; setpriv (util-linux) execs, adding no pid.

    The parent, to the kernel, is the thread that starts it: let that one live as long.

    Without setpriv a frozen runtime is still hung up by the kernel when its group is orphaned, and
    a running one ends as soon as it finds no Runtime API.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--", *command) if setpriv else command
