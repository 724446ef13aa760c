"""An invocation that somebody steps through: nothing times out, and the debugger is reached.

At the terminal, `breakpoint()` in a handler opens Python's own debugger there. With a port, the
runtime starts under debugpy and waits until an editor attaches.
"""

import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

# A day: long enough for any session, and within every limit of a server's session variables.
DEBUG_SECONDS = 24 * 3600.0


class DebugError(RuntimeError):
    """There is nothing to debug with here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Debug:
    """How the debugger is reached: by an editor at `port`, or at this terminal where it is None."""

    port: int | None

    @classmethod
    def asked_for(cls, given: str) -> Self | None:
        """What DEBUG=… means: nothing or 0, 1 for the terminal, or a port from 1024.

        Raises:
            DebugError: it is none of them, or there is no terminal or no debugpy here.
        """
        if given in {"", "0"}:
            return None
        if given == "1":
            if not sys.stdin.isatty():
                raise DebugError(
                    "there is no terminal here to debug at: DEBUG=5678 waits for an editor instead"
                )
            return cls(None)
        if not given.isdecimal() or not 1024 <= int(given) <= 65535:
            raise DebugError(
                f"DEBUG is 1 for this terminal, or a port from 1024 for an editor, not {given!r}"
            )
        if importlib.util.find_spec("debugpy") is None:
            raise DebugError("debugpy is not installed here: `pip install debugpy`, or DEBUG=1")
        return cls(int(given))

    def command(self, python: str) -> list[str]:
        """How the runtime is started, up to its module."""
        if self.port is None:
            return [python]
        address = f"127.0.0.1:{self.port}"
        print(
            f"Waiting for an editor to attach to {address} (VS Code: F5, 'Attach to make invoke')",
            file=sys.stderr,
        )
        quiet = ["-Xfrozen_modules=off"]  # else debugpy warns of breakpoints it may miss
        return [python, *quiet, "-m", "debugpy", "--listen", address, "--wait-for-client"]


@contextlib.contextmanager
def terminal_for(group: int) -> Iterator[None]:
    """Let a process group of ours read from this terminal, as a shell does, and take it back."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else taking it back would stop us
    try:
        os.tcsetpgrp(0, group)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, before)
