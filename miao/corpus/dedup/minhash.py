"""MinHash signatures of texts, and the bands that near-duplicates meet in (LSH).

Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3. With 42 bands of 3,
two texts of Jaccard similarity J meet with probability 1 - (1 - J^3)^42: 99.9 % at 0.55, 4 % at
0.1; those that meet are then compared over the whole signature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miao.corpus.ngrams import Hashes, TextView, ngrams, random_words

ROWS = 3
BANDS = 42
PERMUTATIONS = ROWS * BANDS
Signatures = NDArray[np.uint32]
SKETCH = 64
FILL = np.uint32(0xFFFFFFFF)
FINGERPRINT = -(-PERMUTATIONS // 32)
"""Words of a fingerprint."""
_DIFFERENT = np.array([sum(byte >> at & 3 > 0 for at in (0, 2, 4, 6)) for byte in range(256)])
_DIFFERENT = _DIFFERENT.astype(np.uint8)  # of the four pairs of bits of a byte, those not zero
_BLOCK = 2048
"""Pairs that are compared together."""

_words = random_words(2 * PERMUTATIONS, seed=20)
_FACTORS = (_words[:PERMUTATIONS] >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
_OFFSETS = (_words[PERMUTATIONS:] >> np.uint64(32)).astype(np.uint32)


def grams_of(views: Sequence[TextView], n: int) -> tuple[Signatures, NDArray[np.int64]]:
    """Hashes of the n-grams of all texts, one behind the other, and how many each text has."""
    sizes = [max(len(view.tokens) - n + 1, 0) for view in views]
    grams = ngrams(np.concatenate([view.tokens for view in views]), n)
    hashed = (grams >> np.uint64(32)).astype(np.uint32)
    begins = np.cumsum([0, *(len(view.tokens) for view in views)]).tolist()
    own = [hashed[at : at + size] for at, size in zip(begins, sizes, strict=False)]
    return np.concatenate(own), np.array(sizes)


def signatures(grams: Signatures, sizes: NDArray[np.int64]) -> Signatures:
    """(texts, PERMUTATIONS) the smallest hash of each text's n-grams under each permutation.

    Args:
        grams: of `grams_of`, some of each text.
    """
    assert sizes.all()
    begins = np.cumsum(sizes) - sizes
    smallest = np.empty((PERMUTATIONS, len(sizes)), dtype=np.uint32)
    hashed = np.empty_like(grams)
    for factor, offset, row in zip(_FACTORS, _OFFSETS, smallest, strict=True):
        np.multiply(grams, factor, out=hashed)
        np.add(hashed, offset, out=hashed)
        np.minimum.reduceat(hashed, begins, out=row)
    return smallest.T


def sketches(grams: Signatures, sizes: NDArray[np.int64]) -> Signatures:
    """(texts, SKETCH) the smallest of each text's different hashes, in order, then `FILL`."""
    rows = np.full((len(sizes), SKETCH), FILL)
    limits = (4 * SKETCH << 32) // np.maximum(sizes, 4 * SKETCH + 1)  # most likely enough are below
    below = grams < np.repeat(limits.astype(np.uint32), sizes)
    ends = np.cumsum(sizes)
    for row, end, size in zip(rows, ends.tolist(), sizes.tolist(), strict=True):
        some, among = grams[end - size : end], below[end - size : end]
        for found in (some[among], some):
            smallest = np.sort(found)
            smallest = smallest[np.diff(smallest, prepend=~smallest[:1]) != 0][:SKETCH]
            if smallest.size == SKETCH:
                break
        row[: smallest.size] = smallest
    return rows


