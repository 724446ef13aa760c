"""Each event in events/ gets the answer that events/expected.json promises, in the real runtime."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from local.database import LocalDatabase
from local.environment import Answer, Environment

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "events"
EXPECTED: dict[str, dict[str, Any]] = json.loads((EVENTS / "expected.json").read_text())
# A server lists a session for a moment after it has let go of it; a busy machine makes it longer.
LIST_SECONDS = 0.5


def matches(wanted: Any, got: Any) -> bool:
    """Whether all that is wanted is there; an object may have more."""
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(
            k in got and matches(v, got[k]) for k, v in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(got, list) and len(wanted) == len(got) and all(map(matches, wanted, got))
    return bool(wanted == got)


def parsed(payload: bytes) -> Any:
    """The answer, with a body of JSON read too."""
    answer = json.loads(payload)
    if isinstance(answer, dict) and isinstance(answer.get("body"), str):
        answer["body"] = json.loads(answer["body"])
    return answer


def test_every_event_file_has_an_expectation_and_the_other_way_round() -> None:
    assert set(EXPECTED) == {path.stem for path in EVENTS.glob("*.*.json")}


def test_every_function_has_a_good_and_a_bad_event() -> None:
    bad = {name for name, wanted in EXPECTED.items() if is_bad(wanted)}
    # What rotates looks at no event, and needs a store of secrets: test_rotate_secret.py.
    functions = {path.parent.name for path in ROOT.glob("functions/*/app.py")} - {"rotate_secret"}
    assert {name.split(".")[0] for name in bad} == functions
    assert {name.split(".")[0] for name in EXPECTED.keys() - bad} == functions


def is_bad(wanted: dict[str, Any]) -> bool:
    match = wanted.get("match", {})
    refused = match.get("statusCode", 200) >= 400 or bool(match.get("batchItemFailures"))
    return wanted["status"] == "error" or refused


def test_every_event_gets_its_answer_and_leaves_no_connection(shop: LocalDatabase) -> None:
    application = shop.application_environ()
    common = {
        "POWERTOOLS_METRICS_NAMESPACE": "Shop",
        "LONGEST_INVOCATION_SECONDS": "60",
        "APPLICATION_USER": application["DATABASE_USER"],
        "APPLICATION_PASSWORD": application["DATABASE_PASSWORD"],
        "APPLICATION_MAX_USER_CONNECTIONS": "55",
    }
    answers: dict[str, Answer] = {}
    sessions: dict[str, int] = {}

    async def run() -> None:
        environments: dict[str, Environment] = {}
        async with AsyncExitStack() as stack:
            for name in EXPECTED:
                function = name.split(".")[0]
                if function not in environments:
                    own = shop.master_environ() if function == "migrate" else application
                    environments[function] = await stack.enter_async_context(
                        Environment(
                            ROOT / "functions" / function, environ={**common, **own}, timeout=20
                        )
                    )
                event = json.loads((EVENTS / f"{name}.json").read_text())
                answers[name] = await environments[function].invoke(event)
                until = time.monotonic() + LIST_SECONDS
                while (listed := len(shop.sessions())) and time.monotonic() < until:
                    await asyncio.sleep(0.005)
                sessions[name] = listed

    asyncio.run(run())
    for name, wanted in EXPECTED.items():
        answer = answers[name]
        said = f"{name}: {answer.status} {answer.error_type} {answer.payload!r}\n{answer.log}"
        assert answer.status == wanted["status"], said
        assert answer.error_type == wanted.get("error_type"), said
        assert matches(wanted.get("match", {}), parsed(answer.payload)), said
    assert sessions == dict.fromkeys(EXPECTED, 0)
