"""A TCP connection that turns into TLS: each flight is one system call, and the first leaves early.

TLS runs in memory (`ssl.MemoryBIO`), not on the socket. So our first flight can leave before the
server's greeting has come, which saves one of the round trips of a connect; and PyMySQL's packets
leave with the handshake's own, in one piece.
"""

import contextlib
import io
import socket
import ssl
from typing import Any

from ._clock import clock
from ._early import EarlyRequest
from ._tls import ResumingContext

# Bytes; a TLS record holds 16 KiB and a header at the most.
RECORD = 16 * 1024
CHUNK = 2 * RECORD
# Bytes that a server may say before TLS: a greeting has some hundred, an error's text up to 512.
LONGEST_GREETING = 4096
# Seconds by which a wait may outlast its end: setting a socket's timeout is a system call.
SLACK = 0.02


class Transport(io.RawIOBase):
    """Stands where PyMySQL expects a socket, and gives all that is waited for one common end.

    The server greets first, in plain text, and PyMySQL answers with a request for TLS whose bytes
    depend on our settings alone. Once such a request led to verified TLS, the next connection sends
    it, and the TLS hello, without waiting for the greeting. The server reads the same bytes in the
    same order. If PyMySQL wants to say something else, or TLS does not come about, the connection
    is given up and the next one waits for the greeting again.

    Attributes:
        spoke_early: Whether the request left before the greeting was there.
        secure: Whether TLS is verified and ready.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ResumingContext,
        early: EarlyRequest | None,
        host: str,
        until: float,
    ) -> None:
        """Take over `sock`, which is connected to `host`.

        Args:
            sock: The connected socket.
            tls: Makes and verifies TLS.
            early: What may be said before the greeting; None where a proxy is on the way.
            host: As the certificate must have it.
            until: The clock's time at which every wait ends, until `limit` says another.
        """
        self._sock = sock
        self._context = tls
        self._early = early
        self._host = host
        self._until = until
        self._limited_at = float("-inf")
        self._tls: ssl.SSLObject | None = None
        self._greeting = b""
        self._greeted = 0
        self._request = early.take(host) if early is not None else b""
        self.secure = False
        self.spoke_early = bool(self._request)
        if self.spoke_early:
            with contextlib.suppress(ConnectionError):  # what the server said first is still there
                self._send(self._request + self._hello())
            tls.prepare(host)

    # Waiting, always with an end ---------------------------------------------------------------

    def limit(self, until: float) -> None:
        """Let every wait end at that time of the clock, however little comes at a time."""
        self._until = until
        self._limited_at = float("-inf")

    def _limit_next_call(self) -> None:
        now = clock.now()
        if now - self._limited_at > SLACK:
            left = self._until - now
            if left <= 0:
                raise TimeoutError("the time for this connection is over")
            self._sock.settimeout(left)
            self._limited_at = now

    def _recv(self, count: int) -> bytes:
        self._limit_next_call()
        return self._sock.recv(count)

    def _send(self, data: bytes) -> None:
        self._limit_next_call()
        self._sock.sendall(data)  # the socket's timeout is one for the whole call

    # TLS ---------------------------------------------------------------------------------------

    def _hello(self) -> bytes:
        self._tls, self._incoming, self._outgoing = self._context.begin(self._host)
        return self._outgoing.read()

    def _receive(self) -> bool:
        """Feed TLS with what comes next; False at the end of the stream."""
        data = self._recv(CHUNK)
        self._incoming.write(data)
        return bool(data)

    def shake_hands(self) -> None:
        """Finish the handshake; its last flight leaves with the first packet.

        Raises:
            OSError: `ssl.SSLCertVerificationError` and its kind, or a lost connection.
        """
        assert self._tls is not None  # noqa: S101 - PyMySQL has asked for TLS before
        self._incoming.write(self._greeting)
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self._flush()
                    if not self._receive():
                        raise ConnectionResetError("the server left during the handshake") from None
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                self._flush()  # the alert that tells the server why
            raise
        self.secure = True
        if self._early is not None:
            self._early.verified(self._host, self._request, early=self.spoke_early)
        self._context.verified(self._host, reused=bool(self._tls.session_reused))

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._send(self._outgoing.read())

    # What PyMySQL does with a socket -----------------------------------------------------------

    def sendall(self, data: bytes) -> None:
        """Send; before TLS there is one thing to say, and it may have been said."""
        if self.secure:
            assert self._tls is not None  # noqa: S101 - as `secure` says
            for start in range(0, len(data), RECORD):
                self._tls.write(data[start : start + RECORD])
                self._flush()
        elif not self._request:
            self._request = data
            self._send(data + self._hello())
        elif data != self._request:
            raise ConnectionAbortedError("the server's greeting changed since the last connection")

    def makefile(self, _mode: str) -> Any:
        """What PyMySQL reads from: the greeting alone, then whatever comes through TLS."""
        return io.BufferedReader(self, RECORD) if self.secure else _Greeting(self)

    def read_plain(self, count: int) -> bytes:
        """Bytes of the greeting; what came behind them is TLS.

        Raises:
            ConnectionAbortedError: It is longer than any greeting.
        """
        self._greeted += count
        if self._greeted > LONGEST_GREETING:
            raise ConnectionAbortedError("the greeting is longer than a MySQL server's")
        while len(self._greeting) < count:
            data = self._recv(CHUNK)
            if not data:
                break
            self._greeting += data
        taken, self._greeting = self._greeting[:count], self._greeting[count:]
        return taken

    def readable(self) -> bool:
        """For `io.BufferedReader`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Decrypted bytes, as they come; 0 at the end."""
        assert self._tls is not None  # noqa: S101 - `makefile` gives no reader before
        while True:
            try:
                return self._tls.read(len(buffer), buffer)  # type: ignore[return-value] # a count
            except ssl.SSLWantReadError:
                if not self._receive():
                    return 0

    def settimeout(self, _seconds: float | None) -> None:
        """PyMySQL's way to limit a single call; here `limit` limits them all."""

    def close(self) -> None:
        """Close; harmless when repeated."""
        super().close()
        self._sock.close()

    # What the layer does beyond that -----------------------------------------------------------

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session that can be resumed; TLS 1.3 sends it behind the first data."""
        return self._tls.session if self._tls is not None else None

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    def await_end(self) -> None:
        """Read to the end of the stream below TLS: then the server has closed its side."""
        while self._recv(CHUNK):
            pass

    def getsockname(self) -> Any:
        """Our address and port."""
        return self._sock.getsockname()

    def detach(self) -> int:
        """Give the descriptor away."""
        return self._sock.detach()

    def shut(self) -> None:
        """Wake whoever waits for data, from another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class _Greeting:
    """Reads no further than the greeting; dropped when TLS begins, and closes nothing."""

    def __init__(self, transport: Transport) -> None:
        self.read = transport.read_plain

    def close(self) -> None:
        """The transport is closed by itself."""
