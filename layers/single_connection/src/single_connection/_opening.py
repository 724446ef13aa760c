"""What has to be known, and can be cut, while a connection opens."""

import contextlib
import socket

from ._deadline import Deadline, Watchdog
from ._latch import Latch


class Opening:
    """One invocation's way to its connection: its time, and the socket that is being waited on.

    Attributes:
        deadline: Every wait ends by then.
        watchdog: Started where there is time for it: while the server checks the password.
        over: Set when nobody wants the connection any more.
        was_refused: Whether the last attempt was told that the server is full.
    """

    __slots__ = ("_sock", "deadline", "over", "was_refused", "watchdog")

    def __init__(self, deadline: Deadline, watchdog: Watchdog | None = None) -> None:
        self.deadline = deadline
        self.watchdog = watchdog
        self.over = Latch()
        self.was_refused = False
        self._sock: socket.socket | None = None

    def waiting_on(self, sock: socket.socket) -> None:
        """Whoever opens says on which socket it is going to wait.

        Raises:
            ConnectionAbortedError: Nobody wants the connection any more.
        """
        self._sock = sock
        if self.over.is_set():
            raise ConnectionAbortedError("the invocation ended while its connection opened")

    def forget(self) -> None:
        """Nothing is waited on any more."""
        self._sock = None

    def abandon(self) -> None:
        """Stop waiting for it, from another thread."""
        self.over.set()
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
