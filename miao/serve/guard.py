"""What stands before the routes: limits on size and kind of a request, and the count of answers."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miao.serve.metrics import Metrics
from miao.serve.problems import error_body


class Guard:
    """Refuses bodies that are too large (413) or not JSON (415), and counts responses.

    A web page of another origin can post text without asking the browser's leave, but not JSON.
    """

    def __init__(self, app: ASGIApp, max_body: int, metrics: Metrics):
        self._app, self._max_body, self._metrics = app, max_body, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                path = getattr(route, "path", "unknown")
                self._metrics.responses.labels(path, str(message["status"])).inc()
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, counted)
            return
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise HTTPException(413, self._too_large)
            return message

        await self._app(scope, limited, counted)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body:
            return JSONResponse(error_body(413, self._too_large), 413, {"Connection": "close"})
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                message = "the body must be JSON (Content-Type: application/json)"
                return JSONResponse(error_body(415, message), 415)
        return None

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self._max_body} bytes"
