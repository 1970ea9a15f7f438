"""What stands before the routes: who may ask, how much and how long; the count of answers, and a
number for each request under which the log tells what went wrong."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from miao.serve.problems import Problem, begin_request, failure

if TYPE_CHECKING:  # it knows the engine, which a board does not need
    from miao.serve.metrics import Metrics

MAX_VALUES = 300_000
"""JSON values of a request: as many ids as the longest prompts have."""
CONTAINER = 15
"""Numbers or texts that cost as much as a list or an object."""
TEXT = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
"""In JSON; one that does not end reaches to the end."""


@dataclass(frozen=True)
class Gate:
    """What is let in."""

    max_body: int = 4 * 2**20
    """Bytes of a request."""
    read_timeout: float = 60.0
    """Seconds in which a request must have come whole."""
    api_key: str | None = None
    """What clients must send; None: nothing is asked for."""
    hosts: frozenset[str] | None = None
    """Names by which clients may call the server; None: any. Where only this machine reaches it,
    a page whose own name was made to lead here must not (DNS rebinding)."""
    open_paths: frozenset[str] = frozenset()
    """Paths that need no key."""
    streamed: frozenset[str] = frozenset()
    """Paths that take bytes (application/octet-stream), and bound them as they come."""


class Guard:
    """Refuses, before any of the body is read: names that are not this server's (403), ambiguous
    framing (400), a wrong key (401), bodies that are too large (413) or not JSON (415); then bodies
    that do not come in time (408) or hold too much (413). Counts responses.

    A web page of another origin can post text without asking the browser's leave, but not JSON.
    """

    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics | None = None):
        self._app, self._gate, self._metrics = app, gate, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        number, has_begun = begin_request(headers.get("accept-language", "")), False

        async def counted(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message)["X-Request-Id"] = number
                path = getattr(scope.get("route"), "path", "unknown")
                if self._metrics is not None:
                    self._metrics.responses.labels(path, str(message["status"])).inc()
            await send(message)

        try:
            self._admit(scope, headers)
            streams = scope["path"] in self._gate.streamed
            await self._app(scope, receive if streams else self._limited(receive), counted)
        except Problem as problem:
            has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
            await problem.response(closes=has_body)(scope, receive, counted)
        except Exception as error:
            answer = failure("the server", error)
            if has_begun:
                raise
            await answer.response()(scope, receive, counted)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        gate = self._gate
        host = _name(headers.get("host", ""))
        if gate.hosts is not None and host and host not in gate.hosts:
            raise Problem(
                403, f"this server does not answer to the name {host[:200]!r} (--allow-host)"
            )
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Problem(400, "a request has a Content-Length or a Transfer-Encoding, not both")
        if gate.api_key is not None and scope["path"] not in gate.open_paths:
            given = bearer_of(headers)
            given = headers.get("x-api-key", "") if given is None else given
            if not _is_key(given, gate.api_key):
                raise Problem(401, "the API key is missing or wrong")
        streams = scope["path"] in gate.streamed
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > gate.max_body and not streams:
            raise Problem(413, self._too_large)
        if scope["method"] == "POST":
            wanted = "application/octet-stream" if streams else "application/json"
            if headers.get("content-type", "").split(";")[0].strip().lower() != wanted:
                what = "bytes" if streams else "JSON"
                raise Problem(415, f"the body must be {what} (Content-Type: {wanted})")

    def _limited(self, receive: Receive) -> Receive:
        is_whole = False
        end = time.monotonic() + self._gate.read_timeout
        closing = {"Connection": "close"}

        async def limited() -> Message:
            """The whole body as one message; then what else comes."""
            nonlocal is_whole
            body = bytearray()
            while not is_whole:
                try:
                    async with asyncio.timeout(max(0.001, end - time.monotonic())):
                        message = await receive()
                except TimeoutError:
                    late = f"the request did not come within {self._gate.read_timeout:g} seconds"
                    raise HTTPException(408, late, closing) from None
                if message["type"] != "http.request":
                    return message
                is_whole = not message.get("more_body", False)
                body += message.get("body", b"")
                if len(body) > self._gate.max_body:
                    raise HTTPException(413, self._too_large, closing)
                if is_whole:
                    self._count_values(body)
                    return {"type": "http.request", "body": bytes(body)}
            return await receive()

        return limited

    def _count_values(self, body: bytearray) -> None:
        """Values cost more than bytes: a million empty lists are seconds of the server's loop."""
        if _values(body) <= MAX_VALUES:
            return
        rest, texts = TEXT.subn(b"", body, 2 * MAX_VALUES)  # each is a value, or the name of one
        if texts == 2 * MAX_VALUES or _values(rest) > MAX_VALUES:
            raise HTTPException(
                413,
                f"the request holds more than {MAX_VALUES} JSON values (a list or an object counts "
                f"as {CONTAINER} of them)",
            )

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self._gate.max_body} bytes"


def _values(body: bytes | bytearray) -> int:
    """How many values JSON without texts holds, at most."""
    return body.count(b",") + CONTAINER * (body.count(b"[") + body.count(b"{"))


def _name(host: str) -> str:
    """The name in a Host header: without its port, without the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower().rstrip(".") if ":" in host else host.lower().rstrip(".")


def bearer_of(headers: Headers) -> str | None:
    """What the Authorization header bears; None: nothing of that kind."""
    kind, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer if kind.lower() == "bearer" else None


def _is_key(given: str, api_key: str) -> bool:
    # Compared in constant time, so that the time of an answer says nothing about the key.
    # Headers are decoded as Latin-1; the key is what their bytes say.
    return hmac.compare_digest(given.strip().encode("latin-1", "replace"), api_key.encode())
