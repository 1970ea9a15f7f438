"""The bodies of answers, as OpenAI's clients read them: whole, or as chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from miao.engine import Request
from miao.serve.answer import AnswerParser, Piece, opens_thought
from miao.serve.conversation import ChatBody
from miao.serve.generation import Growth
from miao.serve.models import Served
from miao.serve.problems import Problem
from miao.serve.protocol import shown

Event = dict[str, Any]


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


class Reply:
    """One answer to a client, in the words of one protocol: events of a stream (`opening`, then
    `chunks` as it grows, then `closing`), or `whole` when all growth has been told to `chunks`."""

    prefix: str
    end = "data: [DONE]\n\n"
    """What follows the last event."""

    def __init__(self, served: Served, prompts: list[list[int]], requests: list[Request]):
        self.served, self.prompts, self.requests = served, prompts, requests
        self.number = f"{self.prefix}{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.place = {request.number: index for index, request in enumerate(requests)}

    def body(self, choices: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        """An object of OpenAI's completions."""
        return {
            "id": self.number,
            "object": kind,
            "created": self.created,
            "model": self.served.name,
            "choices": choices,
        }

    def usage(self) -> dict[str, Any]:
        return usage_of(self.requests, self.prompts)

    def opening(self) -> list[Event]:
        """The events before the first token."""
        raise NotImplementedError

    def chunks(self, growth: Growth) -> list[Event]:
        """Takes what an answer has gained; returns its events."""
        raise NotImplementedError

    def closing(self) -> list[Event]:
        """The events after the last token of all answers."""
        raise NotImplementedError

    def whole(self) -> dict[str, Any]:
        """The body where nothing is streamed."""
        raise NotImplementedError

    def failure(self, problem: Problem) -> list[Event]:
        """The events of a stream that breaks off."""
        return [problem.body()]

    def written(self, event: Event) -> str:
        """An event as it is sent."""
        return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


class Spoken(Reply):
    """A turn of the assistant, in whatever protocol: its text is taken apart as it comes.

    Args:
        body: what was asked, as a chat.
    """

    def __init__(self, served: Served, prompt: list[int], requests: list[Request], body: ChatBody):
        super().__init__(served, [prompt], requests)
        in_thought = opens_thought(served.tokenizer, prompt)
        self.asked = body
        self._max_calls = 1 if body.parallel_tool_calls is False else None
        """Calls of functions beyond so many are left out."""
        self._parsers = [
            AnswerParser(in_thought, body.offers_tools, bool(body.forced_tools)) for _ in requests
        ]
        self.pieces = [Piece() for _ in requests]
        """All that each answer has by now."""
        self.thought_tokens = 0

    def gained(self, growth: Growth) -> Piece:
        """What an answer has gained, taken apart."""
        index = self.place[growth.request.number]
        parser = self._parsers[index]
        piece = parser.feed(growth.text)
        if growth.is_last:
            piece.add(parser.finish(is_cut=growth.request.finish == "length"))
        if self._max_calls is not None:
            piece.calls = [call for call in piece.calls if call["index"] < self._max_calls]
        self.pieces[index].add(piece)
        if piece.reasoning and not piece.content:
            self.thought_tokens += growth.end - growth.first
        return piece

    def finish(self, index: int) -> str | None:
        """Why an answer ended, in OpenAI's words."""
        finish = self.requests[index].finish
        return "tool_calls" if self.pieces[index].calls and finish == "stop" else finish

    def logprobs(self, request: Request, first: int, end: int) -> list[dict[str, Any]] | None:
        """Of some of an answer's tokens, where the client asked for them."""
        if request.options.logprobs is None:
            return None
        pairs = zip(request.answer[first:end], request.logprobs[first:end], strict=True)
        return [
            self._token(token, value.chosen)
            | {"top_logprobs": [self._token(*pair) for pair in value.top]}
            for token, value in pairs
        ]

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self.served.token_bytes(token)
        return {
            "token": raw.decode("utf-8", "replace"),
            "logprob": shown(logprob),
            "bytes": list(raw),
        }


class ChatReply(Spoken):
    """/v1/chat/completions"""

    prefix = "chatcmpl-"

    def opening(self) -> list[Event]:
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(index, delta, None, None) for index in range(len(self.requests))]

    def chunks(self, growth: Growth) -> list[Event]:
        index, piece = self.place[growth.request.number], self.gained(growth)
        delta: dict[str, Any] = {}
        if piece.reasoning:
            delta["reasoning_content"] = piece.reasoning
        if piece.content:
            delta["content"] = piece.content
        if piece.calls:
            delta["tool_calls"] = piece.calls
        logprobs = _openai(self.logprobs(growth.request, growth.first, growth.end))
        found = []
        if delta or logprobs:
            found.append(self._chunk(index, delta, logprobs, None))
        if growth.is_last:
            found.append(self._chunk(index, {}, None, self.finish(index)))
        return found

    def closing(self) -> list[Event]:
        if not self.asked.includes_usage:
            return []
        return [self.body([], "chat.completion.chunk") | {"usage": self.usage()}]

    def whole(self) -> dict[str, Any]:
        choices = []
        for index, (request, piece) in enumerate(zip(self.requests, self.pieces, strict=True)):
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
                    "logprobs": _openai(self.logprobs(request, 0, len(request.answer))),
                    "finish_reason": self.finish(index),
                }
            )
        return self.body(choices, "chat.completion") | {"usage": self.usage()}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None,
        finish: str | None,
    ) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk = self.body([choice], "chat.completion.chunk")
        return chunk | ({"usage": None} if self.asked.includes_usage else {})


def _openai(logprobs: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    return {"content": logprobs, "refusal": None} if logprobs else None
