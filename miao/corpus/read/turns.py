"""The parts of raw objects, checked: strings, turns of conversations, tool calls.

The errors name the part and what is wrong with it; the caller adds the file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from miao.corpus.records import Message, Role
from miao.errors import MiaoError, did_you_mean

ROLE_NAMES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "claude": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",  # sharegpt: the turn's value is the call itself
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
LEARN_KEYS = ("weight", "train", "training", "loss")
"""Whether a turn is learned, as OpenAI, axolotl (two of them), XTuner and ms-swift say it."""
_KNOWN_KEYS = {
    *(
        "role",
        "from",
        "content",
        "value",
        "tool_calls",
        "function_call",
        "tools",
        *REASONING_KEYS,
        *LEARN_KEYS,
    ),
    *("id", "tool_call_id"),  # of a call and its result, which follow each other
}
_SAID = {"content", "value", "tool_calls", "function_call"}
_FLAGS = dict.fromkeys(("1", "1.0", "true"), True) | dict.fromkeys(("0", "0.0", "false"), False)
_THINK = re.compile(r"\s*<think>(.*?)</think>\s*(.*)", re.DOTALL)
_TURN = '{"role": "system|user|assistant|tool", "content": "..."}'


def present(value: Any) -> dict[str, Any]:
    """An object's fields that are not null: tables fill absent ones up with those."""
    if not isinstance(value, dict):
        return {}
    return {key: entry for key, entry in value.items() if entry is not None}


def first_key(fields: dict[str, Any], keys: Sequence[str]) -> str | None:
    for key in keys:
        if key in fields:
            return key
    return None


def blank(value: Any) -> bool:
    """Whether it is a string with nothing in it."""
    return isinstance(value, str) and (not value or value.isspace())


def named(value: Any) -> str:
    """What a value is, in the words of JSON."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def words(value: Any, where: str) -> str:
    """A string with something in it, all of which can be written as UTF-8."""
    if not isinstance(value, str):
        raise MiaoError(f"{where} is {named(value)}", fix="it must be a string")
    if blank(value):
        raise MiaoError(f"{where} is empty", fix="fill it in or drop the record")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MiaoError(
            f"{where} has half a character (\\u{ord(value[error.start]):04x})",
            fix="a text was cut inside an emoji or the like: remove the half",
        ) from error
    return value


def plain_json(value: Any, where: str) -> Any:
    """A JSON value, itself or in a string; surely one that can be written as JSON again."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise MiaoError(f"{where}: invalid JSON ({error})", fix="mend or drop it") from error
    return value


