"""A rendered conversation beside what it was made of: which turns are learned, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from miao.corpus.records import Conversation
from miao.errors import MiaoError
from miao.tokenizer.shield import LEARN


def only_learned(text: str, conversation: Conversation, last_turn_only: bool) -> str:
    """The rendered text without the marks of those turns of the assistant that are not learned."""
    learned = [m.learned for m in conversation.messages if m.role == "assistant"]
    before, *turns = text.split(LEARN)
    if last_turn_only:
        learned = [False] * (len(turns) - 1) + learned[-1:]
    if all(learned):
        return text
    if len(turns) != len(learned):
        raise MiaoError(
            "the chat template does not show which turn is which, and some are not to be learned",
            fix="put {% generation %} and {% endgeneration %} around each turn of the assistant",
        )
    return before + "".join(LEARN * on + turn for on, turn in zip(learned, turns, strict=True))


def not_written(text: str, conversation: Conversation) -> Iterator[str]:
    """What a conversation says and its rendered text does not: "reasoning" (many templates keep
    only the last), "tool calls" and "text", each once per turn; "tools"."""
    for message in conversation.messages:
        if message.reasoning and message.reasoning.strip() not in text:
            yield "reasoning"
        if any(call["name"] not in text for call in map(_function, message.tool_calls)):
            yield "tool calls"
        if message.role != "tool" and message.content.strip() not in text:
            yield "text"
    if any(str(_function(tool).get("name", "")) not in text for tool in conversation.tools):
        yield "tools"


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    return function if isinstance(function, Mapping) else call
