"""Questions that stand in the training text: their scores measure memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from miao.corpus.dedup.contamination import FEWEST, FEWEST_ALONE, Passage, Passages, wording
from miao.corpus.ngrams import TextView
from miao.evaluate.tasks.items import Item
from miao.recipe.cleaning import ContaminationOptions


@dataclass(frozen=True)
class Contamination:
    """How much of each question stands side by side in a text, from `min_share` on, else 0; None
    for questions too short to tell."""

    shares: list[float | None]
    documents: int

    @property
    def flagged(self) -> list[bool]:
        return [bool(share) for share in self.shares]


def find_contamination(
    items: Sequence[Item],
    texts: Iterable[str],
    advance: Callable[[int], None] = lambda done: None,
) -> Contamination:
    """Looks for every question, with its options and (a long one) alone, in training texts, which
    are read once, as decontamination does (`miao.corpus.dedup.contamination`).
    """
    options, count = ContaminationOptions(), 0
    passages: list[Passage] = []
    owners: list[int] = []
    shares: list[float | None] = [None] * len(items)
    fields = {text: None for item in items for text in (item.question, *item.options)}
    for number, item in enumerate(items):
        whole = "\n".join([item.question, *item.options])
        for text, fewest in {item.question: FEWEST_ALONE, whole: FEWEST}.items():
            if len(TextView(text).tokens) - options.ngram + 1 >= fewest:
                passages.append(Passage("", text, options.min_share))
                owners.append(number)
                shares[number] = 0.0
    common = wording(
        [
            np.zeros(0, dtype=np.uint64),
            *(np.unique(TextView(f).ngrams(options.ngram)) for f in fields),
        ]
    )
    index = Passages(passages, options.ngram, common)
    for text in texts:
        count += 1
        for number, share in index.held(TextView(text)).items():
            shares[owners[number]] = max(share, shares[owners[number]] or 0.0)
        advance(1)
    return Contamination(shares, count)
