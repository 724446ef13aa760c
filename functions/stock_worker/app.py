"""Books suppliers' deliveries from a queue into stock, each exactly once.

SQS delivers a message at least once, and a supplier may send a delivery twice. So each delivery is
written to an inbox in the same transaction as the stock it brings: seen before, it changes nothing.
"""

from functools import partial
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.parser.models import SqsRecordModel
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, Field, Json
from single_connection import Cursor, Database

logger = Logger()
database = Database.from_environment()


class Delivery(BaseModel):
    """So many of a product have arrived; `delivery_id` is the supplier's, and its identity."""

    delivery_id: str = Field(max_length=64, pattern=r"^[!-~]+$")
    product_id: int = Field(strict=True, gt=0, lt=2**32)
    quantity: int = Field(strict=True, gt=0, le=1_000_000)


class DeliveryMessage(SqsRecordModel):
    """A message whose body is a delivery as JSON."""

    body: Json[Delivery]


# A message that fails goes back to the queue alone, and after some receives to the dead letters.
# A whole batch that fails is no different: raising would only hide which messages they were.
processor = BatchProcessor(
    event_type=EventType.SQS,
    model=DeliveryMessage,
    raise_on_entire_batch_failure=False,
    logger=logger,  # type: ignore[arg-type]  # Powertools means its own Logger here
)


@logger.inject_lambda_context
@database.invocation
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """One connection for the batch, a transaction per message; answers with those that failed.

    Each message has its share of the time: one that meets a locked row holds up no other.
    """
    messages = event.get("Records") if isinstance(event, dict) else None
    share = context.get_remaining_time_in_millis() / 1000 / len(messages or [None])
    return process_partial_response(
        event=event,
        record_handler=partial(book_message, seconds=max(1, int(share))),
        processor=processor,
        context=context,
    )


class UnknownProductError(Exception):
    """A delivery names a product that the shop does not have."""


class DeliveryConflictError(Exception):
    """A delivery_id came twice with different contents."""


def book_message(record: DeliveryMessage, seconds: int) -> None:
    """Book one message's delivery, waiting for a row or a table for so many seconds at most."""
    delivery: Delivery = record.body
    # Not run again as @database.transactional would: a message that fails comes back by itself.
    with database.transaction() as cursor:
        cursor.execute(
            "SET SESSION innodb_lock_wait_timeout = %s, lock_wait_timeout = %s", (seconds, seconds)
        )
        booked = book(cursor, delivery)
    logger.info("Booked" if booked else "Booked before", extra=delivery.model_dump())


def book(cursor: Cursor, delivery: Delivery) -> bool:
    """Whether the delivery was new; then its stock has grown."""
    # Locks the product first: two copies of one delivery are booked one after the other.
    cursor.execute("SELECT id FROM products WHERE id = %s FOR UPDATE", (delivery.product_id,))
    if cursor.fetchone() is None:
        raise UnknownProductError(
            f"delivery {delivery.delivery_id} is of product {delivery.product_id}, which does not "
            "exist: add the product, then redrive the message from the dead-letter queue"
        )
    cursor.execute(
        "SELECT product_id, quantity FROM stock_inbox WHERE delivery_id = %s",
        (delivery.delivery_id,),
    )
    seen = cursor.fetchone()
    if seen is not None:
        if seen != delivery.model_dump(include={"product_id", "quantity"}):
            raise DeliveryConflictError(
                f"delivery {delivery.delivery_id} was booked as {seen['quantity']} of product "
                f"{seen['product_id']}, and now says {delivery.quantity} of {delivery.product_id}: "
                "ask the supplier which is right"
            )
        return False
    cursor.execute(
        "INSERT INTO stock_inbox (delivery_id, product_id, quantity) VALUES (%s, %s, %s)",
        (delivery.delivery_id, delivery.product_id, delivery.quantity),
    )
    cursor.execute(
        "UPDATE products SET stock = stock + %s WHERE id = %s",
        (delivery.quantity, delivery.product_id),
    )
    return True
