"""The audit: the database's books against what the outside world knows.

Asked as an observer whom nothing of the product concerns. Each finding is a sentence; none is what
must be.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.soak.customers import PRODUCTS, SCARCE
from lab.soak.ledger import Ledger
from lab.soak.recomputed import wrong_in_report
from local.database import LocalDatabase

# How many days of history the shop opens with: more than the report's window of seven.
HISTORY_DAYS = 9


@dataclass(frozen=True, slots=True)
class Opening:
    """What was there before the first customer: stock by product, the last order's id."""

    stock: Mapping[int, int]
    last_order: int


def open_shop(database: LocalDatabase) -> Opening:
    """Fill the shelves, and write the history that the report looks back on."""
    for product in PRODUCTS:
        database.execute(
            "INSERT INTO products (id, name, price_cents, stock) VALUES (%s, %s, %s, %s)"
            " ON DUPLICATE KEY UPDATE stock = %s",
            *(product, f"Product {product}", 100 * product + 1),
            *[25 if product == SCARCE else 100_000] * 2,
        )
    for day in range(1, HISTORY_DAYS + 1):
        database.execute(
            "INSERT INTO orders (customer, placed_at) VALUES"
            " ('history', UTC_TIMESTAMP(3) - INTERVAL %s DAY)",
            day,
        )
        database.execute(
            "INSERT INTO order_lines (order_id, product_id, quantity, price_cents)"
            " SELECT MAX(orders.id), products.id, %s, price_cents FROM orders, products"
            " WHERE products.id %% 3 = %s GROUP BY products.id, price_cents",
            *(day, day % 3),
        )
    [last] = database.execute("SELECT MAX(id) AS id FROM orders")
    rows = database.execute("SELECT id, stock FROM products")
    return Opening({row["id"]: row["stock"] for row in rows}, last["id"])


def audit(database: LocalDatabase, ledger: Ledger, opening: Opening) -> list[str]:
    """All that is wrong in the books of a shop where nobody is at work any more."""
    return [
        *_stock(database, opening),
        *_orders(database, ledger, opening),
        *_keys(database, ledger),
        *_deliveries(database, ledger),
        *wrong_in_report(database),
    ]


def _stock(database: LocalDatabase, opening: Opening) -> Iterator[str]:
    applied = _sums(database, "SELECT product_id, SUM(quantity) AS n FROM stock_inbox GROUP BY 1")
    ordered = _sums(
        database,
        "SELECT product_id, SUM(quantity) AS n FROM order_lines WHERE order_id > %s GROUP BY 1",
        opening.last_order,
    )
    for row in database.execute("SELECT id, stock FROM products ORDER BY id"):
        product, stock = row["id"], row["stock"]
        initial = opening.stock.get(product, 0)
        if stock != initial + applied[product] - ordered[product]:
            yield (
                f"stock of product {product} is {stock} and should be {initial} + "
                f"{applied[product]} delivered - {ordered[product]} ordered"
            )


def _sums(database: LocalDatabase, query: str, *arguments: object) -> Counter[int]:
    rows = database.execute(query, *arguments)
    return Counter({row["product_id"]: int(row["n"]) for row in rows})


def _orders(database: LocalDatabase, ledger: Ledger, opening: Opening) -> Iterator[str]:
    there = _orders_there(database, opening)
    wishes = {wish.customer: wish for wish in ledger.wishes.values()}
    for customer, orders in there.items():
        if customer not in wishes:
            yield f"order {min(orders)} of {customer!r} was never asked for"
        elif len(orders) > 1:
            yield f"order {wishes[customer].key} was placed {len(orders)} times: {sorted(orders)}"
        elif (lines := next(iter(orders.values()))) != dict(wishes[customer].lines):
            yield f"order {wishes[customer].key} has the lines {lines}"
    for key, order in ledger.placed.items():
        if order["id"] not in there[ledger.wishes[key].customer]:
            yield f"order {key} was acknowledged as {order['id']} and is not there"
    for key in sorted(ledger.refused):
        if orders := there[ledger.wishes[key].customer]:
            yield f"order {key} was refused and is there as {sorted(orders)}"


def _orders_there(
    database: LocalDatabase, opening: Opening
) -> dict[str, dict[int, dict[int, int]]]:
    """Quantity by product, by the order's id, by what the customer called it."""
    there: dict[str, dict[int, dict[int, int]]] = defaultdict(dict)
    for row in database.execute(
        "SELECT id, customer, product_id, quantity FROM orders"
        " LEFT JOIN order_lines ON order_id = id WHERE id > %s",
        opening.last_order,
    ):
        lines = there[row["customer"]].setdefault(row["id"], {})
        if row["product_id"] is not None:
            lines[row["product_id"]] = row["quantity"]
    return there


def _keys(database: LocalDatabase, ledger: Ledger) -> Iterator[str]:
    rows = database.execute(
        "SELECT CONCAT(SUBSTRING_INDEX(caller, '/', -1), '/', idempotency_key) AS name, order_id"
        " FROM idempotency_keys"
    )
    kept = {row["name"]: row["order_id"] for row in rows}
    for key, order_id in kept.items():
        if order_id is None:
            yield f"key {key} is kept without an order"
        elif key not in ledger.wishes:
            yield f"key {key} was never used by a customer"
    for key, order in ledger.placed.items():
        if kept.get(key) != order["id"]:
            yield f"key {key} leads to order {kept.get(key)}, acknowledged was {order['id']}"
    yield from (f"key {key} of a refused order is kept" for key in ledger.refused & kept.keys())


def _deliveries(database: LocalDatabase, ledger: Ledger) -> Iterator[str]:
    rows = database.execute("SELECT delivery_id AS id, product_id, quantity FROM stock_inbox")
    inbox = {row["id"]: (row["product_id"], row["quantity"]) for row in rows}
    for delivery in sorted(ledger.booked - inbox.keys()):
        yield f"delivery {delivery} was acknowledged and is not there"
    for delivery, contents in inbox.items():
        if ledger.sent.get(delivery) != contents:
            sent = ledger.sent.get(delivery, "never sent")
            yield f"delivery {delivery} was booked as {contents}, sent: {sent}"
