"""Particular shapes of known data sets, rewritten as the ordinary ones before conversion.

Each function takes an object's row and returns ordinary fields (`question`/`answer`, `messages`,
`prompt`/`chosen`/`rejected`), or None where the shape is another one. It looks with `peek`; what
it takes with `row[key]` counts as read, and what it leaves it puts `aside` or lets stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from miao.corpus.read.columns import (
    AFTER_ANSWER,
    ANSWER_KEYS,
    BEFORE_ANSWER,
    CHOSEN_KEYS,
    QUESTION_KEYS,
    REASONING_COLUMNS,
    REJECTED_KEYS,
    TEXT_KEYS,
    TOOLS_KEYS,
    TURNS_KEYS,
    Row,
)
from miao.corpus.read.compared import asked, human_and_machine, scored_answers, sides, transcripts
from miao.corpus.read.marks import written_turns
from miao.corpus.read.turns import blank, first_key, named, present, words
from miao.corpus.records import Kind
from miao.errors import MiaoError

Fields = dict[str, Any]

LETTERS = "ABCDEFGHIJ"
STEM_KEYS = ("question", "question_stem", "problem")
OPTION_KEYS = ("choices", "options")
KEY_KEYS = ("answer", "answerkey", "answer_key", "label", "target", "correct")
KTO_KEYS = ("label", "kto_tag")


_MOSS_MARK = re.compile(r"\A\s*<\|[^|]*\|>:?\s*|\s*<eo[a-z]>\s*\Z")
_MOSS_CALL = re.compile(r'\s*(\w+)\("(.*?)"\)\s*(?:,(?=\s*\w+\(")|\Z|\n)', re.DOTALL)


def rewritten(row: Row, kind: Kind) -> tuple[str, Row] | None:
    """The name of the particular shape that a row has, and the ordinary row."""
    for name, rewrite in _SHAPES.items():
        if (ordinary := rewrite(row, kind)) is not None:
            return name, row.rewritten(ordinary)
    return None


def _multiple_choice(row: Row, kind: Kind) -> Fields | None:
    """Questions with options: columns A, B, ...; `choices`; `{"text": [], "label": []}`."""
    stem = first_key(row, STEM_KEYS)
    options = _options(row)
    key = first_key(row, KEY_KEYS)
    if kind == "preference" or not stem or not options or not key:
        return None
    right = _right(row[key], options)
    row.read.update({*OPTION_KEYS, *LETTERS})
    lines = [words(row[stem], f"'{stem}'"), *(f"{name}. {text}" for name, text in options)]
    answer = "\n".join(f"{name}. {text}" for name, text in options if name in right)
    fields = {"question": "\n".join(lines), "answer": answer}
    return fields | {
        name: row[name] for name in (*AFTER_ANSWER, *BEFORE_ANSWER, "context") if name in row
    }


def _options(row: Row) -> list[tuple[str, str]]:
    """Pairs of a letter and an option's text; none where the fields have no options."""
    found: list[tuple[str, Any]] = []
    key = first_key(row, OPTION_KEYS)
    value = row.peek(key)
    if isinstance(value, dict) and {"text", "label"} <= value.keys():
        texts, labels = value["text"], value["label"]
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            found = [(str(name), text) for name, text in zip(labels, texts, strict=True)]
    elif isinstance(value, dict):
        found = list(value.items())
    elif isinstance(value, list) and 2 <= len(value) <= len(LETTERS):
        found = list(zip(LETTERS, value, strict=False))
    elif key is None and {"A", "B"} <= row.keys():
        found = [(letter, row.peek(letter)) for letter in LETTERS if letter in row]
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


def _moss(row: Row, kind: Kind) -> Fields | None:
    """MOSS-003: `chat` holds turn_1, turn_2, ..., with thoughts, commands and their results."""
    chat = row.peek("chat")
    if kind == "preference" or not isinstance(chat, dict) or not chat:
        return None
    numbers = {name: re.fullmatch(r"turn_(\d+)", name) for name in chat}
    if not all(match and isinstance(chat[name], dict) for name, match in numbers.items()):
        return None
    messages: list[Fields] = []
    for name in sorted(row["chat"], key=lambda name: int(name[5:])):
        turn = present(chat[name])
        parts = {part: _moss_text(turn.pop(part), name) for part in _MOSS_PARTS if part in turn}
        if turn:
            row.aside["chat (other parts)"] = [row.aside.get("chat (other parts)"), turn]
        messages.append({"role": "user", "content": parts.get("Human", "")})
        answer = {"role": "assistant", "content": parts.get("MOSS", "")}
        thought = {"reasoning": parts.get("Inner Thoughts", "")}
        if calls := _moss_calls(parts.get("Commands", ""), name):
            messages.append({"role": "assistant", "content": "", "tool_calls": calls} | thought)
            if parts.get("Tool Responses"):
                messages.append({"role": "tool", "content": parts["Tool Responses"]})
            messages.append(answer)
        else:
            messages.append(answer | thought)
    return {"messages": messages}


def _moss_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise MiaoError(f"'{where}' of 'chat' holds {named(value)}", fix="it must hold strings")
    text = _MOSS_MARK.sub("", _MOSS_MARK.sub("", value))
    return "" if text == "None" else text


def _moss_calls(commands: str, where: str) -> list[Fields]:
    """The calls in `Search("a"), Calculate("1+1")`."""
    calls: list[Fields] = []
    at = 0
    while commands[at:].strip():
        match = _MOSS_CALL.match(commands, at)
        if match is None:
            raise MiaoError(
                f"the commands of '{where}' are no calls: {commands[at : at + 60]!r}",
                fix='they look like Search("..."), Calculate("...")',
            )
        calls.append({"name": match[1], "arguments": {"query": match[2]}})
        at = match.end()
    return calls


