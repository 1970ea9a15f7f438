"""MinHash signatures of texts, and the bands that near-duplicates meet in (LSH).

Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3. With 42 bands of 3,
two texts of Jaccard similarity J meet with probability 1 - (1 - J^3)^42: 99.9 % at 0.55, 4 % at
0.1; those that meet are then compared over the whole signature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miao.corpus.ngrams import Hashes, TextView, random_words

ROWS = 3
BANDS = 42
PERMUTATIONS = ROWS * BANDS
Signatures = NDArray[np.uint32]
SKETCH = 64
FILL = np.uint32(0xFFFFFFFF)
_BLOCK = 2048  # n-grams at a time: the products stay in the cache

_words = random_words(2 * PERMUTATIONS, seed=20)
_FACTORS = (_words[:PERMUTATIONS, None] >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
_OFFSETS = (_words[PERMUTATIONS:, None] >> np.uint64(32)).astype(np.uint32)


def signature(view: TextView, n: int) -> Signatures | None:
    """The smallest hash of the text's n-grams under each permutation; None: it has none."""
    grams = (view.ngrams(n) >> np.uint64(32)).astype(np.uint32)
    if not grams.size:
        return None
    smallest = np.full(PERMUTATIONS, 0xFFFFFFFF, dtype=np.uint32)
    for start in range(0, grams.size, _BLOCK):
        hashed = grams[None, start : start + _BLOCK] * _FACTORS
        hashed += _OFFSETS
        np.minimum(smallest, hashed.min(axis=1), out=smallest)
    return smallest


def sketch(view: TextView, n: int) -> Signatures:
    """(SKETCH,) the smallest hashes of the text's different n-grams, in order, then `FILL`."""
    grams = (view.ngrams(n) >> np.uint64(32)).astype(np.uint32)
    row = np.full(SKETCH, FILL)
    for some in (4 * SKETCH, grams.size):  # so many hold enough different ones, most likely
        smallest = np.partition(grams, some)[:some] if some < grams.size else grams.copy()
        smallest.sort()
        smallest = smallest[np.diff(smallest, prepend=~smallest[:1]) != 0][:SKETCH]
        if smallest.size == SKETCH:
            break
    row[: smallest.size] = smallest
    return row


class Sketches:
    """Texts of which similar ones are looked for, by their sketches (texts, SKETCH).

    The hashes below the lower of two sketches' ends are a sample of both texts' n-grams (Broder
    1997, bottom-k): its Jaccard similarity is an estimate with an error of at most 0.063, and exact
    for texts that have fewer n-grams.
    """

    def __init__(self, rows: Signatures):
        self.rows, self._gone = rows, np.zeros(len(rows), dtype=bool)
        self._index()

    def _index(self) -> None:
        stays = (self.rows != FILL) & ~self._gone[:, None]
        owners, places = np.nonzero(stays)
        values = self.rows[owners, places]
        order = np.argsort(values, kind="stable")
        self._values, self._owners = values[order], owners[order]

    def drop(self, numbers: Sequence[int]) -> None:
        """These are not looked for any more."""
        if not self._gone[list(numbers)].all():
            self._gone[list(numbers)] = True
            self._index()

    def alike(self, rows: Signatures, threshold: float) -> list[tuple[int, int]]:
        """(row, number of a text) of all pairs whose similarity is at least the threshold."""
        at, places = np.nonzero(rows != FILL)
        values = rows[at, places]
        first = np.searchsorted(self._values, values, side="left")
        times = np.searchsorted(self._values, values, side="right") - first
        within = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
        owners = self._owners[np.repeat(first, times) + within]
        pairs, shared = np.unique(
            np.repeat(at, times) * max(len(self.rows), 1) + owners, return_counts=True
        )
        ours, theirs = np.divmod(pairs, max(len(self.rows), 1))
        a, b = rows[ours], self.rows[theirs]
        end = np.minimum(a[:, -1:], b[:, -1:])
        both = sum(((side <= end) & (side != FILL)).sum(axis=1) for side in (a, b))
        found = shared >= threshold * (both - shared)
        return list(zip(ours[found].tolist(), theirs[found].tolist(), strict=True))


def band_keys(signatures: Signatures) -> Hashes:
    """(texts, BANDS) keys: texts with an equal key in a column are candidates."""
    rows = signatures.reshape(len(signatures), BANDS, ROWS).astype(np.uint64)
    keys = np.broadcast_to(random_words(BANDS, seed=21), rows.shape[:2]).copy()
    for row in range(ROWS):
        keys ^= rows[:, :, row]
        keys *= np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def similarity(first: Signatures, second: Signatures) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of rows of signatures; its standard error is at most 0.045."""
    return (first == second).mean(axis=-1)
