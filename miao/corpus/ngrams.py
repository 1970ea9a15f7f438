"""Text as hashed tokens and n-grams of them: what duplicates, repetition and overlap are found by.

A token is one CJK character (or kana, or hangul syllable), or a run of other letters and digits;
case, width, punctuation, spaces, and traditional or simplified do not count. So one n serves
Chinese and English: a trigram is three characters of Chinese, or three English words.

`traditional.txt` has a row of simplified characters, each with its traditional and other forms
behind it: those of GBK and Big5 that OpenCC's tables of characters know. Where one character has
several simplified forms (乾: 干, 乾) the commonest counts; it is the same on both sides of a
comparison. The table is part of the package, so that a text has the same hashes everywhere.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SEPARATOR, CJK, LETTER, DIGIT, SPACE, PUNCTUATION = range(6)
"""Classes of characters; SEPARATOR is any other symbol."""
PROSE_MARKS = frozenset(".,;:!?'\"()-%/“”‘’，。、；：！？（）《》〈〉【】「」『』—…·")
LONGEST_WORD = 256  # characters of a word that its hash tells apart
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BASE = 0xD6E8FEB86659FD93


@dataclass(frozen=True, slots=True)
class _Tables:
    """Per code point of the basic plane: a hash of what it is normalised to, and its class."""

    hashed: Hashes
    kind: NDArray[np.uint8]
    powers: Hashes


@cache
def _tables() -> _Tables:
    normal = np.arange(0x10000, dtype=np.uint32)
    kind = np.zeros(0x10000, dtype=np.uint8)
    for code in range(0x10000):
        character = chr(code)
        if not 0xD800 <= code < 0xE000:
            simple = unicodedata.normalize("NFKC", character).lower()
            if len(simple) == 1:
                normal[code] = ord(simple)
        kind[code] = _kind(character, code)
    forms = Path(__file__).with_name("traditional.txt").read_text(encoding="utf-8").split()
    simplified = {ord(other): ord(row[0]) for row in forms for other in row[1:]}
    for place in np.flatnonzero(np.isin(normal, list(simplified))):
        normal[place] = simplified[int(normal[place])]
    powers = np.array([pow(_BASE, power, 2**64) for power in range(LONGEST_WORD)], dtype=np.uint64)
    return _Tables(_mix(normal), kind, powers)


def _kind(character: str, code: int) -> int:
    if (
        0x3400 <= code < 0xA000
        or 0x3041 <= code < 0x3100
        or 0xAC00 <= code < 0xD7B0
        or 0xF900 <= code < 0xFB00
    ):
        return CJK
    category = unicodedata.category(character)
    if category == "Nd":
        return DIGIT
    if category[0] in "LMN":
        return LETTER
    if character.isspace():
        return SPACE
    return PUNCTUATION if character in PROSE_MARKS else SEPARATOR


class TextView:
    """A text and what the rules measure of it, each computed once and only when asked for."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def codes(self) -> NDArray[np.uint32]:
        return np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """The class of every character; those beyond the basic plane count as CJK or symbols."""
        table = _tables().kind
        codes = self.codes
        if codes.size and int(codes.max()) >= 0x10000:
            beyond = np.where(codes >= 0x20000, CJK, SEPARATOR).astype(np.uint8)
            return np.where(codes < 0x10000, table[np.minimum(codes, 0xFFFF)], beyond)
        return table[codes]

    @cached_property
    def counts(self) -> list[int]:
        """How many characters of each class."""
        return np.bincount(self.kinds, minlength=6).tolist()

    @cached_property
    def tokens(self) -> Hashes:
        """One 64-bit hash per token."""
        tables, codes, kinds = _tables(), self.codes, self.kinds
        if codes.size and int(codes.max()) >= 0x10000:
            basic = tables.hashed[np.minimum(codes, 0xFFFF)]
            hashed = np.where(codes < 0x10000, basic, _mix(codes))
        else:
            hashed = tables.hashed[codes]
        letters = np.flatnonzero((kinds == LETTER) | (kinds == DIGIT))
        if not letters.size:
            return hashed[self.token_begins]
        first = np.flatnonzero(np.diff(letters, prepend=-2) > 1)  # of each word, among the letters
        within = np.arange(letters.size) - np.repeat(first, np.diff(first, append=letters.size))
        powers = tables.powers[np.minimum(within, LONGEST_WORD - 1)]
        hashed[letters[first]] = np.add.reduceat(hashed[letters] * powers, first)
        return hashed[self.token_begins]

    @cached_property
    def token_begins(self) -> NDArray[np.int64]:
        """Where each token begins, in characters."""
        in_word = (self.kinds == LETTER) | (self.kinds == DIGIT)
        begins = in_word.copy()
        begins[1:] &= ~in_word[:-1]
        return np.flatnonzero(begins | (self.kinds == CJK))

    def ngrams(self, n: int) -> Hashes:
        """One well-mixed 64-bit hash per n-gram of tokens; none when there are fewer tokens."""
        tokens = self.tokens
        count = len(tokens) - n + 1
        if count <= 0:
            return np.zeros(0, dtype=np.uint64)
        total = tokens[:count].copy()
        for offset in range(1, n):
            total *= _MULTIPLIER
            total += tokens[offset : offset + count]
        return _mix(total)

    @property
    def chinese_share(self) -> float:
        """CJK characters among all that are CJK or letters, 0 to 1; 0 for a text of neither."""
        cjk, letters = self.counts[CJK], self.counts[LETTER]
        return cjk / (cjk + letters) if cjk + letters else 0.0


def language_of(view: TextView) -> str:
    """zh, en or other, from the characters alone (identification proper is clean/language.py).

    A Chinese text may hold many Latin letters: terms, names and code; hence the low share.
    """
    if view.counts[CJK] + view.counts[LETTER] == 0:
        return "other"
    if view.chinese_share >= 0.2:
        kana_hangul = (view.codes >= 0x3041) & (view.codes < 0x3100) | (view.codes >= 0xAC00) & (
            view.codes < 0xD7B0
        )
        return "zh" if int(kana_hangul.sum()) < 0.1 * view.counts[CJK] else "other"
    latin = int((view.codes < 0x250).sum())
    return "en" if latin >= 0.5 * len(view.codes) else "other"


def text_key(text: str) -> tuple[int, int]:
    """128 bits of a text in which white space does not count: equal keys are equal texts."""
    from hashlib import blake2b

    digest = blake2b("".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16)
    first, second = np.frombuffer(digest.digest(), dtype="<u8").tolist()
    return first, second


def folded_key(view: TextView) -> int:
    """64 bits of a text in which only its tokens count; of its characters where it has none."""
    from hashlib import blake2b

    if not view.tokens.size:
        return text_key(view.text)[0]
    digest = blake2b(view.tokens.astype("<u8").tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def random_words(count: int, seed: int) -> Hashes:
    """Splitmix64: the same numbers on every machine and with every version of numpy."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _MULTIPLIER + np.uint64(seed)
    return _mix(steps)


def _mix(values: Any) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection that mixes all bits."""
    values = values.astype(np.uint64, copy=True)
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
