"""What each route does: a body becomes requests to the engine, their answers become a reply."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from miao.engine import Request as EngineRequest
from miao.engine.grammar import GrammarConstraint
from miao.errors import MiaoError
from miao.serve.completions import CompletionReply
from miao.serve.conversation import ChatBody, DetokenizeBody, TokenizeBody
from miao.serve.desk import Desk
from miao.serve.generation import Generation, generation
from miao.serve.messages import CountBody, MessagesBody, MessagesReply
from miao.serve.metrics import Metrics
from miao.serve.models import Served
from miao.serve.problems import Problem, failure
from miao.serve.protocol import CompletionBody, EmbeddingBody, Sampling
from miao.serve.replies import ChatReply, Reply
from miao.serve.responses import ResponseBody, ResponseReply
from miao.serve.scribe import Job
from miao.serve.worker import Worker

Result = TypeVar("Result")
JSON = "application/json"
PIECE = 10_000
"""Tokens that are written at once."""


class Endpoints:
    """The server's actions.

    Args:
        models: by name; the first is the default.
    """

    def __init__(
        self,
        models: dict[str, Served],
        worker: Worker,
        metrics: Metrics,
        desk: Desk,
        timeout: float,
    ):
        self._models, self._worker, self._metrics = models, worker, metrics
        self._desk, self._timeout = desk, timeout

    def models(self) -> dict[str, Any]:
        """OpenAI's list of models."""
        return {"object": "list", "data": [_model_object(s) for s in self._models.values()]}

    def model(self, name: str) -> dict[str, Any]:
        """One model of the list."""
        return _model_object(self._find(name))

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """One or more answers in a conversation."""
        return await self._converse(body, ChatReply, request)

    async def respond(self, body: ResponseBody, request: Request) -> Response:
        """The same conversation in OpenAI's newer protocol."""
        return await self._converse(body.chat(), functools.partial(ResponseReply, body), request)

    async def message(self, body: MessagesBody, request: Request) -> Response:
        """The same conversation in Anthropic's protocol, whose clients must say `max_tokens`: what
        the context has no room for is no mistake there, but another reason to stop."""
        return await self._converse(body.chat(), MessagesReply, request, must_fit=False)

    async def count(self, body: CountBody, request: Request) -> Response:
        """How long a conversation is, in Anthropic's protocol."""
        served = self._find(body.model)
        (prompt,) = await self._prompts(served, [served.chat_job(body.chat())], request)
        return JSONResponse({"input_tokens": len(prompt)})

    async def complete(self, body: CompletionBody, request: Request) -> Response:
        """How one or more texts go on."""
        served = self._find(body.model)
        prompts = await self._prompts(served, served.text_jobs(body), request)
        for prompt in prompts:
            served.check_prompt(prompt, "prompt", body.max_tokens)
        # OpenAI's default for this route; 0 is for the prompt's log-probabilities alone.
        wanted = 16 if body.max_tokens is None else body.max_tokens or 1
        options = served.options(body, wanted, body.logprobs)
        requests: list[EngineRequest] = []
        form = await self._form(served, body, request)
        for prompt in prompts:
            requests += served.requests(prompt, options, body, form, len(requests))
        reply = CompletionReply(served, prompts, requests, body)
        return await self._answer(reply, bool(body.stream), request)

    async def tokenize(self, body: TokenizeBody, request: Request) -> Response:
        """The ids that a prompt or a conversation becomes."""
        served = self._find(body.model)
        (ids,) = await self._prompts(served, [served.tokenize_job(body)], request)
        names = served.token_name if body.return_token_strs else None
        return StreamingResponse(_tokenized(ids, served.context, names), media_type=JSON)

    async def detokenize(self, body: DetokenizeBody) -> Response:
        """The text of ids."""
        served = self._find(body.model)
        served.check_ids(body.tokens, "tokens")

        def text() -> str:
            known = [token for token in body.tokens if token < served.tokenizer.vocab_size]
            return served.tokenizer.decode(known, skip_special_tokens=False)

        return JSONResponse({"prompt": await asyncio.to_thread(text)})

    async def embed(self, body: EmbeddingBody, request: Request) -> Response:
        """One vector per text."""
        served = self._find(body.model)
        prompts = await self._prompts(served, served.text_jobs(body), request)
        for prompt in prompts:
            served.check_prompt(prompt, "input")
        size = served.scheduler.runner.model.config.hidden_size
        if body.dimensions not in (None, size):
            raise Problem(400, f"dimensions: this model's vectors have {size}", "dimensions")
        data = []
        for index, prompt in enumerate(prompts):
            steps, vector = served.embedding(prompt), cast(Any, None)
            while vector is None:  # running answers go on in between
                step = functools.partial(next, steps)
                vector = await asyncio.wrap_future(self._worker.call(step))
            if body.encoding_format == "base64":
                vector = base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        tokens = sum(map(len, prompts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})

    def _find(self, name: str | None) -> Served:
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            known = ", ".join(self._models)
            message = f"there is no model {name[:200]!r} here, but: {known}"
            raise Problem(404, message, "model", code="model_not_found")
        return self._models[name]

    def _generation(self, served: Served, requests: list[EngineRequest]) -> Any:
        return generation(self._worker, served, requests, self._metrics, self._timeout)

    async def _prompts(self, served: Served, jobs: list[Job], request: Request) -> list[list[int]]:
        return await _unless_gone(request, self._desk.prompts(served, jobs))

    async def _form(
        self, served: Served, body: Sampling, request: Request
    ) -> GrammarConstraint | None:
        make = served.form(body)
        return None if make is None else await _unless_gone(request, self._desk.form(make))

    async def _converse(
        self,
        body: ChatBody,
        reply_of: Callable[..., Reply],
        request: Request,
        must_fit: bool = True,
    ) -> Response:
        """The assistant's turn; whatever the protocol, a conversation goes this way.

        Args:
            reply_of: makes the reply of a model, a prompt, the requests and the body.
            must_fit: refuse more tokens of the answer than the context has room for.
        """
        served = self._find(body.model)
        (prompt,) = await self._prompts(served, [served.chat_job(body)], request)
        wanted = body.max_completion_tokens
        wanted = body.max_tokens if wanted is None else wanted
        served.check_prompt(prompt, "messages", wanted if must_fit else None)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        options = served.options(body, wanted, logprobs)
        form = await self._form(served, body, request)
        requests = served.requests(prompt, options, body, form)
        reply = reply_of(served, prompt, requests, body)
        return await self._answer(reply, bool(body.stream), request)

    async def _answer(self, reply: Reply, stream: bool, request: Request) -> Response:
        """Lets the engine work; the reply as it grows, or whole."""
        context = self._generation(reply.served, reply.requests)
        if stream:
            running = await context.__aenter__()  # a full queue is a 429, not a broken stream
            return _Stream(_events(running, reply), context)

        async def answer() -> Response:
            async with context as running:
                async for growth in running:
                    reply.chunks(growth)
            return JSONResponse(reply.whole())

        return await _unless_gone(request, answer())


