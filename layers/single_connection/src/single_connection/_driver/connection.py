"""The PyMySQL connection of one invocation: opened cheaply, leased, cut and destroyed for certain.

The only module that imports PyMySQL. Of its private names these are used, each pinned by a test in
tests/test_driver_seams.py: `_execute_command`, `_force_close`, `_next_seq_id`,
`_read_ok_packet`, `_read_packet`, `_read_rowdata_packet_unbuffered`, `_read_timeout`, `_result`,
`_sock`, `_write_timeout`.
"""

import contextlib
import dataclasses
import functools
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql
from pymysql.constants import COMMAND, CR, ER, SERVER_STATUS
from pymysql.cursors import DictCursor

from .._addresses import end_of
from .._admission import Refused
from .._lease import Lease
from .._tls import ResumingContext
from .._transport import Wire
from ..errors import FULL, CredentialsError, SettingsError

# Ends the session of that number and that age in seconds, by a time on the monotonic clock.
Killer = Callable[[int, float, float], bool]
OperationalError = pymysql.err.OperationalError
DriverError = pymysql.err.Error
NO_SUCH_THREAD = ER.NO_SUCH_THREAD
_read_packet = pymysql.connections.Connection._read_packet

__all__ = [
    "NO_SUCH_THREAD",
    "Connection",
    "DictCursor",
    "DriverError",
    "Killer",
    "OperationalError",
    "Target",
    "is_denied",
    "open_connection",
]

