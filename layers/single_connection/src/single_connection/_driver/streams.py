"""Rows that are read one by one, and what becomes of those that nobody reads."""

from typing import Any

from pymysql.constants import CR
from pymysql.err import ProgrammingError

from .._clock import clock
from .._statement import Statement
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
            if self._sock is None:
                self._be_open()
            self._answered = False
            try:
                row = result.read_row()
                self._answered = True
                if not result.unbuffered_active and result.server_status is not None:
                    self.server_status = result.server_status
                    self._note(Statement("SELECT", ""), 0)
                return row  # noqa: TRY300 - in the reach of `except`, whatever strikes
            except BaseException as error:
                self._fail(Statement("SELECT", ""), error)
                raise

    def leave_stream(self, result: Result) -> None:
        """Nobody wants the rows that were not read: little is read, much costs the connection."""
        with self.turns.lock:
            if result is self._latest:
                self._drain(result, "the cursor was closed before the last row")

    def _has_answers_left(self) -> bool:
        latest = self._latest
        if latest is None or latest.unbuffered_active:
            return False
        return bool(latest.has_next)

    def _end_stream(self) -> None:
        """What is left of the statement before: its reader, if there is one still, is told."""
        latest = self._latest
        if latest is None:
            return
        if latest.unbuffered_active:
            self._drain(latest, "another statement came before the last row was read")
            self._be_open()
        while self._latest is not None and self._latest.has_next:
            mine = self._result
            answer = self._exchange(PING, self._read_query_result)
            self._note(CALL, answer)
            self._result = mine
        self._latest = None

    def _drain(self, result: Result, why: str) -> None:
        self._disturb(result, why)
        self._answered = False
        read, until = 0, clock.now() + REST_SECONDS
        try:
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
        except BaseException as error:
            if self._answered and self._sock is not None:  # the server's error was the end of it
                self._sock.limit(self._deadline.hard)
                return
            self._lose(error)
            if not isinstance(error, Exception):
                raise

    def _disturb(self, result: Result, why: str) -> None:
        result.unbuffered_active = False
        result.disturbed = ProgrammingError(
            CR.CR_COMMANDS_OUT_OF_SYNC,
            f"rows of a stream are missing: {why}; read it to its end first, or without a stream",
        )
