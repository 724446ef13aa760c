"""Nobody else may connect: refuses what it can see, finds afterwards what it cannot.

Every Python socket is seen as it connects (the audit event `socket.connect`, raised by CPython for
PyMySQL, mysql-connector, asyncio's drivers alike) and refused there. A C library connects unseen;
its sockets are found through /proc when the invocation ends.
"""

import contextlib
import functools
import ipaddress
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .errors import OutsideInvocationError, SecondConnectionError, SingleConnectionError

# A name is looked up again after this many seconds: a failover gives the same name a new address.
RESOLVE_SECONDS = 5.0
# Linux: a duplicate of another process's descriptor; the number is the same on x86-64 and arm64.
_PIDFD_GETFD = 438

_HERE = os.path.dirname(__file__)
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
        self.end: str | None = None
        self.inside = False
        _guards.append(self)
        _install()

    @contextlib.contextmanager
    def permitted(self, *, beside: bool = False) -> Iterator[None]:
        """The layer itself is connecting, in this thread.

        Args:
            beside: For a moment only, beside whatever connection there is.
        """
        before = getattr(_permit, "given", None)
        _permit.given = (self, beside)
        try:
            yield
        finally:
            _permit.given = before

    def enter(self) -> None:
        """An invocation begins."""
        self.inside = True

    def opened(self, place: str, end: str | None) -> None:
        """The invocation's own connection was opened at `place`; its local end is `end`."""
        self.place = place
        self.end = end

    def closed(self) -> None:
        """The invocation's own connection is no more."""
        self.place = self.end = None

    def leave(self) -> None:
        """The invocation is over: nothing may be opened until the next."""
        self.inside = False
        self.closed()

    def check(self, address: Any) -> None:
        """Refuse `address` if it is the database's.

        Raises:
            SecondConnectionError: Inside an invocation.
            OutsideInvocationError: Elsewhere.
        """
        permitted, beside = getattr(_permit, "given", None) or (None, False)
        if permitted is self or beside or not self._is_database(address):
            return
        if permitted is not None:
            # Another `Database` object of this process: its connection may be the first one.
            if self.place is None:
                return
        elif not self.inside:
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
        host = address[0] if isinstance(address[0], str) else bytes(address[0]).decode("latin-1")
        return host == known[0] or not self._addresses(known).isdisjoint(_resolve(host))

    def _addresses(self, known: tuple[str, int]) -> frozenset[str]:
        if time.monotonic() - self._resolved_at > RESOLVE_SECONDS:
            with contextlib.suppress(OSError):
                self._resolved = _resolve(known[0])
                self._resolved_at = time.monotonic()
        return self._resolved

    def find_leaks(self) -> list["Leak"]:
        """The connections to the database that this process, and those it started, hold now."""
        leaks = self._leaks_of("self")
        if _has_children():
            for process in _descendants():
                leaks += self._leaks_of(process)
        if not leaks:
            return leaks
        own = {guard.end for guard in _guards}
        # A forked child holds the same connection as its parent: it is one.
        return list({leak.end: leak for leak in reversed(leaks) if leak.end not in own}.values())

    def _leaks_of(self, process: str) -> list["Leak"]:
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:
            return []  # no /proc (macOS), or the process has ended
        leaks = []
        for descriptor in descriptors:
            try:
                # Of our own, most are no sockets, and the file system need not be asked for them.
                if process == "self" and not stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode):
                    continue
                inode = os.readlink(f"/proc/{process}/fd/{descriptor}")
            except OSError:
                continue  # closed in the meantime, as the directory's own descriptor is
            if not inode.startswith("socket:") or inode in self._harmless:
                continue
            ends = _connected_ends(process, int(descriptor), inode)
            if ends is None:
                continue  # not connected yet: look again next time
            end, peer = ends
            if self._is_database(peer):
                leaks.append(Leak(process, int(descriptor), end))
            else:
                self._harmless.add(inode)
        return leaks


class Leak:
    """A connection to the database that nobody permitted; `end` is our end, "address:port"."""

    __slots__ = ("_descriptor", "_process", "end")

    def __init__(self, process: str, descriptor: int, end: str) -> None:
        """Note where it is."""
        self._process = process
        self._descriptor = descriptor
        self.end = end

    def shut(self, seconds: float) -> bool:
        """Take the connection away from whoever holds it, without a word to the server but its end.

        Returns:
            Whether the server answered within `seconds` by ending it too. One that is in the middle
            of a statement does not.
        """
        try:
            with _socket_of(self._process, self._descriptor) as sock:
                try:
                    sock.shutdown(socket.SHUT_WR)
                    until = time.monotonic() + seconds
                    while (left := until - time.monotonic()) > 0:
                        sock.settimeout(left)
                        if not sock.recv(1 << 16):
                            return True
                finally:
                    sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        return False


def caller(*, beside: str | None = None) -> str:
    """The place in the user's code that is calling this package: `file:line in function`.

    Args:
        beside: The folder of a library between the user's code and this package.
    """
    frame = sys._getframe(1)
    passed = (_HERE, contextlib.__file__, beside or contextlib.__file__)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(passed):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


@functools.lru_cache(maxsize=64)
def _plain(host: str) -> str:
    """An address without its zone, and an IPv4 address without its IPv6 dress.

    Raises:
        ValueError: It is a name.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def _resolve(host: str) -> frozenset[str]:
    """The addresses of `host`; of an address, itself."""
    try:
        return frozenset((_plain(host),))
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return frozenset(_plain(str(entry[4][0])) for entry in found)


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


def _connected_ends(process: str, descriptor: int, inode: str) -> tuple[str, Any] | None:
    """The local end and the peer's address of a connected TCP socket."""
    if process == "self":
        try:
            with _socket_of(process, descriptor) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6):
                    return "", None
                return end_of(sock), sock.getpeername()
        except OSError:
            return None
    number = inode.removeprefix("socket:[").removesuffix("]")
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{process}/net/{table}") as lines:
            for line in lines:
                fields = line.split()
                if fields[9] == number:
                    end = f"{_plain(_host(fields[1]))}:{_port(fields[1])}"
                    return end, (_host(fields[2]), _port(fields[2]))
    return None


def end_of(sock: Any) -> str:
    """The local end of a TCP socket, as the server's process list would have it: address:port."""
    host, port = sock.getsockname()[:2]
    return f"{_plain(host)}:{port}"


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


_installed = False


def _install() -> None:
    """One hook in the process, which cannot be taken out again."""
    global _installed  # noqa: PLW0603 - an audit hook is as global as a thing can be
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        sock, address = args
        try:
            for guard in _guards:
                guard.check(address)
        except SingleConnectionError:
            sock.close()  # its owner expects an OSError, and would leave it open
            raise


# Else neither a debugger nor coverage would see into a refusal.
_hook.__cantrace__ = True  # type: ignore[attr-defined]
