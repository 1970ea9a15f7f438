"""Particular shapes of known data sets, rewritten as the ordinary ones before conversion.

Each function takes an object's fields and returns ordinary fields (`question`/`answer`,
`messages`, `prompt`/`chosen`/`rejected`), or None where the shape is another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from miao.corpus.read.turns import blank, first_key, named, present, words
from miao.corpus.records import Kind
from miao.errors import MiaoError

Fields = dict[str, Any]

ALIASES = {
    **{"问题": "question", "提问": "question", "回答": "answer", "答案": "answer"},
    **{"指令": "instruction", "输入": "input", "输出": "output", "回复": "response"},
    **{"提示": "prompt", "正文": "text", "文本": "text", "内容": "content"},
    **{
        name.capitalize(): name
        for name in (
            *("text", "content", "question", "answer", "prompt", "response"),
            *("instruction", "input", "output", "query", "messages", "conversations"),
        )
    },
}
"""Names of columns that mean a known key."""

LETTERS = "ABCDEFGHIJ"
STEM_KEYS = ("question", "question_stem", "problem")
OPTION_KEYS = ("choices", "options")
KEY_KEYS = ("answer", "answerKey", "answer_key", "label", "target")
KTO_KEYS = ("label", "kto_tag")

_HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")
_MOSS_MARK = re.compile(r"\A\s*<\|[^|]*\|>:?\s*|\s*<eo[a-z]>\s*\Z")
_MOSS_CALL = re.compile(r'(\w+)\("(.*)"\)', re.DOTALL)


def with_aliases(fields: Fields) -> Fields:
    """The fields, those named in Chinese or capitalised also under the usual names."""
    named_otherwise = {
        usual: fields[name]
        for name in fields
        if (usual := ALIASES.get(name)) and usual not in fields
    }
    return {**named_otherwise, **fields} if named_otherwise else fields


def rewritten(fields: Fields, kind: Kind) -> tuple[str, Fields] | None:
    """The name of the particular shape that these fields have, and the ordinary fields."""
    for name, rewrite in _SHAPES.items():
        if (ordinary := rewrite(fields, kind)) is not None:
            for key in ("source", "system"):
                if key in fields:
                    ordinary.setdefault(key, fields[key])
            return name, ordinary
    return None


def _multiple_choice(fields: Fields, kind: Kind) -> Fields | None:
    """Questions with options: columns A, B, ...; `choices`; `{"text": [], "label": []}`."""
    stem = first_key(fields, STEM_KEYS)
    options = _options(fields)
    key = first_key(fields, KEY_KEYS)
    if kind == "preference" or not stem or not options or not key:
        return None
    right = _right(fields[key], options)
    lines = [words(fields[stem], f"'{stem}'"), *(f"{name}. {text}" for name, text in options)]
    answer = "\n".join(f"{name}. {text}" for name, text in options if name in right)
    if "explanation" in fields and not blank(fields["explanation"]):
        answer += "\n" + words(fields["explanation"], "'explanation'")
    return {"question": "\n".join(lines), "answer": answer}


def _options(fields: Fields) -> list[tuple[str, str]]:
    """Pairs of a letter and an option's text; none where the fields have no options."""
    found: list[tuple[str, Any]] = []
    key = first_key(fields, OPTION_KEYS)
    value = fields[key] if key else None
    if isinstance(value, dict) and {"text", "label"} <= value.keys():
        texts, labels = value["text"], value["label"]
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            found = [(str(name), text) for name, text in zip(labels, texts, strict=True)]
    elif isinstance(value, dict):
        found = list(value.items())
    elif isinstance(value, list) and 2 <= len(value) <= len(LETTERS):
        found = list(zip(LETTERS, value, strict=False))
    elif key is None and {"A", "B"} <= fields.keys():
        found = [(letter, fields[letter]) for letter in LETTERS if letter in fields]
    found = [(name, text) for name, text in found if text is not None and not blank(text)]
    plain = [isinstance(text, str | int | float) for _, text in found]
    if len(found) < 2 or not all(plain):
        return []
    return [(name, words(str(text), f"option {name}")) for name, text in found]


def _right(value: Any, options: list[tuple[str, str]]) -> set[str]:
    """The letters of the right options, from a letter, letters, a number (from 0) or a text."""
    names = [name for name, _ in options]
    if isinstance(value, str):
        text = value.strip()
        by_text = [name for name, option in options if option.strip() == text]
        if text in names:
            return {text}
        if by_text:
            return {by_text[0]}
        if text and set(text) <= set(names):
            return set(text)
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 3 else value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return {names[value]}
    shown = repr(value)[:40] if isinstance(value, str | int) else named(value)
    raise MiaoError(
        f"the answer {shown} is none of the options {', '.join(names)}",
        fix="give the letter, the number from 0 on, or the text of the right option",
    )


