"""HTTP on localhost, as an ASGI application: the API at the root, the page under /_local."""

import asyncio
import importlib.resources
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from local.serve.actions import Actions, UnknownFunctionError
from local.serve.gateway import PAYLOAD_LIMIT, Request, Response, message

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PAGE = Path(__file__).with_name("page.html")
PREFIX = "/_local"
# Swagger UI comes with Powertools, so that nothing is fetched from anywhere.
_SWAGGER = importlib.resources.files("aws_lambda_powertools.event_handler.openapi.swagger_ui")
_ASSETS = {
    f"{PREFIX}/swagger-ui.js": ("swagger-ui-bundle.min.js", "text/javascript"),
    f"{PREFIX}/swagger-ui.css": ("swagger-ui.min.css", "text/css"),
}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class TooLargeError(ValueError):
    """The body is over the gateway's quota."""


class Application:
    """Serves the API and the page, to this machine alone."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            request = await _read(scope, receive)
            if not _is_ours(request):
                await _send(send, message(HTTPStatus.FORBIDDEN))
            elif request.path == f"{PREFIX}/stream":
                await self._stream(receive, send)
            elif request.path == "/" and not self._has_root():
                await _send(send, Response(307, b"", [("location", f"{PREFIX}/")]))
            elif request.path.startswith(f"{PREFIX}/"):
                await _send(send, await self._page(request))
            else:
                await _send(send, await self._actions.handle(request))
        except TooLargeError:
            await _send(send, message(HTTPStatus.REQUEST_ENTITY_TOO_LARGE))

    def _has_root(self) -> bool:
        return any(route.path in {"/", ""} for route in self._actions.stack.routes)

    async def _page(self, request: Request) -> Response:
        match request.method, request.path.removeprefix(PREFIX):
            case "GET", "/":
                return Response(
                    200, PAGE.read_bytes(), [("content-type", "text/html;charset=utf-8")]
                )
            case "GET", "/functions":
                return _json(self._actions.offers())
            case "GET", "/state":
                return _json(await self._actions.state())
            case "GET", _ if request.path in _ASSETS:
                name, kind = _ASSETS[request.path]
                return Response(200, _SWAGGER.joinpath(name).read_bytes(), [("content-type", kind)])
            case "POST", "/invoke" | "/many" | "/database":
                return await self._act(request)
        return message(HTTPStatus.NOT_FOUND)

    async def _act(self, request: Request) -> Response:
        try:
            asked = json.loads(request.body)
            match request.path.removeprefix(PREFIX):
                case "/invoke":
                    what = str(asked.get("what") or "invoked")
                    return _json(
                        await self._actions.invoke(asked["function"], asked["event"], what)
                    )
                case "/many":
                    path, _, query = str(asked["path"]).partition("?")
                    one = Request(
                        asked["method"],
                        unquote(path),
                        query,
                        headers=[(str(k), str(v)) for k, v in asked.get("headers", {}).items()],
                        body=str(asked.get("body") or "").encode(),
                        client=request.client,
                        host=request.host,
                    )
                    return _json(await self._actions.send_many(one, int(asked["count"])))
                case _:
                    await self._actions.set_database(running=bool(asked["running"]))
                    return _json({})
        except (ValueError, KeyError, TypeError, AttributeError, UnknownFunctionError) as error:
            return message(HTTPStatus.BAD_REQUEST, f"{type(error).__name__}: {error}")

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Server-sent events, until the page is closed."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        both = [
            asyncio.create_task(self._send_events(send)),
            asyncio.create_task(_until_gone(receive)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _send_events(self, send: Send) -> None:
        async for event in self._actions.journal.listen():
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_ours(request: Request) -> bool:
    """No page of another site may act here, also not by a name of its own for 127.0.0.1."""
    given = {name.lower(): value for name, value in request.headers}
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if host not in _LOCAL_NAMES:
        return False
    origin = given.get("origin")
    return origin is None or origin == f"http://{request.host}"


async def _read(scope: Scope, receive: Receive) -> Request:
    body = b""
    while True:
        received = await receive()
        if received["type"] == "http.disconnect":
            break
        body += received.get("body", b"")
        if len(body) > PAYLOAD_LIMIT:
            raise TooLargeError
        if not received.get("more_body"):
            break
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    ]
    return Request(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        body=body,
        client=scope["client"][0] if scope.get("client") else "127.0.0.1",
        host=next((value for name, value in headers if name == "host"), ""),
    )


async def _send(send: Send, response: Response) -> None:
    headers = [(n.encode("latin-1"), v.encode("latin-1", "replace")) for n, v in response.headers]
    headers.append((b"content-length", str(len(response.body)).encode()))
    start = {"type": "http.response.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body})


def _json(data: Any) -> Response:
    return Response(200, json.dumps(data).encode(), [("content-type", "application/json")])