def _tokenized(ids: list[int], context: int, name: Callable[[int], str] | None) -> Iterator[str]:
    """The answer to /tokenize, piece by piece: a text of some megabytes has millions of tokens."""

    def listed(of: Callable[[int], Any]) -> Iterator[str]:
        for start in range(0, len(ids), PIECE):
            part = json.dumps([of(token) for token in ids[start : start + PIECE]])
            yield (", " if start else "") + part[1:-1]

    yield f'{{"count": {len(ids)}, "max_model_len": {context}, "tokens": ['
    yield from listed(int)
    yield '], "token_strs": '
    if name is None:
        yield "null}"
    else:
        yield "["
        yield from listed(name)
        yield "]}"


async def _events(running: Generation, reply: Reply) -> AsyncIterator[str]:
    try:
        for event in reply.opening():
            yield reply.written(event)
        async for growth in running:
            for event in reply.chunks(growth):
                yield reply.written(event)
        for event in reply.closing():
            yield reply.written(event)
        yield reply.end
    except (Problem, MiaoError) as error:
        problem = error if isinstance(error, Problem) else Problem(400, str(error))
        for event in reply.failure(problem):
            yield reply.written(event)
    except Exception as error:
        for event in reply.failure(failure("the server", error)):
            yield reply.written(event)


class _Stream(StreamingResponse):
    """Server-sent events that free their rows however they end: also before the first one."""

    def __init__(self, events: AsyncIterator[str], context: Any):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._context = context

    async def __call__(self, *arguments: Any) -> None:
        try:
            await super().__call__(*arguments)
        finally:
            await self._context.__aexit__(None, None, None)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is given up when the client hangs up."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, hangup = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({answer, hangup}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise Problem(499, "the client has gone")
    finally:
        for task in (answer, hangup):
            task.cancel()
        await asyncio.gather(answer, hangup, return_exceptions=True)


def _model_object(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "miao",
        "max_model_len": served.context,
    }
