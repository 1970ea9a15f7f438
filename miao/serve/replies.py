"""The bodies of answers, as OpenAI's clients read them: whole, or as chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from miao.engine import Request
from miao.engine.request import TokenLogprobs
from miao.serve.answer import AnswerParser, Piece, opens_thought
from miao.serve.generation import Growth
from miao.serve.models import Served
from miao.serve.protocol import shown


def usage_of(requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Tokens of the prompts, each counted once however many answers it gets, and of all answers."""
    prompt = sum(len(p) for p in prompts)
    answer = sum(len(r.answer) for r in requests)
    reused = sum(r.reused for r in requests[:: len(requests) // len(prompts)])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": reused},
    }


@dataclass
class Reply:
    """What all bodies of one answer to a client have in common."""

    served: Served
    prompts: list[list[int]]
    requests: list[Request]
    kind: str
    prefix: str
    number: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.number = f"{self.prefix}-{secrets.token_hex(12)}"
        self.place = {request.number: index for index, request in enumerate(self.requests)}

    def body(self, choices: list[dict[str, Any]], kind: str = "") -> dict[str, Any]:
        """An object of this reply."""
        return {
            "id": self.number,
            "object": kind or self.kind,
            "created": self.created,
            "model": self.served.name,
            "choices": choices,
        }

    def usage(self) -> dict[str, Any]:
        return usage_of(self.requests, self.prompts)

    def usage_chunk(self, kind: str) -> dict[str, Any]:
        """The last chunk of a stream whose client asked for the usage."""
        return self.body([], kind) | {"usage": self.usage()}


class ChatReply(Reply):
    """/v1/chat/completions

    Args:
        max_calls: calls of functions beyond so many are left out; None: all are given.
    """

    def __init__(
        self,
        served: Served,
        prompt: list[int],
        requests: list[Request],
        has_tools: bool,
        max_calls: int | None = None,
    ):
        super().__init__(served, [prompt], requests, "chat.completion", "chatcmpl")
        in_thought = opens_thought(served.tokenizer, prompt)
        self._parsers = [AnswerParser(in_thought, has_tools) for _ in requests]
        self._calls = [0] * len(requests)
        self._max_calls = max_calls

    def opening(self) -> list[dict[str, Any]]:
        """The first chunks of a stream: who speaks."""
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(index, delta, None, None) for index in range(len(self.requests))]

    def chunks(self, growth: Growth) -> list[dict[str, Any]]:
        """Chunks of a stream for what an answer has gained."""
        index = self.place[growth.request.number]
        piece = self.piece(growth)
        delta: dict[str, Any] = {}
        if piece.reasoning:
            delta["reasoning_content"] = piece.reasoning
        if piece.content:
            delta["content"] = piece.content
        if piece.calls:
            delta["tool_calls"] = piece.calls
        logprobs = self._logprobs(growth.request, growth.first, growth.end)
        found = []
        if delta or logprobs:
            found.append(self._chunk(index, delta, logprobs, None))
        if growth.is_last:
            found.append(self._chunk(index, {}, None, self._finish(growth.request, index)))
        return found

    def piece(self, growth: Growth) -> Piece:
        """What an answer has gained, taken apart."""
        index = self.place[growth.request.number]
        parser = self._parsers[index]
        piece = parser.feed(growth.text)
        if growth.is_last:
            rest = parser.finish()
            piece = Piece(
                piece.reasoning + rest.reasoning,
                piece.content + rest.content,
                piece.calls + rest.calls,
            )
        if self._max_calls is not None:
            piece.calls = piece.calls[: max(0, self._max_calls - self._calls[index])]
        self._calls[index] += len(piece.calls)
        return piece

    def whole(self, pieces: list[Piece]) -> dict[str, Any]:
        """The body where nothing is streamed."""
        choices = []
        for index, (request, piece) in enumerate(zip(self.requests, pieces, strict=True)):
            message: dict[str, Any] = {"role": "assistant", "content": piece.content}
            message["refusal"] = None
            if piece.reasoning:
                message["reasoning_content"] = piece.reasoning
            if piece.calls:
                calls = [{k: v for k, v in c.items() if k != "index"} for c in piece.calls]
                message["tool_calls"] = calls
                message["content"] = piece.content or None
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": self._logprobs(request, 0, len(request.answer)),
                    "finish_reason": self._finish(request, index),
                }
            )
        return self.body(choices) | {"usage": self.usage()}

    def usage_chunk(self, kind: str = "chat.completion.chunk") -> dict[str, Any]:
        return super().usage_chunk(kind)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None,
        finish: str | None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self.body([choice], "chat.completion.chunk")

    def _finish(self, request: Request, index: int) -> str | None:
        return "tool_calls" if self._calls[index] else request.finish

    def _logprobs(self, request: Request, first: int, end: int) -> dict[str, Any] | None:
        if request.options.logprobs is None:
            return None
        tokens, values = request.answer[first:end], request.logprobs[first:end]
        if not tokens:
            return None
        content = []
        for token, value in zip(tokens, values, strict=True):
            entry = self._token(token, value.chosen)
            entry["top_logprobs"] = [self._token(*pair) for pair in value.top]
            content.append(entry)
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self.served.tokenizer.token_bytes(token) if self._known(token) else b""
        return {
            "token": raw.decode("utf-8", "replace"),
            "logprob": shown(logprob),
            "bytes": list(raw),
        }

    def _known(self, token: int) -> bool:
        return token < self.served.tokenizer.vocab_size


