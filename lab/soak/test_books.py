"""The auditor finds what is planted: it is worth as much as what it would not overlook."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab.soak.books import audit
from lab.soak.conduct import what_is_wrong
from lab.soak.play import Played, play
from lab.soak.stage import Stage
from lab.soak.test_proxy import connect
from lab.soak.watch import BEFORE_THE_LEASE, Watch, left_in_environments, sockets_to
from local.database import LocalDatabase
from local.environment import Answer, Environment, run


@pytest.fixture(scope="module")
def played(server: LocalDatabase) -> Played:
    """A shop that was open for a few seconds, without a fault."""
    server.reset()
    return run(play(server, (), seed=1, seconds=4.0, customers=3))


@contextmanager
def planted(server: LocalDatabase, do: str, undo: str, *arguments: object) -> Iterator[None]:
    """Change the books as no function would, for the length of the block."""
    server.execute("SET foreign_key_checks = 0")
    server.execute(do, *arguments)
    try:
        yield
    finally:
        server.execute(undo, *arguments)


def found(server: LocalDatabase, played: Played) -> list[str]:
    return audit(server, played.ledger, played.opening)


def some_order(played: Played) -> tuple[str, int]:
    key, order = next(iter(played.ledger.placed.items()))
    return key, order["id"]


def test_a_quiet_shop_has_nothing_to_complain_of(server: LocalDatabase, played: Played) -> None:
    assert played.violations == []
    assert found(server, played) == []
    assert len(played.ledger.placed) > 5
    assert len(played.ledger.booked) > 5


def test_a_lost_order_is_found(server: LocalDatabase, played: Played) -> None:
    key, order = some_order(played)
    with planted(
        server,
        "UPDATE orders SET id = id + 1000000 WHERE id = %s",
        "UPDATE orders SET id = id - 1000000 WHERE id = %s + 1000000",
        order,
    ):
        findings = found(server, played)
    assert any(f"order {key} was acknowledged as {order} and is not there" in f for f in findings)
    assert found(server, played) == []


def test_an_order_placed_twice_is_found(server: LocalDatabase, played: Played) -> None:
    key, order = some_order(played)
    with planted(
        server,
        "INSERT INTO orders (customer) SELECT customer FROM (SELECT customer FROM orders o"
        " WHERE id = %s) again",
        "DELETE FROM orders WHERE customer = (SELECT customer FROM (SELECT customer FROM orders o"
        " WHERE id = %s) again) ORDER BY id DESC LIMIT 1",
        order,
    ):
        assert any(
            f"order {key} was placed 2 times" in finding for finding in found(server, played)
        )
    assert found(server, played) == []


def test_an_order_whose_line_was_changed_is_found(server: LocalDatabase, played: Played) -> None:
    key, order = some_order(played)
    change = "UPDATE order_lines SET quantity = quantity {} 1 WHERE order_id = %s LIMIT 1"
    with planted(server, change.format("+"), change.format("-"), order):
        findings = found(server, played)
    assert any(f"order {key} has the lines" in finding for finding in findings)
    assert any("stock of product" in finding for finding in findings)
    assert any("the report of" in finding for finding in findings)


def test_a_refused_order_that_left_its_key_is_found(server: LocalDatabase, played: Played) -> None:
    key, order = some_order(played)
    wish = played.ledger.wishes[key]
    refused = replace(wish, key=key.replace("-", "-9", 1), customer="somebody refused")
    ledger = replace(
        played.ledger,
        wishes={**played.ledger.wishes, refused.key: refused},
        refused={*played.ledger.refused, refused.key},
    )
    change = "UPDATE idempotency_keys SET caller = {} WHERE order_id = %s"
    with planted(
        server,
        change.format("REPLACE(caller, '/customer-', '/customer-9')"),
        change.format("REPLACE(caller, '/customer-9', '/customer-')"),
        order,
    ):
        findings = audit(server, ledger, played.opening)
    assert f"key {refused.key} of a refused order is kept" in findings


def test_a_delivery_applied_twice_is_found(server: LocalDatabase, played: Played) -> None:
    product, quantity = played.ledger.sent[min(played.ledger.booked)]
    change = "UPDATE products SET stock = stock {} %s WHERE id = %s"
    with planted(server, change.format("+"), change.format("-"), quantity, product):
        assert any(f"stock of product {product} is" in finding for finding in found(server, played))
    assert found(server, played) == []


def test_a_delivery_acknowledged_and_lost_is_found(server: LocalDatabase, played: Played) -> None:
    delivery = min(played.ledger.booked)
    change = "UPDATE stock_inbox SET delivery_id = {} WHERE delivery_id = {}"
    server.execute(change.format("CONCAT('X', %s)", "%s"), delivery, delivery)
    try:
        findings = found(server, played)
    finally:
        server.execute(change.format("%s", "CONCAT('X', %s)"), delivery, delivery)
    assert f"delivery {delivery} was acknowledged and is not there" in findings
    assert any(f"delivery X{delivery} was booked" in finding for finding in findings)


def test_a_stale_report_is_found(server: LocalDatabase, played: Played) -> None:
    change = (
        "UPDATE sales_report SET units = units {} 1"
        " WHERE day = UTC_DATE() ORDER BY product_id LIMIT 1"
    )
    with planted(server, change.format("-"), change.format("+")):
        [finding] = found(server, played)
    assert "the report of" in finding
    assert found(server, played) == []


def test_a_leaked_session_is_found(server: LocalDatabase) -> None:
    """One that no lease ends: idle for longer than an invocation behind its door may take."""

    async def leak() -> list[str]:
        server.reset()
        stage = Stage(server, longest=1.0)
        stage.store.server_close()
        watch = Watch(stage)
        door = stage.network.door(1.0)
        connection = await asyncio.to_thread(connect, server, door.port)
        try:
            watch.judge(watch.sessions())
            assert stage.violations == [], "not yet"
            await asyncio.sleep(3.2)
            watch.judge(watch.sessions())
            return [*stage.violations, *(await watch.none_is_left())]
        finally:
            connection.close()
            await stage.network.close()

    outlived, left = asyncio.run(leak())
    assert "outlived its lease" in outlived
    assert "a session is left at the end" in left


def test_a_session_cut_off_before_its_set_up_is_counted_apart(server: LocalDatabase) -> None:
    async def cut() -> tuple[list[str], int]:
        server.reset()
        stage = Stage(server, longest=1.0)
        stage.store.server_close()
        watch = Watch(stage)
        door = stage.network.door(1.0)
        connection = await asyncio.to_thread(connect, server, door.port)
        [link] = door.links
        assert link.said > BEFORE_THE_LEASE, "it sent a set-up of its own"
        door.cut()
        link.said = BEFORE_THE_LEASE  # as if the cut had come before that
        await asyncio.sleep(3.2)
        watch.judge(watch.sessions())
        await stage.network.close()
        connection.close()
        return stage.violations, len(watch.without_lease)

    assert asyncio.run(cut()) == ([], 1)


KEEPS_ONE = """
import os, pymysql, ssl
context = ssl.create_default_context(cafile=os.environ["DATABASE_CA_FILE"])
kept = pymysql.connect(
    host="127.0.0.1", port=int(os.environ["DATABASE_PORT"]), ssl=context,
    user=os.environ["DATABASE_USER"], password=os.environ["DATABASE_PASSWORD"],
)
def lambda_handler(event, context): return kept.open
"""


def test_a_connection_kept_in_an_environment_is_found(
    server: LocalDatabase, tmp_path: Path
) -> None:
    async def keep() -> tuple[list[str], int]:
        server.reset()
        (tmp_path / "app.py").write_text(KEEPS_ONE)
        stage = Stage(server)
        stage.store.server_close()
        door = stage.network.door(3.0)
        given = {**server.application_environ(), "DATABASE_PORT": str(door.port)}
        try:
            async with Environment(tmp_path, environ=given) as environment:
                assert (await environment.invoke({})).json() is True
                await environment.idle()
                stage.environments["keeper"] = [(environment, door)]
                assert environment.pid
                return left_in_environments(stage), sockets_to(environment.pid, door)
        finally:
            await stage.network.close()

    [finding], sockets = run(keep())
    assert "holds 1 sockets to the database" in finding
    assert sockets == 1


LOGS_ITS_PASSWORD = """
import os, pymysql, ssl
def lambda_handler(event, context):
    context = ssl.create_default_context(cafile=os.environ["DATABASE_CA_FILE"])
    arguments = dict(
        host="127.0.0.1", port=int(os.environ["DATABASE_PORT"]), ssl=context,
        user=os.environ["DATABASE_USER"], password=os.environ["DATABASE_PASSWORD"],
    )
    print("connecting with", arguments)
    pymysql.connect(**arguments).close()
