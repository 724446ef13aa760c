"""What the HTTP API promises its clients."""

from __future__ import annotations

import base64
import json
import threading
import time
import types
from datetime import UTC, datetime
from typing import Any

import pymysql
import pytest
from aws_lambda_powertools.event_handler.openapi.exceptions import ResponseValidationError
from single_connection import CommitOutcomeUnknownError
from single_connection.testing import fake

from local.database import LocalDatabase
from local.environment import Answer
from tests.conftest import load_function
from tests.functions.conftest import Load, at_once, context, held_connections, request

ESPRESSO_CUP, PLATE, TEAPOT, BREAD_KNIFE = 1, 2, 3, 4


@pytest.fixture
def app(load: Load) -> types.ModuleType:
    return load("orders_api")


def order(*lines: tuple[int, int], customer: str = "Ada") -> dict[str, Any]:
    return {
        "customer": customer,
        "lines": [{"product_id": product, "quantity": quantity} for product, quantity in lines],
    }


def answer(app: types.ModuleType, event: dict[str, Any], seconds: float = 30) -> tuple[int, Any]:
    got = app.lambda_handler(event, context(seconds))
    return got["statusCode"], json.loads(got["body"])


def stock(shop: LocalDatabase, product: int) -> int:
    return int(shop.execute("SELECT stock FROM products WHERE id = %s", product)[0]["stock"])


def count(shop: LocalDatabase, table: str) -> int:
    return int(shop.execute(f"SELECT COUNT(*) AS n FROM {table}")[0]["n"])


# ── Reading ───────────────────────────────────────────────────────────────────────────────────


def test_products_come_in_pages(app: types.ModuleType) -> None:
    status, first = answer(app, request("GET", "/products", query={"limit": "3"}))
    assert (status, [product["id"] for product in first]) == (200, [1, 2, 3])
    status, second = answer(app, request("GET", "/products", query={"after": "3"}))
    assert (status, [product["id"] for product in second]) == (200, [4])


def test_an_order_keeps_the_price_that_was_paid(app: types.ModuleType, shop: LocalDatabase) -> None:
    status, placed = answer(app, request("POST", "/orders", order((PLATE, 2))))
    shop.execute("UPDATE products SET price_cents = 9999 WHERE id = %s", PLATE)
    status, read = answer(app, request("GET", f"/orders/{placed['id']}"))
    assert (status, read["total_cents"], read) == (200, 2500, placed)


@pytest.mark.parametrize(
    "path", ["/products/999", f"/products/{10**30}", "/products/-1", "/orders/999", "/customers"]
)
def test_what_is_not_there_is_404_with_a_sentence(app: types.ModuleType, path: str) -> None:
    status, body = answer(app, request("GET", path))
    assert status == 404
    assert set(body) == {"message"}


@pytest.mark.parametrize("number", ["abc", "1.0", "+1", "1_0", "1e2", "%201", "1" * 5_000])
def test_an_id_that_is_no_number_is_422_and_needs_no_database(number: str) -> None:
    app = load_function("orders_api")
    status, problem = answer(app, request("GET", f"/products/{number}"))
    assert status == 422
    assert problem["message"].startswith("path.product_id")
    status, problem = answer(app, request("GET", "/products", query={"limit": number}))
    assert status == 422
    assert problem["message"].startswith("query.limit")


def test_names_keep_every_character(app: types.ModuleType) -> None:
    name = "Zoë Łukasiewicz 王小明 👩‍🚀 O'Brien; \\ %s"
    _, placed = answer(app, request("POST", "/orders", order((PLATE, 1), customer=name)))
    assert placed["customer"] == name


def test_the_api_describes_itself_without_a_database() -> None:
    status, openapi = answer(load_function("orders_api"), request("GET", "/openapi.json"))
    assert status == 200
    assert set(openapi["paths"]) == {
        "/products",
        "/products/{product_id}",
        "/orders",
        "/orders/{order_id}",
    }
    parameters = openapi["paths"]["/orders"]["post"]["parameters"]
    assert [(p["name"], p["in"], p["required"]) for p in parameters] == [
        ("idempotency-key", "header", True)
    ]


