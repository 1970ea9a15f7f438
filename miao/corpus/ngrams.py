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

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SEPARATOR, CJK, LETTER, DIGIT, SPACE, PUNCTUATION = range(6)
"""Classes of characters; SEPARATOR is any other symbol."""
PROSE_MARKS = frozenset(".,;:!?'\"()-%/“”‘’，。、；：！？（）《》〈〉【】「」『』—…·")
LATIN, SYLLABLE = 8, 16
"""Added to the class of a character: one of Latin script or before it, kana or hangul."""
LONGEST_WORD = 256  # characters of a word that its hash tells apart
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BASE = 0xD6E8FEB86659FD93
_WIDE_SPACE = re.compile("[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_ASCII_SPACE = b" \t\n\v\f\r\x1c\x1d\x1e\x1f"


@dataclass(frozen=True, slots=True)
class _Tables:
    """Per code point of the basic plane: a hash of what it is normalised to (0: it is of no token),
    and its class."""

    hashed: Hashes
    mark: NDArray[np.uint8]
    powers: Hashes


@cache
def _tables() -> _Tables:
    normal = np.arange(0x10000, dtype=np.uint32)
    every = "\0".join(map(chr, normal.tolist()))  # nothing composes with a NUL
    for code, simple in enumerate(unicodedata.normalize("NFKC", every).lower().split("\0")[1:]):
        if len(simple) == 1 and not 0xD800 <= code < 0xE000:
            normal[code] = ord(simple)
    mark = np.array([_mark(code) for code in range(0x10000)], dtype=np.uint8)
    forms = Path(__file__).with_name("traditional.txt").read_text(encoding="utf-8").split()
    simplified = {ord(other): ord(row[0]) for row in forms for other in row[1:]}
    for place in np.flatnonzero(np.isin(normal, list(simplified))):
        normal[place] = simplified[int(normal[place])]
    powers = np.array([pow(_BASE, power, 2**64) for power in range(LONGEST_WORD)], dtype=np.uint64)
    in_token = np.isin(mark & 7, (CJK, LETTER, DIGIT))
    return _Tables(_mix(normal) * in_token.astype(np.uint64), mark, powers)


def _mark(code: int) -> int:
    syllable = SYLLABLE * (0x3041 <= code < 0x3100 or 0xAC00 <= code < 0xD7B0)
    return _kind(chr(code), code) + LATIN * (code < 0x250) + syllable


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
    def marks(self) -> NDArray[np.uint8]:
        """The class of every character, and its script; those beyond the basic plane count as CJK
        or symbols."""
        marks = _tables().mark.take(self.codes, mode="clip")
        beyond = self._beyond
        marks[beyond] = np.where(self.codes[beyond] >= 0x20000, CJK, SEPARATOR)
        return marks

    @cached_property
    def _beyond(self) -> NDArray[np.int64]:
        """Where characters beyond the basic plane stand."""
        return np.flatnonzero(self.codes >= 0x10000)

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """The class of every character."""
        return self.marks & np.uint8(7)

    @cached_property
    def tally(self) -> list[int]:
        """How many characters have each mark."""
        return np.bincount(self.marks, minlength=32).tolist()

    @cached_property
    def counts(self) -> list[int]:
        """How many characters of each class."""
        return [sum(self.tally[kind::8]) for kind in range(6)]

    @cached_property
    def tokens(self) -> Hashes:
        """One 64-bit hash per token: of a word the sum of its characters', each times a power."""
        begins, tables = self.token_begins, _tables()
        if not begins.size:
            return np.zeros(0, dtype=np.uint64)
        hashed = tables.hashed.take(self.codes, mode="clip")
        beyond = self.codes[self._beyond]
        hashed[self._beyond] = np.where(beyond >= 0x20000, _mix(beyond), 0)
        hashed = hashed[begins[0] :]
        within = np.arange(begins[0], len(self.codes))
        within -= np.repeat(begins, np.diff(begins, append=len(self.codes)))
        hashed *= tables.powers.take(within, mode="clip")
        return np.add.reduceat(hashed, begins - begins[0])

    @cached_property
    def token_begins(self) -> NDArray[np.int64]:
        """Where each token begins, in characters."""
        kinds = self.kinds
        in_word = (kinds == LETTER) | (kinds == DIGIT)
        begins = in_word.copy()
        begins[1:] &= ~in_word[:-1]
        begins |= kinds == CJK
        return np.flatnonzero(begins)

    def ngrams(self, n: int) -> Hashes:
        """One well-mixed 64-bit hash per n-gram of tokens; none when there are fewer tokens."""
        return ngrams(self.tokens, n)

    @property
    def chinese_share(self) -> float:
        """CJK characters among all that are CJK or letters, 0 to 1; 0 for a text of neither."""
        cjk, letters = self.counts[CJK], self.counts[LETTER]
        return cjk / (cjk + letters) if cjk + letters else 0.0


def views_of(texts: Sequence[str]) -> list[TextView]:
    """A view of each text. They are measured together: a call of numpy takes as long as hundreds of
    characters do."""
    whole = TextView("\n".join(texts))  # no word goes on beyond white space
    sizes = np.array([len(text) + 1 for text in texts])
    ends = np.cumsum(sizes)
    marks = np.append(whole.marks, np.uint8(SPACE + LATIN))
    marks = marks + np.repeat(32 * np.arange(len(texts)), sizes)
    tallies = np.bincount(marks, minlength=32 * len(texts)).reshape(-1, 32)
    views, begin, first = [], 0, 0
    edges = zip(ends.tolist(), np.searchsorted(whole.token_begins, ends).tolist(), strict=True)
    for text, (end, last), tally in zip(texts, edges, tallies.tolist(), strict=True):
        view = TextView(text)
        view.codes, view.marks = whole.codes[begin : end - 1], whole.marks[begin : end - 1]
        view.tokens, view.tally = whole.tokens[first:last], tally
        tally[SPACE + LATIN] -= 1  # the one behind it
        views.append(view)
        begin, first = end, last
    return views


def ngrams(tokens: Hashes, n: int) -> Hashes:
    """One well-mixed 64-bit hash per n-gram of tokens; none when there are fewer tokens."""
    count = len(tokens) - n + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    total = tokens[:count].copy()
    for offset in range(1, n):
        total *= _MULTIPLIER
        total += tokens[offset : offset + count]
    return _mix(total)


def language_of(view: TextView) -> str:
    """zh, en or other, from the characters alone (identification proper is clean/language.py).

    A Chinese text may hold many Latin letters: terms, names and code; hence the low share.
    """
    if view.counts[CJK] + view.counts[LETTER] == 0:
        return "other"
    if view.chinese_share >= 0.2:
        return "zh" if sum(view.tally[SYLLABLE:]) < 0.1 * view.counts[CJK] else "other"
    return "en" if sum(view.tally[LATIN:SYLLABLE]) >= 0.5 * len(view.text) else "other"


def text_key(text: str) -> tuple[int, int]:
    """128 bits of a text in which white space does not count: equal keys are equal texts."""
    if text.isascii() or not _WIDE_SPACE.search(text):
        raw = text.encode("utf-8", "surrogatepass").translate(None, _ASCII_SPACE)
    else:
        raw = "".join(text.split()).encode("utf-8", "surrogatepass")
    digest = blake2b(raw, digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def folded_key(view: TextView) -> int:
    """64 bits of a text in which only its tokens count; of its characters where it has none."""
    if not view.tokens.size:
        return text_key(view.text)[0]
    digest = blake2b(view.tokens.astype("<u8", copy=False).data, digest_size=8)
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
