"""What is said to the server, and read from it: PyMySQL's connection, with a lease and one end."""

import threading
from typing import Any

import pymysql
from pymysql.connections import MysqlPacket
from pymysql.constants import CLIENT, COMMAND, CR, SERVER_STATUS
from pymysql.err import MySQLError, OperationalError

from .._clock import clock
from .._lease import Lease
from .._opening import Opening
from .._statement import classify
from .._turns import Hold, Turns
from .result import Result
from .target import Target

_read_packet = pymysql.connections.Connection._read_packet
# Seconds to wait for a server's last word, once it has hung up.
LAST_WORD_SECONDS = 0.1


class Protocol(pymysql.connections.Connection):
    """PyMySQL's connection over our transport: its whole set-up is one statement, sent unasked."""

    _sock: Any  # a transport; None when closed

    def __init__(self, target: Target, lease: Lease, opening: Opening, *, tag: str = "") -> None:
        """Not connected yet; see `open_connection`."""
        self.turns = Turns(opening.deadline)
        self.mark = lease.mark
        self.claimed_id = 0
        self._deadline = opening.deadline
        self._watchdog = opening.watchdog
        self._results = threading.local()  # rows belong to the thread that asked for them
        self._latest: Result | None = None
        self._answered = False  # nothing yet
        self._due: list[Hold] = []  # loans that were given back in the middle of a statement
        self._closed_because: tuple[type[Exception], str] | None = None
        self._undone: Exception | None = None
        self._altered = ""
        self._lost_transaction = ""
        self._told = False  # that it is no more, to whoever uses it
        self._lease = lease
        self._logged_in = self._setting_up = False
        self._tag = tag.encode()
        self._tls = target.tls
        super().__init__(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password.encode(),  # PyMySQL would take Latin-1
            database=target.name,
            ssl=target.tls,
            charset="utf8mb4",
            client_flag=CLIENT.FOUND_ROWS,
            autocommit=None,  # set together with the lease
            read_timeout=None,  # the transport has one end for all that is waited for
            write_timeout=None,
            defer_connect=True,
        )

    @property
    def was_answered(self) -> bool:
        """Whether the last exchange ended in words of the server's, be it an error of its own."""
        return self._answered

    def write_packet(self, payload: bytes) -> None:
        """As PyMySQL's; once the password is on its way there is time to start the watchdog."""
        super().write_packet(payload)
        if self._watchdog is not None and self._sock.secure:
            watchdog, self._watchdog = self._watchdog, None
            watchdog.start()

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Set up the whole session in the round trip PyMySQL spends on SET NAMES as it connects.

        The answer is not waited for: it is read with that of the first statement.
        """
        if self._logged_in:
            super().set_character_set(charset, collation)
            return
        # From here on what the greeting said of the session's state, in plain text, is void.
        self._logged_in = True
        self.password = b""
        self.claimed_id = self.server_thread_id[0]
        self.server_status = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
        self._send_set_up()

    def _send_set_up(self) -> None:
        super()._execute_command(COMMAND.COM_QUERY, self._lease.statement())
        self._setting_up = True

    def _read_set_up(self) -> None:
        """Read the answer to the session set-up, if it is still on its way."""
        if self._setting_up:
            self._next_seq_id = 1
            self._read_ok_packet()
            self._next_seq_id = 1
            self._setting_up = False

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        self._result = None  # what was left of it has been read
        if self._setting_up:
            harmless = command == COMMAND.COM_QUERY and classify(sql).is_harmless
            if harmless:
                super()._execute_command(command, sql)
            self._read_set_up()
            if harmless:
                return
        super()._execute_command(command, sql)

    @property
    def _result(self) -> Any:
        return getattr(self._results, "result", None)

    @_result.setter
    def _result(self, result: Any) -> None:
        self._results.result = result

    def _read_packet(self, packet_type: type[MysqlPacket] = MysqlPacket) -> Any:
        try:
            return _read_packet(self, packet_type)
        except MySQLError:
            # Still open: these are the server's own words, and the last of its answer.
            self._answered = self._sock is not None
            raise

    def _write_bytes(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            self._read_last_word()
            self._force_close()
            gone = OperationalError(
                CR.CR_SERVER_GONE_ERROR, f"MySQL server has gone away ({error!r})"
            )
            raise gone from error

    def _read_last_word(self) -> None:
        """A server that hangs up may have said why (1153: the packet is too large), unheard."""
        if not self._sock.secure:
            return
        try:
            self._sock.limit(clock.now() + LAST_WORD_SECONDS)
            header = self._rfile.read(4)
            packet = MysqlPacket(self._rfile.read(int.from_bytes(header[:3], "little")), "utf8")
        except (OSError, ValueError):
            return
        if packet.get_all_data()[:1] == b"\xff":
            self._answered = True
            self._force_close()
            packet.raise_for_error()

    def _read_query_result(self, unbuffered: bool = False) -> int:
        self._result = self._latest = None
        result = Result(self)
        if unbuffered:
            self._latest = result  # known before its first row: whatever strikes, it is found
            result.init_unbuffered_query()
        else:
            result.read()
        self._result = self._latest = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return int(result.affected_rows)

    def _say(self, sql: str, *, rows: bool = False) -> None:
        self._execute_command(COMMAND.COM_QUERY, sql)
        if rows:
            self._read_query_result()
        else:
            self._read_ok_packet()

    def _force_close(self) -> None:
        latest = getattr(self, "_latest", None)
        if latest is not None and latest.unbuffered_active:
            latest.unbuffered_active = False
            latest.disturbed = self.refusal()
        super()._force_close()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, by the server's last word."""
        return self.open and bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    def refusal(self) -> Exception:
        """Why it cannot be used any more."""
        if self._closed_because is not None:
            return self._closed_because[0](self._closed_because[1])
        return OperationalError(
            CR.CR_SERVER_LOST,
            "this connection was lost, and is not opened again: database.connection() gives a new "
            "one, outside of any transaction",
        )

    def _be_open(self) -> None:
        """Raises why not, if it is not."""
        if self._sock is None:
            self._told = True
            raise self.refusal()
