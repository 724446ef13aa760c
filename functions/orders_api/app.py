"""The shop's HTTP API: products, and orders that take their stock in one transaction.

POST /orders needs an `Idempotency-Key` header. The key is written in the order's own transaction,
so a client that got no answer asks again with the same key and never orders twice.
"""

import hashlib
import math
from collections import Counter
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import NotFoundError, ServiceError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Header, Query
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, Field
from pymysql.cursors import DictCursor
from single_connection import (
    CommitOutcomeUnknownError,
    Database,
    DatabaseBusyError,
    DeadlineError,
)

logger = Logger()
database = Database.from_environment()
app = APIGatewayHttpResolver(
    enable_validation=True,
    # An answer of ours that breaks its own schema is our fault, not the client's.
    response_validation_error_http_code=HTTPStatus.INTERNAL_SERVER_ERROR,
)
app.configure_openapi(title="Shop", version="1.0.0", description="Products and orders.")


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@database.invocation
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request of an HTTP API, payload format 2.0."""
    return app.resolve(event, context)


# ── What goes in and out ──────────────────────────────────────────────────────────────────────


class Product(BaseModel):
    """Something the shop sells."""

    id: int
    name: str
    price_cents: int
    stock: int


class OrderLine(BaseModel):
    """How many of one product. The bounds keep every sum far from the columns' limits."""

    product_id: int = Field(gt=0, lt=2**32)
    quantity: int = Field(gt=0, le=1_000)


class NewOrder(BaseModel):
    """What a customer asks for."""

    customer: str = Field(min_length=1, max_length=200)
    lines: list[OrderLine] = Field(min_length=1, max_length=100)


class PricedLine(OrderLine):
    """A line at the price that was paid."""

    price_cents: int


class Order(BaseModel):
    """An order as it was placed; `placed_at` is UTC."""

    id: int
    customer: str
    placed_at: datetime
    lines: list[PricedLine]
    total_cents: int


# Printable, no spaces: a UUID, or an identifier of the client's own.
IdempotencyKey = Annotated[
    str, Header(alias="Idempotency-Key", min_length=8, max_length=64, pattern=r"^[!-~]+$")
]


# ── Routes ────────────────────────────────────────────────────────────────────────────────────


@app.get("/products")
def list_products(
    after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=100)] = 50
) -> list[Product]:
    """The products whose id is greater than `after`, at most `limit` of them."""
    with database.connection().cursor(DictCursor) as cursor:  # one query needs no transaction
        cursor.execute(
            "SELECT id, name, price_cents, stock FROM products WHERE id > %s ORDER BY id LIMIT %s",
            (after, limit),
        )
        return [Product(**row) for row in cursor.fetchall()]


@app.get("/products/<product_id>")
def get_product(product_id: int) -> Product:
    """One product."""
    with database.connection().cursor(DictCursor) as cursor:
        cursor.execute(
            "SELECT id, name, price_cents, stock FROM products WHERE id = %s", (product_id,)
        )
        row = cursor.fetchone()
    if row is None:
        raise NotFoundError(f"There is no product {product_id}.")
    return Product(**row)


@app.get("/orders/<order_id>")
def get_order(order_id: int) -> Order:
    """One order."""
    with database.transaction() as cursor:
        return read_order(cursor, order_id)


@app.post("/orders", status_code=HTTPStatus.CREATED)
def post_order(order: NewOrder, idempotency_key: IdempotencyKey) -> Response[Order]:
    """Place an order: 201; 200 with the same order if this key has placed it before."""
    placed, is_new = place_order(order, idempotency_key)
    return Response(
        status_code=HTTPStatus.CREATED if is_new else HTTPStatus.OK,
        content_type=content_types.APPLICATION_JSON,
        headers={"Location": f"/orders/{placed.id}"},
        body=placed,
    )


@app.get("/openapi.json", include_in_schema=False)
def get_openapi() -> Response[str]:
    """The API, described for machines."""
    return Response(
        status_code=HTTPStatus.OK,
        content_type=content_types.APPLICATION_JSON,
        body=app.get_openapi_json_schema(),
    )


# ── The transaction ───────────────────────────────────────────────────────────────────────────