class Sketches:
    """Texts of which similar ones are looked for, by their sketches (texts, SKETCH).

    The hashes below the lower of two sketches' ends are a sample of both texts' n-grams (Broder
    1997, bottom-k): its Jaccard similarity is an estimate with an error of at most 0.063, and exact
    for texts that have fewer n-grams.

    One of two similar sketches shares the threshold's part of all that it holds, so each has one of
    its rarest hashes in common with the other, however many are left out that stand everywhere
    (prefix filtering: Chaudhuri, Ganti, Kaushik 2006; exact). Only such pairs are compared.
    """

    def __init__(self, rows: Signatures, threshold: float):
        self.rows, self.threshold = rows, threshold
        self._gone, self._indexed = np.zeros(len(rows), dtype=bool), 0
        self._index()

    def _index(self) -> None:
        owners, places = np.nonzero((self.rows != FILL) & ~self._gone[:, None])
        values = self.rows[owners, places]
        self._all = _Postings(values, owners)
        rare = self._rarest(values, owners)
        self._rare = _Postings(values[rare], owners[rare])
        self._indexed = int(self._gone.sum())

    def drop(self, numbers: Sequence[int]) -> None:
        """These are not looked for any more."""
        self._gone[list(numbers)] = True
        if 8 * (self._gone.sum() - self._indexed) > len(self.rows) - self._indexed:
            self._index()

    def alike(self, rows: Signatures) -> list[tuple[int, int]]:
        """(row, number of a text) of all pairs whose similarity is at least the threshold."""
        ours, theirs = self.candidates(rows)
        alike = np.zeros(len(ours), dtype=bool)
        for start in range(0, len(ours), _BLOCK):
            some = slice(start, start + _BLOCK)
            a, b = rows[ours[some]], self.rows[theirs[some]]
            end = np.minimum(a[:, -1:], b[:, -1:])
            both = sum(((side <= end) & (side != FILL)).sum(axis=1) for side in (a, b))
            joined = np.sort(np.concatenate([a, b], axis=1), axis=1)
            same = (joined[:, 1:] == joined[:, :-1]) & (joined[:, 1:] != FILL)
            shared = same.sum(axis=1)
            alike[some] = shared >= self.threshold * (both - shared)
        return list(zip(ours[alike].tolist(), theirs[alike].tolist(), strict=True))

    def candidates(self, rows: Signatures) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of a row and a text that may be so similar; all that are, and few others."""
        at, places = np.nonzero(rows != FILL)
        values = rows[at, places]
        rare = self._rarest(values, at)
        found = (self._rare.of(values, at), self._all.of(values[rare], at[rare]))
        width = max(len(self.rows), 1)
        pairs = np.unique(np.concatenate([ours * width + theirs for ours, theirs in found]))
        ours, theirs = np.divmod(pairs, width)
        stays = ~self._gone[theirs]
        return ours[stays], theirs[stays]

    def _rarest(self, values: Signatures, owners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of so many of each owner's hashes that of a similar text one is among them.

        Args:
            owners: in ascending order.
        """
        order = np.lexsort((self._all.times(values), owners))
        count = np.bincount(owners)[owners]
        place = np.arange(len(owners)) - np.searchsorted(owners, owners)
        return order[place <= count - np.ceil(self.threshold * count - 1e-9)]


class _Postings:
    """The owners of each value."""

    def __init__(self, values: Signatures, owners: NDArray[np.int64]):
        order = np.argsort(values, kind="stable")
        self._values, self._owners = values[order], owners[order]

    def times(self, values: Signatures) -> NDArray[np.int64]:
        """How many owners each has."""
        first = np.searchsorted(self._values, values, side="left")
        return np.searchsorted(self._values, values, side="right") - first

    def of(
        self, values: Signatures, at: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every owner of each value, behind where the value stands."""
        first, times = np.searchsorted(self._values, values), self.times(values)
        within = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
        return np.repeat(at, times), self._owners[np.repeat(first, times) + within]


def band_keys(signatures: Signatures) -> Hashes:
    """(texts, BANDS) keys: texts with an equal key in a column are candidates."""
    rows = signatures.reshape(len(signatures), BANDS, ROWS).astype(np.uint64)
    keys = np.broadcast_to(random_words(BANDS, seed=21), rows.shape[:2]).copy()
    for row in range(ROWS):
        keys ^= rows[:, :, row]
        keys *= np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def fingerprints(signatures: Signatures) -> Hashes:
    """(texts, FINGERPRINT) words: the last two bits of each smallest hash (b-bit minwise hashing,
    Li and Konig 2010)."""
    bits = np.zeros((len(signatures), 32 * FINGERPRINT), dtype=np.uint64)
    bits[:, :PERMUTATIONS] = signatures & np.uint32(3)
    shifts = np.arange(0, 64, 2, dtype=np.uint64)
    words: Hashes = np.bitwise_or.reduce(bits.reshape(-1, FINGERPRINT, 32) << shifts, axis=2)
    return words


def similarity_at_most(first: Hashes, second: Hashes) -> NDArray[np.float64]:
    """By their fingerprints, what the `similarity` of two texts cannot exceed: where two bits
    differ the hashes do; three of four other hashes are told apart."""
    apart = np.ascontiguousarray(first ^ second)
    differ = _DIFFERENT[apart.view(np.uint8)].sum(axis=-1, dtype=np.int64)
    return (PERMUTATIONS - differ) / PERMUTATIONS


def similarity(first: Signatures, second: Signatures) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of rows of signatures; its standard error is at most 0.045."""
    return (first == second).mean(axis=-1)
