"""The models that a server offers, and how its requests become the engine's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from miao.engine import Request, SamplingOptions, Scheduler
from miao.engine.grammar import GrammarConstraint, Grammars
from miao.engine.text import TextStream
from miao.serve.conversation import ChatBody, ChatMessage, TokenizeBody
from miao.serve.problems import Problem
from miao.serve.protocol import CompletionBody, EmbeddingBody, Sampling
from miao.tokenizer import Tokenizer


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

    def chat_prompt(self, body: ChatBody) -> list[int]:
        """Ids up to where the assistant begins to speak."""
        tools = None
        if body.offers_tools:
            tools = [tool.model_dump(exclude_none=True) for tool in body.tools or []]
        messages = [_template_message(message) for message in body.messages]
        template = self.tokenizer.chat_template
        if body.continue_final_message:
            return template.encode_continued(self.tokenizer, messages, tools, body.thinking)
        opens = body.add_generation_prompt is not False
        return template.encode_prompt(self.tokenizer, messages, tools, body.thinking, opens)

    def text_prompts(self, body: CompletionBody | EmbeddingBody) -> list[list[int]]:
        """Ids of every prompt. Text begins a document; ids are taken as they are."""
        given = body.prompt if isinstance(body, CompletionBody) else body.input
        field_name = "prompt" if isinstance(body, CompletionBody) else "input"
        if not given and not isinstance(given, str):
            raise Problem(400, f"{field_name}: is empty", field_name)
        several: Sequence[Any] = [given] if isinstance(given, str) or _is_ids(given) else given
        prompts = []
        for one in several:
            if isinstance(one, str):
                one = [*self.tokenizer.document_start, *self.tokenizer.encode(one)]
            prompts.append(list(one))
        return prompts

    def tokenize(self, body: TokenizeBody) -> list[int]:
        """Ids of a prompt, as those of /v1/completions, or of a conversation."""
        if body.messages is not None:
            return self.chat_prompt(ChatBody.of(body))
        ids = self.tokenizer.encode(body.prompt or "")
        return ids if body.add_special_tokens is False else [*self.tokenizer.document_start, *ids]

    def check_prompt(self, prompt: list[int], param: str, wanted: int | None = None) -> None:
        """Raises:
        Problem: 400, with how many tokens are too many.

        Args:
            wanted: most tokens of the answer, where the client says so.
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
            raise Problem(400, f"{param}: token ids must be below {vocab_size}", param)

    def options(self, body: Sampling, wanted: int | None, logprobs: int | None) -> SamplingOptions:
        """What a request asks for, over the model's defaults.

        Args:
            wanted: most tokens of the answer; None: the default, -1: all there is room for.
        """
        base = self.defaults

        def given(value: Any, default: Any) -> Any:
            return default if value is None else value

        vocab_size = self.scheduler.runner.model.config.tokens
        bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
        if any(token >= vocab_size for token in bias):
            raise Problem(400, f"logit_bias: token ids must be below {vocab_size}", "logit_bias")
        return SamplingOptions(
            temperature=given(body.temperature, base.temperature),
            top_p=given(body.top_p, base.top_p),
            top_k=max(0, given(body.top_k, base.top_k)),
            min_p=given(body.min_p, base.min_p),
            repetition_penalty=given(body.repetition_penalty, base.repetition_penalty),
            presence_penalty=given(body.presence_penalty, 0.0),
            frequency_penalty=given(body.frequency_penalty, 0.0),
            logit_bias=bias,
            max_new_tokens=self.context if wanted in (None, -1) else wanted,
            seed=body.seed,
            stop=body.stops,
            logprobs=logprobs,
        )

    def constraint(self, body: Sampling) -> GrammarConstraint | None:
        """The form that an answer must have. One per answer."""
        wanted = body.structured_outputs
        if wanted is not None:
            if wanted.choice:
                return self.grammars.choice(wanted.choice)
            if wanted.regex is not None:
                return self.grammars.regex(wanted.regex)
            if wanted.grammar is not None:
                return self.grammars.grammar(wanted.grammar)
            return self.grammars.json(wanted.json_)
        if not isinstance(body, ChatBody):
            return None
        form = body.response_format
        if body.forced_tools:
            functions = [tool.model_dump(exclude_none=True) for tool in body.forced_tools]
            return self.grammars.tool_calls(functions)
        if form is None or form.type == "text":
            return None
        schema = None if form.json_schema is None else form.json_schema.schema_
        return self.grammars.json(schema)

    def requests(
        self,
        prompt: list[int],
        options: SamplingOptions,
        body: Sampling,
        first_index: int = 0,
    ) -> list[Request]:
        """The answers to one prompt, as many as the client wants."""
        scores_prompt = isinstance(body, CompletionBody) and body.scores_prompt
        return [
            Request(
                prompt,
                options,
                index=first_index + number,
                constraint=self.constraint(body),
                watcher=TextStream(self.tokenizer, options.stop),
                scores_prompt=scores_prompt,
            )
            for number in range(body.n or 1)
        ]

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

    def embed(self, ids: list[int]) -> list[float]:
        """The mean of the last hidden states over the tokens, made as long as 1."""
        mean = self.scheduler.runner.hidden(ids).mean(dim=0)
        return torch.nn.functional.normalize(mean, dim=0).tolist()


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
