"""The one chat template: conversations to text, and to ids with a mask over what is learnt.

What a message says is data and never becomes a control token: "<|im_end|>" typed by a user is
encoded as the ten characters that it is. Only what the template itself writes (turn marks, <think>,
<tool_call>, ...) is control. To keep the two apart, control tokens spelt out in a message are
defused with a noncharacter before rendering; the rendered text is cut at the control tokens that
remain; and each stretch in between is encoded as ordinary text, with the noncharacters taken out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from miao.corpus.records import Conversation, Message
from miao.errors import MiaoError
from miao.tokenizer.rendered import not_written, only_learned
from miao.tokenizer.shield import END_LEARN, LEARN, Shield, Span, shield_of
from miao.tokenizer.turns import mark_turns

if TYPE_CHECKING:
    from miao.tokenizer.tokenizer import Tokenizer

MIAO_TEMPLATE = Path(__file__).with_name("miao.jinja").read_text(encoding="utf-8").strip()

_CONVERSATIONS_PER_BATCH = 512
LARGEST = 10**6
"""Number or length that a template may multiply."""
_BREAK = "\uffff"
"""Where a message breaks off; a noncharacter, as those of `Shield`."""

ChatMessage = Message | Mapping[str, Any]


class ChatTemplate:
    """A Jinja chat template: Miao's own, or the one that came with another model.

    Messages are `Message` records or dictionaries as OpenAI's interface and transformers have them.

    Args:
        source: the Jinja text.
        special_tokens: `bos_token`, `eos_token`, ... for templates that mention them by name.

    Raises:
        MiaoError: the Jinja text is not valid.
    """

    def __init__(
        self, source: str = MIAO_TEMPLATE, special_tokens: Mapping[str, str] | None = None
    ):
        self.source, self.special_tokens = source, dict(special_tokens or {})
        try:
            self._compiled = _compiled(source)
        except jinja2.TemplateError as error:
            raise MiaoError(f"the chat template is not valid Jinja: {error}") from error
        self._marks_generation = bool(re.search(r"{%-?\s*generation\s*-?%}", source))

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        enable_thinking: bool | None = None,
    ) -> str:
        """The conversation as text, exactly as transformers renders it. To look at: `encode` is
        what to feed a model, since text cannot tell a control token from its spelling.

        Args:
            tools: JSON schemas of the functions that the assistant may call.
            add_generation_prompt: ends with the opening of the assistant's turn.
            enable_thinking: False opens that turn with an empty <think> block (for models trained
                to reason); True and None add nothing.

        Raises:
            MiaoError: no messages, an unknown role, or the template refuses them.
        """
        shield = shield_of(())
        text = self._render(shield, messages, tools, add_generation_prompt, enable_thinking)
        return shield.restore(text.replace(LEARN, "").replace(END_LEARN, ""))

    def encode(
        self, tokenizer: Tokenizer, conversation: Conversation, last_turn_only: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Ids of a conversation, and which of them the assistant says (<|im_end|> included) in
        turns that are learned.

        The ids are those of transformers' `apply_chat_template`, with two deliberate exceptions:
        control tokens spelt out in a message stay ordinary text, and the assistant's first token
        never merges with the newline before it, so that `encode_prompt` is always a prefix.

        Args:
            last_turn_only: the mask covers the last assistant message only.

        Raises:
            MiaoError: see `render`; or the template hides where the assistant speaks.
        """
        return next(self.encode_many(tokenizer, [conversation], last_turn_only))

    def encode_many(
        self,
        tokenizer: Tokenizer,
        conversations: Iterable[Conversation],
        last_turn_only: bool = False,
        encode_batch: Callable[[Sequence[str]], list[list[int]]] | None = None,
        left_out: Counter[str] | None = None,
    ) -> Iterator[tuple[list[int], list[bool]]]:
        """`encode` for many conversations, in order, in batches; several times as fast.

        Args:
            encode_batch: a faster `Tokenizer.encode_batch` (see `BulkEncoder`).
            left_out: counts what the template does not write; see `not_written`.
        """
        remaining = iter(conversations)
        while batch := list(islice(remaining, _CONVERSATIONS_PER_BATCH)):
            spans = [self._spans_of(tokenizer, c, last_turn_only, left_out) for c in batch]
            yield from _encode_spans(tokenizer, spans, encode_batch)

    def encode_prompt(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Ids up to where the assistant begins to speak; what generation starts from."""
        shield = shield_of(tuple(tokenizer.control_ids))
        text = self._render(shield, messages, tools, add_generation_prompt, enable_thinking)
        ((ids, _),) = _encode_spans(tokenizer, [shield.spans(text)])
        return ids

    def encode_continued(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool | None = None,
    ) -> list[int]:
        """Ids up to where the last message, which is the assistant's, breaks off: an answer whose
        beginning is given.

        Raises:
            MiaoError: see `render`; or the template does not say the message as it is.
        """
        shield = shield_of(tuple(tokenizer.control_ids))
        *before, last = [message_fields(message) for message in messages]
        field = "content" if last.get("content") else "reasoning_content"
        said = last.get(field) or ""
        # A mark shows where it ends: what a template writes behind it is not said yet.
        marked = last | {field if said else "content": said + _BREAK}
        text = self._render(shield, [*before, marked], tools, False, enable_thinking)
        text, found, _ = text.rpartition(_BREAK)
        if not found or not text.endswith(shield.defuse(said.lstrip())):
            raise MiaoError("the chat template does not say the last message as it is")
        ((ids, _),) = _encode_spans(tokenizer, [shield.spans(text)])
        return ids

    def __reduce__(self) -> tuple[Any, ...]:
        return ChatTemplate, (self.source, self.special_tokens)

    def _render(
        self,
        shield: Shield,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        enable_thinking: bool | None,
    ) -> str:
        """The rendered text, its messages defused, what the assistant says between marks."""
        if not messages:
            raise MiaoError("the conversation has no messages")
        thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        try:
            return self._compiled.render(
                messages=[shield.defuse(message_fields(message)) for message in messages],
                tools=shield.defuse(list(tools)) if tools else None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
                **thinking,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            reason = shield.restore(str(error))
            raise MiaoError(f"the chat template refuses the conversation: {reason}") from error

    @cached_property
    def _turn_opening(self) -> str:
        """What the generation prompt adds: the opening of an assistant's turn."""
        probe = [Message("user", "?")]
        return self.render(probe, add_generation_prompt=True).removeprefix(self.render(probe))

    def _spans_of(
        self,
        tokenizer: Tokenizer,
        conversation: Conversation,
        last_turn_only: bool,
        left_out: Counter[str] | None,
    ) -> list[Span]:
        shield = shield_of(tuple(tokenizer.control_ids))

        def prompt(number: int) -> str:
            before = conversation.messages[:number]
            return self._render(shield, before, conversation.tools, True, enable_thinking=None)

        try:
            text = self._render(
                shield, conversation.messages, conversation.tools, False, enable_thinking=None
            )
            if not self._marks_generation:
                text = mark_turns(tokenizer, text, self._turn_opening, conversation, prompt)
            text = only_learned(text, conversation, last_turn_only)
        except MiaoError as error:
            where = error.where or conversation.source or None
            raise MiaoError(error.what, where=where, fix=error.fix) from error
        if left_out is not None:
            plain = shield.restore(text.replace(LEARN, "").replace(END_LEARN, ""))
            left_out.update(not_written(plain, conversation))
        return shield.spans(text)


def message_fields(message: ChatMessage) -> dict[str, Any]:
    """A message as chat templates know it: OpenAI's fields, nothing null. Reasoning has the name
    of Qwen, GLM and DeepSeek, and that of gpt-oss."""
    if not isinstance(message, Message):
        return {name: value for name, value in message.items() if value is not None}
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        fields["reasoning_content"] = fields["thinking"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [
            call if "function" in call else {"type": "function", "function": call}
            for call in message.tool_calls
        ]
    return fields


def _encode_spans(
    tokenizer: Tokenizer,
    conversations: list[list[Span]],
    encode_batch: Callable[[Sequence[str]], list[list[int]]] | None = None,
) -> Iterator[tuple[list[int], list[bool]]]:
    """Ids and mask of each conversation. Equal stretches ("user\\n", ...) are encoded once."""
    texts = {span.text: None for spans in conversations for span in spans if not span.is_control}
    encode = encode_batch or tokenizer.encode_batch
    ids_of_text = dict(zip(texts, encode(list(texts)), strict=True))
    for spans in conversations:
        ids: list[int] = []
        mask: list[bool] = []
        for text, is_control, is_learnt in spans:
            piece = [tokenizer.control_ids[text]] if is_control else ids_of_text[text]
            ids += piece
            mask += [is_learnt] * len(piece)
        yield ids, mask


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`: sets marks around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return LEARN + caller() + END_LEARN


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which no single operation takes for ever, also not while Jinja compiles (it
    works out constants, but none of an intercepted operator)."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(x) if hasattr(x, "__len__") else abs(x) for x in (left, right)]
        if max(sizes) > LARGEST or (operator == "**" and sizes[1] > 64):
            raise SecurityError(f"a number or a text is too large for {operator}")
        return super().call_binop(context, operator, left, right)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up; sandboxed, since templates come with foreign models."""
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    # Jinja's own filter escapes HTML and all that is not ASCII.
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    """A tokenizer is read many times, its template compiled once."""
    return _environment().from_string(source)


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)
