"""A proxy that has no connection to lend is waited for; nothing is carried out twice, or half.

RDS Proxy says it at a statement (error 9501), on a session that stays.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest
from single_connection import Database, DatabaseBusyError, Settings

from layers.single_connection.tests.conftest import Alarm, invoke
from layers.single_connection.tests.hostile import Client, Hostile, error, greeting, ok, row

NONE_TO_LEND = error(9501, b"Timed-out waiting to acquire database connection", 1)
IN_TRANSACTION = ok(status=3)
GONE = b"gone"
SILENCE = b""


class Lender:
    """Answers each statement with the next of `answers`, then with `last`, or as a server does."""

    def __init__(self, *answers: bytes, last: bytes | None = None) -> None:
        self.said: list[str] = []
        self._answers = list(answers)
        self._last = last

    def __call__(self, client: Client) -> None:
        client.send(ok(client.log_in(greeting())))
        while True:
            _, said = client.read()
            if said == b"\1":  # goodbye
                return
            words = said[1:].decode().split()
            self.said.append(words[0] if words else "ping")
            usual = row(b"mine") if said[1:] == b"SELECT 1" else ok()
            answer = self._answers.pop(0) if self._answers else self._last or usual
            if answer == GONE:
                return
            client.send(answer)


def ask(
    directory: Path, lender: Lender, work: Callable[[Database], Any], seconds: float = 5.0
) -> Any:
    with Hostile(directory, lender) as server:
        settings = Settings(
            host="127.0.0.1",
            port=server.port,
            name="shop",
            user="application",
            password="any",
            ca_file=str(server.ca_file),
        )
        database = Database(settings)
        return invoke(database, lambda: work(database), seconds)


def select(database: Database) -> Any:
    with database.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchall()


def update(database: Database) -> Any:
    with database.cursor() as cursor:
        return cursor.execute("UPDATE things SET number = 1")


def block(database: Database) -> Any:
    with database.transaction() as cursor:
        return cursor.execute("UPDATE things SET number = 1")


@pytest.mark.parametrize("behind", [NONE_TO_LEND, row(b"early")], ids=["refused", "answered"])
def test_what_came_behind_a_refused_set_up_is_asked_again_and_only_the_last_answer_counts(
    tmp_path: Path, behind: bytes
) -> None:
    """Until its set-up the session is not as it should be, nor are its rows."""
    lender = Lender(NONE_TO_LEND, behind, ok(), row(b"mine"))
    assert list(ask(tmp_path, lender, select)) == [{"n": "mine"}]
    assert lender.said == ["SET", "SELECT", "SET", "SELECT"]


def test_a_statement_that_writes_is_not_sent_before_the_set_up_was_lent_a_connection(
    tmp_path: Path,
) -> None:
    lender = Lender(NONE_TO_LEND, NONE_TO_LEND)
    ask(tmp_path, lender, update)
    assert lender.said == ["SET", "SET", "SET", "UPDATE"]


@pytest.mark.parametrize("behind", [NONE_TO_LEND, IN_TRANSACTION], ids=["refused", "begun"])
def test_a_block_that_began_behind_a_refused_set_up_begins_again(
    tmp_path: Path, behind: bytes
) -> None:
    lender = Lender(NONE_TO_LEND, behind, ok(), IN_TRANSACTION, IN_TRANSACTION)
    ask(tmp_path, lender, block)
    assert lender.said == ["SET", "START", "SET", "START", "UPDATE", "COMMIT"]


def test_a_later_statement_waits_for_a_connection_without_another_set_up(tmp_path: Path) -> None:
    lender = Lender(ok(), row(b"mine"), NONE_TO_LEND)
    ask(tmp_path, lender, lambda database: (select(database), update(database)))
    assert lender.said == ["SET", "SELECT", "UPDATE", "UPDATE"]


def test_inside_a_transaction_no_connection_is_waited_for(tmp_path: Path) -> None:
    """Another one would not know what came before."""
    lender = Lender(ok(), IN_TRANSACTION, IN_TRANSACTION, NONE_TO_LEND, IN_TRANSACTION)

    def work(database: Database) -> None:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = 1")
            cursor.execute("UPDATE things SET number = 2")

    with pytest.raises(pymysql.err.Error, match="9501"):
        ask(tmp_path, lender, work)
    assert lender.said == ["SET", "START", "UPDATE", "UPDATE", "ping", "ROLLBACK"]


@pytest.mark.parametrize("work", [select, update, block])
def test_a_proxy_that_never_lends_is_a_busy_database_before_the_time_is_over(
    tmp_path: Path, work: Callable[[Database], Any]
) -> None:
    lender = Lender(last=NONE_TO_LEND)
    with pytest.raises(DatabaseBusyError, match="RDS Proxy had no database connection") as caught:
        ask(tmp_path, lender, work, 2.0)
    assert caught.value.code == 9501
    assert caught.value.attempts > 1
    assert caught.value.waited > 0.5
    assert "UPDATE" not in lender.said


def test_an_alarm_behind_a_refusal_leaves_no_answer_to_the_next_statement(
    tmp_path: Path, alarm: Callable[[float], None]
) -> None:
    lender = Lender(NONE_TO_LEND, SILENCE)

    def work(database: Database) -> Any:
        alarm(0.3)
        with pytest.raises(Alarm):
            select(database)
        return select(database)

    assert list(ask(tmp_path, lender, work)) == [{"n": "mine"}]


def test_a_proxy_that_hangs_up_behind_its_refusal_is_a_lost_connection(tmp_path: Path) -> None:
    lender = Lender(NONE_TO_LEND, GONE)
    with pytest.raises(pymysql.err.OperationalError, match="nothing was changed"):
        ask(tmp_path, lender, select)
