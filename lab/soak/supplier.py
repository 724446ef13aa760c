"""A queue of deliveries as SQS has it: again until acknowledged, twice; some are broken."""

import asyncio
import json
import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from lab.soak.customers import NO_PRODUCT, PRODUCTS
from lab.soak.ledger import Ledger
from lab.soak.stage import Stage
from local.environment import Answer
from local.events import read_event

BATCH = 5
# A broken message goes to the dead letters after so many receives that were answered.
MOST_RECEIVES = 3
DRAINED_WITHIN = 60.0  # seconds after the last message was sent


@dataclass(slots=True)
class Message:
    """One message; `delivery` is its id where it is a good one."""

    number: int
    body: str
    delivery: str | None
    receives: int = 0


class Supplier:
    """Sends deliveries to the queue and lets `pollers` carry them to the function."""

    def __init__(self, seed: int, stage: Stage, ledger: Ledger, *, pollers: int = 2) -> None:
        self._chance = random.Random(f"supplier/{seed}")
        self._jitter = random.Random()
        self._stage = stage
        self._ledger = ledger
        self._pollers = pollers
        self._queue: deque[Message] = deque()
        self._away = 0
        self._messages = 0
        record = read_event("deliveries", "stock_worker")["Records"][0]
        self._record: dict[str, Any] = record

    async def run(self, seconds: float) -> None:
        """Send until then, and see that all of it is acknowledged."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(seconds))
            for number in range(self._pollers):
                group.create_task(self._poll(seconds, f"poller-{number}"))
        if missing := self._ledger.sent.keys() - self._ledger.booked:
            self._ledger.complaints.append(
                f"{len(missing)} deliveries were never acknowledged, {min(missing)} the first"
            )

    async def _send(self, seconds: float) -> None:
        number = 0
        while self._stage.now < seconds:
            if len(self._queue) < 4 * BATCH:
                number += 1
                self._make(f"D-{number:06}")
            await asyncio.sleep(0.02)

    def _make(self, delivery: str) -> None:
        chance = self._chance
        product, quantity, kind = chance.choice(PRODUCTS), chance.randint(1, 9), chance.random()
        body = json.dumps({"delivery_id": delivery, "product_id": product, "quantity": quantity})
        if kind < 0.06:
            broken = (
                body[:-1],
                json.dumps({"delivery_id": delivery, "product_id": product, "quantity": 0}),
                json.dumps({"delivery_id": delivery, "product_id": NO_PRODUCT, "quantity": 1}),
                json.dumps({"product_id": product, "quantity": quantity}),
            )
            self._put(chance.choice(broken), None)
            return
        self._ledger.sent[delivery] = (product, quantity)
        for _ in range(2 if kind < 0.16 else 1):
            self._put(body, delivery)

    def _put(self, body: str, delivery: str | None) -> None:
        self._messages += 1
        self._queue.append(Message(self._messages, body, delivery))

    async def _poll(self, seconds: float, name: str) -> None:
        stage = self._stage
        while stage.now < seconds + DRAINED_WITHIN:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            if not batch:
                if stage.now > seconds and not self._away:
                    return
                await asyncio.sleep(0.05)
                continue
            self._away += 1
            try:
                records = [self._as_record(message) for message in batch]
                answer = await stage.invoke("stock_worker", {"Records": records}, name)
                failed = _failed(answer)
                for message in batch:
                    self._receive(message, failed, repeat=stage.now < seconds)
                await asyncio.sleep(self._jitter.uniform(0.05, 0.2))
            finally:
                self._away -= 1

    def _receive(self, message: Message, failed: set[str] | None, *, repeat: bool) -> None:
        """What becomes of a message; `failed` is None where the whole invocation failed."""
        if failed is None:
            self._queue.append(message)
        elif _id(message) in failed:
            message.receives += 1
            if message.delivery is not None or message.receives < MOST_RECEIVES:
                self._queue.append(message)
        elif message.delivery is None:
            self._ledger.complaints.append(f"a broken delivery was acknowledged: {message.body}")
        else:
            self._ledger.booked.add(message.delivery)
            if repeat and self._jitter.random() < 0.1:
                self._put(message.body, message.delivery)
            if repeat and self._jitter.random() < 0.04:
                contents = json.loads(message.body)
                contents["quantity"] += 1
                self._put(json.dumps(contents), None)

    def _as_record(self, message: Message) -> dict[str, Any]:
        return {**self._record, "messageId": _id(message), "body": message.body}


def _id(message: Message) -> str:
    return f"19dd0b57-b21e-4ac1-bd88-{message.number:012}"


def _failed(answer: Answer | None) -> set[str] | None:
    """The ids that failed, None for all of them, as SQS reads an answer."""
    if answer is None or answer.status != "ok":
        return None
    return {item["itemIdentifier"] for item in answer.json()["batchItemFailures"]}
