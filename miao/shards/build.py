"""Records to token sequences: what is learned of a document, a conversation, a preference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from miao.corpus.records import Conversation, Kind, Message, Preference, Record
from miao.errors import MiaoError
from miao.shards.dataset import Block, Manifest, write_blocks
from miao.tokenizer import Tokenizer
from miao.tokenizer.bulk import BulkEncoder

BATCH_RECORDS = 1024
BATCH_CHARACTERS = 4_000_000
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
    """Tokenises `records` (all of one kind) into `directory`, in this process; files in bulk are
    for `miao.shards.bulk.build_datasets`.

    Args:
        source: the name under which the data is counted and weighted.
        last_turn_only: of a conversation, learn the last assistant turn only.

    Raises:
        MiaoError: there are no records.
    """
    encoder = BulkEncoder(tokenizer, fast=False)
    manifest = new_manifest(kind, source, tokenizer)
    blocks = encode_blocks(_counted(records, advance), kind, encoder, last_turn_only)
    written = write_blocks(directory, manifest, blocks)
    if written.sequences == 0:
        raise nothing_found(kind, source, directory)
    return written


def new_manifest(kind: Kind, source: str, tokenizer: Tokenizer) -> Manifest:
    """The manifest of a dataset that is still empty."""
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    return Manifest(kind, source, tokenizer.fingerprint(), tokenizer.vocab_size, dtype)


def nothing_found(kind: Kind, source: str, where: str | Path) -> MiaoError:
    return MiaoError(
        f"the source '{source}' has no {kind}s",
        where=where,
        fix="look at it: miao corpus check FILES",
    )


def encode_blocks(
    records: Iterable[Record], kind: Kind, encoder: BulkEncoder, last_turn_only: bool = False
) -> Iterator[Block]:
    """The sequences of all records (of one kind), in order, a batch at a time."""
    encode: Callable[[BulkEncoder, list[Any]], Block] = {
        "document": _document_block,
        "conversation": partial(_conversation_block, last_turn_only=last_turn_only),
        "preference": _preference_block,
    }[kind]  # type: ignore[assignment]
    for batch in _batched(records):
        yield encode(encoder, batch)


def encode_conversations(
    tokenizer: Tokenizer,
    conversations: Iterable[Conversation],
    last_turn_only: bool = False,
    encoder: BulkEncoder | None = None,
) -> Iterator[Encoded]:
    """Ids and learned-mask of each conversation; what follows the last learned token is left
    out, since nothing is learned from it."""
    encoded = tokenizer.chat_template.encode_many(
        tokenizer, conversations, last_turn_only, encoder.encode_batch if encoder else None
    )
    for ids, mask in encoded:
        end = len(mask) - mask[::-1].index(True)
        yield ids[:end], mask[:end]


def encode_preferences(
    tokenizer: Tokenizer, pairs: Iterable[Preference], encoder: BulkEncoder | None = None
) -> Iterator[tuple[Encoded, Encoded]]:
    """Chosen and rejected conversation of each pair; only what comes after the shared prompt is
    learned, also where the prompt has assistant turns of its own. A side that is not there has no
    tokens."""
    absent: Encoded = ([], [])
    for batch in _batched(pairs):
        sides = [
            Conversation(pair.prompt + answer, pair.source)
            for pair in batch
            for answer in (pair.chosen, pair.rejected)
            if answer
        ]
        encoded = encode_conversations(tokenizer, sides, encoder=encoder)
        for pair in batch:
            prompt = len(tokenizer.chat_template.encode_prompt(tokenizer, pair.prompt))
            chosen, mask = next(encoded) if pair.chosen else absent
            rejected, other = next(encoded) if pair.rejected else absent
            yield (chosen, _after(prompt, mask)), (rejected, _after(prompt, other))


def _document_block(encoder: BulkEncoder, documents: list[Any]) -> Block:
    """Ids of each document, with the boundary token at both ends: the first so that every token
    of the text is predicted, the last so that the model learns to end."""
    texts = [document.text for document in documents]
    ids, offsets = encoder.encode(texts)
    lengths = np.diff(offsets)
    framed = np.full(
        len(ids) + 2 * len(texts), encoder.tokenizer.document_boundary_id, dtype=np.uint32
    )
    framed[np.arange(len(ids)) + np.repeat(2 * np.arange(len(texts)) + 1, lengths)] = ids
    return Block(framed, lengths + 2, None, sum(len(text.encode()) for text in texts))


def _conversation_block(
    encoder: BulkEncoder, conversations: list[Any], last_turn_only: bool
) -> Block:
    encoded = encode_conversations(encoder.tokenizer, conversations, last_turn_only, encoder)
    num_bytes = sum(_num_bytes(conversation.messages) for conversation in conversations)
    return _masked_block(list(encoded), num_bytes)


def _preference_block(encoder: BulkEncoder, pairs: list[Any]) -> Block:
    encoded = encode_preferences(encoder.tokenizer, pairs, encoder)
    num_bytes = sum(
        _num_bytes(pair.prompt) + _num_bytes(answer)
        for pair in pairs
        for answer in (pair.chosen, pair.rejected)
        if answer
    )
    return _masked_block([side for sides in encoded for side in sides], num_bytes)


def _masked_block(sequences: list[Encoded], num_bytes: int) -> Block:
    lengths = np.array([len(ids) for ids, _ in sequences], dtype=np.int64)
    total = int(lengths.sum())
    ids = np.fromiter((id for ids, _ in sequences for id in ids), np.int64, count=total)
    mask = np.fromiter((bit for _, bits in sequences for bit in bits), np.uint8, count=total)
    return Block(ids, lengths, mask, num_bytes)


def _batched(records: Iterable[R]) -> Iterator[list[R]]:
    """Some records at a time: no more than a number of them, or of characters."""
    batch: list[R] = []
    characters = 0
    for record in records:
        batch.append(record)
        characters += len(getattr(record, "text", ""))
        if len(batch) == BATCH_RECORDS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _counted(records: Iterable[R], advance: Callable[[int], None]) -> Iterator[R]:
    for record in records:
        yield record
        advance(1)


def _after(prompt: int, mask: list[bool]) -> list[bool]:
    return [False] * min(prompt, len(mask)) + mask[prompt:]


def _num_bytes(messages: list[Message]) -> int:
    return sum(len(message.content.encode()) for message in messages)
