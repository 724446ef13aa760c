"""The shop's HTTP API: products, and orders that take their stock in one transaction.

POST /orders needs an `Idempotency-Key` header. The key is written in the order's own transaction,
so a client that got no answer asks again with the same key and never orders twice. Orders and keys
belong to their caller; another's are not there.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from datetime import UTC
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import NotFoundError, ServiceError
from aws_lambda_powertools.event_handler.openapi.exceptions import (
    RequestValidationError,
    ResponseValidationError,
)
from aws_lambda_powertools.event_handler.openapi.params import Header, Path, Query
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field
from single_connection import Cursor, Database
from single_connection.powertools import answer_unavailable

logger = Logger()
database = Database.from_environment()
app = APIGatewayHttpResolver(
    enable_validation=True,
    # An answer of ours that breaks its own schema is our fault, not the client's: see Errors.
    response_validation_error_http_code=HTTPStatus.INTERNAL_SERVER_ERROR,
)
app.configure_openapi(title="Shop", version="1.0.0", description="Products and orders.")
answer_unavailable(app)


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@database.invocation
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request of an HTTP API, payload format 2.0."""
    if not isinstance(event, dict) or not event.keys() >= {"rawPath", "requestContext"}:
        raise InvalidEventError("this is not an event of an HTTP API in payload format 2.0")
    try:
        readable = with_json_body(event)
    except ServiceError as error:
        return {
            "statusCode": error.status_code,
            "headers": {"Content-Type": content_types.APPLICATION_JSON},
            "body": json.dumps({"message": error.msg}),
        }
    return app.resolve(readable, context)


# ── What goes in and out ──────────────────────────────────────────────────────────────────────


class Product(BaseModel):
    """Something the shop sells."""

    id: int
    name: str
    price_cents: int
    stock: int


# Strict: JSON's true, "10" and 1e6 are no numbers of things.
class OrderLine(BaseModel):
    """How many of one product. The bounds keep every sum far from the columns' limits."""

    product_id: int = Field(strict=True, gt=0, lt=2**32)
    quantity: int = Field(strict=True, gt=0, le=1_000)


class NewOrder(BaseModel):
    """What a customer asks for."""

    customer: str = Field(min_length=1, max_length=200)
    lines: list[OrderLine] = Field(min_length=1, max_length=100)


class PricedLine(BaseModel):
    """All that was ordered of one product, at the price that was paid."""

    product_id: int
    quantity: int
    price_cents: int


class Order(BaseModel):
    """An order as it was placed."""

    id: int
    customer: str
    placed_at: AwareDatetime
    lines: list[PricedLine]
    total_cents: int


class Problem(BaseModel):
    """Why it was not done, in a sentence."""

    message: str


def in_digits(given: Any) -> Any:
    """What stands in a path or a query for a number; to pydantic "1.0", "+1" and "1_0" do, too."""
    if isinstance(given, str) and not re.fullmatch(r"-?[0-9]+", given):
        raise ValueError("must be a number in digits")
    return given


Id = Annotated[int, BeforeValidator(in_digits), Path()]
After = Annotated[int, Field(ge=0), BeforeValidator(in_digits), Query()]
Limit = Annotated[int, Field(ge=1, le=100), BeforeValidator(in_digits), Query()]
# Printable, no spaces: a UUID, or an identifier of the client's own.
IdempotencyKey = Annotated[
    str, Header(alias="Idempotency-Key", min_length=8, max_length=64, pattern=r"^[!-~]+$")
]


LOCATION = {"Location": {"description": "Its path", "schema": {"type": "string"}}}
RETRY_AFTER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}


def answers(model: Any, *problems: HTTPStatus, created: bool = False) -> dict[int, Any]:
    """For the API's description: what a route answers, and the ways in which it may not."""

    def answer(status: int, model: Any, headers: dict[str, Any]) -> dict[str, Any]:
        content = {content_types.APPLICATION_JSON: {"model": model}}
        return {"description": HTTPStatus(status).phrase, "headers": headers, "content": content}

    described = {int(s): answer(s, Problem, {}) for s in (*problems, 422, 500)}
    described[503] = answer(503, Problem, RETRY_AFTER)
    for status in (200, 201) if created else (200,):
        described[status] = answer(status, model, LOCATION if created else {})
    return described


# ── Routes ────────────────────────────────────────────────────────────────────────────────────


@app.get("/products", responses=answers(list[Product]))
def list_products(after: After = 0, limit: Limit = 50) -> list[Product]:
    """The products whose id is greater than `after`, at most `limit` of them."""
    with database.cursor() as cursor:  # one query needs no transaction
        cursor.execute(
            "SELECT id, name, price_cents, stock FROM products WHERE id > %s ORDER BY id LIMIT %s",
            (after, limit),
        )
        return [Product(**row) for row in cursor.fetchall()]


@app.get("/products/<product_id>", responses=answers(Product, HTTPStatus.NOT_FOUND))
def get_product(product_id: Id) -> Product:
    """One product."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT id, name, price_cents, stock FROM products WHERE id = %s", (product_id,)
        )
        row = cursor.fetchone()
    if row is None:
        raise NotFoundError(f"There is no product {product_id}.")
    return Product(**row)


@app.get("/orders/<order_id>", responses=answers(Order, HTTPStatus.NOT_FOUND))
def get_order(order_id: Id) -> Order:
    """One order of the caller's."""
    with database.transaction() as cursor:
        return read_order(cursor, order_id, caller())


