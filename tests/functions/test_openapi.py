"""The API answers what its own description says, whatever is sent to it."""

from __future__ import annotations

import base64
import types
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from local.database import LocalDatabase
from tests.functions.conftest import Load, context, read_event

# With the two servers, four operations and two modes: 800 requests.
EXAMPLES = 50

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class HttpApi:
    """A WSGI application that hands requests to a function as an HTTP API does, format 2.0."""

    def __init__(self, app: types.ModuleType) -> None:
        self._app = app
        self.statuses: set[int] = set()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        answer = self._app.lambda_handler(event_of(environ), context())
        self.statuses.add(int(answer["statusCode"]))
        start_response(f"{int(answer['statusCode'])} -", list(answer["headers"].items()))
        return [answer["body"].encode()]


def event_of(environ: dict[str, Any]) -> dict[str, Any]:
    """The event of a WSGI request."""
    event = read_event("orders_api.place")
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    event["rawPath"] = event["requestContext"]["http"]["path"] = path
    event["requestContext"]["http"]["method"] = environ["REQUEST_METHOD"]
    event["rawQueryString"] = environ["QUERY_STRING"]
    query: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(environ["QUERY_STRING"], keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value
    event["queryStringParameters"] = query
    event["headers"] = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name == "CONTENT_TYPE"
    }
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    # An HTTP API encodes what is not text by its type.
    text = environ.get("CONTENT_TYPE", "").startswith(("text/", "application/json"))
    event["isBase64Encoded"] = not text
    event["body"] = body.decode("utf-8", "replace") if text else base64.b64encode(body).decode()
    return event


def with_things_that_there_are(order: Any) -> Any:
    """The order with products the shop has, and plain numbers: to JSON Schema 2.0 is an integer."""
    lines = [
        {**line, "product_id": 1 + int(line["product_id"]) % 4, "quantity": int(line["quantity"])}
        for line in order["lines"]
    ]
    return {**order, "lines": lines}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_what_the_description_allows_is_done_and_what_it_forbids_is_refused_as_it_says(
    load: Load, shop: LocalDatabase, mode: GenerationMode
) -> None:
    """By all that schemathesis checks: status, type, headers and schema of each answer."""
    shop.execute("UPDATE products SET stock = 1000000000")
    api = HttpApi(load("orders_api"))
    schema = schemathesis.openapi.from_wsgi("/openapi.json", api)
    found = [result for result in schema.get_all_operations() if isinstance(result, Ok)]
    operations = [result.ok() for result in found]
    assert len(operations) == 4
    for operation in operations:

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,  # the same requests at each run
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case: Any) -> None:
            shop.execute("DELETE FROM idempotency_keys")  # the same key comes with other orders
            if mode is GenerationMode.POSITIVE and case.method == "POST":
                case.body = with_things_that_there_are(case.body)
            case.call_and_validate()

        hold()
    done = {200, 201, 404} if mode is GenerationMode.POSITIVE else {404, 422}
    assert api.statuses >= done
    assert shop.sessions() == []
