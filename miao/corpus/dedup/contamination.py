"""Overlap of records with evaluation sets: which hold (most of) a question, and which question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.corpus.ngrams import TextView
from miao.corpus.read.columns import row_of
from miao.corpus.read.convert import to_prompt
from miao.corpus.read.readers import read_objects
from miao.corpus.read.shapes import STEM_KEYS
from miao.corpus.read.sources import find_files
from miao.corpus.read.turns import first_key, strings_of
from miao.errors import MiaoError
from miao.recipe.cleaning import ContaminationOptions

FEWEST = 8
"""Texts with fewer n-grams are phrases, found in many an innocent text."""
FEWEST_ALONE, LONG = 20, 60
"""So is a single field with fewer (often an answer). The question alone with fewer than that, and
another field with fewer than the second number, must stand there almost verbatim."""
VERBATIM = 0.8
"""The share of their n-grams that those need."""
COMMON = 8
"""N-grams of more fields than this are the wording of the set (下列说法正确的是)."""
WIDER = 1.25
"""An edited copy of a text is at most so much longer."""
_BITS = 23


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that is looked for, and from which share of its n-grams on it is found."""

    place: str
    text: str
    least: float


class Passages:
    """Finds texts in others, verbatim or edited: by the share of their n-grams that stand together,
    in a stretch about as long as they are.

    Short n-grams survive edits, and stand anywhere by chance; that half of a question's stand side
    by side is no chance.
    """

    def __init__(self, passages: Sequence[Passage], n: int, common: NDArray[np.uint64]):
        """`common`: n-grams that do not count."""
        self.n, self.passages = n, passages
        views = [TextView(passage.text) for passage in passages]
        parts = [np.setdiff1d(view.ngrams(n), common) for view in views]
        self.sizes = np.array([len(part) for part in parts], dtype=np.int64)
        grams = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)
        order = np.argsort(grams, kind="stable")
        self.grams, self.owners = grams[order], np.repeat(np.arange(len(parts)), self.sizes)[order]
        self.widths = np.array([int(len(v.tokens) * WIDER) + n for v in views], dtype=np.int64)
        needed = np.array([passage.least for passage in passages]) * self.sizes
        self.needed = np.maximum(np.ceil(needed - 1e-9), 1).astype(np.int64)
        self._maybe = np.zeros(1 << _BITS, dtype=bool)
        self._maybe[self._slots(grams)] = True

    def _slots(self, grams: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (grams >> np.uint64(64 - _BITS)).astype(np.int64)

    def held(self, view: TextView) -> dict[int, float]:
        """The numbers of the passages that the text holds, each with the share found of it."""
        grams = view.ngrams(self.n)
        at = np.flatnonzero(self._maybe[self._slots(grams)])
        first = np.searchsorted(self.grams, grams[at], side="left")
        times = np.searchsorted(self.grams, grams[at], side="right") - first
        total = int(times.sum())
        if not total:
            return {}
        # A row for every (place in the text, n-gram of a passage), by passage and then place.
        within = np.arange(total) - np.repeat(np.cumsum(times) - times, times)
        entries, places = np.repeat(first, times) + within, np.repeat(at, times)
        owners = self.owners[entries]
        often = np.bincount(owners, minlength=len(self.sizes)) >= self.needed
        some = often[owners]
        entries, places, owners = entries[some], places[some], owners[some]
        order = np.argsort(owners, kind="stable")
        entries, places, owners = entries[order], places[order], owners[order]
        length = len(grams) + 1
        row = owners * length + places
        reach = np.minimum(self.widths[owners] - self.n, places)
        begins = np.searchsorted(row, row - reach, side="left")
        crowded = np.arange(len(row)) - begins + 1 >= self.needed[owners]
        found: dict[int, int] = {}
        for owner in np.unique(owners[crowded]).tolist():
            most = _most_together(entries, begins, np.flatnonzero(crowded & (owners == owner)))
            if most >= self.needed[owner]:
                found[owner] = most
        return {owner: most / int(self.sizes[owner]) for owner, most in found.items()}


def _most_together(
    entries: NDArray[np.int64], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> int:
    """The most different entries of any stretch begins[end] to end."""
    most = 0
    for end in ends.tolist():
        if end - int(begins[end]) + 1 > most:
            most = max(most, len(np.unique(entries[int(begins[end]) : end + 1])))
    return most


@dataclass(frozen=True, slots=True)
class Overlap:
    """A text of an evaluation set that a record holds, and how much of it (0 to 1)."""

    place: str
    text: str
    share: float


class EvaluationIndex:
    """What is looked for of evaluation sets: each question with its options, and each long field.

    Brown et al. 2020 (GPT-3), appendix C, look for single 13-grams; that finds no edited question,
    none that is short, and in Chinese many a quotation.

    Raises:
        MiaoError: unreadable files, or nothing long enough in any of them.
    """

    def __init__(self, options: ContaminationOptions):
        found: dict[str, Passage] = {}
        fields: dict[str, NDArray[np.uint64]] = {}
        self.short = 0
        """Questions that are too short to be compared, even with their options."""
        for file in find_files(options.paths):
            for line, value in read_objects(file):
                texts = _compared(value, options)
                for text in strings_of(value):
                    fields.setdefault(text, np.unique(TextView(text).ngrams(options.ngram)))
                self.short += not texts
                for text, least in texts.items():
                    found.setdefault(text, Passage(f"{file}:{line}", text, least))
        if not found:
            raise MiaoError(
                f"no question of {options.ngram + FEWEST - 1} characters (or words) in the "
                "evaluation sets",
                where=", ".join(options.paths),
                fix="give files of questions, or lower --corpus.contamination.ngram",
            )
        self.passages = Passages(list(found.values()), options.ngram, wording(fields.values()))

    def overlap(self, view: TextView) -> Overlap | None:
        """What the text holds most of, if that is enough to call it contaminated."""
        held = self.passages.held(view)
        if not held:
            return None
        best = max(held, key=lambda number: (held[number], -number))
        passage = self.passages.passages[best]
        return Overlap(passage.place, passage.text[:200], held[best])


def wording(fields: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """The n-grams that stand in too many fields (the different ones of each) to tell anything."""
    grams, times = np.unique(np.concatenate(list(fields)), return_counts=True)
    return grams[times > COMMON]


def _compared(value: Any, options: ContaminationOptions) -> dict[str, float]:
    """The texts of an object that are looked for, each with the share that tells."""
    strings = list(strings_of(value))
    whole, stem, alone = "\n".join(strings), "", strings
    try:
        asked = "\n".join(message.content for message in to_prompt(value))
        fields = row_of(value)
        stem = str(fields.get(first_key(fields, STEM_KEYS) or ""))
        if asked not in strings:  # with its options, which are no questions themselves
            whole, alone = asked, [stem]
    except MiaoError:
        pass  # no known shape: all of it, and each field
    texts: dict[str, float] = {}
    for text in (whole, *alone):
        size = len(TextView(text).tokens) - options.ngram + 1
        if size >= (FEWEST if text == stem or (text == whole and strings[1:]) else FEWEST_ALONE):
            sure = text == whole or size >= (FEWEST_ALONE if text == stem else LONG)
            texts.setdefault(text, options.min_share if sure else max(options.min_share, VERBATIM))
    return texts