class CompletionReply(Reply):
    """/v1/completions

    Args:
        echo: put each prompt before its answers. count: answers per prompt.
    """

    def __init__(
        self,
        served: Served,
        prompts: list[list[int]],
        requests: list[Request],
        echo: bool,
        count: int,
    ):
        super().__init__(served, prompts, requests, "text_completion", "cmpl")
        self._echoes = [""] * len(requests)
        if echo:
            texts = [served.tokenizer.decode(prompt) for prompt in prompts]
            self._echoes = [texts[index // count] for index in range(len(requests))]
        self._lengths = [len(echo) for echo in self._echoes]

    def opening(self) -> list[dict[str, Any]]:
        """The first chunks of a stream: the echoed prompts."""
        return [
            self.body([self._choice(index, text, None, None)])
            for index, text in enumerate(self._echoes)
            if text
        ]

    def chunks(self, growth: Growth) -> list[dict[str, Any]]:
        """Chunks of a stream for what an answer has gained."""
        index = self.place[growth.request.number]
        logprobs = self._logprobs(growth.request, index, growth.first, growth.end)
        found = []
        if growth.text or logprobs:
            found.append(self.body([self._choice(index, growth.text, logprobs, None)]))
        if growth.is_last:
            found.append(self.body([self._choice(index, "", None, growth.request.finish)]))
        return found

    def whole(self, texts: list[str]) -> dict[str, Any]:
        """The body where nothing is streamed."""
        choices = [
            self._choice(
                index,
                self._echoes[index] + text,
                self._logprobs(request, index, 0, len(request.answer)),
                request.finish,
            )
            for index, (request, text) in enumerate(zip(self.requests, texts, strict=True))
        ]
        return self.body(choices) | {"usage": self.usage()}

    def usage_chunk(self, kind: str = "text_completion") -> dict[str, Any]:
        return super().usage_chunk(kind)

    def _choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(
        self, request: Request, index: int, first: int, end: int
    ) -> dict[str, Any] | None:
        if request.options.logprobs is None:
            return None
        tokens = [self._shown(token) for token in request.answer[first:end]]
        values: list[TokenLogprobs] = request.logprobs[first:end]
        if not tokens:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._lengths[index])
            self._lengths[index] += len(token)
        top = [{self._shown(token): shown(v) for token, v in value.top} for value in values]
        return {
            "tokens": tokens,
            "token_logprobs": [shown(value.chosen) for value in values],
            "top_logprobs": top,
            "text_offset": offsets,
        }

    def _shown(self, token: int) -> str:
        tokenizer = self.served.tokenizer
        if token >= tokenizer.vocab_size:
            return ""
        return tokenizer.token_bytes(token).decode("utf-8", "replace")
