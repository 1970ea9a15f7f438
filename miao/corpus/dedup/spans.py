"""Passages inside documents: what is compared of a text, and the text without what repeats.

Paragraphs, lines and runs of three sentences (C4: Raffel et al. 2020, arXiv:1910.10683) are
compared whole; substrings (Lee et al. 2022, arXiv:2107.06499) wherever they begin.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import numpy as np

from miao.corpus.ngrams import Hashes, TextView, text_key
from miao.recipe.cleaning import DedupOptions

PARAGRAPH, SENTENCES, LINE, SUBSTRING = range(4)
NUMBER_BITS = 30
"""A span is its kind, and its number in the text: of a paragraph, sentence, line or token."""
TOGETHER = 3  # sentences that are compared as one
_STOPS = "。！？.!?"
_SENTENCE = re.compile(
    rf"[^\s{_STOPS}][^\n{_STOPS}]*(?:[.!?](?!\s)[^\n{_STOPS}]+)*[{_STOPS}]*[”’」』》）\"']*"
)
_MANY_LINE_ENDS = re.compile(r"\n{3,}")


def spans_of(view: TextView, dedup: DedupOptions) -> Hashes:
    """Every passage that is compared, as rows of (key, span); equal passages have equal keys.

    Paragraphs, lines and sentences are not with fewer than `min_span` characters.
    """
    rows = []
    wanted = {PARAGRAPH: dedup.paragraphs, SENTENCES: dedup.sentences, LINE: dedup.lines}
    for kind in [kind for kind, on in wanted.items() if on]:
        begins, ends = _places(view, kind)
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            if end - begin >= dedup.min_span:
                # A paragraph of one line is not also a duplicate of itself as a line.
                key = text_key(view.text[begin:end])[0] ^ kind
                rows.append((key, kind << NUMBER_BITS | number))
    found = np.array(rows, dtype=np.uint64).reshape(-1, 2)
    if dedup.substrings is None:
        return found
    keys = view.ngrams(dedup.substrings)
    numbers = np.arange(len(keys), dtype=np.uint64) | np.uint64(SUBSTRING << NUMBER_BITS)
    return np.concatenate([found, np.stack([keys, numbers], axis=1)])


def without_spans(text: str, spans: Iterable[int], dedup: DedupOptions) -> str:
    """The text without these passages (as `spans_of` numbers them), nor the lines they empty."""
    by_kind: dict[int, list[int]] = {}
    for span in spans:
        by_kind.setdefault(span >> NUMBER_BITS, []).append(span & ((1 << NUMBER_BITS) - 1))
    view = TextView(text)
    edges = np.zeros(len(text) + 1, dtype=np.int64)
    for kind, numbers in by_kind.items():
        begins, ends = _places(view, kind, dedup.substrings or 0)
        np.add.at(edges, np.array(begins)[numbers], 1)
        np.add.at(edges, np.array(ends)[numbers], -1)
    stays = np.cumsum(edges)[:-1] == 0
    lines, begin = [], 0
    for line in text.split("\n"):
        kept = stays[begin : begin + len(line)]
        begin += len(line) + 1
        rest = line if kept.all() else "".join(itertools.compress(line, kept.tolist()))
        if rest == line or rest.strip():
            lines.append(rest)
    return _MANY_LINE_ENDS.sub("\n\n", "\n".join(lines)).strip("\n")


def _places(view: TextView, kind: int, tokens: int = 0) -> tuple[list[int], list[int]]:
    """Where the passages of a kind begin and end, in characters of the text."""
    text = view.text
    if kind == SUBSTRING:  # up to the next token, so that the marks behind go too
        edges = [*view.token_begins.tolist(), len(text)]
        return edges[:-tokens], edges[tokens:]
    if kind == SENTENCES:
        found = [match.span() for match in _SENTENCE.finditer(text)]
        begins, ends = [b for b, _ in found], [e for _, e in found]
        return begins[: len(found) - TOGETHER + 1], ends[TOGETHER - 1 :]
    separator = "\n\n" if kind == PARAGRAPH else "\n"
    begins, ends = [0], []
    for piece in text.split(separator):
        ends.append(begins[-1] + len(piece))
        begins.append(ends[-1] + len(separator))
    return begins[:-1], ends
