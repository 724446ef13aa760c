"""A TCP connection that turns into TLS: each flight is one system call, and the first leaves early.

TLS runs in memory (`ssl.MemoryBIO`), not on the socket. So our first flight can leave before the
server's greeting has come, which saves one of the round trips of a connect; and PyMySQL's packets
leave with the handshake's own, in one piece.
"""

import contextlib
import io
import socket
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._tls import ResumingContext

# Bytes; a TLS record holds 16 KiB and a header at the most.
RECORD = 16 * 1024
CHUNK = 2 * RECORD


class Wire(io.RawIOBase):
    """Stands where PyMySQL expects a socket.

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
        self, sock: socket.socket, tls: "ResumingContext", host: str, *, may_speak_early: bool
    ) -> None:
        """Take over `sock`, which is connected to `host`."""
        self._sock = sock
        self._context = tls
        self._host = host
        self._tls: ssl.SSLObject | None = None
        self._greeting = b""
        self._request = tls.take_request(host) if may_speak_early else b""
        self.secure = False
        self.spoke_early = bool(self._request)
        if self.spoke_early:
            with contextlib.suppress(ConnectionError):  # what the server said first is still there
                self._sock.sendall(self._request + self._hello())
            tls.prepare(host)

    def _hello(self) -> bytes:
        self._tls, self._incoming, self._outgoing = self._context.begin(self._host)
        return self._outgoing.read()

    def _receive(self) -> bool:
        """Feed TLS with what comes next; False at the end of the stream."""
        data = self._sock.recv(CHUNK)
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
        if self.spoke_early:
            self._context.early_failures = 0
        self._context.verified(self._host, self._request, reused=bool(self._tls.session_reused))

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())

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
            self._sock.sendall(data + self._hello())
        elif data != self._request:
            raise ConnectionAbortedError("the server's greeting changed since the last connection")

    def makefile(self, _mode: str) -> Any:
        """What PyMySQL reads from: the greeting alone, then whatever comes through TLS."""
        return io.BufferedReader(self, RECORD) if self.secure else _Greeting(self)

    def read_plain(self, count: int) -> bytes:
        """Bytes of the greeting; what came behind them is TLS."""
        while len(self._greeting) < count:
            data = self._sock.recv(CHUNK)
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
            except ssl.SSLZeroReturnError:
                return 0

    def settimeout(self, seconds: float | None) -> None:
        """Of each system call."""
        self._sock.settimeout(seconds)

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
        while self._sock.recv(CHUNK):
            pass

    def getsockname(self) -> Any:
        """Our end."""
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

    def __init__(self, wire: Wire) -> None:
        self.read = wire.read_plain

    def close(self) -> None:
        """The wire is closed by itself."""