def test_the_description_says_all_that_is_answered() -> None:
    _, openapi = answer(load_function("orders_api"), request("GET", "/openapi.json"))
    answered = {
        f"{method} {path}": sorted(operation["responses"])
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    }
    assert answered == {
        "get /products": ["200", "422", "500", "503"],
        "get /products/{product_id}": ["200", "404", "422", "500", "503"],
        "get /orders/{order_id}": ["200", "404", "422", "500", "503"],
        "post /orders": ["200", "201", "409", "413", "415", "422", "500", "503"],
    }
    assert openapi["components"]["schemas"]["Problem"]["required"] == ["message"]
    post = openapi["paths"]["/orders"]["post"]["responses"]
    assert [*post["201"]["headers"], *post["503"]["headers"]] == ["Location", "Retry-After"]


def test_a_time_says_that_it_is_utc(app: types.ModuleType, shop: LocalDatabase) -> None:
    _, placed = answer(app, request("POST", "/orders", order((PLATE, 1))))
    [row] = shop.execute("SELECT placed_at FROM orders")
    assert placed["placed_at"].endswith("Z")
    assert datetime.fromisoformat(placed["placed_at"]) == row["placed_at"].replace(tzinfo=UTC)


# ── Whose order it is ─────────────────────────────────────────────────────────────────────────

ALICE = {"userArn": "arn:aws:iam::111111111111:user/shop/alice"}
BOB = {"userArn": "arn:aws:iam::111111111111:user/shop/bob"}
TASK_1 = {"userArn": "arn:aws:sts::111111111111:assumed-role/Checkout/task-1"}
TASK_2 = {"userArn": "arn:aws:sts::111111111111:assumed-role/Checkout/task-2"}
REFUNDS = {"userArn": "arn:aws:sts::111111111111:assumed-role/Refunds/task-1"}
ELSEWHERE = {"userArn": "arn:aws:sts::222222222222:assumed-role/Checkout/task-1"}
VISITOR = {
    "userArn": "arn:aws:sts::111111111111:assumed-role/Visitors/CognitoIdentityCredentials",
    "cognitoIdentity": {"identityId": "us-east-1:11111111-aaaa"},
}
OTHER_VISITOR = {**VISITOR, "cognitoIdentity": {"identityId": "us-east-1:22222222-bbbb"}}


def by(iam: dict[str, Any] | None, event: dict[str, Any]) -> dict[str, Any]:
    """The event as that caller's."""
    event["requestContext"]["authorizer"] = {"iam": iam}
    if iam is None:
        del event["requestContext"]["authorizer"]
    return event


@pytest.mark.parametrize(
    ("owner", "another"),
    [
        (ALICE, BOB),
        (TASK_1, REFUNDS),
        (TASK_1, ELSEWHERE),
        (VISITOR, OTHER_VISITOR),
        (None, ALICE),
        (ALICE, None),
    ],
)
def test_another_callers_order_is_not_there_and_his_key_is_another_key(
    app: types.ModuleType,
    shop: LocalDatabase,
    owner: dict[str, Any] | None,
    another: dict[str, Any] | None,
) -> None:
    status, placed = answer(app, by(owner, request("POST", "/orders", order((PLATE, 1)))))
    assert status == 201
    path = f"/orders/{placed['id']}"
    assert answer(app, by(owner, request("GET", path))) == (200, placed)
    missing = answer(app, by(another, request("GET", path)))
    assert missing == (404, {"message": f"There is no order {placed['id']}."})
    status, other = answer(app, by(another, request("POST", "/orders", order((PLATE, 2)))))
    assert status == 201
    assert other["id"] != placed["id"]
    assert answer(app, by(owner, request("POST", "/orders", order((PLATE, 1))))) == (200, placed)
    assert stock(shop, PLATE) == 77


