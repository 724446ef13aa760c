"""The PyMySQL connection of one invocation: opened cheaply, leased, cut and destroyed for certain.

The only module that imports PyMySQL. Of its private names these are used, each pinned by a test in
tests/layer/test_driver_seams.py: `_execute_command`, `_force_close`, `_next_seq_id`,
`_read_ok_packet`, `_read_timeout`, `_result`, `_sock`, `_write_timeout`.
"""

import contextlib
import dataclasses
import functools
import math
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

from .admission import Refused
from .errors import CredentialsError, SettingsError
from .tls import ResumingContext

OperationalError = pymysql.err.OperationalError
DriverError = pymysql.err.Error

__all__ = [
    "Connection",
    "DictCursor",
    "DriverError",
    "Lease",
    "OperationalError",
    "Target",
    "kill",
    "open_connection",
]

# How long to wait for the server to let go. Measured at 45 microseconds on loopback; a rollback of
# much work takes longer, and the server then finishes it without us.
CONFIRM_SECONDS = 1.0
# One attempt to connect that gets no answer is given up after this, so that it can be repeated.
ATTEMPT_SECONDS = 2.0
# The server has undone the whole transaction: lock table full, deadlock.
TRANSACTION_LOST = (1206, 1213)
# Too many connections: in all, of this user, of this user by its resource limit.
FULL = (1040, 1203, 1226)
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


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """The limits after which the server lets go by itself, from the seconds an invocation has left.

    It counts from the session's last statement: an environment that dies without a word is gone
    from the server `seconds` later. A lock is waited for at most half as long, so that a
    transaction that met a lock-wait timeout can still be run again.
    """

    seconds: float
    through_proxy: bool = False

    def statement(self, server_version: str) -> str:
        """The one SET that carries the whole session set-up."""
        whole = max(1, math.ceil(self.seconds))
        settings = ["NAMES utf8mb4", "autocommit = 1", f"wait_timeout = {whole}"]
        if not self.through_proxy:  # a proxy pins the session on variables it does not track
            lock_wait = max(1, whole // 2)
            settings += [
                f"net_write_timeout = {whole}",
                f"innodb_lock_wait_timeout = {lock_wait}",
                f"lock_wait_timeout = {lock_wait}",
                f"max_statement_time = {max(0.001, self.seconds):.3f}"
                if "MariaDB" in server_version
                else f"max_execution_time = {max(1, round(self.seconds * 1000))}",
            ]
        return "SET " + ", ".join(settings)


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

    def __init__(self, target: Target, lease: Lease, *, tag: str = "", timeout: float) -> None:
        """Connect within `timeout` seconds; see `open_connection`."""
        self.in_use = threading.RLock()
        self.transaction_depth = 0
        self.lost_transaction: pymysql.err.Error | None = None
        self._cut_reason: Callable[[], Exception] | None = None
        self._lease = lease
        self._set_up_pending = False
        self._tag = tag.encode()
        self._tls = target.tls
        super().__init__(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password,
            database=target.name,
            ssl=target.tls,
            charset="utf8mb4",
            autocommit=None,  # set together with the lease
            read_timeout=timeout,
            write_timeout=timeout,
            defer_connect=True,
        )

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
            if self.transaction_depth and error.args[0] in TRANSACTION_LOST:
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

    def limit(self, seconds: float) -> None:
        """Let one read or write take `seconds` at the most: the watchdog's own backstop."""
        self._read_timeout = self._write_timeout = max(0.001, seconds)

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
        sock = self._sock
        if sock is None:
            return
        with contextlib.suppress(pymysql.err.Error, OSError):
            self.limit(CONFIRM_SECONDS)
            if self._set_up_pending:
                self._set_up_pending = False
                self._read_set_up()
            if self.in_transaction:
                super().rollback()
            self._tls.remember(sock)
            sock.settimeout(CONFIRM_SECONDS)
            sock.sendall(struct.pack("<iB", 1, COMMAND.COM_QUIT))
            _await_end(sock)
        self._force_close()

    def destroy(self, kill_session: Callable[[int], bool]) -> bool:
        """End the session whatever it is doing, by `kill_session` where it cannot be asked.

        Returns:
            Whether the server is known to have let go.
        """
        if self._sock is None:
            return True
        if self.in_use.acquire(blocking=False):
            try:
                if not self._unread:
                    self.close()
                    return True
                return self._abort(kill_session)
            finally:
                self.in_use.release()
        return self._abort(kill_session)

    def cut(self, reason: Callable[[], Exception], kill_session: Callable[[int], bool]) -> bool:
        """Destroy, and make every further use raise `reason()`; safe from another thread."""
        self._cut_reason = reason
        return self.destroy(kill_session)

    def abandon(self) -> None:
        """Drop this process's copy of the socket without a word: for a forked child."""
        self._force_close()

    def _abort(self, kill_session: Callable[[int], bool]) -> bool:
        """A session in the middle of something does not listen: kill it, then wake who waits."""
        sock = self._sock
        gone = kill_session(self.thread_id())
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        # The thread that waits for an answer closes by itself as it wakes; nobody else may.
        if self.in_use.acquire(timeout=CONFIRM_SECONDS):
            self._force_close()
            self.in_use.release()
        return gone


def _await_end(sock: socket.socket) -> None:
    """Read to the end of the stream below TLS: then the server has closed its side."""
    while socket.socket.recv(sock, 4096):
        pass


def open_connection(
    target: Target, lease: Lease, *, tag: str = "", timeout: float = ATTEMPT_SECONDS
) -> Connection:
    """One attempt to connect, with TLS verified and the lease on its way.

    Args:
        target: Where to.
        lease: How long the server may keep the session without a word from us.
        tag: A comment for each statement, shown by the server's process list.
        timeout: Seconds for each step of the attempt.

    Raises:
        Refused: The server is full or does not answer; waiting may help.
        CredentialsError: The server does not take this user or password.
        SettingsError: The address, the certificate or the schema is wrong.
        pymysql.err.Error: Whatever else the server says, as it is.
    """
    timeout = max(0.05, min(timeout, ATTEMPT_SECONDS))
    connection = Connection(target, lease, tag=tag, timeout=timeout)
    try:
        sock = socket.create_connection((target.host, target.port), timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(sock)
        except BaseException:
            sock.close()
            raise
    except (OSError, pymysql.err.Error) as error:
        _explain(error, target)
        raise
    connection.limit(lease.seconds)
    return connection


def _explain(error: Exception, target: Target) -> None:
    """Raise what `error` means for who reads the log, or return where it speaks for itself."""
    reason = getattr(error, "original_exception", error)
    code = error.args[0] if isinstance(error, pymysql.err.Error) and error.args else 0
    where = f"{target.host}:{target.port}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise SettingsError(
            f"the certificate of {where} could not be verified ({reason.verify_message}): check "
            "DATABASE_HOST and DATABASE_CA_FILE"
        ) from error
    if isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN:
        raise SettingsError(
            f"DATABASE_HOST {target.host!r} cannot be resolved ({reason.strerror})"
        ) from error
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


def kill(
    open_killer: Callable[[], Connection],
    *,
    thread_id: int | None = None,
    local_ports: frozenset[int] = frozenset(),
) -> bool:
    """End sessions of our own user from beside them, and wait until they are gone.

    Args:
        open_killer: Opens a connection for the purpose; closed again before this returns.
        thread_id: The session's number.
        local_ports: Or the sessions that come from these TCP ports of ours.

    Returns:
        Whether the server's session list no longer has them.
    """
    until = time.monotonic() + CONFIRM_SECONDS
    with contextlib.closing(open_killer()) as killer:

        def alive() -> list[int]:
            with killer.cursor() as cursor:
                cursor.execute("SHOW PROCESSLIST")
                return [
                    row[0]
                    for row in cursor.fetchall()
                    if row[0] == thread_id or _port_of(row[2]) in local_ports
                ]

        pause = 0.001
        killed: set[int] = set()
        while sessions := alive():
            if time.monotonic() > until:
                return False
            for session in sessions:
                if session not in killed:
                    killed.add(session)
                    with contextlib.suppress(pymysql.err.OperationalError):  # 1094: gone by itself
                        killer.kill(session)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True


def _port_of(host: str) -> int | None:
    """The client's port in a process list's Host column ("10.0.1.5:43210")."""
    _, _, port = host.rpartition(":")
    return int(port) if port.isdigit() else None
