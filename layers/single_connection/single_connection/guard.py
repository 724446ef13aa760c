"""Nobody else may connect: refuses what it can see, finds afterwards what it cannot.

Every Python socket is seen as it connects (the audit event `socket.connect`, raised by CPython for
PyMySQL, mysql-connector, asyncio's drivers alike) and refused there. A C library connects unseen;
its sockets are found through /proc when the invocation ends.
"""

import contextlib
import ipaddress
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .errors import OutsideInvocationError, SecondConnectionError

# A name is looked up again after this many seconds: a failover gives the same name a new address.
RESOLVE_SECONDS = 5.0
_PROCESSES = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"})

_guards: list["Guard"] = []
_permit = threading.local()


class Guard:
    """The one door to a database: only `permitted()` code passes."""

    def __init__(self, address: Callable[[], tuple[str, int] | None]) -> None:
        """Guard the database at `address()` (host, port), asked at each connect and free to fail.

        None means that the address is not known, and nothing is refused.
        """
        self._address = address
        self._resolved: frozenset[str] = frozenset()
        self._resolved_at = -RESOLVE_SECONDS
        self._harmless: set[str] = set()
        self.place: str | None = None
        self.inside = False
        self.processes_started = False
        _guards.append(self)
        _install()

    @contextlib.contextmanager
    def permitted(self) -> Iterator[None]:
        """The layer itself is connecting, in this thread."""
        _permit.given = True
        try:
            yield
        finally:
            _permit.given = False

    def enter(self) -> None:
        """An invocation begins."""
        self.inside = True
        self.processes_started = False

    def leave(self) -> None:
        """The invocation is over: nothing may be opened until the next."""
        self.inside = False
        self.place = None

    def check(self, address: Any) -> None:
        """Refuse `address` if it is the database's.

        Raises:
            SecondConnectionError: Inside an invocation.
            OutsideInvocationError: Elsewhere.
        """
        if getattr(_permit, "given", False) or not self._is_database(address):
            return
        if not self.inside:
            raise OutsideInvocationError(
                "a connection to the database was opened while no invocation is running (at "
                "import, or by a thread left over): use database.connection() in the handler"
            )
        first = f"opened at {self.place}" if self.place else "not opened yet"
        raise SecondConnectionError(
            "a connection to the database beside the invocation's own was refused; the first is "
            f"{first}: use it through database.connection(), which gives the same one everywhere"
        )

    def _is_database(self, address: Any) -> bool:
        if not isinstance(address, tuple) or len(address) < 2:
            return False  # a Unix socket's path
        known = self._address()
        if known is None or address[1] != known[1]:
            return False
        return address[0] == known[0] or _plain(address[0]) in self._addresses(known)

    def _addresses(self, known: tuple[str, int]) -> frozenset[str]:
        if time.monotonic() - self._resolved_at > RESOLVE_SECONDS:
            with contextlib.suppress(OSError):
                found = socket.getaddrinfo(*known, type=socket.SOCK_STREAM)
                self._resolved = frozenset(_plain(str(entry[4][0])) for entry in found)
                self._resolved_at = time.monotonic()
        return self._resolved

    def find_leaks(self) -> list["Leak"]:
        """The connections to the database that this process, and those it started, hold now."""
        leaks = self._leaks_of("self")
        if self.processes_started:
            for process in _descendants():
                leaks += self._leaks_of(process)
        return leaks

    def _leaks_of(self, process: str) -> list["Leak"]:
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:
            return []  # no /proc (macOS), or the process has ended
        leaks = []
        for descriptor in descriptors:
            try:
                inode = os.readlink(f"/proc/{process}/fd/{descriptor}")
            except OSError:
                continue  # closed in the meantime, as the directory's own descriptor is
            if not inode.startswith("socket:") or inode in self._harmless:
                continue
            ends = _connected_ends(process, int(descriptor), inode)
            if ends is None:
                continue  # not connected yet: look again next time
            local_port, peer = ends
            if self._is_database(peer):
                leaks.append(Leak(process, int(descriptor), local_port))
            else:
                self._harmless.add(inode)
        return leaks


class Leak:
    """A connection to the database that nobody permitted."""

    __slots__ = ("_descriptor", "_process", "local_port")

    def __init__(self, process: str, descriptor: int, local_port: int) -> None:
        """Note where it is."""
        self._process = process
        self._descriptor = descriptor
        self.local_port = local_port

    def shut(self) -> None:
        """Take the socket away from whoever holds it in this process."""
        if self._process == "self":
            with contextlib.suppress(OSError), _socket_of(self._descriptor) as sock:
                sock.shutdown(socket.SHUT_RDWR)


def caller(*, beside: str | None = None) -> str:
    """The place in the user's code that is calling this package: `file:line in function`.

    Args:
        beside: The folder of a library between the user's code and this package.
    """
    frame = sys._getframe(1)
    passed = (os.path.dirname(__file__), contextlib.__file__, beside or contextlib.__file__)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(passed):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _plain(host: str) -> str:
    """An address without its zone, and an IPv4 address without its IPv6 dress."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _socket_of(descriptor: int) -> socket.socket:
    return socket.socket(fileno=os.dup(descriptor))


def _connected_ends(process: str, descriptor: int, inode: str) -> tuple[int, Any] | None:
    """The local port and the peer's address of a connected TCP socket."""
    if process == "self":
        try:
            with _socket_of(descriptor) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6):
                    return 0, None
                return sock.getsockname()[1], sock.getpeername()
        except OSError:
            return None
    number = inode.removeprefix("socket:[").removesuffix("]")
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{process}/net/{table}") as lines:
            for line in lines:
                fields = line.split()
                if fields[9] == number:
                    return _port(fields[1]), (_host(fields[2]), _port(fields[2]))
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
    return str(ipaddress.ip_address(ordered))


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


_installed = False


def _install() -> None:
    """One hook in the process, which cannot be taken out again."""
    global _installed  # noqa: PLW0603 - an audit hook is as global as a thing can be
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for guard in _guards:
            guard.check(args[1])
    elif event in _PROCESSES:
        for guard in _guards:
            guard.processes_started = True
