"""The models that a server offers, and how its requests become the engine's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from miao.engine import Request, SamplingOptions, Scheduler
from miao.engine.grammar import GrammarConstraint, Grammars
from miao.engine.sampling import OF_A_REQUEST
from miao.engine.text import TextStream
from miao.serve.conversation import ChatBody, ChatMessage, TokenizeBody
from miao.serve.problems import Problem
from miao.serve.protocol import CompletionBody, EmbeddingBody, Sampling
from miao.serve.scribe import Job
from miao.tokenizer import Tokenizer

MAX_PROMPTS = 256
"""Texts in one request."""


@dataclass
class Served:
    """One model under its name.

    Args:
        defaults: sampling where a request says nothing.
    """

    name: str
    tokenizer: Tokenizer
    scheduler: Scheduler
    defaults: SamplingOptions
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.grammars = Grammars(self.tokenizer, self.scheduler.runner.model.config.tokens)

    @property
    def context(self) -> int:
        return self.scheduler.context

    def chat_job(self, body: ChatBody) -> Job:
        """What makes the prompt up to where the assistant begins to speak."""
        tools = None
        if body.offers_tools:
            tools = [tool.model_dump(exclude_none=True) for tool in body.tools or []]
        way = "close" if body.add_generation_prompt is False else "open"
        return {
            "messages": [_template_message(message) for message in body.messages],
            "tools": tools,
            "thinking": body.thinking,
            "way": "continue" if body.continue_final_message else way,
        }

    def text_jobs(self, body: CompletionBody | EmbeddingBody) -> list[Job]:
        """What makes every prompt. Text begins a document; ids are taken as they are."""
        given = body.prompt if isinstance(body, CompletionBody) else body.input
        field_name = "prompt" if isinstance(body, CompletionBody) else "input"
        if not given and not isinstance(given, str):
            raise Problem(400, f"{field_name}: is empty", field_name)
        several: Sequence[Any] = [given] if isinstance(given, str) or _is_ids(given) else given
        if len(several) > MAX_PROMPTS:
            message = f"{field_name}: {len(several)} texts; at most {MAX_PROMPTS}"
            raise Problem(400, message, field_name)
        return [
            {"text": one, "begins": True} if isinstance(one, str) else {"ids": one}
            for one in several
        ]

    def tokenize_job(self, body: TokenizeBody) -> Job:
        """What makes the ids of a prompt, as those of /v1/completions, or of a conversation."""
        if body.messages is not None:
            return self.chat_job(ChatBody.of(body))
        return {"text": body.prompt or "", "begins": body.add_special_tokens is not False}

    def check_prompt(self, prompt: list[int], param: str, wanted: int | None = None) -> None:
        """Raises:
        Problem: 400, with how many tokens are too many.

        Args:
            wanted: most tokens of the answer, where the client says so and means it.
        """
        if not prompt:
            raise Problem(400, f"{param}: is empty", param)
        self.check_ids(prompt, param)
        excess = len(prompt) - (self.context - 1)
        if excess > 0:
            raise Problem(
                400,
                f"{param}: {len(prompt)} tokens are {excess} too many: with at least one token of "
                f"the answer they must fit the context of {self.context} tokens",
                param,
                code="context_length_exceeded",
            )
        room = self.context - len(prompt)
        if wanted is not None and wanted > room:
            raise Problem(
                400,
                f"max_tokens: {wanted} tokens of the answer after {len(prompt)} of the prompt are "
                f"more than the context of {self.context}: {room} fit (-1: all that do)",
                "max_tokens",
                code="context_length_exceeded",
            )

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Raises:
        Problem: 400, one is none of the model's.
        """
        vocab_size = self.scheduler.runner.model.config.tokens
        if ids and max(ids) >= vocab_size:
            message = f"{param}: token ids must be below {vocab_size}, and {max(ids)} is not"
            raise Problem(400, message, param)

    def options(self, body: Sampling, wanted: int | None, logprobs: int | None) -> SamplingOptions:
        """What a request asks for, over the model's defaults.

        Args:
            wanted: most tokens of the answer; None: the default, -1: all there is room for.
        """
        base = self.defaults
        asked: dict[str, Any] = {name: getattr(body, name) for name in OF_A_REQUEST}
        drawn = {n: getattr(base, n) if value is None else value for n, value in asked.items()}

        vocab_size = self.scheduler.runner.model.config.tokens
        bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
        if bias and max(bias) >= vocab_size:
            message = f"logit_bias: token ids must be below {vocab_size}, and {max(bias)} is not"
            raise Problem(400, message, "logit_bias")
        return SamplingOptions(
            **drawn | {"top_k": max(0, drawn["top_k"])},
            logit_bias=bias,
            max_new_tokens=self.context if wanted in (None, -1) else wanted,
            seed=body.seed,
            stop=body.stops,
            logprobs=logprobs,
        )

    def form(self, body: Sampling) -> Callable[[], GrammarConstraint] | None:
        """What makes the form that answers must have, which may take a while; None: any do."""
        wanted = body.structured_outputs
        if wanted is not None:
            if wanted.choice:
                return partial(self.grammars.choice, wanted.choice)
            if wanted.regex is not None:
                return partial(self.grammars.regex, wanted.regex)
            if wanted.grammar is not None:
                return partial(self.grammars.grammar, wanted.grammar)
            return partial(self.grammars.json, wanted.json_)
        if not isinstance(body, ChatBody):
            return None
        form = body.response_format
        if body.forced_tools:
            functions = [tool.model_dump(exclude_none=True) for tool in body.forced_tools]
            return partial(self.grammars.tool_calls, functions)
        if form is None or form.type == "text":
            return None
        schema = None if form.json_schema is None else form.json_schema.schema_
        return partial(self.grammars.json, schema)

    def requests(
        self,
        prompt: list[int],
        options: SamplingOptions,
        body: Sampling,
        form: GrammarConstraint | None,
        first_index: int = 0,
    ) -> list[Request]:
        """The answers to one prompt, as many as the client wants."""
        scores_prompt = isinstance(body, CompletionBody) and body.scores_prompt
        continues = self.continues(prompt, body)
        return [
            Request(
                prompt,
                options,
                index=first_index + number,
                constraint=form and form.copy(),
                watcher=TextStream(self.tokenizer, options.stop, continues),
                scores_prompt=scores_prompt,
            )
            for number in range(body.n or 1)
        ]

    def continues(self, prompt: list[int], body: Sampling) -> bool:
        """Whether an answer goes on with a text, and does not begin one."""
        if isinstance(body, ChatBody):
            return bool(body.continue_final_message)
        return not self.tokenizer.special_ids.issuperset(prompt)

    def token_bytes(self, token: int) -> bytes:
        """What a token stands for; nothing, where the model knows more ids than its tokenizer."""
        return self.tokenizer.token_bytes(token) if token < self.tokenizer.vocab_size else b""

    def token_name(self, token: int) -> str:
        """A token's text. Part of a character is written as OpenAI does, so that different tokens
        keep different names."""
        raw = self.token_bytes(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def embedding(self, ids: list[int]) -> Iterator[list[float] | None]:
        """The mean of the last hidden states over the tokens, made as long as 1, at the end of some
        steps of which none takes longer than one of the scheduler's."""
        total_d: Tensor | None = None
        for hidden_td in self.scheduler.runner.hidden(ids, self.scheduler.prefill_tokens):
            piece_d = hidden_td.sum(dim=0)
            total_d = piece_d if total_d is None else total_d + piece_d
            yield None
        assert total_d is not None
        yield torch.nn.functional.normalize(total_d / len(ids), dim=0).tolist()


def _is_ids(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and isinstance(given[0], int)


def _template_message(message: ChatMessage) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    fields: dict[str, Any] = {"role": role, "content": message.text}
    if message.reasoning_content:
        fields["reasoning_content"] = message.reasoning_content
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": c.function.name, "arguments": c.function.arguments},
            }
            for c in message.tool_calls
        ]
    return fields
