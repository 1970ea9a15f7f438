"""MinHash signatures of texts, and the bands that near-duplicates meet in (LSH).

Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3. With 42 bands of 3,
two texts of Jaccard similarity J meet with probability 1 - (1 - J^3)^42: 99.9 % at 0.55, 4 % at
0.1; those that meet are then compared over the whole signature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from miao.corpus.ngrams import Hashes, TextView, random_words

ROWS = 3
BANDS = 42
PERMUTATIONS = ROWS * BANDS
Signatures = NDArray[np.uint32]
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
