"""A server that is none: it gives the answers it was told, and remembers what it was asked."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from ._driver import DictCursor, DriverError, OperationalError
from ._guard import caller
from ._opening import Opening
from ._settings import Settings
from ._statement import classify
from ._turns import Hold, Turns
from .errors import OutsideInvocationError, TransactionControlError

# What SQLAlchemy asks a server by itself, and what MySQL answers.
_VERSION = "8.4.0"
_ASKED = {
    "SELECT VERSION()": _VERSION,
    "SELECT DATABASE()": "fake",
    "SELECT @@sql_mode": "",
    "SELECT @@lower_case_table_names": 0,
    "SELECT @@transaction_isolation": "REPEATABLE-READ",
    "SHOW SESSION VARIABLES LIKE 't%isolation'": "REPEATABLE-READ",
}
# Of transactions and of the session; they are no statements of the handler's.
_CONTROL = frozenset({"COMMIT", "RELEASE", "ROLLBACK", "SAVEPOINT"})

DEADLOCK = 1213


@dataclasses.dataclass(slots=True)
class _Answer:
    fragment: str
    rows: Sequence[Mapping[str, Any]]
    affected: int | None
    error: Exception | None
    insert_id: int

    @property
    def count(self) -> int:
        """Of rows that were given, or changed."""
        return len(self.rows) if self.affected is None else self.affected


class FakeServer:
    """Answers by fragments of SQL, and remembers what it was asked.

    Attributes:
        executed: Each statement with its arguments, in order; no transaction control.
        outcomes: "committed" or "rolled back" for each transaction.
        connections_opened: How many connections were opened in all.
        connections_open: How many are open now; 0 after each invocation.
    """

    def __init__(self) -> None:
        """Know no answers: an unexpected statement is an AssertionError."""
        self.executed: list[tuple[str, Any]] = []
        self.outcomes: list[str] = []
        self.connections_opened = 0
        self.connections_open = 0
        self._answers: list[_Answer] = []

    def answer(
        self,
        fragment: str,
        rows: Sequence[Mapping[str, Any]] = (),
        *,
        affected: int | None = None,
        error: Exception | None = None,
        insert_id: int = 0,
    ) -> None:
        """Answer every statement that contains `fragment`; the latest that fits wins.

        Args:
            fragment: Part of the SQL text, before arguments are filled in.
            rows: What a query gives.
            affected: What a change reports; the number of rows by default.
            error: Raised instead, `pymysql.err.OperationalError(1213, "…")` for example.
            insert_id: The cursor's `lastrowid`.
        """
        self._answers.append(_Answer(fragment, rows, affected, error, insert_id))

    def respond(self, statement: str, arguments: Any) -> _Answer:
        """The answer to `statement`, which is remembered.

        Raises:
            AssertionError: No answer was given for such a statement.
        """
        self.executed.append((statement, arguments))
        for answer in reversed(self._answers):
            if answer.fragment in statement:
                if answer.error is not None:
                    raise answer.error
                return answer
        raise AssertionError(
            f"no answer for {statement!r}: give one with server.answer('a part of it', rows=[…])"
        )


class _Cursor:
    """As much of PyMySQL's cursor as handlers use; rows as dictionaries or tuples."""

    def __init__(self, connection: "_Connection", dictionaries: bool) -> None:
        self.connection: Any = connection
        self._dictionaries = dictionaries
        self._rows: Sequence[Any] = ()
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        self.lastrowid = 0

    def execute(self, statement: str, arguments: Any = None) -> int:
        answer = self.connection.ask(statement, arguments)
        rows = [dict(row) for row in answer.rows]
        self.description = None
        if rows or classify(statement).reads:
            columns = list(rows[0]) if rows else []
            self.description = [(name, None, None, None, None, None, True) for name in columns]
        self._rows = rows if self._dictionaries else tuple(tuple(row.values()) for row in rows)
        self.rowcount = answer.count
        self.lastrowid = answer.insert_id
        return self.rowcount

    def executemany(self, statement: str, arguments: Sequence[Any]) -> int:
        return sum(self.execute(statement, one) for one in arguments)

    def fetchone(self) -> Any:
        taken = self.fetchmany()
        return taken[0] if taken else None

    def fetchmany(self, size: int = 1) -> Sequence[Any]:
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self) -> Sequence[Any]:
        return self.fetchmany(len(self._rows))

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self.fetchone()

    def close(self) -> None:
        self._rows = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Connection:
    """Stands where the driver's connection does: see `_protocols.Session`."""

    inode = 0
    forgotten = None

    def __init__(self, server: FakeServer, opening: Opening) -> None:
        self.server = server
        self.open = True
        self.turns = Turns(opening.deadline)
        self.busy = False
        self.server_version = _VERSION
        self._autocommit = True
        self._worked = False  # in a loan: since the last COMMIT or ROLLBACK
        self._why: tuple[type[Exception], str] = (OutsideInvocationError, "closed")
        server.connections_opened += 1
        server.connections_open += 1

    def cursor(self, kind: Any = None) -> _Cursor:
        return _Cursor(self, dictionaries=kind is not None and issubclass(kind, DictCursor))

    def ask(self, statement: str, arguments: Any) -> _Answer:
        """The server's answer, or that to what only SQLAlchemy asks."""
        self.admit()
        lent = self.turns.hold is not None and self.turns.hold.kind == "loan"
        if lent and statement.strip() in _ASKED:
            return _Answer(statement, [{"answer": _ASKED[statement.strip()]}], None, None, 0)
        if lent and classify(statement).word in _CONTROL | {"SET"}:
            return _Answer(statement, [], 0, None, 0)
        self._worked = self._worked or (lent and not self._autocommit)
        try:
            answer = self.server.respond(statement, arguments)
        except DriverError as error:
            if error.args[:1] == (DEADLOCK,):
                for hold in self.turns.holds[:1]:
                    hold.ended = error if hold.kind == "block" else None  # all of it is undone
            raise
        if not self._autocommit and not self.turns.holds:
            self._push_by_hand()
        if answer.count and not classify(statement).reads and not (lent and self._autocommit):
            for hold in self.turns.holds:
                hold.changed = True
        return answer

    def query(self, statement: str) -> int:
        return self.ask(statement, None).count

    def admit(self, what: str = "a statement") -> None:
        """Raises where the driver's own connection would refuse it."""
        with self.turns.lock:
            self.turns.wait(what)
            if self.turns.holds and self.turns.holds[0].ended is not None:
                raise self.turns.holds[0].ended
            if not self.open:
                raise self.refusal()

    @property
    def in_transaction(self) -> bool:
        return bool(self.turns.holds)

    @property
    def unfinished(self) -> Hold | None:
        return self.turns.holds[0] if self.turns.holds and self.turns.holds[0].changed else None

    def enter_block(self, place: str) -> Hold:
        with self.turns.lock:
            what = "a database.transaction() block"
            self.admit(what)
            outer = self.turns.hold
            if outer is not None and outer.kind != "block":
                raise TransactionControlError(f"{what} was asked for inside {outer}")
            hold = Hold("block", what, place, len(self.turns.holds))
            hold.enter()
            self.turns.push(hold)
            return hold

    def leave_block(self, hold: Hold, *, commit: bool) -> None:
        ended = self.turns.holds[0].ended if hold in self.turns.holds else None
        if not hold.level and hold in self.turns.holds and self.open:
            written = commit and ended is None
            self.server.outcomes.append("committed" if written else "rolled back")
        hold.leave()
        self.turns.drop(hold)
        if commit and ended is not None:
            raise ended

    def begin(self) -> None:
        self._control("BEGIN")
        self._finish("committed")  # what is open, as MySQL does
        if not self.turns.holds:
            self._push_by_hand()

    def _push_by_hand(self) -> None:
        self.turns.push(Hold("by hand", "a transaction begun by hand", caller()))

    def commit(self) -> None:
        self._control("COMMIT")
        self._finish("committed")

    def rollback(self) -> None:
        self._control("ROLLBACK")
        self._finish("rolled back")

    def ping(self, reconnect: bool = False) -> None:  # noqa: ARG002 - as PyMySQL's
        self.admit()

    def autocommit(self, value: Any) -> None:
        self.admit()
        if bool(value) != self._autocommit:
            self._control("SET AUTOCOMMIT")
            self._finish("committed")  # the same
            self._autocommit = bool(value)

    def get_autocommit(self) -> bool:
        return self._autocommit

    def get_server_info(self) -> str:
        return self.server_version

    def character_set_name(self) -> str:
        return "utf8mb4"

    def select_db(self, db: str) -> None:  # noqa: ARG002 - as PyMySQL's
        self.admit()

    def _control(self, word: str) -> None:
        self.admit()
        hold = self.turns.hold
        if hold is not None and hold.kind == "block":
            raise TransactionControlError(f"{word} was refused inside {hold}")

    def _finish(self, outcome: str) -> None:
        if not self.turns.holds:
            return
        if self.turns.holds[0].kind != "loan":
            self.server.outcomes.append(outcome)
            self.turns.drop(self.turns.holds[0])
        elif self._worked:
            self.server.outcomes.append(outcome)
            self._worked = self.turns.holds[0].changed = False

    def borrow(self, what: str, place: str) -> Hold:
        with self.turns.lock:
            self.admit(what)
            if self.turns.hold is not None:
                raise TransactionControlError(f"{what} was asked for inside {self.turns.hold}")
            hold = Hold("loan", what, place)
            hold.enter()
            self.turns.push(hold)
            self._autocommit = False
            return hold

    def give_back(self, hold: Hold) -> None:
        if hold in self.turns.holds:
            self._finish("rolled back")
            self._autocommit = True
            hold.leave()
            self.turns.drop(hold)

    def refusal(self) -> Exception:
        return self._why[0](self._why[1])

    def revoke(self, error: type[Exception], message: str) -> None:
        if self.open:
            self._why = (error, message)

    def say_goodbye(self, _until: float) -> bool:
        return self.open

    def is_gone(self, _until: float) -> bool:
        return True

    def hang_up(self, _until: float) -> None:
        if not self.open:
            return
        if self.turns.holds and self.turns.holds[0].kind == "block":
            self.server.outcomes.append("rolled back")
            self.turns.holds[0].ended = self.refusal()  # said where it ends
        else:
            self._finish("rolled back")
        self._drop()

    def _drop(self) -> None:
        self.open = False
        self.server.connections_open -= 1
        self.turns.close()

    def close(self) -> None:
        self.revoke(OperationalError, "this connection was closed by hand")
        self.hang_up(0.0)

    def abandon(self) -> None:
        self.revoke(OutsideInvocationError, "a forked child process used its parent's connection")
        self._drop()


class FakeConnector:
    """Opens connections to a fake server: see `_protocols.Connector`."""

    settings = Settings(host="fake", name="fake", user="fake", password="fake")  # noqa: S106
    margin = settings.deadline_margin

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def open(self, opening: Opening, _context: Any, _measured: Any) -> _Connection:
        return _Connection(self._server, opening)

    def enter(self) -> None:
        """Nothing is guarded."""

    closed = leave = enter

    def opened(self, _place: str, _session: Any) -> None:
        """Nothing is guarded."""

    def end(self, _session: Any, _until: float) -> bool:
        return True

    def find_leaks(self) -> list[Any]:
        return []

    end_leaks = end
