"""The HTTP API of `make serve`: events as API Gateway makes them, answers as it reads them."""

import base64
import json
from typing import Any

import pytest

from local.environment import Answer
from local.events import EVENTS
from local.serve.events import queue_batch, scheduled
from local.serve.gateway import Request, event_of, response_of
from local.serve.routes import Match, Route, find_route, read_routes, trigger_of
from local.template import Function, read_functions

ROUTE = Route("f", "ANY", "/{proxy+}", 30)


def event(request: Request, *, signed: bool = True) -> dict[str, Any]:
    return event_of(request, Match(ROUTE, {"proxy": request.path[1:]}), signed=signed)


def answer(payload: object, status: Any = "ok") -> Answer:
    return Answer(status, json.dumps(payload).encode(), None, 0.1, None, "", "id", 30)


def shape(value: Any) -> Any:
    """What is there and of which type."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return type(value).__name__


def test_the_event_has_the_shape_of_one_that_aws_sent() -> None:
    known = [path for path in EVENTS.glob("*.json") if "rawPath" in path.read_text()]
    assert known
    for path in known:
        real = json.loads(path.read_text())
        if real["requestContext"]["http"]["method"] != "POST":
            continue
        ours = event(
            Request("POST", "/a", "x=1", [("User-Agent", "curl")], b"{}", host="localhost:8000")
        )
        missing = real.keys() - ours.keys() - {"queryStringParameters"}
        assert not missing, path.name
        assert shape(ours["requestContext"]) == shape(real["requestContext"]), path.name


def test_headers_are_in_lower_case_joined_by_commas_and_cookies_apart() -> None:
    made = event(
        Request(
            "GET",
            "/",
            headers=[("X-Tag", "a"), ("x-tag", "b"), ("Cookie", "one=1; two=2"), ("Host", "evil"),
                     ("Connection", "keep-alive")],
            host="localhost:8000",
        )
    )  # fmt: skip
    assert made["headers"]["x-tag"] == "a,b"
    assert made["cookies"] == ["one=1", "two=2"]
    assert not {"cookie", "connection"} & made["headers"].keys()
    assert made["headers"]["host"] == "localhost:8000"
    assert made["headers"]["x-forwarded-for"] == "127.0.0.1"


def test_the_path_is_decoded_and_the_query_is_not() -> None:
    made = event(Request("GET", "/tea pots", "q=a%20b&q=c&empty="))
    assert made["rawPath"] == made["requestContext"]["http"]["path"] == "/tea pots"
    assert made["rawQueryString"] == "q=a%20b&q=c&empty="
    assert made["queryStringParameters"] == {"q": "a b,c", "empty": ""}
    assert "queryStringParameters" not in event(Request("GET", "/"))


@pytest.mark.parametrize(
    ("content_type", "is_text"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("text/csv", True),
        ("application/xml", True),
        ("application/javascript", True),
        ("application/x-www-form-urlencoded", False),
        ("application/octet-stream", False),
        ("image/png", False),
        (None, False),
    ],
)
def test_a_body_is_base64_unless_its_type_is_text(content_type: str | None, is_text: bool) -> None:
    body = "größe=1".encode()
    headers = [("content-type", content_type)] if content_type else []
    made = event(Request("POST", "/", headers=headers, body=body))
    assert made["isBase64Encoded"] is not is_text
    sent = made["body"].encode() if is_text else base64.b64decode(made["body"])
    assert sent == body
    assert "body" not in event(Request("GET", "/"))


def test_bytes_that_are_no_text_are_base64_whatever_they_are_called() -> None:
    made = event(Request("POST", "/", headers=[("content-type", "text/plain")], body=b"\xff"))
    assert (made["body"], made["isBase64Encoded"]) == ("/w==", True)


def test_there_is_a_local_caller_where_the_api_asks_for_iam_and_nobody_elsewhere() -> None:
    signed = event(Request("GET", "/"))
    assert signed["requestContext"]["authorizer"]["iam"]["userArn"].endswith(
        ":assumed-role/Local/you"
    )
    assert "authorizer" not in event(Request("GET", "/"), signed=False)["requestContext"]


def test_status_headers_cookies_and_a_binary_body_come_out_as_the_function_said() -> None:
    response = response_of(
        answer(
            {
                "statusCode": 201,
                "headers": {"Location": "/x", "Content-Length": "999", "Content-Type": "image/png"},
                "cookies": ["a=1; Secure", "b=2"],
                "body": base64.b64encode(b"\xff\x00").decode(),
                "isBase64Encoded": True,
            }
        )
    )
    assert (response.status, response.body) == (201, b"\xff\x00")
    assert list(response.headers) == [
        ("location", "/x"), ("content-type", "image/png"),
        ("set-cookie", "a=1; Secure"), ("set-cookie", "b=2"),
    ]  # fmt: skip


def test_an_answer_without_a_status_is_the_body_itself() -> None:
    response = response_of(answer({"id": 3}))
    assert (response.status, response.body) == (200, b'{"id": 3}')
    assert ("content-type", "application/json") in response.headers


@pytest.mark.parametrize(
    "wrong",
    [
        answer({"errorMessage": "no"}, status="error"),
        answer({"errorMessage": "no"}, status="timeout"),
        answer({"statusCode": "many"}),
        answer({"statusCode": 200, "body": {"no": "string"}}),
        answer({"statusCode": 200, "body": "!", "isBase64Encoded": True}),
        answer({"statusCode": 200, "headers": ["no map"]}),
    ],
)
def test_a_failed_or_malformed_answer_is_an_internal_server_error(wrong: Answer) -> None:
    response = response_of(wrong)
    assert (response.status, json.loads(response.body)) == (
        500, {"message": "Internal Server Error"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "key", "parameters"),
    [
        ("GET", "/items/3", "GET /items/{id}", {"id": "3"}),
        ("POST", "/items/3", "ANY /items/{id}", {"id": "3"}),
        ("GET", "/items/new", "GET /items/new", {}),
        ("GET", "/items/3/parts", "ANY /{proxy+}", {"proxy": "items/3/parts"}),
        ("GET", "/", "$default", {}),
    ],
)
def test_the_most_specific_route_takes_the_request(
    method: str, path: str, key: str, parameters: dict[str, str]
) -> None:
    routes = [
        Route("f", key.split(" ")[0], key.split(" ")[1], 30)
        for key in ("ANY /{proxy+}", "ANY /items/{id}", "GET /items/{id}", "GET /items/new")
    ]
    match = find_route([*routes, Route("f", "ANY", "", 30)], method, path)
    assert match
    assert (match.route_key, match.parameters) == (key, parameters)


def test_without_a_route_there_is_no_match_and_a_greedy_one_needs_something() -> None:
    assert find_route([ROUTE], "GET", "/") is None
    assert find_route([Route("f", "GET", "/a", 30)], "POST", "/a") is None


def test_the_templates_routes_and_triggers_are_read() -> None:
    functions = read_functions()
    routes = read_routes(functions.values())
    assert routes
    assert all(route.function in functions for route in routes)
    triggers = {trigger_of(function) for function in functions.values()}
    assert triggers == {"http", "queue", "schedule", "direct"}


def test_a_function_that_nothing_here_calls_is_called_directly() -> None:
    stream = {"Table": {"Type": "DynamoDB", "Properties": {}}}
    function = Function("F", "f", EVENTS, "app.f", "", 3, 128, None, {}, stream)
    assert trigger_of(function) == "direct"


def test_messages_and_schedules_have_the_shape_of_those_aws_sends() -> None:
    batches = [read for read in events() if "Records" in read]
    assert batches
    ours = queue_batch([{"a": 1}, "text"], "queue")
    for batch in batches:
        assert shape(ours["Records"][0]) == shape(batch["Records"][0])
    assert [record["body"] for record in ours["Records"]] == ['{"a": 1}', "text"]
    schedules = [read for read in events() if read.get("source") == "aws.scheduler"]
    assert schedules
    for schedule in schedules:
        assert shape(scheduled("EachNight")) == shape(schedule)


def events() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in EVENTS.glob("*.*.json")]
