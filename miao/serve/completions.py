"""/v1/completions: a text that goes on, and on request what the model thought of its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from miao.engine import Request
from miao.engine.request import TokenLogprobs
from miao.serve.generation import Growth
from miao.serve.models import Served
from miao.serve.protocol import CompletionBody, shown
from miao.serve.replies import Event, Reply
from miao.tokenizer import StreamDecoder


class CompletionReply(Reply):
    """The answers to a `CompletionBody`."""

    prefix = "cmpl-"

    def __init__(
        self,
        served: Served,
        prompts: list[list[int]],
        requests: list[Request],
        body: CompletionBody,
    ):
        super().__init__(served, prompts, requests)
        self.asked, count = body, body.n or 1
        decode = served.tokenizer.decode
        echoes = [decode(prompt) if body.echo else "" for prompt in prompts]
        self.texts = [echoes[index // count] for index in range(len(requests))]
        """Each prompt, where it is echoed, and what has come after it."""
        self._decoders = [
            StreamDecoder(
                served.tokenizer,
                continues=not body.echo and served.continues(list(request.prompt), body),
            )
            for request in requests
        ]
        self._lengths = [0] * len(requests)
        """Characters of the tokens whose log-probabilities were shown."""
        self._echoed = [False] * len(requests)
        self._logprobs: list[dict[str, Any]] = [{} for _ in requests]

    def opening(self) -> list[Event]:
        if self.asked.logprobs is not None:
            return []  # the echo comes with its log-probabilities, when it has been read
        return [self._chunk(index, text) for index, text in enumerate(self.texts) if text]

    def chunks(self, growth: Growth) -> list[Event]:
        request, index = growth.request, self.place[growth.request.number]
        found = []
        if self.asked.echo and self.asked.logprobs is not None and not self._echoed[index]:
            self._echoed[index] = True
            first: list[TokenLogprobs | None] = [None, *request.prompt_logprobs]
            logprobs = self._shown(index, list(request.prompt), first)
            found.append(self._chunk(index, self.texts[index], logprobs))
        if self.asked.max_tokens != 0:
            self.texts[index] += growth.text
            gained = None
            if self.asked.logprobs is not None and growth.end > growth.first:
                tokens = request.answer[growth.first : growth.end]
                gained = self._shown(index, tokens, request.logprobs[growth.first : growth.end])
            if growth.text or gained:
                found.append(self._chunk(index, growth.text, gained))
        if growth.is_last:
            found.append(self._chunk(index, "", finish=self._finish(request)))
        return found

    def closing(self) -> list[Event]:
        if not self.asked.includes_usage:
            return []
        return [self.body([], "text_completion") | {"usage": self.usage()}]

    def whole(self) -> dict[str, Any]:
        choices = [
            self._choice(index, text, self._logprobs[index] or None, self._finish(request))
            for index, (request, text) in enumerate(zip(self.requests, self.texts, strict=True))
        ]
        return self.body(choices, "text_completion") | {"usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        usage = super().usage()
        if self.asked.max_tokens == 0:
            usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        return usage

    def _finish(self, request: Request) -> str | None:
        return "length" if self.asked.max_tokens == 0 else request.finish

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> Event:
        chunk = self.body([self._choice(index, text, logprobs, finish)], "text_completion")
        return chunk | ({"usage": None} if self.asked.includes_usage else {})

    def _choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _shown(
        self, index: int, tokens: list[int], values: Sequence[TokenLogprobs | None]
    ) -> dict[str, Any]:
        """OpenAI's form of some tokens' log-probabilities; kept for the whole as well."""
        name = self.served.token_name
        found: dict[str, Any] = {
            "tokens": [name(token) for token in tokens],
            "token_logprobs": [value and shown(value.chosen) for value in values],
            "top_logprobs": [
                value and {name(one): shown(logprob) for one, logprob in likeliest}
                for token, value in zip(tokens, values, strict=True)
                # The drawn one is always among them.
                for likeliest in [[*value.top, (token, value.chosen)] if value else []]
            ],
            "text_offset": [self._offset(index, token) for token in tokens],
        }
        for key, entries in found.items():
            self._logprobs[index].setdefault(key, []).extend(entries)
        return found

    def _offset(self, index: int, token: int) -> int:
        """Where in the text the next token begins."""
        offset = self._lengths[index]
        if self.served.token_bytes(token):
            self._lengths[index] += len(self._decoders[index].feed(token))
        return offset
