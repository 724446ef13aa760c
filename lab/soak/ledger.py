"""What the outside world knows: what was asked for, what was acknowledged, what was refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Wish:
    """An order as a customer means it: `lines` is quantity by product."""

    key: str
    customer: str
    lines: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Patience:
    """What it took until an order was answered: attempts, and seconds in all."""

    attempts: int
    seconds: float


@dataclass(slots=True)
class Ledger:
    """Kept by the clients, compared with the database's books at the end.

    Attributes:
        wishes: every order asked for, by its idempotency key.
        placed: the answer to those that were acknowledged, by key.
        refused: keys of orders that were refused for good: they must have left nothing.
        sent: every delivery by its id, as product and quantity; broken ones are not among them.
        booked: ids of deliveries that were acknowledged.
        complaints: what a client saw and must not have seen, a sentence each.
    """

    wishes: dict[str, Wish] = field(default_factory=dict)
    placed: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    booked: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    patience: list[Patience] = field(default_factory=list)

    def place(self, wish: Wish, order: dict[str, Any]) -> None:
        """Enter an acknowledgement; a second one must be of the same order, and what was wished."""
        first = self.placed.setdefault(wish.key, order)
        if first["id"] != order["id"]:
            self.complaints.append(
                f"order {wish.key} was acknowledged as {first['id']} and again as {order['id']}"
            )
        if lines_of(order) != dict(wish.lines) or order["customer"] != wish.customer:
            self.complaints.append(
                f"order {wish.key} was acknowledged with other contents: {order}"
            )


def lines_of(order: Mapping[str, Any]) -> dict[int, int]:
    """Quantity by product of an order as the API answers it."""
    return {line["product_id"]: line["quantity"] for line in order["lines"]}
