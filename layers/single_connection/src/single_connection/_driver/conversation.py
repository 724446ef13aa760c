"""One statement at a time, in turn, its answer read to the end or the connection ended."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pymysql.constants import COMMAND, CR
from pymysql.err import MySQLError, OperationalError, ProgrammingError

from .._clock import clock
from .._guard import caller
from .._jitter import uniform
from .._server_errors import BORROW, LOST, OUTCOME_UNKNOWN
from .._statement import Statement, classify
from .._turns import Hold
from ..errors import (
    CommitOutcomeUnknownError,
    DatabaseBusyError,
    DeadlineError,
    TransactionControlError,
)
from .alarms import alarm_behind, let_out
from .protocol import Protocol

T = TypeVar("T")

# Seconds between two askings of a proxy that has no connection to lend, more or less.
BORROW_PAUSE = 0.25
# Escaped by a backslash, or not, as the session's sql_mode has it.
ESCAPED = frozenset("\0\n\r\032\"'\\")
TOO_LATE = (
    "the invocation's time is over: the connection was destroyed, and what was not committed is "
    "rolled back"
)
# What is said without words of a user's.
PING, CALL = Statement("", ""), Statement("CALL", "")


class Conversation(Protocol):
    """Statements take turns; whatever is not the server's own error ends the connection."""

    def _settle(self) -> None:
        """Know the session's state, at the price of a round trip where it is not known yet."""
        if self._setting_up:
            with self.turns.lock:
                self._exchange(PING, self._read_set_up)

    def _escape_string(self, s: str) -> str:
        if self._setting_up and not ESCAPED.isdisjoint(s):
            self._settle()  # how to escape these depends on the session
        return str(super()._escape_string(s))

    def _ask(self, statement: Statement, send: Callable[[], T]) -> T:
        """Send and read the whole answer, in turn; what is left of another one goes first."""
        with self.turns.lock:
            self._admit(statement)
            answer = self._exchange(statement, send)
            self._note(statement, answer)
            return answer

    def _exchange(self, statement: Statement, send: Callable[[], T]) -> T:
        """Send and read the answer; whatever is not the server's own error ends the connection.

        Raises:
            CommitOutcomeUnknownError: COMMIT was sent, and neither OK nor an error was read.
            DatabaseBusyError: A proxy had no connection to lend within the time left.
        """
        began, attempts = clock.now(), 0
        while True:
            try:
                self._answered = False
                answer = send()
                self._answered = True
                return answer  # noqa: TRY300 - in the reach of `except`, whatever strikes
            except BaseException as error:
                if not self._may_borrow_later(error):
                    self._fail(statement, error)
                    raise
                refused = error
            attempts += 1
            self._forgo_answer(statement)
            pause = BORROW_PAUSE * uniform(0.5, 1.5)
            if self._deadline.left() <= pause:
                raise DatabaseBusyError(
                    refused.args[0], retry_after=1, attempts=attempts, waited=clock.now() - began
                ) from refused
            time.sleep(pause)

    def _may_borrow_later(self, error: BaseException) -> bool:
        if not self._answered or self.in_transaction:
            return False
        return isinstance(error, MySQLError) and error.args[0] in BORROW

    def _forgo_answer(self, statement: Statement) -> None:
        """The set-up was refused: read what came to the statement behind it, and say it again."""
        if not self._setting_up:
            return
        try:
            if statement.is_harmless:
                self._answered = False
                status = self.server_status
                self._next_seq_id = 1
                try:
                    self._read_query_result()
                except MySQLError:
                    if self._sock is None:
                        raise
                self.server_status = status  # what it began, it will begin again
            self._answered = False
            self._send_set_up()
            self._answered = True
        except BaseException as error:
            self._fail(statement, error)
            raise

    def _fail(self, statement: Statement, error: BaseException) -> None:
        """Leave everything as it has to be after `error`; raise what says more than it does."""
        commits = statement.word == "COMMIT" or self._would_commit(statement)
        if self._setting_up and self._answered:
            self._answered = False  # without its lease a session must not live
        if (
            not self._answered
            or self._sock is None
            or (isinstance(error, MySQLError) and error.args and error.args[0] in LOST)
        ):
            self._lose(error)
        elif isinstance(error, MySQLError) and (
            self.in_transaction
            or not super().get_autocommit()
            or statement.word in ("CALL", "EXECUTE")
        ):
            self._see_what_is_left(statement, error)
        because = self._closed_because
        if because is None and not self._answered and self._deadline.left() <= 0:
            because = (DeadlineError, TOO_LATE)  # the watchdog is on its way
        if because is not None and isinstance(error, Exception):
            self._told = True
            reason: BaseException = because[0](because[1])
            reason.__cause__ = error
        else:
            reason = alarm_behind(error) or error
        if commits and not self._answered and isinstance(error, Exception):
            raise CommitOutcomeUnknownError(
                f"the connection was lost during {' '.join(statement).strip()}: look whether the "
                "work is there before you repeat it, or keep an idempotency key in the same "
                "transaction"
            ) from reason
        if reason is not error:
            raise reason
        if isinstance(error, MySQLError) and self._sock is None:
            self._explain_loss(statement, error)

    def _would_commit(self, statement: Statement) -> bool:
        """Whether it commits by itself what was changed before it, as DDL does."""
        hold = self.turns.hold
        if hold is None or hold.kind == "block" or not hold.changed:
            return False
        return statement.ends_transaction and not statement.rolls_back

    def _explain_loss(self, statement: Statement, error: MySQLError) -> None:
        """Say what became of the work: half of what who reads it wants to know."""
        if self._lost_transaction:
            became = f"nothing of {self._lost_transaction} is written"
        elif statement.reads or not statement.word:
            became = "nothing was changed"
        else:
            became = OUTCOME_UNKNOWN
        code, words = (*error.args, "")[:2]
        error.args = (code or CR.CR_SERVER_LOST, f"{words or 'Lost connection'}: {became}")

    def _lose(self, error: BaseException, why: str = "") -> None:
        """The conversation broke off: the connection is no more, nor what was open on it."""
        self._force_close()
        hold = self.turns.holds[0] if self.turns.holds else None
        self._lost_transaction = str(hold) if hold is not None else ""
        if hold is None or hold.ended is not None:
            return
        hold.ended = OperationalError(
            CR.CR_SERVER_LOST,
            f"the connection was lost before COMMIT{why}: nothing of {hold} is written",
        )
        if hold.kind == "by hand":
            if not isinstance(error, MySQLError):
                self._undone = hold.ended  # whoever goes on by hand has not been told
            self.turns.drop(hold)

    def _see_what_is_left(self, statement: Statement, error: MySQLError) -> None:
        """After an error in a transaction: the server's flag says whether it is still open.

        Some errors undo all of it (a deadlock; a lock-wait timeout where the server is set so); the
        error itself does not say so, the next answer does: this is the price, a round trip. A
        procedure that failed may have begun one, which nobody else knows of.
        """
        was_open = self.in_transaction
        try:
            self._answered = False
            super()._execute_command(COMMAND.COM_PING, b"")
            self._read_ok_packet()
            self._answered = True
        except BaseException as late:  # noqa: BLE001 - an alarm is let out
            self._lose(late)
            self._answered = True  # `error` was the answer, all the same
            let_out(late)
            return
        if was_open and not self.in_transaction:
            hold = self.turns.holds[0] if self.turns.holds else None
            if hold is not None and hold.kind == "block":
                hold.ended = error
                return
            if not statement.commits_first:  # then it is written, not undone
                self._undone = error
            if hold is not None:
                hold.changed = False
                if hold.kind == "by hand":
                    self.turns.drop(hold)
        elif self.in_transaction and not self.turns.holds and super().get_autocommit():
            with contextlib.suppress(MySQLError):
                self._own("ROLLBACK")  # or the next block's beginning would commit it

    def _admit(self, statement: Statement) -> None:
        """Refuse what cannot be right here and now."""
        self.turns.wait("a statement")
        self._be_free()
        root = self.turns.holds[0] if self.turns.holds else None
        if root is not None and root.ended is not None and root.kind != "by hand":
            raise root.ended
        self._be_open()
        if root is not None and root.kind == "block":
            if statement.ends_transaction:
                raise TransactionControlError(
                    f"{' '.join(statement).strip()} was refused inside {root}: it would end the "
                    "transaction, half of the block would be committed; leave it to the block"
                )
        elif root is not None and self._is_beside(root, statement):
            raise TransactionControlError(
                f"{' '.join(statement).strip()} was refused beside {root}: it would be committed, "
                "or rolled back, with that one's work; do it there, or end that one first"
            )
        if (root is None or root.kind != "block") and self._undone is not None:
            if not (statement.rolls_back or statement.begins):
                raise self._undone
            self._undone = None

    def _be_free(self) -> None:
        """Refuse what a signal's handler or the garbage collector asks in mid-statement."""
        if not self._answered and self._sock is not None:
            raise ProgrammingError(
                CR.CR_COMMANDS_OUT_OF_SYNC,
                "a statement was asked for in the middle of another one of the same thread, by a "
                "signal's handler or a __del__: do it after that one",
            )

    def _is_beside(self, root: Hold, statement: Statement) -> bool:
        """Whether it may change something in a transaction of which its author knows nothing."""
        if root.kind != "loan" or root.speaks or super().get_autocommit():
            return False
        return bool(statement.word) and not statement.reads

    def _note(self, statement: Statement, answer: Any) -> None:
        """What the server's flags say of the transaction now."""
        hold = self.turns.hold
        if self.in_transaction:
            if hold is None:
                hold = Hold("by hand", "a transaction begun by hand", caller())
                self.turns.push(hold)
            if self._has_changed(statement, answer):
                for one in self.turns.holds:
                    one.changed = True
        elif hold is not None:
            if hold.kind == "by hand":
                self.turns.drop(hold)
            elif hold.kind == "loan":
                hold.changed = False  # it was committed, or rolled back, by who borrowed
            else:
                root = self.turns.holds[0]
                root.ended = TransactionControlError(
                    f"{' '.join(statement).strip()} ended the transaction of {root}: what came "
                    "before it is committed or rolled back already, and nothing after it can be "
                    "undone; leave the transaction to the block, and DDL out of it"
                )
                raise root.ended
        lent = hold is not None and hold.kind == "loan"  # who borrows expects no session to last
        if statement.alters_session and not self._altered and not lent:
            self._altered = f"{' '.join(statement).strip()} (at {caller()})"

    def _has_changed(self, statement: Statement, answer: Any) -> bool:
        """Whether rows were changed, or may have been: a procedure's last answer tells nothing."""
        if statement.word == "CALL":
            return True
        rows = self._result is not None and self._result.description is not None
        return bool(answer) and (statement.returns_changed if rows else not statement.reads)

    def _own(self, sql: str) -> None:
        self._exchange(classify(sql), lambda: self._say(sql))