@pytest.mark.parametrize(
    "authorizer", [{"jwt": {"claims": {"sub": "ada"}}}, {"lambda": {}}, {"iam": {}}, {"iam": None}]
)
def test_callers_of_another_authorizer_are_not_taken_for_one(authorizer: dict[str, Any]) -> None:
    """Whoever changes the authorizer hears of it at the first order, not of the first mix-up."""
    app = load_function("orders_api")
    event = request("GET", "/orders/1")
    event["requestContext"]["authorizer"] = authorizer
    with fake(app.database), pytest.raises(app.UnknownCallerError, match="is not IAM"):
        app.lambda_handler(event, context())


def test_sessions_of_one_role_are_one_caller(app: types.ModuleType) -> None:
    """A task that was replaced repeats the order of the one before, and gets that order."""
    event = request("POST", "/orders", order((PLATE, 1)))
    status, placed = answer(app, by(TASK_1, event))
    assert (status, answer(app, by(TASK_2, event))) == (201, (200, placed))


def test_what_was_placed_before_there_were_callers_belongs_to_those_without_iam(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    shop.execute("INSERT INTO orders (customer) VALUES ('Ada')")
    assert answer(app, by(None, request("GET", "/orders/1")))[0] == 200
    assert answer(app, by(ALICE, request("GET", "/orders/1")))[0] == 404


# ── Placing an order ──────────────────────────────────────────────────────────────────────────


def test_an_order_takes_its_stock(app: types.ModuleType, shop: LocalDatabase) -> None:
    got = app.lambda_handler(request("POST", "/orders", order((TEAPOT, 5), (PLATE, 1))), context())
    placed = json.loads(got["body"])
    assert got["statusCode"] == 201
    assert got["headers"]["Location"] == f"/orders/{placed['id']}"
    assert placed["lines"] == [
        {"product_id": PLATE, "quantity": 1, "price_cents": 1250},
        {"product_id": TEAPOT, "quantity": 5, "price_cents": 4900},
    ]
    assert placed["total_cents"] == 5 * 4900 + 1250
    assert (stock(shop, TEAPOT), stock(shop, PLATE)) == (7, 79)


def test_two_lines_of_one_product_are_one(app: types.ModuleType, shop: LocalDatabase) -> None:
    status, _ = answer(app, request("POST", "/orders", order((TEAPOT, 7), (TEAPOT, 7))))
    assert (status, stock(shop, TEAPOT)) == (409, 12)
    status, placed = answer(app, request("POST", "/orders", order((TEAPOT, 5), (TEAPOT, 7))))
    assert (status, stock(shop, TEAPOT)) == (201, 0)
    assert [line["quantity"] for line in placed["lines"]] == [12]


def test_the_most_that_can_be_ordered_is_answered_as_it_was_written(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    shop.execute("UPDATE products SET stock = 100000")
    status, placed = answer(app, request("POST", "/orders", order(*[(PLATE, 1000)] * 100)))
    assert (status, placed["lines"][0]["quantity"]) == (201, 100_000)
    assert answer(app, request("GET", f"/orders/{placed['id']}")) == (200, placed)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (order(), "body.lines"),
        (order((PLATE, 0)), "body.lines.0.quantity"),
        (order((PLATE, 1), (PLATE, -1)), "body.lines.1.quantity"),
        (order((PLATE, 10**12)), "body.lines.0.quantity"),
        ('{"customer": "A", "lines": [{"product_id": 1, "quantity": 1e2}]}', "body.lines.0."),
        ('{"customer": "A", "lines": [{"product_id": 1, "quantity": "1_0"}]}', "body.lines.0."),
        ('{"customer": "A", "lines": [{"product_id": 1, "quantity": true}]}', "body.lines.0."),
        ('{"customer": "A", "lines": [{"product_id": true, "quantity": 1}]}', "body.lines.0."),
        ('{"customer": "A", "lines": [{"product_id": 1, "quantity": NaN}]}', "body.lines.0."),
        ('{"customer": "A", "x": ' + "9" * 5000 + "}", "body: is not JSON"),
        ("[" * 5_000 + "]" * 5_000, "body: "),  # Python 3.13 reads it
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "body: "),
        ("\ufeff{}", "body: is not JSON"),
        (order((0, 1)), "body.lines.0.product_id"),
        (order((2**40, 1)), "body.lines.0.product_id"),
        (order((PLATE, 1), customer=""), "body.customer"),
        ({"lines": [{"product_id": 1, "quantity": 1}]}, "body.customer"),
        (order((PLATE, 1), customer="\ud800"), "body.customer"),  # half a character
        ([], "body"),
        ("{", "body"),
        ("", "body"),
        (None, "body"),
    ],
)
def test_a_bad_order_is_422_naming_the_place_and_needs_no_database(
    body: object, place: str
) -> None:
    status, problem = answer(load_function("orders_api"), request("POST", "/orders", body))
    assert status == 422
    assert set(problem) == {"message"}
    assert problem["message"].startswith(place)


