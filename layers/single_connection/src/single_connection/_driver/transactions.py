"""The transaction that is open, and whose it is: blocks of ours, loans to libraries."""

import contextlib
from collections.abc import Callable
from typing import TypeVar

from pymysql.constants import CR
from pymysql.err import MySQLError, OperationalError

from .._server_errors import NO_SUCH_SAVEPOINT
from .._statement import Statement
from .._turns import Hold
from ..errors import SingleConnectionError, TransactionControlError
from .streams import Streams

T = TypeVar("T")


class Transactions(Streams):
    """The outermost block really begins and commits; a loan ends with everything as it was."""

    def _ask(self, statement: Statement, send: Callable[[], T]) -> T:
        with self.turns.lock:
            answer = super()._ask(statement, send)
            if self._due:
                mine = self._result  # which its cursor has not taken yet
                while self._due:
                    self.give_back(self._due.pop())
                self._result = mine
            return answer

    def _admit(self, statement: Statement) -> None:
        super()._admit(statement)
        holds = self.turns.holds
        if not holds or holds[0].kind != "block":
            return
        if statement.word in ("CALL", "EXECUTE") and not holds[-1].level and not holds[0].marked:
            # What it does to the transaction may not show in the flags: it can begin another one.
            self._own("SAVEPOINT level_0")
            holds[0].marked = True
        elif statement.word == "ROLLBACK":  # to a savepoint, perhaps of before ours
            holds[0].marked = False

    def enter_block(self, place: str) -> Hold:
        """Begin a transaction, or a savepoint inside of the block that this thread and task has.

        Raises:
            TransactionControlError: A transaction is open that no block of ours began.
        """
        with self.turns.lock:
            self.turns.wait("a database.transaction() block")
            self._be_free()
            if self._sock is not None:
                self._end_stream()
            outer = self.turns.hold
            if outer is not None and outer.kind != "block":
                raise TransactionControlError(
                    f"a database.transaction() block was asked for inside {outer}, and could not "
                    "commit by itself: end that one first, or work in it"
                )
            if outer is not None and self.turns.holds[0].ended is not None:
                raise self.turns.holds[0].ended
            self._be_open()
            level = len(self.turns.holds)
            hold = Hold("block", "a database.transaction() block", place, level)
            try:
                hold.enter()
                self.turns.push(hold)
                self._own(f"SAVEPOINT level_{level}" if level else "START TRANSACTION")
                return hold  # noqa: TRY300 - in the reach of `except`, whatever strikes
            except BaseException:
                self._undo(hold)
                self._leave(hold)
                raise

    def leave_block(self, hold: Hold, *, commit: bool) -> None:
        """End the block: all of it is written, or nothing of it.

        Raises:
            CommitOutcomeUnknownError: COMMIT was sent, and no answer was read.
            Exception: Why it could not be committed; it is rolled back.
        """
        with self.turns.lock:
            try:
                if commit:
                    self._commit(hold)
            except BaseException:
                self._undo(hold)
                raise
            else:
                if not commit:
                    self._undo(hold)
            finally:
                self._leave(hold)

    def _commit(self, hold: Hold) -> None:
        holds = self.turns.holds
        if hold not in holds:
            self._be_open()
            raise TransactionControlError(
                f"{hold} ended after the one that it was inside of, and nothing of it is written: "
                "end the inner one first"
            )
        if self._sock is not None:
            self._end_stream()
        if holds[0].ended is not None:
            raise holds[0].ended
        if holds[-1] is not hold:
            raise TransactionControlError(
                f"{hold} ended while {holds[-1]} was still open inside of it: end the inner one "
                "first; all of it is rolled back"
            )
        self._be_open()
        if hold.level or hold.marked:
            self._release(hold)
        if not hold.level:
            self._own("COMMIT")

    def _release(self, hold: Hold) -> None:
        try:
            self._own(f"RELEASE SAVEPOINT level_{hold.level}")
        except MySQLError as error:
            if error.args[0] != NO_SUCH_SAVEPOINT:
                raise
            raise TransactionControlError(
                f"something inside {hold}, a procedure for example, ended its transaction and "
                "began another: what came before is committed or rolled back already, what came "
                "after it is rolled back; leave the transaction to the block"
            ) from error

    def _undo(self, hold: Hold) -> None:
        """Roll back to where the block began; what cannot be undone ends all of it."""
        root = self.turns.holds[0] if self.turns.holds else None
        if self._sock is None or root is None or hold not in self.turns.holds:
            return
        if root.ended is not None and not self.in_transaction:
            return
        try:
            self._end_stream()
            self._own(f"ROLLBACK TO SAVEPOINT level_{hold.level}" if hold.level else "ROLLBACK")
        except Exception as error:  # noqa: BLE001 - the error on its way out says more
            if hold.level and root.ended is None:
                root.ended = error

    def _leave(self, hold: Hold) -> None:
        hold.leave()
        self.turns.drop(hold)
        if not hold.level and self._sock is not None and not self._setting_up:
            self._be_in_autocommit()

    def _be_in_autocommit(self) -> None:
        if not super().get_autocommit() and self.autocommit_mode is not False:
            with contextlib.suppress(MySQLError):
                self._own("SET autocommit = 1")

    def borrow(self, what: str, place: str) -> Hold:
        """Lend the connection to a library with its own idea of a transaction: autocommit off.

        Raises:
            TransactionControlError: A transaction is open in this thread and task.
        """
        with self.turns.lock:
            self.turns.wait(what)
            self._be_open()
            self._end_stream()
            if self.turns.hold is not None:
                raise TransactionControlError(
                    f"{what} was asked for inside {self.turns.hold}, which it would spoil: end "
                    "that one first, or work in it"
                )
            hold = Hold("loan", what, place)
            try:
                hold.enter()
                self.turns.push(hold)
                self._settle()
                hold.autocommit = bool(super().get_autocommit())
                if hold.autocommit:
                    self._own("SET autocommit = 0")
                return hold  # noqa: TRY300 - in the reach of `except`, whatever strikes
            except BaseException:
                self.give_back(hold)
                raise

    def give_back(self, hold: Hold) -> None:
        """The loan is over: what it did not commit is rolled back, and autocommit is as it was.

        Harmless when repeated, on a connection that is no more, and from the garbage collector,
        which may strike in the middle of a statement: the loan ends after it then.
        """
        with self.turns.lock:
            if hold not in self.turns.holds:
                return
            if self.busy:
                self._due.append(hold)
                return
            try:
                if self._sock is not None:
                    self._end_stream()
                    if self.in_transaction:
                        self._own("ROLLBACK")
                    if hold.restore:
                        self._own(hold.restore)
                    if super().get_autocommit() != hold.autocommit:
                        self._own(f"SET autocommit = {int(hold.autocommit)}")
                    self.autocommit_mode = hold.autocommit
            except (MySQLError, SingleConnectionError) as error:
                self._lose(error)  # a new connection is as it should be
            finally:
                self._undone = None
                hold.leave()
                self.turns.drop(hold)

    @property
    def busy(self) -> bool:
        """Whether a statement is under way: the garbage collector may ask in the middle of one."""
        return not self._answered and self._sock is not None

    @property
    def unfinished(self) -> Hold | None:
        """The transaction that is open and has changed rows, or was cut without a word of it.

        Raises:
            pymysql.err.Error: What a procedure came to after the answers that were read of it.
        """
        if self._sock is not None and self._has_answers_left():
            with self.turns.lock:
                self._end_stream()
        hold = self.turns.holds[0] if self.turns.holds else None
        return hold if hold is not None and hold.changed and not self._told else None

    @property
    def forgotten(self) -> Exception | None:
        """What was lost with this connection, and nobody has been told yet."""
        if self._undone is not None:
            return self._undone
        if self._altered and self._closed_because is None:
            return OperationalError(
                CR.CR_SERVER_LOST,
                f"the connection was lost, and with it what was set by hand ({self._altered}): "
                "set it again on the new one that database.connection() gives from now on",
            )
        return None
