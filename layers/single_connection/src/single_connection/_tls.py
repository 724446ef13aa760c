"""Verified TLS that resumes: what makes the next connection cheap, and never a socket."""

import contextlib
import ssl
from typing import Any, Protocol, Self

from .errors import SettingsError

# A connection's TLS, with what comes from the network and what goes there.
Tls = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]


class Secured(Protocol):
    """A transport that has a TLS session."""

    @property
    def session(self) -> ssl.SSLSession | None:
        """It, if it can be resumed."""


class ResumingContext(ssl.SSLContext):
    """A client context that always verifies, and resumes the last session of the same server.

    What it keeps belongs to one host. Only a session whose full handshake passed this context's own
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
        self._host: str | None = None
        self._session: ssl.SSLSession | None = None
        self._prepared: list[Tls] = []
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        # The common name is no host name: what is certified stands among the alternative names
        # (RFC 9110, 4.3.4).
        self.hostname_checks_common_name = False
        # The first key share must be one the server takes: MySQL 8 and later answer Python's
        # default (X25519) with a HelloRetryRequest, which costs a round trip on each connect.
        self.set_ecdh_curve("prime256v1")
        if ca_file is None:
            self.load_default_certs()
            return
        try:
            # Parsed from memory: a file is read once here, and three roots parse in microseconds.
            with open(ca_file, encoding="ascii") as file:
                self.load_verify_locations(cadata=file.read())
        except (OSError, ValueError, ssl.SSLError) as error:
            raise SettingsError(
                f"DATABASE_CA_FILE {ca_file!r} holds no PEM certificate that can be read: {error}"
            ) from error

    def wrap_socket(self, sock: Any, **_: Any) -> Any:  # type: ignore[override]
        """Verified TLS over `sock`, which is a transport: PyMySQL's way to ask for it."""
        sock.shake_hands()
        return sock

    def ticket(self, host: str) -> ssl.SSLSession | None:
        """The session to resume, if the last verification was of `host`."""
        return self._session if host == self._host else None

    def begin(self, host: str) -> Tls:
        """TLS with `host`, in memory, its hello ready to leave: what was prepared, or made now."""
        if host == self._host and self._prepared:
            with contextlib.suppress(IndexError):  # another thread was faster
                return self._prepared.pop()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = self.ticket(host)
        tls = self.wrap_bio(incoming, outgoing, server_hostname=host, session=session)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        return tls, incoming, outgoing

    def prepare(self, host: str) -> None:
        """Make the next connection's TLS and its hello now, while the server works on this one's.

        OpenSSL copies the session by writing and parsing it, certificate included, and the hello
        takes a new key: together longer than all the rest of our side of a resumption. How long it
        lies ready does not matter: a server minds a ticket's age for early data alone (RFC 8446,
        8.3), which is never sent, and shows its certificate again where a ticket has expired.
        """
        if not self._prepared and self.ticket(host) is not None:
            self._prepared.append(self.begin(host))

    def verified(self, host: str, *, reused: bool) -> None:
        """TLS with `host` is there, verified now or when the session began that it resumed."""
        if not reused:
            self._session = None
            self._prepared.clear()
        self._host = host

    def remember(self, transport: Secured) -> None:
        """Keep the ticket, to be called once data was read (TLS 1.3 sends it late).

        Looked at only where there is none yet: OpenSSL copies a session each time it is asked for.
        """
        if self._session is None:
            session = transport.session
            if session is not None and session.has_ticket:
                self._session = session

    def forget(self) -> None:
        """Keep nothing that two copies of this process may share: a key in a hello, a ticket."""
        self._session = None
        self._prepared.clear()
