"""The columns of one object: by their usual names, mapped as the user says, and accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from miao.errors import MiaoError, did_you_mean

# The columns of each role. Where several of one role are present, see `convert`.
TEXT_KEYS = ("text", "content", "raw_content")
TITLE_KEYS = ("title",)
TURNS_KEYS = ("messages", "conversations", "conversation")
QUESTION_KEYS = ("instruction", "prompt", "question", "query", "problem", "input")
ANSWER_KEYS = ("output", "response", "solution", "answer", "completion", "target")
MATERIAL_KEYS = ("input", "context")  # what a question is about, appended to it
SYSTEM_KEYS = ("system", "system_prompt", "system_message", "meta_instruction")
REASONING_COLUMNS = (
    *("reasoning_content", "reasoning", "thinking", "complex_cot", "cot", "chain_of_thought"),
)
BEFORE_ANSWER = ("rationale",)
AFTER_ANSWER = ("explanation",)
TOOLS_KEYS = ("tools", "functions")
CHOSEN_KEYS = ("chosen", "chosen_messages", "chosen_response", "chosen_answer", "preferred")
REJECTED_KEYS = (
    *("rejected", "rejected_messages", "rejected_response", "rejected_answer", "dispreferred"),
)
MEDIA_KEYS = (*("image", "images", "video", "videos", "audio", "audios"),)

ROLES: dict[str, tuple[str, ...]] = {
    "text": TEXT_KEYS,
    "title": TITLE_KEYS,
    "messages": TURNS_KEYS,
    "question": QUESTION_KEYS,
    "answer": ANSWER_KEYS,
    "context": ("context",),
    "history": ("history",),
    "system": SYSTEM_KEYS,
    "reasoning": REASONING_COLUMNS,
    "tools": TOOLS_KEYS,
    "chosen": CHOSEN_KEYS,
    "rejected": REJECTED_KEYS,
    "label": ("label", "kto_tag"),
    "source": ("source",),
}
"""What a user can map a column to, and the columns that it replaces; `unused` is the other one."""
UNUSED = "unused"

_ALIASES = {
    **{"问题": "question", "提问": "question", "问": "question"},
    **{"回答": "answer", "答案": "answer", "答": "answer", "回复": "response"},
    **{"指令": "instruction", "输入": "input", "输出": "output", "提示": "prompt"},
    **{"正文": "text", "文本": "text", "内容": "content", "标题": "title", "系统": "system"},
}


class Row(dict[str, Any]):
    """An object's fields that are not null, by their usual names; knows which ones were read.

    A row that was rewritten from another one hands on what is read of the fields it took over.
    """

    __slots__ = ("aside", "origin", "read", "taken")

    def __init__(self, fields: Mapping[str, Any], origin: Row | None = None):
        super().__init__(fields)
        self.read: set[str] = set()
        self.aside: dict[str, Any] = {}
        """What the shape itself leaves out, by name: counted, and nothing to refuse."""
        self.origin = origin or self
        self.taken: frozenset[str] = frozenset()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        if key in self.taken:
            self.origin.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        found = key in self
        return self[key] if found else default

    def peek(self, key: str | None) -> Any:
        """A field's value, which does not count as read; None: there is no such field."""
        return super().get(key) if key is not None else None

    def rewritten(self, fields: Mapping[str, Any]) -> Row:
        """The fields of the ordinary shape, with what this row says besides."""
        kept = ("source", "history", *SYSTEM_KEYS, *TOOLS_KEYS)
        taken = {key: self.peek(key) for key in kept if key in self and key not in fields}
        row = Row({**taken, **fields}, self.origin)
        row.taken = frozenset(taken)
        return row

    def unread(self) -> Iterator[tuple[str, Any]]:
        """The columns of the original object that nothing was read of."""
        origin = self.origin
        yield from ((key, value) for key, value in origin.items() if key not in origin.read)


@lru_cache(maxsize=4096)
def usual_name(name: str) -> str:
    """A column's name as it is known: without capitals, in English; letters of options stay."""
    if len(name) == 1 or name in _ALIASES:
        return _ALIASES.get(name, name)
    return re.sub(r"[\s\-]+", "_", name.strip()).lower()


def row_of(value: Any) -> Row:
    """An object's row; a bare list is one of turns."""
    if isinstance(value, list):
        return Row({TURNS_KEYS[0]: value})
    given = value if isinstance(value, dict) else {}
    fields: dict[str, Any] = {}
    for name, entry in given.items():
        if entry is not None:
            usual = usual_name(name) if isinstance(name, str) else str(name)
            taken = usual in fields or (usual != name and given.get(usual) is not None)
            fields[name if taken else usual] = entry
    return Row(fields)


def check_mapping(columns: Mapping[str, str], where: str = "corpus.columns") -> None:
    """Whether every role is known.

    Raises:
        MiaoError: an unknown role, or no column.
    """
    for role, column in columns.items():
        if role not in (*ROLES, UNUSED):
            hint = did_you_mean(role, ROLES)
            known = f"known are {', '.join(ROLES)} and {UNUSED}"
            raise MiaoError(f"no column can be '{role}'", where=where, fix=hint or known)
        if not isinstance(column, str) or not column.strip():
            raise MiaoError(f"'{role}' names no column", where=where, fix=f"{role}=COLUMN")


def mapped(value: Any, columns: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
    """An object with its columns renamed, and what is left out by that.

    `{"question": "title+body"}` joins two columns, `"data.q"` names one in another, and
    `{"unused": "a,b"}` leaves two out. What is mapped replaces the other columns of its role.
    """
    if not columns or not isinstance(value, dict):
        return value, {}
    fields, aside, new = dict(value), dict[str, Any](), dict[str, Any]()
    for role, given in columns.items():
        names = given.split(",") if role == UNUSED else given.split("+")
        parts = [part for name in names if (part := _take(fields, value, name)) is not None]
        if role == UNUSED:
            aside |= {name: value[name] for name in names if name in value}
        elif parts:
            alike = len(parts) > 1 and all(isinstance(part, str) for part in parts)
            joined = "\n".join(part for part in parts if part.strip()) if alike else parts[0]
            new["question" if role == "question" else ROLES[role][0]] = joined
    for role in columns:
        if role != UNUSED and (role in new or ROLES[role][0] in new):
            same = [name for name in fields if usual_name(str(name)) in ROLES[role]]
            aside |= {name: fields.pop(name) for name in same}
    return fields | new, aside


def _take(fields: dict[str, Any], value: Any, name: str) -> Any:
    """A column, or `outer.inner` of one; `fields` keeps the rest."""
    if name in value:
        fields.pop(name, None)
        return value[name]
    outer, dot, inner = name.partition(".")
    if not dot or not isinstance(value.get(outer), dict):
        return None
    rest = fields[outer] = dict(fields.get(outer) or {})
    return _take(rest, value[outer], inner)
