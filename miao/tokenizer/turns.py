"""Finds what the assistant says in conversations whose chat template does not mark it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from miao.corpus.records import Conversation, Message
from miao.errors import MiaoError
from miao.tokenizer.shield import END_LEARN, LEARN, Shield, shield_of

if TYPE_CHECKING:
    from miao.tokenizer.tokenizer import Tokenizer


def mark_turns(
    tokenizer: Tokenizer,
    text: str,
    opening: str,
    conversation: Conversation,
    prompt: Callable[[int], str],
) -> str:
    """Puts marks around what the assistant says: from each opening of its turn to the token that
    ends it. Where no opening is written, or only sometimes (Mistral, Phi, MiniMind), a turn begins
    where the prompt for it ends; where no token ends the last one (GLM), it gets the tokenizer's.

    Args:
        text: the rendered conversation, its messages defused.
        opening: what the generation prompt adds.
        prompt: of the turn of a message by its number: what generation would start from.

    Raises:
        MiaoError: a turn does not go on from its prompt.
    """
    ends = [token for token, id in tokenizer.control_ids.items() if id in tokenizer.stop_ids]
    end = "|".join(map(re.escape, ends))
    if any(token in opening for token in tokenizer.control_ids):
        turn = f"({re.escape(opening)})(.*?(?:{end}))"
        marked, turns = re.subn(turn, rf"\1{LEARN}\2{END_LEARN}", text, flags=re.DOTALL)
        if turns == sum(message.role == "assistant" for message in conversation.messages):
            return marked
    shield = shield_of(tuple(tokenizer.control_ids))
    marked, done = "", 0
    for number, message in enumerate(conversation.messages):
        if message.role != "assistant":
            continue
        before = prompt(number) if number else ""
        asked = shield.defuse(conversation.messages[number - 1].content).strip()
        start = _end_of_prompt(text, before, asked, done) if before else -1
        if start < 0 or not _begins(text[start:], message, shield):
            raise MiaoError(
                f"the chat template does not show where the assistant speaks: message {number + 1} "
                f"does not go on from its prompt, which ends in {before[-30:]!r}",
                fix="put {% generation %} and {% endgeneration %} around it in the chat template",
            )
        found = re.compile(end).search(text, start)
        stop, closing = (found.end(), "") if found else (len(text), tokenizer.end_of_turn)
        marked += text[done:start] + LEARN + text[start:stop] + closing + END_LEARN
        done = stop
    return marked + text[done:]


def _end_of_prompt(text: str, prompt: str, asked: str, after: int) -> int:
    """Where a rendered conversation goes on from the prompt for one of its turns; -1: nowhere.

    Args:
        asked: the message before that turn. after: where the turn before it ended.
    """
    if text.startswith(prompt):
        return len(prompt)
    same = next((i for i, letter in enumerate(prompt) if text[i : i + 1] != letter), len(prompt))
    if same > after and "</think>" in prompt[same:] and "<think>" in prompt[same - 9 :]:
        return same  # the prompt closes the thoughts that the conversation has
    if asked not in prompt:
        return -1
    tail = asked + prompt.rpartition(asked)[2]  # what comes earlier may change with a later turn
    at = text.find(tail, after)
    return at + len(tail) if at >= 0 else -1


def _begins(text: str, message: Message, shield: Shield) -> bool:
    """Whether a text begins with what a message says, after a thinking block that may be empty."""
    rest = re.sub(r"^\s*(<think>\s*(</think>\s*)?)?", "", text)
    heads = [
        shield.defuse(part).strip()[:8] for part in (message.reasoning, message.content) if part
    ]
    return bool(message.tool_calls) or any(rest.startswith(head) for head in heads or [""])
