"""What the page can do besides looking: invoke, send many at once, stop and start the database."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from local.events import EVENTS, event_names, read_event
from local.kept import KeptDatabase
from local.runtime_api import PAYLOAD_LIMIT as LAMBDA_LIMIT
from local.serve.events import queue_batch, scheduled
from local.serve.gateway import Request, Response, event_of, message, response_of
from local.serve.journal import Journal
from local.serve.routes import find_route, trigger_of
from local.serve.stack import Outcome, Stack

MOST_AT_ONCE = 500
STATE_SECONDS = 0.25


class UnknownFunctionError(ValueError):
    """The template has no such function."""


class Actions:
    """The stack with its journal, and who acts on it.

    Args:
        stack: the functions and their database.
        journal: where each request is written.
        events: the folder with an event for each case.
    """

    def __init__(self, stack: Stack, journal: Journal, events: Path = EVENTS) -> None:
        self.stack = stack
        self.journal = journal
        self._events = events

    async def handle(self, request: Request) -> Response:
        """Answer a request to the HTTP API, as API Gateway does."""
        await self.stack.check()
        match = find_route(self.stack.routes, request.method, request.path)
        if match is None:
            return message(HTTPStatus.NOT_FOUND)
        event = event_of(request, match, signed=self.stack.signed)
        if len(json.dumps(event)) > LAMBDA_LIMIT:
            return message(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        function = match.route.function
        outcome = await self.stack.invoke(function, event)
        response = _response(outcome, match.route.seconds)
        good = response.status < HTTPStatus.INTERNAL_SERVER_ERROR
        what = f"{request.method} {request.path}"
        self.journal.record(
            function, "http", what, str(response.status), good=good, outcome=outcome
        )
        return response

    async def invoke(self, name: str, event: Any, what: str) -> dict[str, Any]:
        """Invoke a function as its own caller does; a batch's failures count as its failure."""
        if name not in self.stack.functions:
            known = ", ".join(self.stack.functions)
            raise UnknownFunctionError(f"the template has no function {name!r}; it has: {known}")
        trigger = trigger_of(self.stack.functions[name])
        outcome = await self.stack.invoke(name, event)
        status: str = outcome.answer.status if outcome.answer else "throttled"
        if failures := _failures(outcome):
            status = f"{failures} failed"
        good = status == "ok"
        entry = self.journal.record(name, trigger, what, status, good=good, outcome=outcome)
        return {"status": status, "good": good, "answer": entry.answer, "log": entry.log}

    async def send_many(self, request: Request, count: int) -> dict[str, int]:
        """The same request, `count` times at once; how many got which status."""
        responses = await asyncio.gather(
            *(self.handle(request) for _ in range(min(count, MOST_AT_ONCE)))
        )
        statuses: dict[str, int] = {}
        for response in responses:
            statuses[str(response.status)] = statuses.get(str(response.status), 0) + 1
        return statuses

    async def set_database(self, *, running: bool) -> None:
        """Stop the database or start it again, with its data."""
        database = self.stack.database
        if not running:
            await asyncio.to_thread(
                database.stop if isinstance(database, KeptDatabase) else database.kill
            )
            self.journal.tell("The database is stopped: what needs it waits, and then gets a 503")
            return
        await asyncio.to_thread(database.restart)
        self.journal.tell("The database is running again")

    def offers(self) -> list[dict[str, Any]]:
        """Each function with its events: those in events/, and one made now."""
        offered = []
        for function in self.stack.functions.values():
            events = {}
            for name in event_names(function.name, self._events):
                with contextlib.suppress(ValueError):
                    events[name] = read_event(str(self._events / f"{function.name}.{name}.json"))
            described = self.stack.describe(function)
            match described["trigger"]:
                case "schedule":
                    events = {"now": scheduled(next(iter(function.events))), **events}
                case "queue":
                    first = _first_body(events)
                    events = {"one message": queue_batch([first], function.name), **events}
            offered.append({**described, "events": events})
        return offered

    async def state(self) -> dict[str, Any]:
        """What the panel shows."""
        count = await self.stack.counter.look(forget_peak=True)
        return {
            "running": count is not None,
            "connections": count.now if count else 0,
            "peak": count.peak if count else 0,
            "opened": count.opened if count else 0,
            "limit": self.stack.database.max_connections,
            "server": str(self.stack.database.server),
            "environments": self.stack.environments(),
        }

    async def watch(self) -> None:
        """Look at files and server again and again, until cancelled."""
        while True:
            await self.stack.check()
            self.journal.send_state(await self.state())
            await asyncio.sleep(STATE_SECONDS)


def _response(outcome: Outcome, patience: float) -> Response:
    """What the gateway answers; it waits `patience` seconds, this machine's cold starts aside."""
    if outcome.answer is None:
        # The template's burst limit is the reservation: the gateway itself refuses what is more.
        return message(HTTPStatus.TOO_MANY_REQUESTS)
    if outcome.answer.duration > patience:
        return message(HTTPStatus.SERVICE_UNAVAILABLE)
    return response_of(outcome.answer)


def _failures(outcome: Outcome) -> int:
    """How many messages of a batch will come again."""
    if outcome.answer is None or outcome.answer.status != "ok":
        return 0
    try:
        said = outcome.answer.json()
    except ValueError:
        return 0
    return len(said.get("batchItemFailures") or []) if isinstance(said, Mapping) else 0


def _first_body(events: Mapping[str, Any]) -> Any:
    for event in events.values():
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError):
            return json.loads(event["Records"][0]["body"])
    return {}
