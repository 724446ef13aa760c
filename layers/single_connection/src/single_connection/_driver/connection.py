"""The connection of one invocation: what its users call, and how it is ended for certain."""

import os
import struct
from typing import Any

from pymysql.constants import COMMAND, CR
from pymysql.err import OperationalError, ProgrammingError

from .._addresses import end_of
from .._clock import clock
from .._statement import Statement, classify, names_another_charset
from .._turns import Turns
from ..errors import OutsideInvocationError, UncommittedWorkError
from .conversation import CALL, PING
from .transactions import Transactions

COMMIT, ROLLBACK, BEGIN = Statement("COMMIT", ""), Statement("ROLLBACK", ""), Statement("BEGIN", "")
SET_NAMES, USE = Statement("SET", "NAMES"), Statement("USE", "")
SET_AUTOCOMMIT = Statement("SET", "AUTOCOMMIT")


class Connection(Transactions):
    """One invocation's session: autocommit on, utf8mb4, limits from its lease, never reopened.

    `rowcount` counts the rows that an UPDATE matched, changed or not (CLIENT.FOUND_ROWS): ORMs
    tell by it whether a row is there.

    Attributes:
        turns: Whose transaction is open, and who is talking to the server.
        mark: The name by which the server finds this session, to kill it; "" for none.
        claimed_id: The session's number as the greeting claims it, in plain text: a hint.
    """

    _sock: Any  # a transport; None when closed

    def query(self, sql: str | bytes, unbuffered: bool = False) -> int:
        """One statement, its answer read to the end, unless it is a stream of rows."""
        statement = classify(sql)
        if statement.word == "SET" and names_another_charset(sql):
            raise ProgrammingError(
                "an encoding in which a backslash may be half of a character was to be set by SQL, "
                "and strings would be escaped wrongly: use connection.set_character_set(...)"
            )
        if self._tag:
            sql = (sql.encode(self.encoding) if isinstance(sql, str) else sql) + self._tag
        ask = super().query
        return self._ask(statement, lambda: int(ask(sql, unbuffered)))

    def next_result(self, unbuffered: bool = False) -> int:
        """The next answer of a statement that has several."""
        with self.turns.lock:
            self.turns.wait("a statement")
            self._be_open()
            if self._latest is not self._result:
                raise ProgrammingError(
                    CR.CR_COMMANDS_OUT_OF_SYNC,
                    "the answers that were left are gone: another statement came between",
                )
            ask = super().next_result
            answer = self._exchange(PING, lambda: int(ask(unbuffered)))
            self._note(CALL, answer)
            return answer

    def begin(self) -> None:
        """Begin a transaction by hand; `database.transaction()` ends it by itself."""
        self._ask(BEGIN, super().begin)

    def commit(self) -> None:
        """Commit what was begun by hand."""
        self._ask(COMMIT, super().commit)

    def rollback(self) -> None:
        """Undo what was begun by hand."""
        if self._sock is None and self._lost_transaction and self._closed_because is None:
            self._undone = None
            return  # the server has done it
        self._ask(ROLLBACK, super().rollback)

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Use another character set, on this connection."""
        set_names = super().set_character_set
        if self._logged_in:
            self._ask(SET_NAMES, lambda: set_names(charset, collation))
        else:
            set_names(charset, collation)

    def ping(self, reconnect: bool = False) -> None:  # noqa: ARG002 - PyMySQL's; never done
        """Ask the server whether it is there; a lost connection is never opened again."""
        self._ask(PING, super().ping)

    def select_db(self, db: str) -> None:
        """Use another schema, on this connection."""
        self._ask(USE, lambda: super(Connection, self).select_db(db))

    def show_warnings(self) -> Any:
        """What the last statement warned of."""
        return self._ask(Statement("SHOW", ""), super().show_warnings)

    def autocommit(self, value: Any) -> None:
        """Switch autocommit, for work by hand; every connection begins with it on."""
        self._settle()
        self.autocommit_mode = bool(value)
        if self.autocommit_mode != self.get_autocommit():
            self._ask(SET_AUTOCOMMIT, lambda: self._say(f"SET autocommit = {int(bool(value))}"))

    def get_autocommit(self) -> bool:
        """Whether each statement is committed by itself."""
        self._settle()
        return bool(super().get_autocommit())

    def thread_id(self) -> int:
        """The session's number, asked of the server through TLS."""
        return int(self._value("SELECT CONNECTION_ID()"))

    def get_server_info(self) -> str:
        """The server's version, asked of the server through TLS."""
        return str(self._value("SELECT VERSION()"))

    def _value(self, sql: str) -> Any:
        """The one value of a SELECT, beside whatever result this thread has."""
        mine = self._result
        self._ask(Statement("SELECT", ""), lambda: self._say(sql, rows=True))
        (value,), self._result = self._result.rows[0], mine
        return value

    def admitted(self) -> None:
        """The attempt to connect is over, and its time with it."""
        self._watchdog = None
        self._answered = True
        self._sock.limit(self._deadline.hard)

    @property
    def local_end(self) -> str:
        """Our address and port."""
        return end_of(self._sock)

    @property
    def inode(self) -> int:
        """The number of its socket, by which it is told from sockets that nobody permitted."""
        return os.fstat(self._sock.fileno()).st_ino

    def revoke(self, error: type[Exception], message: str) -> None:
        """Make every further use raise `error(message)`; safe from another thread."""
        if self._closed_because is None:
            self._closed_because = (error, message)

    def say_goodbye(self, until: float) -> bool:
        """Roll back what is open and take leave; whether it could be said.

        Not if another thread is talking to the server, or rows of a stream are unread: what does
        not listen is killed.
        """
        if not self.turns.lock.acquire(blocking=False):
            return False
        try:
            transport, latest = self._sock, self._latest
            if transport is None or (latest is not None and latest.unbuffered_active):
                return False
            transport.limit(until)
            self._read_set_up()
            if latest is not None and latest.has_next:
                return False
            if self.in_transaction:
                super().rollback()
            self._tls.remember(transport)
            transport.sendall(struct.pack("<iB", 1, COMMAND.COM_QUIT))
        except Exception:  # noqa: BLE001 - whatever it is, the session is killed then
            return False
        else:
            return True
        finally:
            self.turns.lock.release()

    def is_gone(self, until: float) -> bool:
        """Wait for the server to close its side, after goodbye: then it has let go."""
        transport = self._sock
        if transport is None:
            return False
        try:
            transport.limit(until)
            transport.await_end()
        except OSError:
            return False
        return True

    def hang_up(self, until: float) -> None:
        """Close our side; who waits for an answer is woken, and nobody does when this returns."""
        sock = self._sock
        if sock is not None:
            sock.shut()
        # The thread that waits closes by itself as it wakes; nobody else may.
        if self.turns.lock.acquire(timeout=max(0.01, until - clock.now())):
            try:
                self._force_close()
                self.turns.close()
            finally:
                self.turns.lock.release()

    def close(self) -> None:
        """End the session and wait until the server has let go; harmless when repeated."""
        until = clock.now() + min(1.0, max(0.05, self._deadline.hard - clock.now()))
        self.revoke(OperationalError, "this connection was closed by hand")
        for hold in self.turns.holds[:1]:
            if hold.kind == "by hand":
                self.turns.drop(hold)  # closing it is a way to roll back
        if self.say_goodbye(until):
            self.is_gone(until)
        self.hang_up(until)

    def __exit__(self, *raised: object) -> None:
        """Close, as PyMySQL's.

        Raises:
            UncommittedWorkError: The block went well, and what it changed was not committed.
        """
        unfinished = self.unfinished if raised[:1] == (None,) else None
        self.close()
        if unfinished is not None and unfinished.kind == "by hand":
            raise UncommittedWorkError(
                f"a `with` block closed the connection while {unfinished} was open and had changed "
                "rows, which are rolled back: commit before its end"
            )

    def abandon(self) -> None:
        """Drop this process's copy of the socket without a word: for a forked child.

        Locks may be held by threads the child does not have, so none is asked for.
        """
        sock, self._sock = self._sock, None
        self.revoke(
            OutsideInvocationError,
            "a forked child process used its parent's connection: let the process that runs the "
            "handler talk to the database",
        )
        self.turns = Turns(self._deadline)
        if sock is not None:
            os.close(sock.detach())
