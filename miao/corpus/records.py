"""The three kinds of record that training knows, and their one JSON form each.

The `source` of a record is its own, or else its `origin`: the name of the file or folder that the
user asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(slots=True)
class Message:
    """One turn of a conversation.

    `reasoning` is what stands inside `<think>`; `tool_calls` are `{"name", "arguments"}` objects.
    An assistant's turn with `learned` False is read like a user's; in JSON that is `"weight": 0`.
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    learned: bool = field(default=True, compare=False)

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            record["reasoning"] = self.reasoning
        if self.tool_calls:
            record["tool_calls"] = self.tool_calls
        if not self.learned:
            record["weight"] = 0
        return record


@dataclass(slots=True)
class Document:
    """Plain text to pretrain on."""

    text: str
    source: str = ""
    origin: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "source": self.source}


@dataclass(slots=True)
class Conversation:
    """Turns to learn the assistant's side of. `tools` are JSON schemas the assistant may call."""

    messages: list[Message]
    source: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)
    origin: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "messages": [message.to_json() for message in self.messages],
            "source": self.source,
        }
        if self.tools:
            record["tools"] = self.tools
        return record


@dataclass(slots=True)
class Preference:
    """Two ways to go on after the same `prompt` turns: the better one and the worse one.

    One of them may be empty: a single answer, labelled as desirable (chosen) or not (rejected).
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    source: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)
    origin: str = field(default="", compare=False)

    @property
    def is_pair(self) -> bool:
        return bool(self.chosen and self.rejected)

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "prompt": [message.to_json() for message in self.prompt],
            "chosen": [message.to_json() for message in self.chosen],
            "rejected": [message.to_json() for message in self.rejected],
            "source": self.source,
        }
        if self.tools:
            record["tools"] = self.tools
        return record


Record = Document | Conversation | Preference
Kind = Literal["document", "conversation", "preference"]
KINDS: dict[str, Kind] = {"pretrain": "document", "sft": "conversation", "dpo": "preference"}
"""What each stage of training trains on."""
REPLAYED = {"sft": "pretrain", "dpo": "sft"}
"""The stage whose records another may repeat."""
FIELDS: dict[Kind, str] = {
    "document": "paths",
    "conversation": "conversations",
    "preference": "preferences",
}
"""The option of a recipe's `corpus` that names files of each kind."""


def prompt_of(record: Record) -> str:
    """What is asked: the first turn of the user; a document's text."""
    if isinstance(record, Document):
        return record.text
    turns = record.messages if isinstance(record, Conversation) else record.prompt
    asked = (message.content for message in turns if message.role == "user")
    return next(asked, turns[0].content if turns else "")


def messages_of(record: Conversation | Preference) -> list[Message]:
    """All turns of a record; of a preference what was asked and both answers."""
    if isinstance(record, Conversation):
        return record.messages
    return record.prompt + record.chosen + record.rejected


def text_of(record: Record) -> str:
    """All that is said in a record."""
    if isinstance(record, Document):
        return record.text
    return "\n".join(message.content for message in messages_of(record))