def to_messages(value: Any, where: str) -> list[Message]:
    """Messages from turns of any known form. Blank system turns say nothing and are left out."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # in a cell of a table
        value = plain_json(value, where)
    if not isinstance(value, list):
        raise MiaoError(f"{where} is {named(value)}", fix=f"it must be a list of turns {_TURN}")
    if len(value) > 1 and all(isinstance(turn, str) for turn in value):  # LIMA: both sides in turn
        value = [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate(value)]
    turns = [_message(turn, f"turn {number} of {where}") for number, turn in enumerate(value, 1)]
    messages = [message for message in turns if message.role != "system" or message.content]
    if not messages:
        raise MiaoError(f"{where} has no turns", fix="drop the record")
    return messages


def said(value: Any, where: str) -> list[Message]:
    """What an assistant answers: a string, one turn, or a list of turns."""
    if isinstance(value, str):
        content, reasoning = split_reasoning(words(value, where))
        return [Message("assistant", content, reasoning)]
    return to_messages([value] if isinstance(value, dict) else value, where)


def reasoning_of(fields: dict[str, Any], where: str) -> str | None:
    key = first_key(fields, REASONING_KEYS)
    return words(fields[key], f"'{key}' of {where}") if key and not blank(fields[key]) else None


def _message(turn: Any, where: str) -> Message:
    """One turn: OpenAI's role and content, or sharegpt's from and value."""
    if not isinstance(turn, dict):
        raise MiaoError(f"{where} is {named(turn)}", fix=f"it must be {_TURN}")
    fields = present(turn)
    name = fields.get("role", fields.get("from"))
    if not isinstance(name, str):
        raise MiaoError(f"{where} has no role {_keys(fields)}", fix=f"it must be {_TURN}")
    role = ROLE_NAMES.get(name.lower())
    if role is None:
        hint = did_you_mean(name[:40].lower(), ROLE_NAMES)
        known = f"known are {', '.join(ROLE_NAMES)}"
        fix = f"{hint} {known}" if hint else known
        raise MiaoError(f"{where} has the unknown role {name[:40]!r}", fix=fix)
    content = fields.get("content", fields.get("value"))
    calls = []
    if name.lower() == "function_call":
        content, calls = "", to_tool_calls(content, where)
    elif role == "assistant" and (key := first_key(fields, ("tool_calls", "function_call"))):
        calls = to_tool_calls(fields[key], where)
    if (calls or role == "system") and (content is None or blank(content)):
        content = ""
    elif content is None:
        raise MiaoError(f"{where} has no content {_keys(fields)}", fix=f"it must be {_TURN}")
    else:
        content = words(_joined_parts(content, where), where)
    reasoning = reasoning_of(fields, where)
    if role == "assistant" and reasoning is None:
        content, reasoning = split_reasoning(content)
    return Message(role, content, reasoning, calls, role != "assistant" or _learned(fields, where))


def _learned(fields: dict[str, Any], where: str) -> bool:
    """Whether a turn of the assistant is to be learned: unless a key of it says no."""
    if fields.get("train_detail"):
        raise MiaoError(
            f"{where} has 'train_detail': parts of a turn cannot be left out",
            fix='learn the whole turn or none of it ("weight": 0), and remove the key',
        )
    wanted = True
    for key in LEARN_KEYS:
        value = fields.get(key, True)
        flag = _FLAGS.get(str(value).strip().lower())
        if flag is None:
            raise MiaoError(
                f"'{key}' of {where} is {str(value)[:40]}",
                fix="it must be 0 (the turn is not learned) or 1: there are no weights between; "
                "a key that means something else must go",
            )
        wanted = wanted and flag
    return wanted


def unread_keys(value: Any) -> Iterator[str]:
    """What the turns of an object say, and no record keeps: each key once for each turn."""
    parts = list(value.values()) if isinstance(value, dict) else [value]
    for part in parts:
        if isinstance(part, str) and part.startswith("[{"):  # in a cell of a table
            with suppress(ValueError, RecursionError):
                part = json.loads(part)
        for turn in part if isinstance(part, list) else [part]:
            fields = present(turn)
            name = fields.get("role", fields.get("from"))
            if not isinstance(name, str) or not _SAID & fields.keys():
                continue
            role = ROLE_NAMES.get(name.lower())
            known = _KNOWN_KEYS | {"name"} if role == "tool" else _KNOWN_KEYS
            yield from (f"'{str(key)[:40]}'" for key in fields if key not in known)
            if role != "assistant":
                asked = [key for key in LEARN_KEYS[1:] if _FLAGS.get(str(fields.get(key)).lower())]
                yield from (f"'{key}' of a {name[:40]}'s turn" for key in asked)


def _joined_parts(content: Any, where: str) -> Any:
    """A list of parts as one string, where all of them are text."""
    if isinstance(content, list) and content:
        texts = [
            part.get("text", part.get("value"))
            for part in content
            if present(part).get("type") == "text"
        ]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "\n".join(texts)
        kinds = {str(present(part).get("type", "text"))[:40] for part in content}
        if others := sorted(kinds - {"text"}):
            raise MiaoError(
                f"{where} has a part of the type {others[0]!r}",
                fix="only text is learned: put it in words, or drop the record",
            )
    return content


def split_reasoning(content: str) -> tuple[str, str | None]:
    """What stands in <think> at the beginning of an answer, apart from the answer.

    Left in the answer, the template would take the marks for text that the user wrote.
    """
    match = _THINK.match(content)
    if match is None or blank(match[2]):
        return content, None
    rest, reasoning = match[2], match[1].strip("\n")
    return (rest, reasoning) if not blank(reasoning) else split_reasoning(rest)


def _keys(fields: dict[str, Any]) -> str:
    return f"(its keys: {', '.join(repr(key)[:40] for key in list(fields)[:8]) or 'none'})"


def to_tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """`{"name", "arguments"}` objects: from those, OpenAI's `{"function": {...}}`, or JSON."""
    calls = [] if blank(value) else plain_json(value, f"the tool call in {where}")
    return [_tool_call(call, where) for call in (calls if isinstance(calls, list) else [calls])]


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    fields = present(call)
    fields = present(fields.get("function", fields))
    name = fields.get("name")
    arguments = fields.get("arguments", {})
    arguments = {} if blank(arguments) else plain_json(arguments, f"the tool call in {where}")
    if not isinstance(name, str) or blank(name) or not isinstance(arguments, dict):
        raise MiaoError(
            f"a tool call in {where} has no name, or arguments that are not an object",
            fix='it must be {"name": "...", "arguments": {...}}',
        )
    return {"name": name, "arguments": arguments}


def strings_of(value: Any) -> Iterator[str]:
    """All strings of a value, at any depth, in their order; iterative, since data may be deep."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack += reversed(list(value.values()))
        elif isinstance(value, list | tuple):
            stack += reversed(value)
