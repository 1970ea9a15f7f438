"""What is looked at: a text, or a conversation with its last answer, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.tokenizer import Tokenizer

Messages = Sequence[dict[str, Any]]


def ids_of(
    tokenizer: Tokenizer,
    text: str | None = None,
    messages: Messages | None = None,
    answer: str | Sequence[int] | None = None,
    most: int | None = None,
) -> tuple[list[int], int]:
    """The ids, and how many of them are the prompt.

    Args:
        text: begins a document. messages: a conversation up to where an answer begins; its oldest
            turns are left out where they leave no room for the answer.
        answer: to the conversation, as text or ids.
        most: ids that will be looked at.

    Raises:
        MiaoError: neither or both of text and messages; no chat template.
    """
    if (text is None) == (messages is None):
        raise MiaoError("give either text or messages", where="text")
    if text is not None:
        return [*tokenizer.document_start, *tokenizer.encode(text)], len(tokenizer.document_start)
    said = tokenizer.encode(answer) if isinstance(answer, str) else list(answer or ())
    kept = list(messages or ())
    first = 1 if kept and kept[0].get("role") == "system" else 0
    while True:
        read = tokenizer.chat_template.encode_prompt(tokenizer, kept)
        fits = most is None or len(read) <= max(1, most - len(said))
        if fits or len(kept) - first <= 1:
            return [*read, *said], len(read)
        del kept[first : first + 2]


def require_same_tokens(tokenizer: Tokenizer, other: Tokenizer, where: Path) -> None:
    """Raises:
    MiaoError: the ids of one mean something else in the other.
    """
    if tokenizer.fingerprint() == other.fingerprint():
        return
    count = tokenizer.vocab_size
    same = other.vocab_size == count and all(
        tokenizer.token_bytes(id) == other.token_bytes(id) for id in range(count)
    )
    if not same:
        raise MiaoError(
            "this model has other tokens: token by token they cannot be compared",
            where=where,
            fix="compare models of one tokenizer, such as two stages or checkpoints of a run",
        )
