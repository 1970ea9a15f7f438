"""The HTTP application: routes, authorisation, limits, errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from miao import __version__
from miao.serve.board import add_board
from miao.serve.conversation import ChatBody, DetokenizeBody, TokenizeBody
from miao.serve.desk import Desk
from miao.serve.endpoints import Endpoints
from miao.serve.guard import Gate, Guard
from miao.serve.invalid import add_error_handlers
from miao.serve.messages import CountBody, MessagesBody
from miao.serve.metrics import Metrics
from miao.serve.models import Served
from miao.serve.pages import BOARD_PAGE, CHAT_PAGE, add_pages, paths_of
from miao.serve.problems import KINDS
from miao.serve.protocol import CompletionBody, EmbeddingBody
from miao.serve.responses import ResponseBody
from miao.serve.worker import Worker

ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
"""What a route may answer beside JSON."""


@dataclass(frozen=True)
class Limits:
    """How much the server takes on."""

    max_queue: int = 64
    """Requests that may wait; more are answered 429."""
    timeout: float = 600.0
    """Seconds after which a request is given up."""
    max_body: int = 4 * 2**20
    """Bytes of a request."""
    read_timeout: float = 60.0
    """Seconds in which a request must have come whole."""
    prepare_timeout: float = 30.0
    """Seconds in which its prompt and its form must be made, before it is queued."""


def create_app(
    models: list[Served],
    limits: Limits | None = None,
    api_key: str | None = None,
    cors_origins: tuple[str, ...] = (),
    runs: Path | None = None,
    hosts: frozenset[str] | None = None,
) -> FastAPI:
    """The server's application over these models; the first one is what requests without a name
    get.

    Args:
        api_key: what clients must send as a bearer token; None: nothing is asked for.
        cors_origins: web origins whose pages may call the server.
        runs: a directory of runs, shown at /runs.
        hosts: see `Gate`.
    """
    limits = limits or Limits()
    worker = Worker({served.name: served.scheduler for served in models}, limits.max_queue)
    metrics = Metrics(worker)
    desk = Desk(limits.max_queue, min(limits.prepare_timeout, limits.timeout))
    by_name = {served.name: served for served in models}
    endpoints = Endpoints(by_name, worker, metrics, desk, limits.timeout)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await desk.close()
        await asyncio.to_thread(worker.stop)

    app = FastAPI(
        title="Miao",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses={
            status: {"description": kind, "content": {"application/json": {"schema": ERROR_SCHEMA}}}
            for status, kind in KINDS.items()
            if status != 500
        },
    )
    app.state.worker, app.state.metrics, app.state.desk = worker, metrics, desk
    _add_routes(app, endpoints, worker, metrics)
    pages = CHAT_PAGE if runs is None else CHAT_PAGE | BOARD_PAGE
    add_pages(app, pages)
    if runs is not None:
        add_board(app, runs)
    add_error_handlers(app)
    open_paths = frozenset({"/health", "/openapi.json", *paths_of(pages)})
    gate = Gate(limits.max_body, limits.read_timeout, api_key, hosts, open_paths)
    app.add_middleware(Guard, gate=gate, metrics=metrics)
    if cors_origins:
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Api-Key", "Anthropic-Version"],
            expose_headers=["X-Request-Id"],
        )
    return app


def _add_routes(app: FastAPI, endpoints: Endpoints, worker: Worker, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> Response:
        """Whether the server can answer."""
        alive = worker.is_alive
        return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """For Prometheus."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def list_models() -> Response:
        """All models that are served."""
        return JSONResponse(endpoints.models())

    @app.get("/v1/models/{name:path}")
    async def show_model(name: str) -> Response:
        """One of them."""
        return JSONResponse(endpoints.model(name))

    @app.post("/v1/chat/completions", responses=STREAMED)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """The assistant's next turn in a conversation."""
        return await endpoints.chat(body, request)

    @app.post("/v1/responses", responses=STREAMED)
    async def responses(body: ResponseBody, request: Request) -> Response:
        """The assistant's next turn, in OpenAI's newer protocol."""
        return await endpoints.respond(body, request)

    @app.post("/v1/messages", responses=STREAMED)
    async def messages(body: MessagesBody, request: Request) -> Response:
        """The assistant's next turn, in Anthropic's protocol."""
        return await endpoints.message(body, request)

    @app.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountBody, request: Request) -> Response:
        """How many tokens that would read."""
        return await endpoints.count(body, request)

    @app.post("/v1/completions", responses=STREAMED)
    async def completions(body: CompletionBody, request: Request) -> Response:
        """How a text goes on."""
        return await endpoints.complete(body, request)

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingBody, request: Request) -> Response:
        """The mean of a text's last hidden states, of length 1."""
        return await endpoints.embed(body, request)

    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody, request: Request) -> Response:
        """The token ids of a prompt or of a conversation."""
        return await endpoints.tokenize(body, request)

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> Response:
        """The text of token ids."""
        return await endpoints.detokenize(body)