# How long to wait for the server to let go. Measured at 45 microseconds on loopback; a rollback of
# much work takes longer, and the server then finishes it without us.
CONFIRM_SECONDS = 1.0
# One attempt to connect that gets no answer is given up after this, so that it can be repeated.
ATTEMPT_SECONDS = 2.0
# The server has undone the whole transaction: lock table full, deadlock.
TRANSACTION_LOST = (1206, 1213)
# Cannot connect; gone away; lost: a server that is starting, stopping, or does not answer.
UNREACHABLE = (2003, 2006, 2013)
# Statements that change nothing by themselves may be sent before the set-up's answer is read.
HARMLESS = ("SELECT", "START TRANSACTION", "BEGIN")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to connect; `password` never shows."""

    host: str
    port: int
    name: str
    user: str
    password: str = dataclasses.field(repr=False)
    tls: ResumingContext = dataclasses.field(repr=False)
    through_proxy: bool = False


def _cuttable(method: Callable[..., Any]) -> Callable[..., Any]:
    """One thread at a time; after a cut, the reason of the cut instead of a lost connection."""

    @functools.wraps(method)
    def call(self: "Connection", *args: Any, **kwargs: Any) -> Any:
        with self.in_use:
            try:
                return method(self, *args, **kwargs)
            except pymysql.err.Error as error:
                self.raise_if_cut(error)
                raise

    return call


class Connection(pymysql.connections.Connection):
    """One invocation's session: autocommit on, utf8mb4, limits from its lease, never reopened.

    Attributes:
        in_use: Held by the thread that is talking to the server.
        transaction_depth: How many `transaction()` blocks are open.
        lost_transaction: The error by which the server undid the transaction that is open here;
            every further statement of it raises this again, because alone it would be committed.
    """

    _sock: Any  # a Wire; None when closed

    def __init__(
        self,
        target: Target,
        lease: Lease,
        *,
        tag: str,
        timeout: float,
        meanwhile: Callable[[], None] | None,
    ) -> None:
        """Connect within `timeout` seconds; see `open_connection`."""
        self.in_use = threading.RLock()
        self.transaction_depth = 0
        self.lost_transaction: pymysql.err.Error | None = None
        self._cut_reason: Callable[[], Exception] | None = None
        self._lease = lease
        self._gone = self._kill_tried = False
        self._opened = time.monotonic()
        self._attempt_ends: float | None = self._opened + timeout
        self._set_up_pending = False
        self._tag = tag.encode()
        self._meanwhile = meanwhile
        self._tls = target.tls
        super().__init__(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password.encode(),  # PyMySQL would take Latin-1
            database=target.name,
            ssl=target.tls,
            charset="utf8mb4",
            autocommit=None,  # set together with the lease
            read_timeout=timeout,
            write_timeout=timeout,
            defer_connect=True,
        )

    def write_packet(self, payload: bytes) -> None:
        """Give each step of connecting no more than what is left of the attempt's time."""
        if self._attempt_ends is not None:
            self.limit(self._attempt_ends - time.monotonic())
        super().write_packet(payload)
        if self._meanwhile is not None and self._sock.secure:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Set up the whole session in the round trip PyMySQL spends on SET NAMES as it connects.

        The answer is not waited for: it is read with that of the first statement.
        """
        if self._set_up_pending or charset != self.charset:
            super().set_character_set(charset, collation)
            return
        statement = self._lease.statement(self.server_version)
        super()._execute_command(COMMAND.COM_QUERY, statement)
        self._set_up_pending = True

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        if not self._set_up_pending:
            super()._execute_command(command, sql)
            return
        self._set_up_pending = False
        text = sql if isinstance(sql, str) else sql[:32].decode("ascii", "replace")
        harmless = command == COMMAND.COM_QUERY and text.lstrip().upper().startswith(HARMLESS)
        if harmless:
            super()._execute_command(command, sql)
        self._read_set_up()
        if not harmless:
            super()._execute_command(command, sql)

    def _read_packet(self, *args: Any) -> Any:
        """A cursor that reads row by row comes here alone, and is told of a cut as others are."""
        try:
            return _read_packet(self, *args)
        except (pymysql.err.Error, AttributeError, ValueError) as error:
            self.raise_if_cut(error)
            raise

    def _force_close(self) -> None:
        result = self._result
        super()._force_close()
        if result is not None and result.unbuffered_active:
            # Who goes on reading must learn that rows are missing; who throws the cursor away, as
            # the garbage collector may do invocations later, must not be told.
            result.unbuffered_active = False
            result._read_rowdata_packet_unbuffered = self._rows_are_lost

    def _rows_are_lost(self) -> None:
        lost = OperationalError(CR.CR_SERVER_LOST, "the connection was closed before the last row")
        self.raise_if_cut(lost)
        raise lost

    def _read_set_up(self) -> None:
        try:
            self._next_seq_id = 1
            self._read_ok_packet()
            self._next_seq_id = 1
        except pymysql.err.Error:
            self._force_close()  # without its lease a session must not live
            raise

    def _query(self, sql: str | bytes, unbuffered: bool = False) -> int:
        if self.lost_transaction is not None and self.transaction_depth:
            raise self.lost_transaction
        if self._tag:
            sql = (sql.encode(self.encoding) if isinstance(sql, str) else sql) + self._tag
        try:
            return int(super().query(sql, unbuffered))
        except pymysql.err.OperationalError as error:
            if error.args[0] in TRANSACTION_LOST:
                # An error's packet does not say so, as an answer's would.
                self.server_status &= ~SERVER_STATUS.SERVER_STATUS_IN_TRANS
                if self.transaction_depth:
                    self.lost_transaction = error
            raise

    query = _cuttable(_query)
    next_result = _cuttable(pymysql.connections.Connection.next_result)
    begin = _cuttable(pymysql.connections.Connection.begin)
    commit = _cuttable(pymysql.connections.Connection.commit)
    rollback = _cuttable(pymysql.connections.Connection.rollback)
    ping = _cuttable(pymysql.connections.Connection.ping)

    def raise_if_cut(self, error: BaseException) -> None:
        """Raise why this connection was taken away, if it was, with `error` as the cause."""
        if self._cut_reason is not None:
            raise self._cut_reason() from error

    def raise_if_ended(self) -> None:
        """Refuse to commit what is not there any more.

        Raises:
            DeadlineError: The connection was cut.
            pymysql.err.OperationalError: The server undid the transaction, and the block went on
                (1206, 1213), or the connection was lost before COMMIT was sent (2013).
        """
        if self.lost_transaction is not None:
            raise self.lost_transaction
        if not self.open:
            lost = OperationalError(
                CR.CR_SERVER_LOST, "the connection was lost before COMMIT: the work is rolled back"
            )
            self.raise_if_cut(lost)
            raise lost

    def admitted(self) -> None:
        """The attempt to connect is over: forget the password, and its time."""
        self.password = b""
        self._attempt_ends = None
        self.limit(self._lease.seconds)

    def limit(self, seconds: float) -> None:
        """Let one read or write take `seconds` at the most: the watchdog's own backstop."""
        self._read_timeout = self._write_timeout = max(0.001, seconds)

    @property
    def end(self) -> str:
        """Our end of it, "address:port"."""
        return end_of(self._sock)

    @property
    def inode(self) -> int:
        """The number of its socket, by which it is told from sockets that nobody permitted."""
        return os.fstat(self._sock.fileno()).st_ino

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, by the server's last word."""
        return self.open and bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    @property
    def _unread(self) -> bool:
        result = self._result
        return result is not None and bool(result.unbuffered_active or result.has_next)

    def close(self) -> None:
        """End the session and wait until the server has let go; harmless when repeated.

        An open transaction is rolled back first: the server answers the end of a session before it
        undoes the work.
        """
        with self.in_use:
            self._end(min(CONFIRM_SECONDS, self._lease.seconds))

    def _end(self, seconds: float, meanwhile: Callable[[], None] | None = None) -> None:
        """Say goodbye, and note whether the server did within `seconds` for each step."""
        sock = self._sock
        if sock is None:
            return
        with contextlib.suppress(Exception):  # whatever it is, the session is killed then
            self.limit(seconds)
            if self._set_up_pending:
                self._set_up_pending = False
                self._read_set_up()
            if self.in_transaction:
                super().rollback()
            self._tls.remember(sock)
            sock.settimeout(seconds)
            sock.sendall(struct.pack("<iB", 1, COMMAND.COM_QUIT))
            if meanwhile is not None:
                meanwhile()
            sock.await_end()
            self._gone = True
        self._force_close()

    def destroy(
        self, kill_session: Killer, until: float, meanwhile: Callable[[], None] | None = None
    ) -> bool:
        """End the session whatever it is doing, by `kill_session` where it cannot be asked.

        Lost connections too: that our side of one is closed says nothing about the server's.

        Args:
            kill_session: Ends the session of that number and age (seconds), by that time.
            until: The monotonic clock's time by which to be done.
            meanwhile: Called while the server takes its leave, if it is asked to; raises nothing.

        Returns:
            Whether the server is known to have let go.
        """
        if self.in_use.acquire(blocking=False):
            try:
                if not self._unread:
                    self._end(_half_of(until), meanwhile)
            finally:
                self.in_use.release()
        if not self._gone and not self._kill_tried:
            self._kill_tried = True  # once is all there is time for
            age = time.monotonic() - self._opened
            self._gone = kill_session(self.thread_id(), age, until)
        self._abort(until)
        return self._gone

    def cut(self, reason: Callable[[], Exception], kill_session: Killer, until: float) -> bool:
        """Destroy, and make every further use raise `reason()`; safe from another thread."""
        self._cut_reason = reason
        return self.destroy(kill_session, until)

    def abandon(self) -> None:
        """Drop this process's copy of the socket without a word: for a forked child.

        Locks may be held by threads the child does not have, so none is asked for.
        """
        sock, self._sock = self._sock, None
        self.in_use = threading.RLock()
        if sock is not None:
            os.close(sock.detach())

    def _abort(self, until: float) -> None:
        """Wake who waits for an answer, so that nobody does when this returns."""
        sock = self._sock
        if sock is None:
            return
        sock.shut()
        # The thread that waits closes by itself as it wakes; nobody else may.
        if self.in_use.acquire(timeout=_half_of(until)):
            self._force_close()
            self.in_use.release()