@app.post(
    "/orders",
    status_code=HTTPStatus.CREATED,
    responses=answers(
        Order,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        created=True,
    ),
)
def post_order(order: NewOrder, idempotency_key: IdempotencyKey) -> Response[Order]:
    """Place an order: 201; 200 with the same order if this key has placed it before."""
    placed, is_new = place_order(order, caller(), idempotency_key)
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


# ── Who asks ──────────────────────────────────────────────────────────────────────────────────

# An API without IAM, as on one's own machine, has one caller. No ARN looks like this.
UNSIGNED = "unsigned"


def caller() -> str:
    """The IAM user or role that signed the request, or the Cognito identity behind the role.

    A role's sessions are one caller: their names are chosen by whoever assumes it, and change with
    each task or instance, which must still find its orders and repeat its keys.

    Raises:
        UnknownCallerError: Another authorizer than IAM let the caller in.
    """
    authorizer = app.current_event["requestContext"].get("authorizer")
    if not authorizer:
        return UNSIGNED
    iam = authorizer.get("iam") or {}
    if cognito := iam.get("cognitoIdentity"):
        return str(cognito["identityId"])  # all who signed in have one role in common
    arn = str(iam.get("userArn") or "")
    if not arn:  # or all whom another authorizer lets in would be one caller
        raise UnknownCallerError("the authorizer is not IAM: let caller() say who its caller is")
    role, _, _session = arn.rpartition("/")
    return role if ":assumed-role/" in arn else arn


# ── The transaction ───────────────────────────────────────────────────────────────────────────


@database.transactional
def place_order(
    cursor: Cursor, order: NewOrder, caller: str, idempotency_key: str
) -> tuple[Order, bool]:
    """The order of this caller's key, and whether it was placed just now; all of it or nothing.

    A refused order is rolled back with its key, so the same key may succeed later.
    """
    request_hash = hashlib.sha256(order.model_dump_json().encode()).hexdigest()
    # Claims the key. The same key at work elsewhere makes this wait for that transaction's end.
    cursor.execute(
        "INSERT INTO idempotency_keys (caller, idempotency_key, request_hash) VALUES (%s, %s, %s)"
        " ON DUPLICATE KEY UPDATE order_id = order_id",
        (caller, idempotency_key, request_hash),
    )
    cursor.execute(
        "SELECT request_hash, order_id FROM idempotency_keys"
        " WHERE caller = %s AND idempotency_key = %s FOR UPDATE",
        (caller, idempotency_key),
    )
    [claim] = cursor.fetchall()
    if claim["request_hash"] != request_hash:
        raise ServiceError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another order. Use a new key for a new order.",
        )
    if claim["order_id"] is not None:
        return read_order(cursor, claim["order_id"], caller), False

    order_id = take_stock_and_insert(cursor, order, caller)
    cursor.execute(
        "UPDATE idempotency_keys SET order_id = %s WHERE caller = %s AND idempotency_key = %s",
        (order_id, caller, idempotency_key),
    )
    return read_order(cursor, order_id, caller), True


def take_stock_and_insert(cursor: Cursor, order: NewOrder, caller: str) -> int:
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
    cursor.execute(
        "INSERT INTO orders (caller, customer) VALUES (%s, %s)", (caller, order.customer)
    )
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


def read_order(cursor: Cursor, order_id: int, caller: str) -> Order:
    """The caller's order as the database has it; `NotFoundError` (404) if there is none of his."""
    cursor.execute(
        "SELECT id, customer, placed_at FROM orders WHERE id = %s AND caller = %s",
        (order_id, caller),
    )
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
    placed_at = order.pop("placed_at").replace(tzinfo=UTC)  # the column is UTC by its default
    return Order(**order, placed_at=placed_at, lines=lines, total_cents=total_cents)


# ── Errors: one clear sentence under "message" ────────────────────────────────────────────────
# What is not caught here is a bug: Lambda counts it as an error, API Gateway answers 500.


class UnknownCallerError(Exception):
    """Somebody was let in, and this function does not know whom."""


class InvalidEventError(ValueError):
    """The function is called by something else than its API, or in another format."""


# Ten times what the largest order takes; reading the 6 MB that Lambda takes costs seconds.
BODY_LIMIT = 65_536


def with_json_body(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its body as plain text of JSON.

    Read here, as Powertools takes a body that is nested too deep, no UTF-8 or of another type for
    a fault of ours.

    Raises:
        ServiceError: 413, 415, or 422 with what is wrong.
    """
    body = event.get("body")
    if not body or event["requestContext"].get("http", {}).get("method") != "POST":
        return event
    headers = event.get("headers") or {}
    given = headers.get("content-type") or content_types.APPLICATION_JSON
    if given.partition(";")[0].strip().lower() != content_types.APPLICATION_JSON:
        raise ServiceError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "body: must be application/json by its content-type"
        )
    if len(body) > BODY_LIMIT:
        raise ServiceError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: must have {BODY_LIMIT} bytes at most"
        )
    try:
        text = (
            base64.b64decode(body, validate=True).decode() if event.get("isBase64Encoded") else body
        )
        json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise ServiceError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"body: is not JSON in UTF-8 that can be read{where}"
        ) from error
    headers = {**headers, "content-type": content_types.APPLICATION_JSON}
    return {**event, "headers": headers, "body": text, "isBase64Encoded": False}


def problem(status: int, message: str) -> Response[Any]:
    """An error's answer."""
    return Response(
        status_code=status,
        content_type=content_types.APPLICATION_JSON,
        body=Problem(message=message).model_dump(),
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


@app.exception_handler(ResponseValidationError)
def be_a_bug(error: ResponseValidationError) -> Response[Any]:
    """Raised on, or Powertools would answer in a form of its own, and no alarm would ring."""
    raise error
