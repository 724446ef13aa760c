"""Verified TLS that resumes: what makes the next connection cheap, and never a socket."""

import socket
import ssl
from pathlib import Path
from typing import Any, Self

from .errors import SettingsError


class ResumingContext(ssl.SSLContext):
    """A client context that always verifies, and resumes the last session of the same server.

    One context serves one database. Only a session whose full handshake passed this context's own
    verification (chain and host name) is kept; a server that refuses it gets a full, verified
    handshake again, without a further connection.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, ca_file: str | None) -> None:
        """Trust `ca_file` alone, or the system's roots where it is None.

        Raises:
            SettingsError: The file holds no certificate that can be read.
        """
        self._session: ssl.SSLSession | None = None
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        # The first key share must be one the server takes: MySQL 8 and later answer Python's
        # default (X25519) with a HelloRetryRequest, which costs a round trip on each connect.
        self.set_ecdh_curve("prime256v1")
        if ca_file is None:
            self.load_default_certs()
            return
        try:
            # Parsed from memory: a file is read once here, and three roots parse in microseconds.
            self.load_verify_locations(cadata=Path(ca_file).read_text("ascii"))
        except (OSError, ValueError, ssl.SSLError) as error:
            raise SettingsError(
                f"DATABASE_CA_FILE {ca_file!r} holds no PEM certificate that can be read: {error}"
            ) from error

    def wrap_socket(  # type: ignore[override]
        self, sock: socket.socket, server_hostname: str | None = None, **_: Any
    ) -> ssl.SSLSocket:
        """Verified TLS over `sock`, resuming the kept session where the server agrees."""
        wrapped = super().wrap_socket(sock, server_hostname=server_hostname, session=self._session)
        if not wrapped.session_reused:
            self._session = None
        return wrapped

    def remember(self, sock: ssl.SSLSocket) -> None:
        """Keep the ticket `sock` got, to be called once data was read (TLS 1.3 sends it late)."""
        if self._session is None and sock.session is not None and sock.session.has_ticket:
            self._session = sock.session
