"""One attempt to connect, from the first packet to the last, with one end for all of it."""

import socket
import ssl
import struct

from pymysql.constants import CR
from pymysql.err import Error, InternalError

from .._admission import Refused
from .._clock import clock
from .._guard import Guard
from .._lease import Lease
from .._opening import Opening
from .._server_errors import DENIED, FULL, NO_ACCESS_TO_SCHEMA, NO_SUCH_SCHEMA, PASSING
from .._transport import Transport
from ..errors import CredentialsError, SettingsError
from .alarms import alarm_behind
from .connection import Connection
from .target import Target

# One attempt to connect that gets no answer is given up after this, so that it can be repeated.
ATTEMPT_SECONDS = 2.0
# What a greeting that is no greeting makes of a parser.
UNSUPPORTED = (AttributeError, RuntimeError)  # what a plugin that is not there makes of PyMySQL
BROKEN = (
    struct.error, IndexError, ValueError, KeyError, TypeError, AssertionError, InternalError,
    *UNSUPPORTED,
)  # fmt: skip
UNABLE = (CR.CR_AUTH_PLUGIN_CANNOT_LOAD, CR.CR_AUTH_PLUGIN_ERR)


def open_connection(
    target: Target, lease: Lease, opening: Opening, until: float, *, tag: str = ""
) -> Connection:
    """One attempt to connect, with TLS verified and the lease on its way.

    Args:
        target: Where to.
        lease: How long the server may keep the session without a word from us.
        opening: Whose; can abandon the attempt from another thread.
        until: The clock's time by which the attempt succeeds or fails, whatever the peer does.
        tag: A comment for each statement, shown by the server's process list.

    Raises:
        Refused: The server is full or does not answer; waiting may help.
        CredentialsError: The server does not take this user or password.
        SettingsError: The address, the certificate or the schema is wrong.
        pymysql.err.Error: Whatever else the server says through TLS, as it is.
    """
    now = clock.now()
    until = min(max(until, now + 0.05), now + ATTEMPT_SECONDS)
    connection: Connection | None = None
    transport: Transport | None = None
    try:
        sock = _dial(target, opening, until)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if opening.was_refused:
                _knock(sock, until)
            early = None if opening.was_refused else target.early
            transport = Transport(sock, target.tls, early, target.host, until)
            connection = Connection(target, lease, opening, tag=tag)
            connection.connect(transport)
        except BaseException:
            sock.close()
            raise
        connection.admitted()
    except (OSError, Error, *BROKEN) as error:
        if transport is not None and transport.secure:
            # Refused behind TLS, as the one over MySQL's limit is: the next attempt resumes it,
            # which halves what a refusal costs the server.
            target.tls.remember(transport)
        said = connection is not None and connection.was_answered
        _explain(error, target, transport, said=said)
        raise
    finally:
        opening.forget()
    return connection


def addresses(resolver: Guard, host: str, until: float) -> tuple[str, ...]:
    """The host's addresses, looked up within the attempt's time.

    Raises:
        SettingsError: There is no such name.
        Refused: No name server answers; waiting may help.
    """
    try:
        return resolver.addresses(host, max(0.05, min(until - clock.now(), ATTEMPT_SECONDS)))
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Refused(CR.CR_CONN_HOST_ERROR) from error
        raise SettingsError(
            f"DATABASE_HOST {host!r} cannot be resolved ({error.strerror})"
        ) from error
    except OSError as error:
        raise Refused(CR.CR_CONN_HOST_ERROR) from error


def _dial(target: Target, opening: Opening, until: float) -> socket.socket:
    """A TCP connection to the first address that answers; all share the time there is."""
    last: OSError = OSError(f"{target.host} has no address")
    for tried, address in enumerate(target.addresses):
        left = (until - clock.now()) / (len(target.addresses) - tried)
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            opening.waiting_on(sock)
            sock.settimeout(max(0.001, left))
            sock.connect((address, target.port))
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def _knock(sock: socket.socket, until: float) -> None:
    """Look at the server's first word before anything is made ready for it.

    A server that is full says so in the place of its greeting. Who was refused a moment ago will
    often be refused again: that must cost neither side more than a connect and a look.

    Raises:
        Refused: The server is full still.
    """
    sock.settimeout(max(0.001, until - clock.now()))
    head = sock.recv(7, socket.MSG_PEEK)
    if head[4:5] == b"\xff" and (code := int.from_bytes(head[5:7], "little")) in FULL:
        raise Refused(code)


def _explain(error: Exception, target: Target, transport: Transport | None, *, said: bool) -> None:
    """Raise what `error` means for who reads the log, or return where it speaks for itself.

    Args:
        error: What went wrong.
        target: Where it did.
        transport: How far it came; None if there was no TCP connection.
        said: Whether the other side said so, in an error's packet.
    """
    if (alarm := alarm_behind(error)) is not None:
        raise alarm
    reason = getattr(error, "original_exception", error)
    code = error.args[0] if isinstance(error, Error) and error.args else 0
    where = f"{target.host}:{target.port}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise SettingsError(
            f"the certificate of {where} could not be verified ({reason.verify_message}): check "
            "DATABASE_HOST and DATABASE_CA_FILE"
        ) from error
    if transport is None:  # no TCP connection
        raise Refused(CR.CR_CONN_HOST_ERROR) from error
    if transport.secure:
        _explain_login(error, target)
    else:
        # Said in plain text, by whoever is on the way: taken for a reason to wait, if anything.
        if transport.spoke_early and target.early is not None and code not in FULL:
            target.early.failed()  # the next attempt waits for the greeting
        elif (code == CR.CR_SSL_CONNECTION_ERROR and not said) or (
            isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError)
        ):
            raise SettingsError(
                f"{where} does not offer verifiable TLS ({reason}); it cannot be switched off here"
            ) from error
        known = code if code in FULL or code in PASSING else CR.CR_SERVER_LOST
        raise Refused(known) from error


def _explain_login(error: Exception, target: Target) -> None:
    """The same for what was said through TLS, by the server that the certificate names."""
    reason = getattr(error, "original_exception", error)
    code = error.args[0] if isinstance(error, Error) and error.args else 0
    where = f"{target.host}:{target.port}"
    if code in DENIED or code == NO_ACCESS_TO_SCHEMA:
        raise CredentialsError(
            f"{where} refused user {target.user!r} (error {code}): check the password in the "
            f"secret or in DATABASE_PASSWORD, and the user's grants on {target.name!r}"
        ) from error
    if code == NO_SUCH_SCHEMA:
        raise SettingsError(
            f"DATABASE_NAME {target.name!r} does not exist on {where} (error {code})"
        ) from error
    if code in FULL or code in PASSING:
        raise Refused(code) from error
    if code in UNABLE or isinstance(error, UNSUPPORTED) or not isinstance(code, int):
        raise CredentialsError(
            f"{where} asks for an authentication that the driver does not do ({reason}): give user "
            f"{target.user!r} caching_sha2_password, or mysql_native_password"
        ) from error
    if isinstance(reason, OSError) or isinstance(error, BROKEN):
        raise Refused(CR.CR_SERVER_LOST) from error
