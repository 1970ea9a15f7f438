"""Records to token sequences: what is learned of a document, a conversation, a preference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from miao.corpus.read.formats import unread_lines
from miao.corpus.records import Conversation, Kind, Message, Preference, Record
from miao.errors import MiaoError
from miao.shards.dataset import Manifest
from miao.shards.write import Block, write_blocks
from miao.tokenizer import Tokenizer
from miao.tokenizer.bulk import BulkEncoder

UNREAD = "unread"
"""Before a turn's key that is not read, as a note."""
SPELT, MEANT = "spelt", "meant"
"""Before a control token, as a note (see `BulkEncoder.spelt`)."""
MOST_NAMED = 6
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
        raise nothing_found(kind, source, directory, written.notes["unlearned"])
    return written


def new_manifest(kind: Kind, source: str, tokenizer: Tokenizer) -> Manifest:
    """The manifest of a dataset that is still empty."""
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    return Manifest(kind, source, tokenizer.fingerprint(), tokenizer.vocab_size, dtype)


def nothing_found(kind: Kind, source: str, where: str | Path, unlearned: int = 0) -> MiaoError:
    """The error of a source without a sequence, or with so many of which nothing is learned."""
    if unlearned:
        return MiaoError(
            f"of the {unlearned:,} {kind}s of the source '{source}' nothing is learned",
            where=where,
            fix='every turn of the assistant is marked as not learned ("weight": 0): unmark some',
        )
    return MiaoError(
        f"the source '{source}' has no {kind}s",
        where=where,
        fix="look at it: miao corpus check FILES",
    )


def note_lines(notes: Counter[str], kind: str) -> list[str]:
    """`Shard.notes` in words."""
    what = "answers" if kind == "preference" else f"{kind}s"
    lines = [
        f"{number:,} {words}"
        for name, words in {
            "unlearned": f"{what} have no turn that is learned, and are left out",
            "marked": 'turns are marked as not learned ("weight": 0 and the like)',
            "reasoning": "turns lose their reasoning: the chat template does not write it there",
            "tool calls": "turns lose their tool calls: the chat template does not write them",
            "text": "turns lose text: the chat template does not write all of it",
            "tools": "conversations lose their tools: the chat template does not write them",
        }.items()
        if (number := notes[name])
    ]
    for word, words in {
        SPELT: "spelt in the text, and learned as letters; if the text means it: --tokenizer.meant",
        MEANT: "spelt in the text, and meant",
    }.items():
        found = [(name.split()[1], n) for name, n in notes.items() if name.startswith(word + " ")]
        if found:
            named = ", ".join(f"{token} {n:,} times" for token, n in sorted(found)[:MOST_NAMED])
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            lines.append(f"{named}{more}: {words}")
    unread = {k.removeprefix(UNREAD).strip(): n for k, n in notes.items() if k.startswith(UNREAD)}
    return lines + unread_lines(Counter(unread))


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
    left_out: Counter[str] | None = None,
) -> Iterator[Encoded]:
    """Ids and learned-mask of each conversation; what follows the last learned token is left
    out, since nothing is learned from it. `left_out`: see `ChatTemplate.encode_many`."""
    encoded = tokenizer.chat_template.encode_many(
        tokenizer,
        conversations,
        last_turn_only,
        encoder.encode_batch if encoder else None,
        left_out,
    )
    for ids, mask in encoded:
        end = len(mask) - (mask[::-1].index(True) if True in mask else 0)
        yield ids[:end], mask[:end]


def encode_preferences(
    tokenizer: Tokenizer,
    pairs: Iterable[Preference],
    encoder: BulkEncoder | None = None,
    left_out: Counter[str] | None = None,
) -> Iterator[tuple[Encoded, Encoded]]:
    """Chosen and rejected conversation of each pair; only what comes after the shared prompt is
    learned, also where the prompt has assistant turns of its own. A side that is not there has no
    tokens."""
    absent: Encoded = ([], [])
    for batch in _batched(pairs):
        sides = [
            Conversation(pair.prompt + answer, pair.source, pair.tools)
            for pair in batch
            for answer in (pair.chosen, pair.rejected)
            if answer
        ]
        encoded = encode_conversations(tokenizer, sides, False, encoder, left_out)
        for pair in batch:
            prompt = len(tokenizer.chat_template.encode_prompt(tokenizer, pair.prompt, pair.tools))
            chosen, mask = next(encoded) if pair.chosen else absent
            rejected, other = next(encoded) if pair.rejected else absent
            yield (chosen, _after(prompt, mask)), (rejected, _after(prompt, other))


def _document_block(encoder: BulkEncoder, documents: list[Any]) -> Block:
    """Ids of each document between what documents begin with, so that every token of the text is
    predicted, and the boundary token, so that the model learns to end."""
    texts = [document.text for document in documents]
    ids, offsets = encoder.encode(texts)
    lengths, start = np.diff(offsets), encoder.tokenizer.document_start
    added = len(start) + 1
    framed = np.full(
        len(ids) + added * len(texts), encoder.tokenizer.document_boundary_id, dtype=np.uint32
    )
    before = added * np.arange(len(texts))
    for place, id in enumerate(start):
        framed[offsets[:-1] + before + place] = id
    framed[np.arange(len(ids)) + np.repeat(before + len(start), lengths)] = ids
    num_bytes = sum(len(text.encode()) for text in texts)
    return Block(framed, lengths + added, None, num_bytes, encoder.spelt(texts))


def _conversation_block(
    encoder: BulkEncoder, conversations: list[Any], last_turn_only: bool
) -> Block:
    notes: Counter[str] = Counter()
    encoded = encode_conversations(encoder.tokenizer, conversations, last_turn_only, encoder, notes)
    kept = []
    for conversation, one in zip(conversations, encoded, strict=True):
        notes["marked"] += sum(not message.learned for message in conversation.messages)
        if any(one[1]):
            kept.append((one, _num_bytes(conversation.messages)))
    notes["unlearned"] = len(conversations) - len(kept)
    notes += encoder.spelt(m.content for one in conversations for m in one.messages)
    return _masked_block([one for one, _ in kept], sum(size for _, size in kept), +notes)


def _preference_block(encoder: BulkEncoder, pairs: list[Any]) -> Block:
    notes: Counter[str] = Counter()
    sequences: list[Encoded] = []
    num_bytes = 0
    for pair, sides in zip(
        pairs, encode_preferences(encoder.tokenizer, pairs, encoder, notes), strict=True
    ):
        kept = [side if any(side[1]) else ([], []) for side in sides]
        answers = (pair.chosen, pair.rejected)
        notes["unlearned"] += sum(
            bool(ids) and not left for (ids, _), (left, _) in zip(sides, kept, strict=True)
        )
        if any(ids for ids, _ in kept):
            sequences += kept
            there = [answer for answer, (ids, _) in zip(answers, kept, strict=True) if ids]
            num_bytes += sum(_num_bytes(pair.prompt) + _num_bytes(answer) for answer in there)
    return _masked_block(sequences, num_bytes, +notes)


def _masked_block(sequences: list[Encoded], num_bytes: int, notes: Counter[str]) -> Block:
    lengths = np.array([len(ids) for ids, _ in sequences], dtype=np.int64)
    total = int(lengths.sum())
    ids = np.fromiter((id for ids, _ in sequences for id in ids), np.int64, count=total)
    mask = np.fromiter((bit for _, bits in sequences for bit in bits), np.uint8, count=total)
    return Block(ids, lengths, mask, num_bytes, notes)


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
