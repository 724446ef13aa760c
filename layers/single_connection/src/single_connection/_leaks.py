"""Connections that nobody saw being opened, of C libraries and of children, found through /proc.

On Linux, as in Lambda; elsewhere nothing is found.
"""

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Collection
from typing import Any, Protocol

from ._addresses import end_of, plain
from ._clock import clock

# Linux: a duplicate of another process's descriptor; the number is the same on x86-64 and arm64.
_PIDFD_GETFD = 438


class Leak:
    """A connection to the database that nobody permitted; `end` is our end, "address:port"."""

    __slots__ = ("_descriptor", "_inode", "_process", "end")

    def __init__(self, process: str, descriptor: int, inode: int, end: str) -> None:
        """Note where it is; the inode is the socket's own number, which no other has."""
        self._process = process
        self._descriptor = descriptor
        self._inode = inode
        self.end = end

    def shut(self, seconds: float) -> bool:
        """Take the connection away from whoever holds it, without a word to the server but its end.

        Returns:
            Whether the server answered within `seconds` by ending it too. One that is in the middle
            of a statement does not.
        """
        try:
            with _socket_of(self._process, self._descriptor) as sock:
                if os.fstat(sock.fileno()).st_ino != self._inode:
                    return True  # closed meanwhile, and the descriptor is somebody else's now
                try:
                    sock.shutdown(socket.SHUT_WR)
                    until = clock.now() + seconds
                    while (left := until - clock.now()) > 0:
                        sock.settimeout(left)
                        if not sock.recv(1 << 16):
                            return True
                finally:
                    with contextlib.suppress(OSError):  # where both sides have ended it
                        sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        return False


class Addressed(Protocol):
    """Tells the database from other peers."""

    def is_database(self, address: Any) -> bool:
        """Whether that peer is the database."""


class LeakFinder:
    """Looks through the sockets of this process and of those it started."""

    def __init__(self, guard: Addressed) -> None:
        """`guard` tells a peer's address."""
        self._guard = guard
        self._harmless: set[int] = set()

    def find(self, own: Collection[int | None]) -> list[Leak]:
        """The connections to the database that this process, and those it started, hold now.

        Args:
            own: The inodes of sockets that are permitted.
        """
        leaks = self._leaks_of("self", own)
        if _has_children():
            for process in _descendants():
                leaks += self._leaks_of(process, own)
        # A forked child holds the same connection as its parent: it is one.
        return list({leak.end: leak for leak in reversed(leaks)}.values())

    def _leaks_of(self, process: str, own: Collection[int | None]) -> list[Leak]:
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:
            return []  # no /proc (macOS), or the process has ended
        leaks = []
        for descriptor in descriptors:
            try:
                inode = _inode_of(process, descriptor)
            except OSError:
                continue  # closed in the meantime, as the directory's own descriptor is
            if inode is None or inode in own or inode in self._harmless:
                continue
            ends = _connected_ends(process, int(descriptor), inode)
            if ends is None:
                continue  # not connected yet: look again next time
            end, peer = ends
            if self._guard.is_database(peer):
                leaks.append(Leak(process, int(descriptor), inode, end))
            else:
                self._harmless.add(inode)
        return leaks


def _inode_of(process: str, descriptor: str) -> int | None:
    """The number of a socket, which no other has; None for anything else."""
    if process == "self":
        status = os.fstat(int(descriptor))  # a tenth of what asking /proc costs
        return status.st_ino if stat.S_ISSOCK(status.st_mode) else None
    kind, _, number = os.readlink(f"/proc/{process}/fd/{descriptor}").partition(":")
    return int(number.strip("[]")) if kind == "socket" else None


def _socket_of(process: str, descriptor: int) -> socket.socket:
    """A second hold on a socket of this process, or of one it started."""
    if process == "self":
        return socket.socket(fileno=os.dup(descriptor))
    import ctypes  # noqa: PLC0415 - needed by a leak in a child process alone

    with open(os.pidfd_open(int(process)), "rb") as handle:
        copy = ctypes.CDLL(None).syscall(_PIDFD_GETFD, handle.fileno(), descriptor, 0)
    if copy < 0:
        raise PermissionError(f"process {process} does not give its sockets away")
    return socket.socket(fileno=copy)


def _connected_ends(process: str, descriptor: int, inode: int) -> tuple[str, Any] | None:
    """The local end and the peer's address of a connected TCP socket."""
    if process == "self":
        try:
            with _socket_of(process, descriptor) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6):
                    return "", None
                return end_of(sock), sock.getpeername()
        except OSError:
            return None
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{process}/net/{table}") as lines:
            for line in lines:
                fields = line.split()
                if fields[9] == str(inode):
                    end = f"{plain(_host(fields[1]))}:{_port(fields[1])}"
                    return end, (_host(fields[2]), _port(fields[2]))
    return None


def _port(end: str) -> int:
    return int(end.rpartition(":")[2], 16)


def _host(end: str) -> str:
    """An address as /proc/net writes it: hexadecimal words, each in the machine's byte order."""
    words = bytes.fromhex(end.partition(":")[0])
    ordered = b"".join(
        int.from_bytes(words[i : i + 4], sys.byteorder).to_bytes(4, "big")
        for i in range(0, len(words), 4)
    )
    family = socket.AF_INET if len(ordered) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, ordered)


def _has_children() -> bool:
    """Whether this process has started another that it has not waited for, in whichever way."""
    try:
        os.waitid(os.P_ALL, 0, os.WNOHANG | os.WNOWAIT | os.WEXITED)
    except (AttributeError, ChildProcessError):  # macOS has no waitid, and no /proc either
        return False
    return True


def _descendants() -> list[str]:
    """The processes started by this one, and by those, as far as they still run."""
    found: list[str] = []
    waiting = [str(os.getpid())]
    while waiting:
        process = waiting.pop()
        try:
            tasks = os.listdir(f"/proc/{process}/task")
        except OSError:
            continue
        for task in tasks:
            with contextlib.suppress(OSError), open(f"/proc/{process}/task/{task}/children") as c:
                children = c.read().split()
                found += children
                waiting += children
    return found