def _half_of(until: float) -> float:
    """Seconds for one step of several that must be done by `until`."""
    return max(0.01, (until - time.monotonic()) / 2)


def open_connection(
    target: Target,
    lease: Lease,
    *,
    tag: str = "",
    timeout: float = ATTEMPT_SECONDS,
    meanwhile: Callable[[], None] | None = None,
) -> Connection:
    """One attempt to connect, with TLS verified and the lease on its way.

    Args:
        target: Where to.
        lease: How long the server may keep the session without a word from us.
        tag: A comment for each statement, shown by the server's process list.
        timeout: Seconds for each step of the attempt.
        meanwhile: Called while the server checks the password: what is done then costs no time.

    Raises:
        Refused: The server is full or does not answer; waiting may help.
        CredentialsError: The server does not take this user or password.
        SettingsError: The address, the certificate or the schema is wrong.
        pymysql.err.Error: Whatever else the server says, as it is.
    """
    timeout = max(0.05, min(timeout, ATTEMPT_SECONDS))
    connection = Connection(target, lease, tag=tag, timeout=timeout, meanwhile=meanwhile)
    wire: Wire | None = None
    try:
        sock = socket.create_connection((target.host, target.port), timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A proxy may have its own idea of who speaks when.
            wire = Wire(sock, target.tls, target.host, may_speak_early=not target.through_proxy)
            connection.connect(wire)
        except BaseException:
            sock.close()
            raise
    except Exception as error:
        # While it authenticates, the driver's frames hold the password in the clear.
        error.__traceback__ = None
        if isinstance(error, (OSError, pymysql.err.Error)):
            _explain(error, target, early=wire is not None and wire.spoke_early and not wire.secure)
        raise
    connection.admitted()
    return connection


def is_denied(error: BaseException | None) -> bool:
    """Whether the server did not take the password (1045), as while it is being rotated."""
    return isinstance(error, OperationalError) and error.args[0] == ER.ACCESS_DENIED_ERROR


def _explain(error: Exception, target: Target, *, early: bool) -> None:
    """Raise what `error` means for who reads the log, or return where it speaks for itself."""
    reason = getattr(error, "original_exception", error)
    code = error.args[0] if isinstance(error, pymysql.err.Error) and error.args else 0
    where = f"{target.host}:{target.port}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise SettingsError(
            f"the certificate of {where} could not be verified ({reason.verify_message}): check "
            "DATABASE_HOST and DATABASE_CA_FILE"
        ) from error
    if early and code not in FULL:
        # The next attempt waits for the greeting; only what that one meets is to be believed.
        target.tls.early_failures += 1
        raise Refused(CR.CR_SERVER_LOST) from error
    if isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN:
        raise SettingsError(
            f"DATABASE_HOST {target.host!r} cannot be resolved ({reason.strerror})"
        ) from error
    if isinstance(reason, ssl.SSLEOFError):  # it hung up: a server that is starting or stopping
        raise Refused(CR.CR_SERVER_LOST) from error
    if isinstance(reason, ssl.SSLError) or code == CR.CR_SSL_CONNECTION_ERROR:
        raise SettingsError(
            f"{where} does not offer verifiable TLS ({reason}); it cannot be switched off here"
        ) from error
    if code in (ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR):
        raise CredentialsError(
            f"{where} refused user {target.user!r} (error {code}): check the password in the "
            f"secret or in DATABASE_PASSWORD, and the user's grants on {target.name!r}"
        ) from error
    if code == ER.BAD_DB_ERROR:
        raise SettingsError(
            f"DATABASE_NAME {target.name!r} does not exist on {where} (error {code})"
        ) from error
    if code in FULL:
        raise Refused(code) from error
    if isinstance(reason, OSError) or code in UNREACHABLE:
        raise Refused(code or CR.CR_CONN_HOST_ERROR) from error
