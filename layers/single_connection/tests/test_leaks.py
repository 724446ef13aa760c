"""What is found in /proc is taken away from whoever holds it, and nothing else is touched."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from single_connection._leaks import Leak, LeakFinder

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")


class To:
    """The database is whatever listens on that port."""

    def __init__(self, listening: socket.socket) -> None:
        self.port = listening.getsockname()[1]

    def is_database(self, address: Any) -> bool:
        return bool(address) and address[1] == self.port


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@contextlib.contextmanager
def connected(listening: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end, and the server's."""
    with socket.create_connection(listening.getsockname()) as ours:
        theirs, _ = listening.accept()
        with theirs:
            yield ours, theirs


@contextlib.contextmanager
def child(listening: socket.socket) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process with a connection, and the server's end of that."""
    program = (
        "import socket, sys\n"
        "pair = socket.socketpair()\n"
        f"connection = socket.create_connection({listening.getsockname()[:2]!r})\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        theirs, _ = listening.accept()
        with theirs:
            yield process, theirs


def is_open(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        return theirs.recv(1) != b""
    except BlockingIOError:
        return True


def test_what_is_permitted_is_no_leak_and_what_is_not_is_shut(listening: socket.socket) -> None:
    finder = LeakFinder(To(listening))
    with connected(listening) as (ours, theirs):
        assert finder.find([os.fstat(ours.fileno()).st_ino]) == []
        (leak,) = finder.find([])
        assert leak.end == f"127.0.0.1:{ours.getsockname()[1]}"

        def hang_up() -> None:
            assert theirs.recv(1) == b""
            theirs.close()

        answering = threading.Thread(target=hang_up)
        answering.start()
        assert leak.shut(5)
        answering.join()


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_a_server_that_speaks_on_and_on_is_deaf_and_keeps_nobody(
    listening: socket.socket, seconds: float
) -> None:
    with connected(listening) as (_, theirs):
        (leak,) = LeakFinder(To(listening)).find([])

        def speak() -> None:
            with contextlib.suppress(OSError):
                while True:
                    theirs.sendall(b"row")
                    time.sleep(0.01)

        speaking = threading.Thread(target=speak)
        speaking.start()
        began = time.monotonic()
        assert not leak.shut(seconds)
        assert time.monotonic() - began < 1.0
        speaking.join()  # its connection is no more


def test_a_descriptor_that_is_somebody_elses_by_now_is_left_alone(
    listening: socket.socket,
) -> None:
    with connected(listening) as (ours, _):
        (leak,) = LeakFinder(To(listening)).find([])
        with connected(listening) as (other, theirs):
            os.dup2(other.fileno(), ours.fileno())
            assert leak.shut(1), "it is closed, by whom ever"
            assert is_open(theirs)


def test_a_descriptor_that_is_closed_by_now_is_no_error(listening: socket.socket) -> None:
    with connected(listening) as (ours, _):
        (leak,) = LeakFinder(To(listening)).find([])
        ours.close()
        assert not leak.shut(1), "whether the server knows of it is not known"


def test_a_childs_connection_is_found_and_shut_and_another_of_its_descriptors_is_not(
    listening: socket.socket,
) -> None:
    with child(listening) as (process, theirs):
        (leak,) = LeakFinder(To(listening)).find([])
        assert not Leak(str(process.pid), 999, 1, leak.end).shut(1), "it does not give that away"
        assert is_open(theirs)
        assert not leak.shut(0.0)
        theirs.setblocking(True)
        assert theirs.recv(1) == b""


def test_a_childs_connection_by_ipv6_is_found_too() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server, child(server):
        (leak,) = LeakFinder(To(server)).find([])
        assert leak.end.startswith("::1:")


def test_a_child_that_ends_while_it_is_looked_at_holds_nothing(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.listdir
    with child(listening) as (process, _):

        def listdir(path: str) -> list[str]:
            if path.startswith(f"/proc/{process.pid}/"):
                raise FileNotFoundError(path)
            return listed(path)

        monkeypatch.setattr(os, "listdir", listdir)
        assert LeakFinder(To(listening)).find([]) == []


@pytest.mark.parametrize("missing", ["waitid", "/proc"])
def test_on_a_system_that_tells_less_less_is_found_and_nothing_fails(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """macOS has neither."""

    def listdir(path: str) -> list[str]:
        raise FileNotFoundError(path)

    with child(listening), connected(listening) as (ours, _):
        own = os.fstat(ours.fileno()).st_ino
        if missing == "waitid":
            monkeypatch.delattr(os, "waitid")
            assert LeakFinder(To(listening)).find([own]) == []
            assert len(LeakFinder(To(listening)).find([])) == 1
        else:
            monkeypatch.setattr(os, "listdir", listdir)
            assert LeakFinder(To(listening)).find([]) == []


def test_a_socket_that_is_not_connected_yet_is_looked_at_again_and_one_of_this_machine_is_none(
    listening: socket.socket,
) -> None:
    finder = LeakFinder(To(listening))
    one, other = socket.socketpair()
    with one, other, socket.socket() as ours:
        assert finder.find([]) == []
        ours.connect(listening.getsockname())
        assert len(finder.find([])) == 1