@pytest.mark.parametrize(
    "body", ["!!!", "abc", b"\xff\xfe\x00\x01", '{"customer": "é"}'.encode("latin-1"), b"[" * 5_000]
)
def test_a_body_that_is_no_json_in_utf_8_is_422_and_needs_no_database(body: str | bytes) -> None:
    encoded = body if isinstance(body, str) else base64.b64encode(body).decode()
    event = {**request("POST", "/orders", encoded), "isBase64Encoded": True}
    status, problem = answer(load_function("orders_api"), event)
    assert status == 422
    assert problem["message"].startswith("body: is not JSON in UTF-8")


def test_a_body_of_megabytes_is_413_before_it_is_read() -> None:
    body = json.dumps({str(number): number for number in range(400_000)})
    began = time.monotonic()
    status, problem = answer(load_function("orders_api"), request("POST", "/orders", body))
    assert (status, problem) == (413, {"message": "body: must have 65536 bytes at most"})
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/jsonx",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "\0;;=,",
    ],
)
@pytest.mark.parametrize("encoded", [True, False])
def test_a_body_of_another_type_is_415_and_needs_no_database(
    content_type: str, encoded: bool
) -> None:
    event = {**request("POST", "/orders", order((PLATE, 1))), "isBase64Encoded": encoded}
    event["headers"]["content-type"] = content_type
    status, problem = answer(load_function("orders_api"), event)
    assert status == 415
    assert problem == {"message": "body: must be application/json by its content-type"}


def test_a_body_that_is_not_asked_for_is_not_looked_at(app: types.ModuleType) -> None:
    event = request("GET", "/products", "not JSON")
    event["headers"]["content-type"] = "text/plain"
    assert answer(app, event)[0] == 200


@pytest.mark.parametrize("content_type", [None, "", "APPLICATION/JSON", "application/json;x=y"])
@pytest.mark.parametrize("encoded", [True, False])
def test_json_is_json_however_it_is_sent(
    app: types.ModuleType, content_type: str | None, encoded: bool
) -> None:
    event = {**request("POST", "/orders", order((PLATE, 1))), "isBase64Encoded": encoded}
    event["headers"]["content-type"] = content_type
    if content_type is None:
        del event["headers"]["content-type"]
    if encoded:
        event["body"] = base64.b64encode(event["body"].encode()).decode()
    assert answer(app, event)[0] == 201


@pytest.mark.parametrize("key", [None, "", "short", "with spaces in it", "x" * 65, "ключ-ключ"])
def test_an_order_needs_an_idempotency_key(key: str | None) -> None:
    app = load_function("orders_api")
    status, problem = answer(app, request("POST", "/orders", order((PLATE, 1)), key=key))
    assert status == 422
    assert problem["message"].startswith("header.idempotency-key")


def test_a_refused_order_changes_nothing(app: types.ModuleType, shop: LocalDatabase) -> None:
    short = request("POST", "/orders", order((PLATE, 1), (BREAD_KNIFE, 2)))
    assert answer(app, short) == (409, {"message": "Only 1 of 'Bread knife' left, 2 wanted."})
    unknown = request("POST", "/orders", order((PLATE, 1), (999, 2)))
    assert answer(app, unknown) == (422, {"message": "There is no product 999."})
    assert stock(shop, PLATE) == 80
    assert [count(shop, table) for table in ("orders", "order_lines", "idempotency_keys")] == [
        0
    ] * 3


