"""What an HTTP API does between a client and a function: payload format 2.0, both ways.

Source: AWS API Gateway Developer Guide, "Create AWS Lambda proxy integrations for HTTP APIs". What
it leaves open is as callers of the real service have measured it: the path comes decoded, and a
body is text only for `text/*`, JSON, XML and JavaScript, else base64.
"""

import base64
import binascii
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from local.environment import Answer
from local.serve.routes import Match

API_ID = "local"
ACCOUNT = "123456789012"
# API Gateway quota: 10 MB of payload.
PAYLOAD_LIMIT = 10 * 1024 * 1024

_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/javascript"})
# Of one connection, not of the request; the service leaves them out.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request as it came: the path decoded, the query not, the headers as sent."""

    method: str
    path: str
    query: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    client: str = "127.0.0.1"
    host: str = "localhost"


@dataclass(frozen=True, slots=True)
class Response:
    """What the client gets."""

    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = field(default_factory=list)


def message(status: HTTPStatus, text: str | None = None) -> Response:
    """An answer of the gateway's own, in its words."""
    body = json.dumps({"message": text or status.phrase}).encode()
    return Response(status, body, [("content-type", "application/json")])


def event_of(request: Request, match: Match, *, signed: bool) -> dict[str, Any]:
    """The event that the function gets.

    Args:
        request: the client's.
        match: the route it took.
        signed: whether the API asks for IAM: then there is a caller, a local one.
    """
    headers, cookies = _join(request.headers)
    user_agent = headers.get("user-agent", "")
    now = time.time()
    headers |= {
        "content-length": str(len(request.body)),
        "host": request.host,
        "x-amzn-trace-id": f"Root=1-{int(now):08x}-{secrets.token_hex(12)}",
        "x-forwarded-for": request.client,
        "x-forwarded-port": request.host.rpartition(":")[2] if ":" in request.host else "80",
        "x-forwarded-proto": "http",
    }
    context: dict[str, Any] = {
        "accountId": ACCOUNT,
        "apiId": API_ID,
        "domainName": request.host,
        "domainPrefix": request.host.split(".")[0],
        "http": {
            "method": request.method,
            "path": request.path,
            "protocol": "HTTP/1.1",
            "sourceIp": request.client,
            "userAgent": user_agent,
        },
        "requestId": secrets.token_urlsafe(11) + "=",
        "routeKey": match.route_key,
        "stage": "$default",
        "time": f"{datetime.fromtimestamp(now, UTC):%d/%b/%Y:%H:%M:%S +0000}",
        "timeEpoch": int(now * 1000),
    }
    if signed:
        context["authorizer"] = {"iam": _LOCAL_CALLER}
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": match.route_key,
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": context,
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query := _joined(parse_qsl(request.query, keep_blank_values=True)):
        event["queryStringParameters"] = query
    if match.parameters:
        event["pathParameters"] = dict(match.parameters)
    if request.body:
        event["body"], event["isBase64Encoded"] = _body(request.body, headers.get("content-type"))
    return event


_LOCAL_CALLER = {
    "accessKey": "ASIALOCALLOCALLOCAL0",
    "accountId": ACCOUNT,
    "callerId": "AROALOCAL:you",
    "cognitoIdentity": None,
    "principalOrgId": None,
    "userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/Local/you",
    "userId": "AROALOCAL:you",
}


def _join(headers: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """Headers in lower case, those of one name joined by commas; cookies apart."""
    pairs = [(name.lower(), value) for name, value in headers]
    cookies = [
        cookie.strip() for name, value in pairs if name == "cookie" for cookie in value.split(";")
    ]
    return _joined([p for p in pairs if p[0] != "cookie" and p[0] not in _HOP_BY_HOP]), cookies


def _joined(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _body(body: bytes, content_type: str | None) -> tuple[str, bool]:
    """The body and whether it is base64."""
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind in _TEXT_TYPES or kind.startswith("text/"):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


def response_of(answer: Answer) -> Response:
    """What the client gets for the function's answer; an error of the function is a 500."""
    if answer.status != "ok":
        return message(HTTPStatus.INTERNAL_SERVER_ERROR)
    try:
        said = answer.json()
        if not isinstance(said, dict) or "statusCode" not in said:
            # Format 2.0 takes anything else for the body.
            return Response(200, json.dumps(said).encode(), [("content-type", "application/json")])
        return _response(said)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        return message(HTTPStatus.INTERNAL_SERVER_ERROR)


def _response(said: Mapping[str, Any]) -> Response:
    body = said.get("body") or ""
    if not isinstance(body, str):
        raise TypeError("a body is a string")
    encoded = (
        base64.b64decode(body, validate=True) if said.get("isBase64Encoded") else body.encode()
    )
    headers = {str(n).lower(): str(value) for n, value in (said.get("headers") or {}).items()}
    headers.setdefault("content-type", "text/plain;charset=UTF-8")
    every = [pair for pair in headers.items() if pair[0] not in {*_HOP_BY_HOP, "content-length"}]
    every += [("set-cookie", str(cookie)) for cookie in said.get("cookies") or []]
    return Response(int(said["statusCode"]), encoded, every)
