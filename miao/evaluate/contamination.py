"""Questions that stand in the training text: their scores measure memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from miao.corpus.ngrams import TextView
from miao.evaluate.items import Item

NGRAM = 13
"""Tokens (Chinese characters, or words) in a row; as usual since GPT-3 (arXiv:2005.14165)."""
SHARE = 0.5
"""A question is flagged when at least so much of it stands in the training text."""


@dataclass(frozen=True)
class Contamination:
    """How much of each question was found: a share of its n-grams, 0 to 1; None for questions
    too short to tell."""

    shares: list[float | None]
    documents: int

    @property
    def flagged(self) -> list[bool]:
        return [share is not None and share >= SHARE for share in self.shares]


def find_contamination(
    items: Sequence[Item],
    texts: Iterable[str],
    advance: Callable[[int], None] = lambda done: None,
    ngram: int = NGRAM,
) -> Contamination:
    """Looks for every question (its text and its options) in training texts, which are read once.

    Case, width, punctuation and white space do not count.
    """
    grams = [TextView("\n".join([item.question, *item.options])).ngrams(ngram) for item in items]
    wanted = np.unique(np.concatenate(grams)) if grams else np.zeros(0, dtype=np.uint64)
    seen = np.zeros(len(wanted), dtype=bool)
    count = 0
    for text in texts:
        count += 1
        if len(wanted):
            places = np.searchsorted(wanted, hashes := TextView(text).ngrams(ngram))
            places = np.minimum(places, len(wanted) - 1)
            seen[places[wanted[places] == hashes]] = True
        advance(1)
    shares = [
        float(seen[np.searchsorted(wanted, own)].mean()) if len(own) else None for own in grams
    ]
    return Contamination(shares, count)