# ── The same key again ────────────────────────────────────────────────────────────────────────


def test_the_same_key_twice_makes_one_order(app: types.ModuleType, shop: LocalDatabase) -> None:
    status, placed = answer(app, request("POST", "/orders", order((PLATE, 1))))
    body = json.dumps(order((PLATE, 1)), indent=4)  # the same order, written differently
    again, repeated = answer(app, request("POST", "/orders", body))
    assert (status, again, repeated) == (201, 200, placed)
    assert (stock(shop, PLATE), count(shop, "orders")) == (79, 1)


def test_the_same_key_for_another_order_is_refused(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    answer(app, request("POST", "/orders", order((PLATE, 1))))
    status, problem = answer(app, request("POST", "/orders", order((PLATE, 2))))
    assert status == 422
    assert "another order" in problem["message"]
    assert (stock(shop, PLATE), count(shop, "orders")) == (79, 1)


def test_a_refused_order_may_succeed_later_with_its_key(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    event = request("POST", "/orders", order((BREAD_KNIFE, 2)))
    assert answer(app, event)[0] == 409
    shop.execute("UPDATE products SET stock = 2 WHERE id = %s", BREAD_KNIFE)
    assert answer(app, event)[0] == 201


# ── Many at once, each in an execution environment of its own ─────────────────────────────────


def statuses(answers: list[Answer]) -> list[int]:
    return sorted(got.json()["statusCode"] for got in answers)


def place_at_once(shop: LocalDatabase, events: list[dict[str, Any]]) -> list[Answer]:
    """The answers; no order gets its products before all are waiting for theirs."""
    shop.execute("START TRANSACTION")
    shop.execute("SELECT id FROM products FOR UPDATE")

    def let_go_when_all_wait() -> None:
        wait_until(
            lambda: [bool(session.info) for session in shop.sessions()] == [True] * len(events)
        )
        shop.execute("COMMIT")

    return at_once(shop, "orders_api", events, meanwhile=let_go_when_all_wait)


def test_of_two_buyers_of_the_last_item_one_gets_it(shop: LocalDatabase) -> None:
    events = [
        request("POST", "/orders", order((BREAD_KNIFE, 1)), key=f"buyer-{n:04}") for n in range(2)
    ]
    assert statuses(place_at_once(shop, events)) == [201, 409]
    assert (stock(shop, BREAD_KNIFE), count(shop, "orders")) == (0, 1)
    assert shop.sessions() == []


def test_the_same_key_sent_at_once_makes_one_order(shop: LocalDatabase) -> None:
    event = request("POST", "/orders", order((PLATE, 1)))
    answers = place_at_once(shop, [event] * 3)
    assert statuses(answers) == [200, 200, 201]
    assert len({got.json()["body"] for got in answers}) == 1
    assert (stock(shop, PLATE), count(shop, "orders")) == (79, 1)


def test_orders_lock_products_in_the_order_of_their_ids(shop: LocalDatabase) -> None:
    """The same products named the other way round: they wait for each other, none deadlocks."""
    lines = [(PLATE, 1), (TEAPOT, 1)]
    events = [
        request("POST", "/orders", order(*lines[:: 1 if n % 2 else -1]), key=f"buyer-{n:04}")
        for n in range(3)
    ]
    answers = place_at_once(shop, events)
    assert statuses(answers) == [201] * 3
    assert not any("TransactionRetries" in got.log for got in answers)
    assert (stock(shop, PLATE), stock(shop, TEAPOT)) == (77, 9)


def test_a_deadlock_is_run_again_as_a_whole(shop: LocalDatabase) -> None:
    """The order is rolled back with its key, and still there in the end, key and all."""
    shop.execute("START TRANSACTION")
    # InnoDB rolls back who has changed fewer rows: that must not be us.
    values = ", ".join(["('Bob')"] * 50)
    shop.execute(f"INSERT INTO orders (customer) VALUES {values}")
    shop.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", TEAPOT)

    def close_the_circle() -> None:
        wait_until(
            lambda: any("FROM products WHERE id IN" in (s.info or "") for s in shop.sessions())
        )
        time.sleep(0.1)  # it holds the plate now, and waits for the teapot
        shop.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", PLATE)
        shop.execute("ROLLBACK")

    event = request("POST", "/orders", order((PLATE, 1), (TEAPOT, 2)))
    [got] = at_once(shop, "orders_api", [event], meanwhile=close_the_circle)
    assert (got.status, got.json().get("statusCode")) == ("ok", 201), got.log
    assert "TransactionRetries" in got.log
    assert (stock(shop, PLATE), stock(shop, TEAPOT)) == (79, 10)
    assert [count(shop, table) for table in ("orders", "order_lines", "idempotency_keys")] == [
        1,
        2,
        1,
    ]


def wait_until(true: Any, seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


# ── When the database cannot ──────────────────────────────────────────────────────────────────


def test_a_full_database_is_503_with_retry_after(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    shop.execute("ALTER USER application WITH MAX_USER_CONNECTIONS 1")
    with held_connections(shop.application_environ()):
        got = app.lambda_handler(request("GET", "/products"), context(1.2))
    assert got["statusCode"] == 503
    assert int(got["headers"]["Retry-After"]) >= 1
    assert "try again" in json.loads(got["body"])["message"]


def test_a_lock_held_too_long_is_503_and_changes_nothing(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    shop.execute("START TRANSACTION")
    shop.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", PLATE)
    status, _ = answer(app, request("POST", "/orders", order((PLATE, 1))), seconds=1.5)
    assert (status, shop.sessions()) == (503, [])
    shop.execute("ROLLBACK")
    assert [count(shop, table) for table in ("orders", "idempotency_keys")] == [0, 0]


def test_a_session_lost_before_commit_is_503_and_the_same_request_succeeds(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    event = request("POST", "/orders", order((PLATE, 1)))
    shop.execute("START TRANSACTION")
    shop.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", PLATE)

    def end_it() -> None:
        wait_until(lambda: any("FOR UPDATE" in (s.info or "") for s in shop.sessions()))
        shop.execute(f"KILL {shop.sessions()[0].id}")

    killer = threading.Thread(target=end_it)
    killer.start()
    got = app.lambda_handler(event, context())
    killer.join()
    shop.execute("ROLLBACK")
    assert (got["statusCode"], got["headers"]["Retry-After"]) == (503, "1")
    assert [count(shop, table) for table in ("orders", "idempotency_keys")] == [0, 0]
    assert answer(app, event)[0] == 201


def test_a_commit_of_unknown_outcome_asks_for_the_same_key_again(
    app: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise CommitOutcomeUnknownError("the connection was lost during COMMIT")

    monkeypatch.setattr(app, "place_order", lost)
    status, problem = answer(app, request("POST", "/orders", order((PLATE, 1))))
    assert status == 503
    assert "same Idempotency-Key" in problem["message"]


def test_a_bug_is_an_error_of_the_function(app: types.ModuleType) -> None:
    """Not a 500 of ours: Lambda counts it, the alarm sees it, API Gateway answers 500."""
    with fake(app.database) as server:
        server.answer("FROM products", error=pymysql.err.ProgrammingError(1146, "no such table"))
        with pytest.raises(pymysql.err.ProgrammingError):
            app.lambda_handler(request("GET", "/products"), context())


def test_an_answer_that_breaks_its_own_schema_is_an_error_of_the_function(
    app: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "Product", lambda **row: row["name"])
    with pytest.raises(ResponseValidationError):
        app.lambda_handler(request("GET", "/products"), context())


@pytest.mark.parametrize(
    "event", [{}, [], None, "ping", {"version": "1.0", "path": "/products", "requestContext": {}}]
)
def test_an_event_of_something_else_is_refused_with_a_sentence(event: Any) -> None:
    app = load_function("orders_api")
    with pytest.raises(app.InvalidEventError, match=r"not an event of an HTTP API in payload"):
        app.lambda_handler(event, context())
