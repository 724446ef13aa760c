"""Rows that are read one by one, and what becomes of those that nobody reads."""

from typing import Any

from pymysql.constants import CR
from pymysql.err import MySQLError, ProgrammingError

from .._clock import clock
from .._statement import Statement
from .alarms import let_out
from .conversation import CALL, PING, Conversation
from .result import Result

# How much of a stream that nobody reads any more is read to keep its connection: bytes, seconds.
REST_BYTES = 1 << 20
REST_SECONDS = 0.1


class Streams(Conversation):
    """A stream that is disturbed is an error to its reader; one that is left costs no time."""

    def next_row(self, result: Result) -> Any:
        """The next row of a stream."""
        with self.turns.lock:
            if result.disturbed is not None:  # while this thread waited for its turn
                raise result.disturbed
            try:
                self._answered = False
                row = result.read_row()
                self._answered = True
                if not result.unbuffered_active and result.server_status is not None:
                    self.server_status = result.server_status
                    self._note(Statement("SELECT", ""), 0)
                return row  # noqa: TRY300 - in the reach of `except`, whatever strikes
            except BaseException as error:
                if self._answered and isinstance(error, MySQLError):
                    result.unbuffered_active = False  # the server's error was the end of it
                self._fail(Statement("SELECT", ""), error)
                raise

    def leave_stream(self, result: Result) -> None:
        """Nobody wants the rows that were not read: little is read, much costs the connection."""
        with self.turns.lock:
            if result.unbuffered_active:
                self._drain(result, "the cursor was closed before the last row")

    def _has_answers_left(self) -> bool:
        latest = self._latest
        if latest is None or latest.unbuffered_active:
            return False
        return bool(latest.has_next)

    def _admit(self, statement: Statement) -> None:
        super()._admit(statement)
        if self._end_stream():
            super()._admit(statement)  # what came then may have ended a transaction

    def _end_stream(self) -> bool:
        """Read what is left of the statement before, its reader is told; whether there was any."""
        latest = self._latest
        if latest is None:
            return False
        left = latest.unbuffered_active or bool(latest.has_next)
        if latest.unbuffered_active:
            self._drain(latest, "another statement came before the last row was read")
            self._be_open()
        while self._latest is not None and self._latest.has_next:
            mine = self._result
            answer = self._exchange(PING, self._read_query_result)
            self._note(CALL, answer)
            self._result = mine
        self._latest = None
        return left

    def _drain(self, result: Result, why: str) -> None:
        self._disturb(result, why)
        read, until = 0, clock.now() + REST_SECONDS
        try:
            self._answered = False
            self._sock.limit(until)
            while read < REST_BYTES and clock.now() < until:
                packet = self._read_packet()
                read += len(packet.get_all_data())
                if packet.is_eof_packet():
                    self._answered = True
                    self._sock.limit(self._deadline.hard)
                    self.server_status = packet.read_struct("<xhh")[1]
                    return
            self._lose(TimeoutError(), ", as a stream was left with too many rows to read")
        except BaseException as error:  # noqa: BLE001 - an alarm is let out
            if self._answered and self._sock is not None:
                self._sock.limit(self._deadline.hard)
                if isinstance(error, MySQLError):  # the server's: it may have undone everything
                    self._see_what_is_left(CALL, error)
                    return
            else:
                self._lose(error)
            let_out(error)

    def _disturb(self, result: Result, why: str) -> None:
        result.unbuffered_active = False
        result.disturbed = ProgrammingError(
            CR.CR_COMMANDS_OUT_OF_SYNC,
            f"rows of a stream are missing: {why}; read it to its end first, or without a stream",
        )
