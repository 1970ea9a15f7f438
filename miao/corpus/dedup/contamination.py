"""Overlap of records with evaluation sets: which hold (most of) a question, and which question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from miao.corpus.ngrams import Hashes, TextView
from miao.corpus.read.readers import read_objects
from miao.corpus.read.sources import find_files
from miao.errors import MiaoError
from miao.recipe.cleaning import ContaminationOptions

FEWEST = 10
"""Fields with fewer n-grams are phrases (often answers), found in many an innocent text."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A field of an evaluation set that a record holds, and how much of it (0 to 1)."""

    place: str
    text: str
    share: float


class EvaluationIndex:
    """The n-grams of all text fields of evaluation sets; shorter fields cannot be told.

    Brown et al. 2020 (GPT-3), appendix C, compare 13-grams of words; here a record counts as
    contaminated only when it holds `min_share` of one field's n-grams, since thirteen characters of
    Chinese may also be a common phrase or a quotation.

    Raises:
        MiaoError: unreadable files, or no field long enough in any of them.
    """

    def __init__(self, options: ContaminationOptions):
        self.options = options
        self.places: list[str] = []
        self.texts: list[str] = []
        self.short = 0
        """Fields that are too short to be compared."""
        grams, owners, self.sizes = self._read()
        order = np.argsort(grams, kind="stable")
        self.grams, self.owners = grams[order], owners[order]

    def _read(self) -> tuple[Hashes, Any, Any]:
        parts: list[Hashes] = []
        sizes: list[int] = []
        for place, text in _fields(self.options.paths):
            grams = np.unique(TextView(text).ngrams(self.options.ngram))
            if grams.size < FEWEST:
                self.short += 1
                continue
            self.places.append(place)
            self.texts.append(text)
            parts.append(grams)
            sizes.append(grams.size)
        if not parts:
            raise MiaoError(
                f"no text of {self.options.ngram + FEWEST - 1} characters (or words) in the "
                "evaluation sets",
                where=", ".join(self.options.paths),
                fix="give files of questions, or lower --corpus.contamination.ngram",
            )
        counts = np.array(sizes)
        return np.concatenate(parts), np.repeat(np.arange(len(parts)), counts), counts

    def overlap(self, view: TextView) -> Overlap | None:
        """The field that the text holds most of, if that is enough to call it contaminated."""
        grams = np.unique(view.ngrams(self.options.ngram))
        first = np.searchsorted(self.grams, grams, side="left")
        last = np.searchsorted(self.grams, grams, side="right")
        hit = np.flatnonzero(last > first)
        if not hit.size:
            return None
        owners = np.concatenate([self.owners[first[i] : last[i]] for i in hit])
        held = np.bincount(owners, minlength=len(self.sizes)) / self.sizes
        best = int(held.argmax())
        if held[best] < self.options.min_share:
            return None
        return Overlap(self.places[best], self.texts[best][:200], float(held[best]))


def _fields(paths: list[str]) -> Iterator[tuple[str, str]]:
    """(`file:line`, text) of every string with something in it, however deep."""
    for path in find_files(paths):
        for line, value in read_objects(path):
            for text in _strings(value):
                yield f"{path}:{line}", text


def _strings(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack += reversed(list(value.values()))
        elif isinstance(value, list):
            stack += reversed(value)
