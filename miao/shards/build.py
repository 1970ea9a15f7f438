"""Records to token shards: every text is tokenised once, before any training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from miao.corpus.records import Conversation, Document, Kind, Message, Preference, Record
from miao.errors import MiaoError
from miao.shards.dataset import Manifest, write_dataset
from miao.tokenizer import Tokenizer

BATCH_RECORDS = 1024
Encoded = tuple[list[int], list[bool]]
R = TypeVar("R")


def build_dataset(
    records: Iterable[Record],
    kind: Kind,
    source: str,
    tokenizer: Tokenizer,
    directory: Path,
    last_turn_only: bool = False,
    advance: Callable[[int], None] = lambda records: None,
) -> Manifest:
    """Tokenises `records` (all of one kind) into `directory`.

    Args:
        source: the name under which the data is counted and weighted.
        last_turn_only: of a conversation, learn the last assistant turn only.

    Raises:
        MiaoError: there are no records.
    """
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    manifest = Manifest(kind, source, tokenizer.fingerprint(), tokenizer.vocab_size, dtype)
    sequences = _sequences(_counted(records, advance), kind, tokenizer, last_turn_only)
    written = write_dataset(directory, manifest, sequences)
    if written.sequences == 0:
        raise MiaoError(f"the source '{source}' has no {kind}s", where=directory)
    return written


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[list[int]]:
    """Ids of each document, with the boundary token at both ends: the first so that every token
    of the text is predicted, the last so that the model learns to end."""
    boundary = tokenizer.document_boundary_id
    for batch in _batched(documents):
        for ids in tokenizer.encode_batch([document.text for document in batch]):
            yield [boundary, *ids, boundary]


def encode_conversations(
    tokenizer: Tokenizer, conversations: Iterable[Conversation], last_turn_only: bool = False
) -> Iterator[Encoded]:
    """Ids and learned-mask of each conversation; what follows the last learned token is left
    out, since nothing is learned from it."""
    encoded = tokenizer.chat_template.encode_many(tokenizer, conversations, last_turn_only)
    for ids, mask in encoded:
        end = len(mask) - mask[::-1].index(True)
        yield ids[:end], mask[:end]


def encode_preferences(
    tokenizer: Tokenizer, pairs: Iterable[Preference]
) -> Iterator[tuple[Encoded, Encoded]]:
    """Chosen and rejected conversation of each pair; only what comes after the shared prompt is
    learned, also where the prompt has assistant turns of its own."""
    for batch in _batched(pairs):
        sides = [
            Conversation(pair.prompt + answer, pair.source)
            for pair in batch
            for answer in (pair.chosen, pair.rejected)
        ]
        encoded = encode_conversations(tokenizer, sides)
        for pair in batch:
            prompt = len(tokenizer.chat_template.encode_prompt(tokenizer, pair.prompt))
            (chosen, mask), (rejected, other) = next(encoded), next(encoded)
            yield (chosen, _after(prompt, mask)), (rejected, _after(prompt, other))


def _sequences(
    records: Iterable[Record], kind: Kind, tokenizer: Tokenizer, last_turn_only: bool
) -> Iterator[tuple[list[int], list[bool] | None, int]]:
    """(ids, mask or None, bytes of text) of every sequence."""
    if kind == "document":
        for document, ids in _paired(records, lambda r: encode_documents(tokenizer, r)):
            yield ids, None, _num_bytes([document.text])
    elif kind == "conversation":
        encode = lambda r: encode_conversations(tokenizer, r, last_turn_only)  # noqa: E731
        for conversation, (ids, mask) in _paired(records, encode):
            yield ids, mask, _num_bytes(_contents(conversation.messages))
    else:
        for pair, sides in _paired(records, lambda r: encode_preferences(tokenizer, r)):
            for (ids, mask), answer in zip(sides, (pair.chosen, pair.rejected), strict=True):
                yield ids, mask, _num_bytes(_contents(pair.prompt + answer))


def _paired(records: Iterable[Any], encode: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    for batch in _batched(records):
        yield from zip(batch, encode(batch), strict=True)


def _batched(records: Iterable[R]) -> Iterator[list[R]]:
    remaining = iter(records)
    while batch := list(islice(remaining, BATCH_RECORDS)):
        yield batch


def _counted(records: Iterable[R], advance: Callable[[int], None]) -> Iterator[R]:
    for record in records:
        yield record
        advance(1)


def _after(prompt: int, mask: list[bool]) -> list[bool]:
    return [False] * prompt + mask[prompt:]


def _contents(messages: list[Message]) -> list[str]:
    return [message.content for message in messages]


def _num_bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)
