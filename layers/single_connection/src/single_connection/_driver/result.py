"""An answer of the server's: rows that belong to the cursor that asked for them, or an error."""

from typing import Any, Protocol

from pymysql.connections import EOFPacketWrapper, MySQLResult


class Reader(Protocol):
    """Reads the rows of a stream from the server, in turn."""

    def next_row(self, result: "Result") -> Any:
        """The next one."""

    def leave_stream(self, result: "Result") -> None:
        """Nobody wants the others."""


class Result(MySQLResult):
    """As PyMySQL's, but it knows the transaction's state, and a stream that breaks says so.

    Attributes:
        disturbed: Why the rows that were not read yet cannot be had any more.
    """

    connection: Reader | None  # type: ignore[assignment] # all that is asked of it

    def __init__(self, connection: Reader) -> None:
        super().__init__(connection)
        self.disturbed: Exception | None = None

    def __del__(self) -> None:
        """PyMySQL reads the rest here: the garbage collector must not talk to the server."""

    def _check_packet_is_eof(self, packet: Any) -> bool:
        if not packet.is_eof_packet():
            return False
        end = EOFPacketWrapper(packet)
        self.warning_count, self.has_next = end.warning_count, end.has_next
        # PyMySQL takes it from answers without rows alone; a SELECT may begin a transaction, too.
        self.server_status = end.server_status
        return True

    def _read_rowdata_packet_unbuffered(self) -> Any:
        """The next row of a stream, or None behind the last one.

        Raises:
            pymysql.err.Error: The rows that are left were lost, or thrown away for another
                statement.
        """
        if self.disturbed is not None:
            raise self.disturbed
        if self.connection is None or not self.unbuffered_active:
            return None
        return self.connection.next_row(self)

    def read_row(self) -> Any:
        """The same without asking whose turn it is."""
        return super()._read_rowdata_packet_unbuffered()

    def _finish_unbuffered_query(self) -> None:
        """Its cursor is left: nobody wants the rows that were not read."""
        if self.connection is not None and self.unbuffered_active:
            self.connection.leave_stream(self)