@database.transactional
def place_order(cursor: DictCursor, order: NewOrder, idempotency_key: str) -> tuple[Order, bool]:
    """The order of this key, and whether it was placed just now; all of it or nothing.

    A refused order is rolled back with its key, so the same key may succeed later.
    """
    request_hash = hashlib.sha256(order.model_dump_json().encode()).hexdigest()
    # Claims the key. The same key at work elsewhere makes this wait for that transaction's end.
    cursor.execute(
        "INSERT INTO idempotency_keys (idempotency_key, request_hash) VALUES (%s, %s)"
        " ON DUPLICATE KEY UPDATE order_id = order_id",
        (idempotency_key, request_hash),
    )
    cursor.execute(
        "SELECT request_hash, order_id FROM idempotency_keys WHERE idempotency_key = %s FOR UPDATE",
        (idempotency_key,),
    )
    claim = cursor.fetchone()
    if claim["request_hash"] != request_hash:
        raise ServiceError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another order. Use a new key for a new order.",
        )
    if claim["order_id"] is not None:
        return read_order(cursor, claim["order_id"]), False

    order_id = take_stock_and_insert(cursor, order)
    cursor.execute(
        "UPDATE idempotency_keys SET order_id = %s WHERE idempotency_key = %s",
        (order_id, idempotency_key),
    )
    return read_order(cursor, order_id), True


def take_stock_and_insert(cursor: DictCursor, order: NewOrder) -> int:
    """The id of the new order, whose stock is taken; refused if a product is missing or short."""
    wanted: Counter[int] = Counter()
    for line in order.lines:  # two lines of one product are one
        wanted[line.product_id] += line.quantity
    # Locked in the order of their ids, always: two orders of the same products wait for each other
    # instead of deadlocking.
    cursor.execute(
        "SELECT id, name, price_cents, stock FROM products WHERE id IN %s ORDER BY id FOR UPDATE",
        (list(wanted),),
    )
    products = {row["id"]: row for row in cursor.fetchall()}
    for product_id, quantity in sorted(wanted.items()):
        if product_id not in products:
            raise ServiceError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"There is no product {product_id}."
            )
        product = products[product_id]
        if product["stock"] < quantity:
            raise ServiceError(
                HTTPStatus.CONFLICT,
                f"Only {product['stock']} of {product['name']!r} left, {quantity} wanted.",
            )
    cursor.execute("INSERT INTO orders (customer) VALUES (%s)", (order.customer,))
    order_id: int = cursor.lastrowid
    cursor.executemany(
        "INSERT INTO order_lines (order_id, product_id, quantity, price_cents)"
        " VALUES (%s, %s, %s, %s)",
        [(order_id, id_, n, products[id_]["price_cents"]) for id_, n in sorted(wanted.items())],
    )
    cursor.executemany(
        "UPDATE products SET stock = stock - %s WHERE id = %s",
        [(n, id_) for id_, n in sorted(wanted.items())],
    )
    return order_id


def read_order(cursor: DictCursor, order_id: int) -> Order:
    """The order as the database has it; `NotFoundError` (404) if it has not."""
    cursor.execute("SELECT id, customer, placed_at FROM orders WHERE id = %s", (order_id,))
    order = cursor.fetchone()
    if order is None:
        raise NotFoundError(f"There is no order {order_id}.")
    cursor.execute(
        "SELECT product_id, quantity, price_cents FROM order_lines"
        " WHERE order_id = %s ORDER BY product_id",
        (order_id,),
    )
    lines = [PricedLine(**row) for row in cursor.fetchall()]
    total_cents = sum(line.quantity * line.price_cents for line in lines)
    return Order(**order, lines=lines, total_cents=total_cents)


# ── Errors: one clear sentence under "message" ────────────────────────────────────────────────
# What is not caught here is a bug: Lambda counts it as an error, API Gateway answers 500.


def problem(status: int, message: str, retry_after: float | None = None) -> Response[Any]:
    """An error's answer; `retry_after` in seconds."""
    return Response(
        status_code=status,
        content_type=content_types.APPLICATION_JSON,
        headers={} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))},
        body={"message": message},
    )


@app.exception_handler(ServiceError)
def refuse(error: ServiceError) -> Response[Any]:
    """What a route refused, or a route that there is not."""
    return problem(error.status_code, str(error.msg))


@app.exception_handler(RequestValidationError)
def refuse_input(error: RequestValidationError) -> Response[Any]:
    """Every problem of the request at once, each with its place."""
    problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(problems))


@app.exception_handler([DatabaseBusyError, DeadlineError])
def ask_to_retry(error: DatabaseBusyError | DeadlineError) -> Response[Any]:
    """The database is full or slow; nothing was written."""
    logger.warning("Answered 503", exc_info=error)
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The shop is very busy. Nothing was changed; try again shortly.",
        retry_after=getattr(error, "retry_after", 1),
    )


@app.exception_handler(CommitOutcomeUnknownError)
def ask_to_retry_with_the_same_key(error: CommitOutcomeUnknownError) -> Response[Any]:
    """The connection broke during COMMIT: only the key can tell whether the order was placed."""
    logger.error("Commit outcome unknown", exc_info=error)
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "It is unknown whether the order was placed. Send it again with the same Idempotency-Key: "
        "that is safe, and answers with the order.",
        retry_after=1,
    )
