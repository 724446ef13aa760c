"""Customers: each orders again and again, with the same key until it has an answer."""

import asyncio
import copy
import json
import random
from typing import Any

from lab.soak.ledger import Ledger, Patience, Wish
from lab.soak.stage import Stage
from local.environment import Answer
from local.events import read_event

PRODUCTS = range(1, 21)
NO_PRODUCT = 999
SCARCE = 4  # of which orders are refused now and then
CREATED, OK, CONFLICT, UNPROCESSABLE, UNAVAILABLE = 201, 200, 409, 422, 503
# Seconds after the last order was begun in which it must have its answer.
PATIENCE = 60.0
# A client waits for as long as Retry-After says, up to this: recovery is what is measured here.
LONGEST_PAUSE = 1.0


class Customer:
    """One who orders; what is ordered is decided by the seed alone, not by what happens."""

    def __init__(self, number: int, seed: int, stage: Stage, ledger: Ledger) -> None:
        self.name = f"customer-{number}"
        self._chance = random.Random(f"customer/{seed}/{number}")
        self._jitter = random.Random()
        self._stage = stage
        self._ledger = ledger
        self._event = read_event("place", "orders_api")

    async def run(self, seconds: float) -> None:
        """Order until then, and see the last order through."""
        number = 0
        while self._stage.now < seconds:
            number += 1
            await self._order(number)
            await asyncio.sleep(self._jitter.uniform(0.0, 0.12))

    async def _order(self, number: int) -> None:
        chance = self._chance
        lines = {chance.choice(PRODUCTS): chance.randint(1, 5) for _ in range(chance.randint(1, 3))}
        if impossible := chance.random() < 0.02:
            lines[NO_PRODUCT] = 1
        twice, habit = chance.random() < 0.08, chance.random()
        wish = Wish(f"{self.name}/order-{number:06}", f"{self.name} no. {number}", lines)
        self._ledger.wishes[wish.key] = wish
        answers = await asyncio.gather(*(self._ask(wish) for _ in range(2 if twice else 1)))
        orders = [order for status, order in answers if status in {OK, CREATED}]
        for order in orders:
            self._ledger.place(wish, order)
        if orders and impossible:
            self._ledger.complaints.append(f"{wish.key} of a product that there is not was placed")
        if not orders and all(status in {CONFLICT, UNPROCESSABLE} for status, _ in answers):
            self._ledger.refused.add(wish.key)
            if not impossible and any(status == UNPROCESSABLE for status, _ in answers):
                self._ledger.complaints.append(f"{wish.key} was refused: {answers}")
        elif orders:
            await self._look_again(wish, orders[0], habit)

    async def _look_again(self, wish: Wish, order: dict[str, Any], habit: float) -> None:
        """What some clients do after an order: send it again, misuse its key, look at it."""
        if habit < 0.08:
            status, again = await self._ask(wish)
            if status != OK:
                self._ledger.complaints.append(f"{wish.key} sent again was answered {status}")
            else:
                self._ledger.place(wish, again)
        elif habit < 0.12:
            other = Wish(wish.key, f"{wish.customer}, changed", wish.lines)
            status, _ = await self._ask(other)
            if status != UNPROCESSABLE:
                self._ledger.complaints.append(f"{wish.key} with other contents: {status}")
        elif habit < 0.25:
            status, seen = await self._until_answered("GET", f"/orders/{order['id']}", None, "")
            if (status, seen) != (OK, order):
                self._ledger.complaints.append(f"{wish.key} looked at: {status} {seen}")
        elif habit < 0.35:
            await self._until_answered("GET", "/products", None, "")

    async def _ask(self, wish: Wish) -> tuple[int, Any]:
        lines = [{"product_id": p, "quantity": n} for p, n in sorted(wish.lines.items())]
        body = json.dumps({"customer": wish.customer, "lines": lines})
        # Each caller has keys of its own: they may well choose the same.
        return await self._until_answered("POST", "/orders", body, wish.key.rpartition("/")[2])

    async def _until_answered(
        self, method: str, path: str, body: str | None, key: str
    ) -> tuple[int, Any]:
        """Status and body of the first answer that decides; 0 where there is none in the end."""
        stage, began, attempts = self._stage, self._stage.now, 0
        event = self._request(method, path, body, key)
        while stage.now < began + PATIENCE:
            attempts += 1
            answer = await stage.invoke("orders_api", event, self.name)
            status, content, pause = _read(answer)
            if 0 < status < 500:
                self._ledger.patience.append(Patience(attempts, stage.now - began))
                return status, content
            await asyncio.sleep(pause * self._jitter.uniform(0.5, 1.0))
        self._ledger.complaints.append(f"{method} {path} {key} had no answer in {PATIENCE:.0f} s")
        return 0, None

    def _request(self, method: str, path: str, body: str | None, key: str) -> dict[str, Any]:
        event: dict[str, Any] = copy.deepcopy(self._event)
        event["rawPath"] = path
        event["pathParameters"] = {"proxy": path.strip("/")}
        context = event["requestContext"]
        context["http"] |= {"method": method, "path": path}
        context["authorizer"]["iam"] |= {
            "callerId": f"AROAEXAMPLEID:{self.name}",
            "userArn": f"arn:aws:sts::123456789012:assumed-role/{self.name}/session",
            "userId": f"AROAEXAMPLEID:{self.name}",
        }
        event["headers"].pop("content-length", None)
        if body is None:
            for name in ("content-type", "idempotency-key"):
                event["headers"].pop(name, None)
            event.pop("body", None)
        else:
            event["headers"]["idempotency-key"] = key
            event["body"] = body
        return event


def _read(answer: Answer | None) -> tuple[int, Any, float]:
    """Status, content, and seconds to wait where neither decides; the status of an error is 0."""
    if answer is None or answer.status != "ok":
        return 0, None, 0.2
    response = answer.json()
    headers = {name.lower(): value for name, value in (response.get("headers") or {}).items()}
    pause = min(LONGEST_PAUSE, float(headers.get("retry-after", 0.2)))
    try:
        return response["statusCode"], json.loads(response.get("body") or "null"), pause
    except ValueError:
        return response["statusCode"], response["body"], pause