"""


def test_a_secret_that_a_handler_logs_is_found(server: LocalDatabase, tmp_path: Path) -> None:
    async def leak() -> list[str]:
        server.reset()
        (tmp_path / "app.py").write_text(LOGS_ITS_PASSWORD)
        given = server.application_environ()
        async with Environment(tmp_path, environ=given) as environment:
            said = await environment.invoke({})
            assert said.status == "ok"
        return what_is_wrong("leaker", said, set(), {given["DATABASE_PASSWORD"]})

    assert run(leak()) == ["a secret is in its log or its answer"]


def answer(payload: object, *, status: str = "ok", log: str = "") -> Answer:
    return Answer(
        status=status,  # type: ignore[arg-type]
        payload=json.dumps(payload).encode(),
        error_type=None,
        duration=0.1,
        init_duration=None,
        log=log,
        request_id="r",
        max_memory_mb=1,
    )


def error(kind: str, message: str) -> Answer:
    return answer({"errorType": kind, "errorMessage": message}, status="error")


def response(status: int, body: object) -> Answer:
    return answer({"statusCode": status, "body": json.dumps(body)})


def test_a_bare_error_behind_http_is_found() -> None:
    lost = error("OperationalError", "(2013, 'Lost connection to MySQL server during query')")
    assert what_is_wrong("sales_report", lost, set(), ()) == []
    [finding] = what_is_wrong("orders_api", lost, set(), ())
    assert "should be 503" in finding


def test_words_in_a_log_that_do_not_help_are_found() -> None:
    said = answer({}, log='{"message": "a session could not be killed: Refused: 2013"}')
    [finding] = what_is_wrong("stock_worker", said, set(), ())
    assert "words in its log" in finding


def test_a_leaked_secret_is_found_in_log_and_answer() -> None:
    secrets = {"hunter2-and-more"}
    for leaked in (
        answer({}, log="connecting with hunter2-and-more"),
        response(503, {"message": "the password hunter2-and-more was refused just now"}),
    ):
        [finding] = what_is_wrong("stock_worker", leaked, set(), secrets)
        assert "a secret" in finding
        assert "hunter2" not in finding


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (error("KeyError", "'stock'"), "not documented"),
        (error("OperationalError", "(1146, \"Table 'shop.x' doesn't exist\")"), "not documented"),
        (error("SecondConnectionError", "a second connection was refused here"), "not documented"),
        (error("InterfaceError", "(0, '')"), "not documented"),
        (error("DeadlineError", "Refused: 2013"), "words that do not help"),
        (response(500, {"message": "Internal server error, sorry"}), "not documented"),
        (response(503, {"message": "busy"}), "words that do not help"),
        (response(409, "gone"), "no message"),
        (answer({"errorMessage": "Task timed out"}, status="timeout"), "ended by timeout"),
        (answer({"errorMessage": "exited"}, status="exit"), "ended by exit"),
    ],
)
def test_an_answer_that_was_not_promised_is_found(bad: Answer, says: str) -> None:
    [finding] = what_is_wrong("stock_worker", bad, {"network slow"}, ())
    assert says in finding


@pytest.mark.parametrize(
    ("good", "kinds"),
    [
        (response(201, {"id": 1}), set()),
        (response(503, {"message": "The shop is very busy. Try again shortly."}), set()),
        (
            error("OperationalError", "(2013, 'Lost connection to MySQL server during query')"),
            set(),
        ),
        (answer({"errorMessage": "exited"}, status="exit"), {"environment killed"}),
        (answer({"errorMessage": "timed out"}, status="timeout"), {"environment frozen"}),
    ],
)
def test_what_was_promised_is_no_finding(good: Answer, kinds: set[str]) -> None:
    assert what_is_wrong("stock_worker", good, kinds, ()) == []
