"""What the queue's worker promises: each delivery once, each failure alone."""

from __future__ import annotations

import threading
import time
import types
from typing import Any

import pytest

from local.database import LocalDatabase
from tests.conftest import load_function
from tests.functions.conftest import Load, at_once, batch, context

PLATE, TEAPOT = 2, 3


@pytest.fixture
def app(load: Load) -> types.ModuleType:
    return load("stock_worker")


def delivery(number: int, product: int = PLATE, quantity: int = 10) -> dict[str, Any]:
    return {"delivery_id": f"D-{number}", "product_id": product, "quantity": quantity}


def failed(answer: Any) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def work(app: types.ModuleType, *bodies: object, seconds: float = 30) -> list[str]:
    return failed(app.lambda_handler(batch(*bodies), context(seconds)))


def stock(shop: LocalDatabase, product: int = PLATE) -> int:
    return int(shop.execute("SELECT stock FROM products WHERE id = %s", product)[0]["stock"])


def test_a_delivery_is_booked(app: types.ModuleType, shop: LocalDatabase) -> None:
    assert work(app, delivery(1), delivery(2, TEAPOT, 3)) == []
    assert (stock(shop, PLATE), stock(shop, TEAPOT)) == (90, 15)


def test_a_message_delivered_twice_changes_stock_once(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    assert work(app, delivery(1)) == []
    assert work(app, delivery(1)) == []
    assert stock(shop) == 90


def test_a_supplier_who_sends_twice_in_one_batch_changes_stock_once(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    assert work(app, delivery(1), delivery(1), delivery(2)) == []
    assert stock(shop) == 100


def test_a_delivery_that_comes_to_several_workers_at_once_changes_stock_once(
    shop: LocalDatabase,
) -> None:
    answers = at_once(shop, "stock_worker", [batch(delivery(1), delivery(2))] * 3)
    assert [failed(got.json()) for got in answers] == [[], [], []]
    assert (stock(shop), shop.sessions()) == (100, [])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "Hello from SQS!",
        "[]",
        "{}",
        "null",
        delivery(1, quantity=0),
        delivery(1, quantity=-1),
        delivery(1, quantity=2**63),
        delivery(1, product=-1),
        {**delivery(1), "delivery_id": ""},
        {**delivery(1), "delivery_id": "x" * 65},
        {**delivery(1), "quantity": "many"},
        {**delivery(1), "quantity": "1_0"},
        {**delivery(1), "quantity": True},
        {**delivery(1), "quantity": 1e3},
        {**delivery(1), "product_id": True},
        '{"delivery_id": "D-1", "product_id": 2, "quantity": NaN}',
        '{"delivery_id": "D-1", "product_id": 2, "quantity": ' + "9" * 5_000 + "}",
        "[" * 100_000,
    ],
    ids=lambda body: str(body)[:80],
)
def test_a_malformed_message_fails_alone_and_needs_no_database(body: object) -> None:
    assert work(load_function("stock_worker"), body) == ["0"]


def test_what_fails_fails_alone_and_the_rest_goes_through(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    bodies = ("", delivery(1), "{", delivery(2, product=999), delivery(3, quantity=-5), delivery(4))
    assert work(app, *bodies) == ["0", "2", "3", "4"]
    assert stock(shop) == 100
    booked = shop.execute("SELECT delivery_id FROM stock_inbox ORDER BY delivery_id")
    assert [row["delivery_id"] for row in booked] == ["D-1", "D-4"]


def test_a_batch_of_nothing_but_failures_is_no_error_of_the_function(app: types.ModuleType) -> None:
    assert work(app, "", "") == ["0", "1"]


def test_the_same_delivery_with_other_contents_fails_and_says_so(
    app: types.ModuleType, shop: LocalDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    assert work(app, delivery(1, quantity=10), delivery(1, quantity=11)) == ["1"]
    assert stock(shop) == 90
    assert "was booked as 10 of product 2, and now says 11 of 2" in caplog.text


@pytest.mark.parametrize("event", [{}, {"Records": None}, {"Records": []}, [], "ping", None])
def test_an_event_that_is_no_batch_is_refused_with_a_sentence(event: Any) -> None:
    app = load_function("stock_worker")
    with pytest.raises(Exception, match=r"Unexpected batch event type|Invalid event format"):
        app.lambda_handler(event, context())


def test_a_batch_opens_one_connection(app: types.ModuleType, shop: LocalDatabase) -> None:
    before = shop.status("Connections")
    assert work(app, *(delivery(number) for number in range(10))) == []
    assert (shop.status("Connections") - before, shop.sessions()) == (1, [])


def test_a_locked_row_holds_up_its_own_message_and_no_other(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    shop.execute("START TRANSACTION")
    shop.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", TEAPOT)
    bodies = (delivery(1, TEAPOT), delivery(2), delivery(3, TEAPOT), delivery(4))
    began = time.monotonic()
    assert work(app, *bodies, seconds=8) == ["0", "2"]
    shop.execute("ROLLBACK")
    assert time.monotonic() - began < 5  # two shares of about two seconds
    assert (stock(shop, PLATE), stock(shop, TEAPOT)) == (100, 12)


def test_a_locked_table_is_waited_for_by_shares_too(
    app: types.ModuleType, shop: LocalDatabase, outsider: Any
) -> None:
    """As while a migration is at work on it."""
    outsider.cursor().execute("LOCK TABLES stock_inbox WRITE")
    unlock = threading.Timer(4.5, lambda: outsider.cursor().execute("UNLOCK TABLES"))
    unlock.start()
    bodies = (delivery(number) for number in range(4))
    assert work(app, *bodies, seconds=14) == ["0"]  # three seconds each
    unlock.join()


def test_what_the_deadline_leaves_undone_comes_back_and_what_is_done_stays(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    shop.execute("START TRANSACTION")
    shop.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", TEAPOT)
    bodies = (delivery(1), *(delivery(n, TEAPOT) for n in range(2, 5)), delivery(5))
    assert work(app, *bodies, seconds=2) == ["1", "2", "3", "4"]
    shop.execute("ROLLBACK")
    assert (stock(shop, PLATE), stock(shop, TEAPOT)) == (90, 12)