def _human_and_machine(fields: Fields, kind: Kind) -> Fields | None:
    """HC3: the first answers of people and of ChatGPT, the latter preferred."""
    lists = (fields.get("human_answers"), fields.get("chatgpt_answers"))
    if "question" not in fields or not all(isinstance(answers, list) for answers in lists):
        return None
    human, machine = (
        next((a for a in answers if isinstance(a, str) and not blank(a)), "")  # type: ignore[union-attr]
        for answers in lists
    )
    question = fields["question"]
    if kind == "preference":
        return {"prompt": question, "chosen": machine, "rejected": human}
    return {"question": question, "answer": machine or human}


def _moss(fields: Fields, kind: Kind) -> Fields | None:
    """MOSS-003: `chat` holds turn_1, turn_2, ..., with thoughts, commands and their results."""
    chat = fields.get("chat")
    if kind == "preference" or not isinstance(chat, dict) or not chat:
        return None
    numbers = {name: re.fullmatch(r"turn_(\d+)", name) for name in chat}
    if not all(match and isinstance(chat[name], dict) for name, match in numbers.items()):
        return None
    messages: list[Fields] = []
    for name in sorted(chat, key=lambda name: int(name[5:])):
        parts = {part: _moss_text(text, name) for part, text in present(chat[name]).items()}
        messages.append({"role": "user", "content": parts.get("Human", "")})
        if calls := _moss_calls(parts.get("Commands", "")):
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            if parts.get("Tool Responses"):
                messages.append({"role": "tool", "content": parts["Tool Responses"]})
        answer = {"role": "assistant", "content": parts.get("MOSS", "")}
        messages.append(answer | {"reasoning": parts.get("Inner Thoughts", "")})
    return {"messages": messages}


def _moss_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise MiaoError(f"'{where}' of 'chat' holds {named(value)}", fix="it must hold strings")
    text = _MOSS_MARK.sub("", _MOSS_MARK.sub("", value))
    return "" if text == "None" else text


def _moss_calls(commands: str) -> list[Fields]:
    return [
        {"name": match[1], "arguments": {"query": match[2]}}
        for command in commands.split("\n")
        if (match := _MOSS_CALL.search(command))
    ]


def _human_assistant_pairs(fields: Fields, kind: Kind) -> Fields | None:
    """Turns as `[{"human": ..., "assistant": ...}, ...]`."""
    key = first_key(fields, ("conversation", "conversations"))
    rounds = fields[key] if key else None
    if kind == "preference" or not isinstance(rounds, list) or not rounds:
        return None
    if not all(isinstance(pair, dict) and {"human", "assistant"} <= pair.keys() for pair in rounds):
        return None
    messages = [
        {"role": {"human": "user"}.get(role, role), "content": pair[role]}
        for pair in rounds
        for role in ("human", "assistant")
    ]
    return {"messages": messages}


def _transcripts(fields: Fields, kind: Kind) -> Fields | None:
    """Both sides as whole transcripts: "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    sides = [fields.get(side) for side in ("chosen", "rejected")]
    if kind != "preference" or "prompt" in fields:
        return None
    if not all(isinstance(side, str) and _HH_TURN.match(side) for side in sides):
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    parts = [_HH_TURN.split(side)[1:] for side in sides if isinstance(side, str)]
    chosen, rejected = (
        [
            {"role": roles[role], "content": text.strip()}
            for role, text in zip(side[::2], side[1::2], strict=True)
        ]
        for side in parts
    )
    return {"chosen": chosen, "rejected": rejected}


_SHAPES: dict[str, Callable[[Fields, Kind], Fields | None]] = {
    "multiple choice": _multiple_choice,
    "human/chatgpt answers": _human_and_machine,
    "moss": _moss,
    "human/assistant": _human_assistant_pairs,
    "transcripts": _transcripts,
}


def desirable(fields: Fields) -> bool | None:
    """KTO's label of a single answer; None: these fields are none of KTO's."""
    if "chosen" in fields or "rejected" in fields or _options(fields):
        return None
    key = first_key(fields, KTO_KEYS)
    value = fields[key] if key else None
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value if isinstance(value, bool) else None
