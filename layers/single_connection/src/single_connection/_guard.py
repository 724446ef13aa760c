"""Nobody else may connect: refuses what it can see, finds afterwards what it cannot.

Every Python socket is seen as it connects (the audit event `socket.connect`, raised by CPython for
PyMySQL, mysql-connector, asyncio's drivers alike; `socket.sendto` and `socket.sendmsg` for TCP fast
open) and refused there. A C library, as of uvloop or mysqlclient, connects unseen; it is found when
the invocation ends (_leaks.py).
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

from ._addresses import Resolver, plain
from ._leaks import Leak, LeakFinder
from .errors import OutsideInvocationError, SecondConnectionError, SingleConnectionError

# Seconds to wait for a name server where a socket of somebody else's connects by a name.
RESOLVE_SECONDS = 1.0
# This package, its driver, and libraries through which a handler may use it.
_BETWEEN = frozenset({
    "single_connection", "contextlib", "functools", "pymysql", "alembic", "django",
    "flask_sqlalchemy", "pandas", "peewee", "sqlalchemy", "sqlmodel",
})  # fmt: skip
_guards: list["Guard"] = []
_permit = threading.local()


class Whereabouts(Protocol):
    """Knows where the database is."""

    def address(self) -> tuple[str, int] | None:
        """Host and port; None where the settings cannot be read."""


class Guard:
    """Only `permitted()` code connects to the database."""

    def __init__(self, database: Whereabouts) -> None:
        """Guard the database at `database.address()`, asked at each connect."""
        self._database = database
        self._resolver: Resolver | None = None
        self._finder = LeakFinder(self)
        self.place: str | None = None
        self.inode: int | None = None
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

    def opened(self, place: str, inode: int) -> None:
        """The invocation's own connection was opened at `place`; its socket has that number."""
        self.place = place
        self.inode = inode

    def closed(self) -> None:
        """The invocation's own connection is no more."""
        self.place = self.inode = None

    def leave(self) -> None:
        """The invocation is over: nothing may be opened until the next."""
        self.inside = False
        self.closed()

    def addresses(self, host: str, within: float) -> tuple[str, ...]:
        """The addresses of `host`, the database's; see `Resolver.addresses`."""
        if self._resolver is None:
            self._resolver = Resolver(host)
        return self._resolver.addresses(within)

    def check(self, address: Any) -> None:
        """Refuse `address` if it is the database's.

        Raises:
            SecondConnectionError: Inside an invocation.
            OutsideInvocationError: Elsewhere.
        """
        permitted, beside = getattr(_permit, "given", None) or (None, False)
        if permitted is self or beside or not self.is_database(address):
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

    def is_database(self, address: Any) -> bool:
        """Whether a socket's peer, as the socket module writes it, is the database."""
        if not isinstance(address, tuple) or len(address) < 2:
            return False  # a Unix socket's path
        known = self._database.address()
        if known is None or address[1] != known[1]:
            return False
        host = address[0] if isinstance(address[0], str) else bytes(address[0]).decode("latin-1")
        if host == known[0]:
            return True
        with contextlib.suppress(OSError):  # a name server that does not answer tells nothing
            theirs = Resolver(host).addresses(RESOLVE_SECONDS)
            ours = {plain(one) for one in self.addresses(known[0], RESOLVE_SECONDS)}
            return not ours.isdisjoint(plain(one) for one in theirs)
        return False

    def find_leaks(self) -> list[Leak]:
        """The connections to the database that were not permitted and exist all the same."""
        return self._finder.find({guard.inode for guard in (self, *_guards)})


def caller() -> str:
    """The place in the user's code that led here: `file:line in function`.

    What stands between the two is passed over by its module's name: some of it has no file.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _root_of(frame) in _BETWEEN:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _root_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


_installed = False


def _install() -> None:
    """One hook in the process, which cannot be taken out again."""
    global _installed  # noqa: PLW0603 - an audit hook is as global as a thing can be
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sock, address = args
        try:
            for guard in _guards:
                guard.check(address)
        except SingleConnectionError:
            if event == "socket.connect":
                sock.close()  # its owner expects an OSError, and would leave it open
            raise
        except Exception:  # noqa: BLE001 - a fault of ours must not break everybody's sockets
            return


# Else neither a debugger nor coverage would see into a refusal.
_hook.__cantrace__ = True  # type: ignore[attr-defined]
