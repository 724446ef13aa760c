"""A real queue, first come, first served: HAProxy in TCP mode before the database."""

import contextlib
import shutil
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

from local.ports import free_port

MISSING = "no HAProxy: install it (Debian: `apt-get install haproxy`)"

# One less than the server takes: a session that is just ending is on its list for a moment more.
CONFIGURATION = """
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout queue {patience}s
    timeout client 60s
    timeout server 60s
frontend callers
    bind 127.0.0.1:{port} backlog 2048
    default_backend database
backend database
    server database {host}:{behind} maxconn {most}
"""


class HaproxyMissingError(Exception):
    """There is no HAProxy here."""


class Queue:
    """HAProxy, that lets `most` through at a time, with a port of its own.

    Args:
        host, behind: the database's address and port.
        most: connections it opens to the database at once.
        patience: seconds after which a caller is sent away.

    Raises:
        HaproxyMissingError: it is not installed; says how.
    """

    def __init__(self, host: str, behind: int, *, most: int, patience: float) -> None:
        program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if program is None:
            raise HaproxyMissingError(MISSING)
        self.port = free_port("127.0.0.1")
        configuration = CONFIGURATION.format(
            port=self.port, host=host, behind=behind, most=most, patience=int(patience)
        )
        # Ended by the kernel when we are, in whatever way; and no file is left, as there is none.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, "-db", "-q", "-f", "/dev/stdin"],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self._process.stdin
        self._process.stdin.write(configuration)
        self._process.stdin.close()
        until = time.monotonic() + 10
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                self._process.kill()
                raise RuntimeError("HAProxy did not start: see what it printed above")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