def _human_assistant_pairs(row: Row, kind: Kind) -> Fields | None:
    """Turns as `[{"human": ..., "assistant": ...}, ...]`."""
    key = first_key(row, ("conversation", "conversations"))
    rounds = row.peek(key)
    if kind == "preference" or not isinstance(rounds, list) or not rounds:
        return None
    if not all(isinstance(pair, dict) and {"human", "assistant"} <= pair.keys() for pair in rounds):
        return None
    row.read.add(str(key))
    messages = [
        {"role": {"human": "user"}.get(role, role), "content": pair[role]}
        for pair in rounds
        for role in ("human", "assistant")
    ]
    return {"messages": messages}


def _called(row: Row, kind: Kind) -> Fields | None:
    """xLAM: a `query`, the `tools`, and in `answers` the calls that answer it."""
    if (
        kind == "preference"
        or not {"query", "answers"} <= row.keys()
        or not first_key(row, TOOLS_KEYS)
    ):
        return None
    asked = {"role": "user", "content": row["query"]}
    return {"messages": [asked, {"role": "assistant", "tool_calls": row["answers"], "content": ""}]}


def _listed_turns(row: Row, kind: Kind) -> Fields | None:
    """UltraChat: the turns of both sides in turn, as strings in `data`."""
    turns = row.peek("data")
    if kind == "preference" or not isinstance(turns, list) or len(turns) < 2:
        return None
    return {"messages": row["data"]} if all(isinstance(turn, str) for turn in turns) else None


def _extracted(row: Row, kind: Kind) -> Fields | None:
    """SQuAD: `answers` are passages of the `context`."""
    answers = row.peek("answers")
    texts = answers.get("text") if isinstance(answers, dict) else None
    if kind == "preference" or "question" not in row or not isinstance(texts, list) or not texts:
        return None
    row.aside["answers (further)"] = row["answers"]["text"][1:]
    asked = {key: row[key] for key in ("question", "context") if key in row}
    return {**asked, "answer": texts[0]}


def _titled_question(row: Row, kind: Kind) -> Fields | None:
    """A forum's or Baike's question in `title` and `desc`."""
    answer = first_key(row, ANSWER_KEYS)
    if kind == "preference" or "title" not in row or not answer or first_key(row, QUESTION_KEYS):
        return None
    if first_key(row, TEXT_KEYS):
        return None
    parts = [row[key] for key in ("title", "desc") if isinstance(row.peek(key), str)]
    asked = [
        part for number, part in enumerate(parts) if part.strip() and part not in parts[:number]
    ]
    return {"question": "\n".join(asked), "answer": row[answer]}


def _distilled(row: Row, kind: Kind) -> Fields | None:
    """A question, what was thought of it, and the answer as `content` (Chinese-DeepSeek-R1)."""
    thought = first_key(row, REASONING_COLUMNS)
    question = first_key(row, QUESTION_KEYS)
    if kind == "preference" or not thought or not question or "content" not in row:
        return None
    if first_key(row, ANSWER_KEYS):
        return None
    return {**asked(row), "reasoning_content": row[thought], "answer": row["content"]}


def _paragraphs(row: Row, kind: Kind) -> Fields | None:
    """MNBVC: `段落`, each with its 内容, or (parallel text) with one `.._text` per language."""
    parts = row.peek("段落")
    parts = [parts] if isinstance(parts, dict) else parts
    if kind != "document" or not isinstance(parts, list) or not parts:
        return None
    lines: list[str] = []
    for part in row["段落"] if isinstance(row["段落"], list) else parts:
        fields = present(part)
        names = [name for name in fields if name == "内容" or name.endswith("_text")]
        lines += [fields[name] for name in names if isinstance(fields[name], str)]
    return {"text": "\n".join(line for line in lines if line.strip())}


def _written(row: Row, kind: Kind) -> Fields | None:
    """A whole conversation in one text, with a chat template's marks or as a transcript."""
    key = first_key(row, (*TEXT_KEYS, "chat"))
    if kind != "conversation" or key is None or first_key(row, (*TURNS_KEYS, *QUESTION_KEYS)):
        return None
    turns = written_turns(row.peek(key))
    if turns is None:
        return None
    row.read.add(key)
    system = row.peek("system")
    if isinstance(system, str) and system.startswith("SYSTEM:"):  # Glaive's
        return {"messages": turns, "system": row["system"].removeprefix("SYSTEM:").strip()}
    return {"messages": turns}


_MOSS_PARTS = ("Human", "Inner Thoughts", "Commands", "Tool Responses", "MOSS")
_SHAPES: dict[str, Callable[[Row, Kind], Fields | None]] = {
    "multiple choice": _multiple_choice,
    "human/chatgpt answers": human_and_machine,
    "moss": _moss,
    "human/assistant": _human_assistant_pairs,
    "transcripts": transcripts,
    "chosen/rejected": sides,
    "scored answers": scored_answers,
    "query/calls": _called,
    "data": _listed_turns,
    "question/passage": _extracted,
    "title/answer": _titled_question,
    "question/reasoning/content": _distilled,
    "段落": _paragraphs,
    "written turns": _written,
}


def desirable(row: Row) -> bool | None:
    """KTO's label of a single answer; None: this row is none of KTO's."""
    if first_key(row, (*CHOSEN_KEYS, *REJECTED_KEYS)) or _options(row):
        return None
    key = first_key(row, KTO_KEYS)
    value = row.peek(key)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value if isinstance(value, bool) else None
