"""What is asked in an ordinary row, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from miao.corpus.read.columns import (
    AFTER_ANSWER,
    ANSWER_KEYS,
    BEFORE_ANSWER,
    MATERIAL_KEYS,
    QUESTION_KEYS,
    REASONING_COLUMNS,
    SYSTEM_KEYS,
    TOOLS_KEYS,
    TURNS_KEYS,
    Row,
)
from miao.corpus.read.marks import without_marks, written_turns
from miao.corpus.read.turns import (
    blank,
    first_key,
    named,
    plain_json,
    present,
    said,
    to_messages,
    words,
)
from miao.corpus.records import Message
from miao.errors import MiaoError


def prompt_of(row: Row, keys: Sequence[str]) -> list[Message]:
    """The turns under the first of these keys, or the history and the question there.

    A system text that stands apart comes before them, unless they begin with one.
    """
    key = first_key(row, keys)
    messages: list[Message] = []
    if key and (key in TURNS_KEYS or isinstance(row.peek(key), list)):
        messages = without_marks(to_messages(row[key], f"'{key}'"))
    elif key:
        question = _question(row, key)
        turns = written_turns(question)
        asked = to_messages(turns, f"'{key}'") if turns else [Message("user", question)]
        messages = [*_history(row), *asked]
    system = next((name for name in SYSTEM_KEYS if name in row and not blank(row.peek(name))), None)
    if system and not (messages and messages[0].role == "system"):
        messages.insert(0, Message("system", words(row[system], f"'{system}'")))
    return messages


def _question(row: Row, key: str) -> str:
    """All that is asked: an instruction, its question, and the material; what another one of them
    holds already is not said again."""
    others = [*QUESTION_KEYS, *MATERIAL_KEYS] if key in QUESTION_KEYS else []
    keys = [key, *(other for other in dict.fromkeys(others) if other in row and other != key)]
    keys = [name for name in keys if name == key or isinstance(row.peek(name), str)]
    parts = [words(row[name], f"'{name}'") for name in keys if not blank(row[name])]
    told = [
        part
        for number, part in enumerate(parts)
        if not any(part in other for other in parts[:number])
        and not any(part in other and part != other for other in parts[number + 1 :])
    ]
    return words("\n".join(told), f"'{key}'")


def answer_key(row: Row) -> str | None:
    """The first answer that says something, or the first one."""
    keys = [key for key in ANSWER_KEYS if key in row]
    return next((key for key in keys if not blank(row.peek(key))), keys[0] if keys else None)


def answer_of(row: Row) -> list[Message]:
    key = answer_key(row)
    assert key is not None
    value = row[key]
    if isinstance(value, list) and value and all(isinstance(answer, str) for answer in value):
        row.origin.aside[f"{key} (further)"] = value[1:]
        value = value[0]
    if isinstance(value, str) and not blank(value):
        value = "\n".join(
            [*_beside(row, BEFORE_ANSWER, value), value, *_beside(row, AFTER_ANSWER, value)]
        )
    messages = without_marks(said(value, f"'{key}'"))
    reasoning = next((name for name in REASONING_COLUMNS if name in row), None)
    wanted = messages[0].role == "assistant" and not messages[0].reasoning
    if reasoning and wanted and not blank(row.peek(reasoning)):
        messages[0].reasoning = words(row[reasoning], f"'{reasoning}' of the answer")
    return messages


def _beside(row: Row, keys: Sequence[str], answer: str) -> list[str]:
    """Reasons that stand beside an answer, where it does not hold them."""
    found = [
        row[key] for key in keys if isinstance(row.peek(key), str) and not blank(row.peek(key))
    ]
    return [words(reason, "the reason") for reason in found if reason not in answer]


def _history(row: Row) -> list[Message]:
    """Alpaca's earlier rounds, `[[question, answer], ...]`, or turns."""
    rounds = row.get("history", [])
    if isinstance(rounds, str):  # in a cell of a table
        rounds = [] if blank(rounds) else plain_json(rounds, "'history'")
    rounds = rounds if isinstance(rounds, list) else [rounds]
    if rounds and all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in rounds):
        return to_messages(rounds, "'history'")
    messages = []
    for number, pair in enumerate(rounds, 1):
        where = f"round {number} of 'history'"
        if not isinstance(pair, list) or len(pair) != 2:
            raise MiaoError(f"{where} is no pair", fix="write it as [question, answer]")
        messages.append(Message("user", words(pair[0], where)))
        messages.append(Message("assistant", words(pair[1], where)))
    return messages


def tools_of(row: Row) -> list[dict[str, Any]]:
    """The descriptions of tools, beside the turns or (some data have them there) in the first."""
    key = first_key(row, TOOLS_KEYS)
    tools = row[key] if key else ""
    if turns := first_key(row, TURNS_KEYS):
        value = row.peek(turns)
        listed = value if isinstance(value, list) else [None]
        tools = tools or present(listed[0] if listed else None).get("tools", "")
    tools = [] if blank(tools) else plain_json(tools, f"'{key or 'tools'}'")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise MiaoError(f"'tools' is {named(tools)}", fix="it must be a list of JSON schemas")
    return tools


def source_of(row: Row, default: str) -> str:
    value = row.get("source", "")
    return default if blank(value) else words(value, "'source'")
