"""The callers of `lab.overload`: processes that each are one warm execution environment.

All are forked from one warm parent before any invocation, as a frozen environment is when Lambda
thaws it: modules loaded, settings read, the CA parsed, no socket. Each then runs one invocation at
a time for as long as it is told, as any of the sides, and keeps what an environment keeps.
"""

import array
import contextlib
import gc
import json
import os
import pickle
import resource
import selectors
import signal
import socket
import ssl
import struct
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

from lab.overload.sides import SECONDS, SIDES, STATEMENT, TIMEOUT, Invoke


@dataclass
class Sample:
    """What one caller, or all of them, saw of the invocations that began in the window.

    Attributes:
        latencies: Seconds of each success, waiting included.
        held: Seconds for which each success held its connection.
        attempts: Connections asked for, by successes and failures alike.
        failures: By the server's error number, or "timeout".
        completed: Successes that ended inside the window, whenever they began.
    """

    latencies: array.array = field(default_factory=lambda: array.array("d"))
    held: array.array = field(default_factory=lambda: array.array("d"))
    attempts: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    completed: int = 0

    def add(self, other: "Sample") -> None:
        """Take another caller's in."""
        self.latencies.extend(other.latencies)
        self.held.extend(other.held)
        self.attempts += other.attempts
        self.failures.update(other.failures)
        self.completed += other.completed


class Crowd:
    """`size` callers, one process each; they end when this process does, in whatever way.

    A process between this one and the callers does what an environment's cold start does, once,
    and keeps the layer's guard out of this one: where a `Database` is, nothing else may connect.
    """

    def __init__(self, size: int, environ: Mapping[str, str], sides: Sequence[str]) -> None:
        """Fork them, each able to play `sides`; threads of this process are not in them."""
        pairs = [socket.socketpair() for _ in range(size)]
        self._callers = [near for near, _ in pairs]
        ready, tell = os.pipe()
        self._leader = os.fork()
        if self._leader == 0:
            os.close(ready)
            _lead([far for _, far in pairs], environ, sides, tell)
        for _, far in pairs:
            far.close()
        os.close(tell)
        with os.fdopen(ready, "rb") as pipe:
            if not pipe.read(1):
                self.__exit__()
                raise RuntimeError("the callers could not start: see what they printed above")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End them all, and return when they are gone."""
        for sock in self._callers:
            sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._leader, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._leader, 0)

    def play(
        self, side: str, callers: int, begin: float, end: float, sleep: float = SECONDS
    ) -> None:
        """Let the first `callers` be `side` from now to `end`, counting from `begin`."""
        order = {"side": side, "begin": begin, "end": end, "sleep": sleep}
        line = json.dumps(order).encode() + b"\n"
        for sock in self._callers[:callers]:
            sock.sendall(line)

    def collect(self, callers: int) -> Sample:
        """What they saw, once all have ended their last invocation."""
        whole = Sample()
        with selectors.DefaultSelector() as selector:
            for caller in self._callers[:callers]:
                selector.register(caller, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    sock: Any = key.fileobj
                    size = struct.unpack("<I", _read(sock, 4))[0]
                    whole.add(pickle.loads(_read(sock, size)))
                    selector.unregister(sock)
        return whole


def _read(sock: socket.socket, size: int) -> bytes:
    read = bytearray()
    while len(read) < size:
        chunk = sock.recv(size - len(read))
        if not chunk:
            raise RuntimeError("a caller died: see what it printed above")
        read += chunk
    return bytes(read)


def _close_all_but(kept: set[int]) -> None:
    """Of the descriptors from 3 upwards."""
    before = 3
    for descriptor in sorted(kept | {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}):
        if descriptor > before:
            os.closerange(before, descriptor)
        before = max(before, descriptor + 1)


def _lead(
    theirs: list[socket.socket],
    environ: Mapping[str, str],
    sides: Sequence[str],
    tell: int,
) -> NoReturn:
    """Warm up, fork the callers, and wait until they have ended."""
    try:
        os.setpgid(0, 0)  # Ctrl-C is for the parent, which ends this group
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Whatever else the parent has open would stay so with us: another crowd's sockets, and the
        # pipe that tells the database's keeper that the parent is gone.
        _close_all_but({tell, *(sock.fileno() for sock in theirs)})
        # One for all calls: PyMySQL alone would parse the system's roots in each of them (19 ms),
        # and the comparison would be about that.
        context = ssl.create_default_context(cafile=environ["DATABASE_CA_FILE"])
        invokers = {side: SIDES[side](environ, context) for side in sides}
        for invoke in invokers.values():
            invoke(STATEMENT.format(SECONDS))
        gc.collect()
        gc.freeze()  # so that a collection in a child does not copy what they share
        for sock in theirs:
            if os.fork() == 0:
                os.close(tell)
                _live(sock, [other for other in theirs if other is not sock], invokers)
        for sock in theirs:
            sock.close()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # outlive the callers, to bury them
        os.write(tell, b"+")
        os.close(tell)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
    except BaseException:  # noqa: BLE001 - said, in a process that ends here
        traceback.print_exc()
    finally:
        os._exit(0)


def _live(
    sock: socket.socket, others: list[socket.socket], invokers: Mapping[str, Invoke]
) -> NoReturn:
    """A caller's life: do as told until the parent is gone."""
    try:
        for other in others:
            other.close()
        with sock.makefile("rb") as orders:
            for line in orders:
                order = json.loads(line)
                statement = STATEMENT.format(order["sleep"])
                sample = run(invokers[order["side"]], statement, order["begin"], order["end"])
                told = pickle.dumps(sample)
                sock.sendall(struct.pack("<I", len(told)) + told)
    except OSError:
        pass  # the parent went first
    except BaseException:  # noqa: BLE001 - said, in a process that ends here
        traceback.print_exc()
    finally:
        os._exit(0)


def run(invoke: Invoke, statement: str, begin: float, end: float) -> Sample:
    """Invoke again and again until `end`; only what began after `begin` counts."""
    sample = Sample()
    while (started := time.monotonic()) < end:
        outcome = invoke(statement)
        ended = time.monotonic()
        if outcome.failure is None and begin <= ended <= end:
            sample.completed += 1
        if started < begin:
            continue
        sample.attempts += outcome.attempts
        if outcome.failure is not None or ended - started > TIMEOUT:
            sample.failures[outcome.failure or "timeout"] += 1
        else:
            sample.latencies.append(ended - started)
            sample.held.append(outcome.held)
    return sample
