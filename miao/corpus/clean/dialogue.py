"""Rules of conversations: empty turns, the order of roles, refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence

from miao.corpus.records import Message

_REFUSAL = re.compile(
    r"作为(?:一[个名款种])?(?:人工智能|AI|大?型?语言模型|虚拟助[手理]|智能助手|机器人|聊天机器人|计算机程序)"
    r"|我(?:只)?是(?:一[个名款种])?(?:由.{1,20})?(?:人工智能|AI|大?型?语言模型)(?:助手|模型|程序)?，?.{0,12}(?:无法|不能|没有)"
    r"|^(?:很?抱歉|对不起|非常抱歉)[，,].{0,20}(?:无法|不能|没有办法|没法)"
    r"|as an? (?:ai|artificial intelligence)\b|as a (?:large )?language model"
    r"|\bi(?:'m| am) (?:just |only )?an? ai\b"
    r"|^i(?:'m| am) sorry,? but (?:i|as)\b"
    r"|^(?:sorry|unfortunately),? (?:but )?i (?:can(?:'t|not)|am (?:not able|unable))"
    r"|^i (?:can(?:'t|not)|am unable to) (?:assist|help|provide|answer|fulfil)",
    re.IGNORECASE,
)
_BEGINNING = 160  # characters of an answer in which a refusal shows


def empty_turn(messages: Sequence[Message]) -> str | None:
    """Names the first turn that says nothing; an assistant's may call a tool instead."""
    for number, message in enumerate(messages, 1):
        if not message.content.strip() and not message.tool_calls and message.role != "system":
            return f"turn {number} ({message.role})"
    return None


def wrong_order(messages: Sequence[Message]) -> str | None:
    """Names the first turn out of order: (system,) user, assistant, user, ..., assistant.

    An assistant who called a tool hears the tool, any number of times, before going on.
    """
    before = "start"
    may_follow = {
        "start": ("system", "user"),
        "system": ("user",),
        "user": ("assistant",),
        "assistant": ("user",),
        "call": ("tool",),
        "tool": ("tool", "assistant"),
    }
    for number, message in enumerate(messages, 1):
        if message.role not in may_follow[before]:
            return f"turn {number} is {message.role} after {before}"
        before = "call" if message.tool_calls else message.role
    return None if before in ("assistant", "call") else f"ends with {before}"


def refusal(messages: Sequence[Message]) -> str | None:
    """The words of the first refusal or disclaimer at the beginning of a turn that is learned."""
    for message in messages:
        learned = message.role == "assistant" and message.learned
        if learned and (found := _REFUSAL.search(message.content[:_BEGINNING])):
            return found[0]
    return None
