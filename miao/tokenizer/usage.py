"""What a corpus uses of a vocabulary, and which characters a vocabulary covers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from miao.tokenizer.bulk import BulkEncoder
from miao.tokenizer.inspect import readable
from miao.tokenizer.tokenizer import Tokenizer

BATCH = 512
RARE = 10
"""A token that occurs less often is hardly learned."""


@dataclass(frozen=True)
class Usage:
    """How a corpus uses a vocabulary. Shares are of the occurrences of all tokens, 0 to 1."""

    tokens: int
    bytes: int
    """Bytes that those tokens spell."""
    used: int
    """Ordinary tokens that occur."""
    ordinary: int
    """Tokens that are neither control tokens nor single bytes."""
    unused: list[int]
    """Ordinary tokens that never occur."""
    rare: int
    """Ordinary tokens that occur, but less than `RARE` times."""
    partial_share: float
    """Share that are only part of a character: what the vocabulary does not cover."""
    half: int
    """So many of the most frequent tokens make up half of all occurrences."""


@dataclass(frozen=True)
class Coverage:
    """Share of a set of characters that are one token each, 0 to 1."""

    name: str
    characters: int
    whole: int
    missing: str
    """The first of those that are not."""


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> NDArray[np.int64]:
    """How often each id occurs in the texts, int64 [vocab_size]."""
    encoder = BulkEncoder(tokenizer)
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    waiting = iter(texts)
    while batch := list(islice(waiting, BATCH)):
        ids, _ = encoder.encode(batch)
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def usage_of(tokenizer: Tokenizer, counts: NDArray[np.int64]) -> Usage:
    """What counts of ids (from texts or from shards) say of the vocabulary."""
    controls = set(tokenizer.control_ids.values())
    raw = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    ordinary = [id for id, piece in enumerate(raw) if len(piece) > 1 and id not in controls]
    text = counts.copy()
    text[list(controls)] = 0
    partial = [id for id, piece in enumerate(raw) if piece and not _is_text(piece)]
    falling = np.sort(text)[::-1].cumsum()
    total = int(text.sum())
    return Usage(
        tokens=total,
        bytes=int(sum(len(piece) * int(n) for piece, n in zip(raw, text, strict=True))),
        used=sum(bool(counts[id]) for id in ordinary),
        ordinary=len(ordinary),
        unused=[id for id in ordinary if not counts[id]],
        rare=sum(0 < counts[id] < RARE for id in ordinary),
        partial_share=int(text[partial].sum()) / max(total, 1),
        half=int(np.searchsorted(falling, total / 2)) + 1 if total else 0,
    )


def coverage_of(tokenizer: Tokenizer) -> list[Coverage]:
    """How many of the common Chinese characters (GB 2312) and of ASCII are one token."""
    whole = {tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)}
    whole |= {piece.lstrip(b" ") for piece in whole}
    found = []
    for name, characters in (
        ("3,755 common Chinese characters (GB 2312, level 1)", _gb2312(0xB0, 0xD7)),
        ("3,008 less common ones (level 2)", _gb2312(0xD8, 0xF7)),
        ("Chinese punctuation", "，。、；：？！“”‘’（）《》【】…—·"),
        ("printable ASCII", "".join(map(chr, range(33, 127)))),
    ):
        missing = [c for c in characters if c.encode() not in whole]
        found.append(
            Coverage(name, len(characters), len(characters) - len(missing), "".join(missing[:40]))
        )
    return found


def render_coverage(coverage: list[Coverage]) -> RenderableType:
    """For `rich.console.Console.print`."""
    lines = [Text("covered by one token:", style="bold")]
    for one in coverage:
        line = f"  {one.whole / one.characters:6.1%}  {one.name}"
        if one.missing and one.whole / one.characters > 0.5:
            line += f"; not {one.missing}"
        lines.append(Text(line))
    return Group(*lines)


def render_usage(tokenizer: Tokenizer, usage: Usage, where: str, shown: int = 40) -> RenderableType:
    """For `rich.console.Console.print`."""
    longest = sorted(usage.unused, key=lambda id: -len(tokenizer.token_bytes(id)))[:shown]
    lines = [
        Text(f"in {where}:", style="bold"),
        Text(f"  {usage.tokens:,} tokens, {usage.bytes / max(usage.tokens, 1):.2f} bytes each"),
        Text(
            f"  {usage.used:,} of {usage.ordinary:,} tokens occur "
            f"({len(usage.unused):,} never, {usage.rare:,} less than {RARE} times)"
        ),
        Text(f"  half of all are the {usage.half:,} most frequent"),
        Text(f"  {usage.partial_share:.2%} are only part of a character"),
    ]
    if longest:
        pieces = "  ".join(readable(tokenizer.token_bytes(id)) for id in longest)
        lines.append(Text(f"  unused, longest first: {pieces}"))
    return Group(*lines)


def _gb2312(first: int, last: int) -> str:
    cells = (bytes([row, cell]) for row in range(first, last + 1) for cell in range(0xA1, 0xFF))
    return "".join(cell.decode("gb2312", "ignore") for cell in cells)


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
