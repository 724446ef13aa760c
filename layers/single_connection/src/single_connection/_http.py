"""One HTTP request, its answer, and one end for both, without the import of http.client.

Strict: whatever an AWS service does not send (chunks, compression, no length, a head of 16 KiB) is
`UnreadableError`, and its caller asks by boto3 instead.
"""

import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from ._clock import clock

HEAD_LIMIT = 16 * 1024
# A secret has at most 64 KiB (Secrets Manager's quota), six times that if JSON escapes all of it.
BODY_LIMIT = 512 * 1024


class UnreadableError(Exception):
    """An answer, or a certificate, that is not what an AWS endpoint gives."""


class UnreachableError(Exception):
    """Nothing came of the way to the server; says in which step."""


class Exchange:
    """One request and its answer, over before `until`; `abandon` ends it at once.

    Every wait is given what is left, so that neither silence nor a trickle can stretch it; only a
    name server that does not answer can, which is why it runs in a thread that nobody waits for.

    Attributes:
        until: The one end of everything, on the layer's clock; past once it was abandoned.
    """

    def __init__(self, until: float) -> None:
        """Nothing is opened yet."""
        self.until = until
        self._socket: socket.socket | None = None

    def abandon(self) -> None:
        """Wake whoever is in it; from any thread."""
        self.until = 0.0
        opened = self._socket
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def send(
        self,
        request: str,
        host: str,
        port: int,
        *,
        head: Mapping[str, str],
        body: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer.

        Args:
            request: Method and path, as `POST /`.
            host: Name or address.
            port: TCP port.
            head: The headers; Content-Length and Connection are added.
            body: What is posted.
            tls: What to verify the server with; None speaks in the clear.

        Raises:
            UnreachableError: No answer in time, or at all.
            UnreadableError: Not the answer of an AWS service.
        """
        lines = [f"{name}: {value}\r\n" for name, value in head.items()]
        start = f"{request} HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        said = (start + "".join(lines) + "\r\n").encode("latin-1") + body
        step = f"the name {host} could not be looked up"
        try:
            # As bytes: a str would bring in the codec idna, and with it three more modules.
            found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
            step = f"no connection to {host}:{port}"
            with self._connect(found) as opened:
                step = f"no TLS with {host}:{port}"
                with self._secure(opened, host, tls) as secured:
                    step = f"no answer from {host}:{port}"
                    secured.settimeout(self._left())
                    secured.sendall(said)
                    return self._answer(secured)
        except ssl.SSLCertVerificationError as error:
            raise UnreadableError(f"certificate: {error.verify_message}") from None
        except OSError as error:
            raise UnreachableError(f"{step}: {error}") from None
        finally:
            self._socket = None

    def _left(self) -> float:
        left = self.until - clock.now()
        if left <= 0:
            raise TimeoutError("the time is over")
        return left

    def _connect(self, found: list[Any]) -> socket.socket:
        """A connection to the first address that answers; each has its share of what is left."""
        failed: OSError = OSError("no address")
        for position, (family, kind, protocol, _, address) in enumerate(found):
            self._socket = opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(self._left() / (len(found) - position))
                opened.connect(address)
            except OSError as error:
                opened.close()
                failed = error
            except BaseException:
                opened.close()
                raise
            else:
                return opened
        raise failed

    def _secure(
        self, opened: socket.socket, host: str, tls: ssl.SSLContext | None
    ) -> socket.socket:
        if tls is None:
            return opened
        # As bytes, see above; shaken by itself, so that `abandon` finds it.
        name: Any = host.encode("ascii")
        secured = tls.wrap_socket(opened, server_hostname=name, do_handshake_on_connect=False)
        self._socket = secured
        try:
            secured.settimeout(self._left())
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _more(self, opened: socket.socket) -> bytes:
        opened.settimeout(self._left())
        if not (received := opened.recv(65536)):
            raise ConnectionError("the connection was closed before the answer was complete")
        return received

    def _answer(self, opened: socket.socket) -> tuple[int, bytes]:
        received = b""
        while (ends := received.find(b"\r\n\r\n")) < 0:
            if len(received) > HEAD_LIMIT:
                raise UnreadableError("a head without an end")
            received += self._more(opened)
        status, length = _head(received[:ends])
        body = received[ends + 4 :]
        while len(body) < length:
            body += self._more(opened)
        return status, body[:length]


def _head(head: bytes) -> tuple[int, int]:
    """Status, and the body's length in bytes."""
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        # What stands twice is put together, as HTTP has it: two lengths are no number.
        key = name.lower()
        fields[key] = fields[key] + b", " + value.strip() if key in fields else value.strip()
    status, length = rest[:3], fields.get(b"content-length", b"")
    if (
        not version.startswith(b"HTTP/1.")
        or not (status.isdigit() and length.isdigit() and len(length) < 10)
        or not 200 <= int(status) <= 599
        or int(length) > BODY_LIMIT
        or b"transfer-encoding" in fields
        or fields.get(b"content-encoding", b"identity") != b"identity"
    ):
        raise UnreadableError("not an answer of a known form")
    return int(status), int(length)
