"""The mix: which records go into the corpus, and how often, by category.

First everything is counted, then a plan is made (`plan_mix`, plain arithmetic), then records are
taken by a hash of their number: the same input, options and seed give the same corpus, and memory
does not grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.corpus.dedup.chunks import LANGUAGES
from miao.corpus.ngrams import random_words
from miao.errors import MiaoError
from miao.recipe import parse_quantity
from miao.recipe.cleaning import CategoryOptions, MixOptions

SHOWN_SOURCES = 8
CHINESE_MIX: dict[str, dict[str, CategoryOptions]] = {
    "pretrain": {
        "zh": CategoryOptions(sources=["*"], language="zh", weight=3),
        "en": CategoryOptions(sources=["*"], language="en", weight=1),
    },
    "sft": {
        "general": CategoryOptions(count=460_000),
        "knowledge": CategoryOptions(count=100_000),
        "math": CategoryOptions(count=8_000),
        "identity": CategoryOptions(count=1_000, repeat=2),
    },
    "dpo": {"preference": CategoryOptions(sources=["preference*", "dpo*"], count=60_000)},
}
OTHERS = "others"
_BINS = 1 << 16
_FULL = 1 << 64


@dataclass
class Share:
    """What is taken of a category."""

    records: int
    """How many there are, duplicates aside."""
    characters: int
    copies: float = 1.0
    """How often each of the usable records is taken, on average; 0.5: every other one."""
    usable: int = 0
    """How many different records may be taken."""
    repeat: int = 1
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def categories_of(options: MixOptions, stage: str) -> dict[str, CategoryOptions]:
    """The categories of a stage: those of the preset, with the recipe's own on top."""
    base = CHINESE_MIX[stage] if options.preset == "chinese" else {}
    return {**base, **getattr(options, stage)}


def category_table(
    categories: Mapping[str, CategoryOptions], sources: Iterable[str]
) -> NDArray[np.int16]:
    """(sources, languages) -> number of the first category that they belong to; -1: none."""
    rows = []
    for source in sources:
        row = []
        for language in LANGUAGES:
            fits = (
                number
                for number, (name, category) in enumerate(categories.items())
                if category.language in ("any", language)
                and any(fnmatchcase(source, p) for p in category.sources or [name, f"{name}[._-]*"])
            )
            row.append(next(fits, -1))
        rows.append(row)
    return np.array(rows, dtype=np.int16).reshape(-1, len(LANGUAGES))


def plan_mix(
    categories: Mapping[str, CategoryOptions],
    available: Mapping[str, tuple[int, int]],
    total: float | None,
    stage: str,
    sources: Collection[str] = (),
) -> dict[str, Share]:
    """How much of every category is taken.

    A `count` is reached by leaving records out or by repeating them, up to `max_epochs`. Weights
    are shares of the characters; without a `total` the category of the largest weight is taken
    once, or in part where another would have to be repeated more than its `max_epochs`.

    Args:
        available: name -> (records, characters).
        sources: all that there are, for the message when none belongs to a category.

    Raises:
        MiaoError: nothing at all in the categories, or options that contradict each other.
    """
    shares = {}
    for name, category in categories.items():
        records, characters = available.get(name, (0, 0))
        share = Share(records, characters, usable=records, repeat=category.repeat)
        where = f"corpus.mix.{stage}.{name}"
        if category.cap is not None:
            share.usable = min(records, int(parse_quantity(category.cap, f"{where}.cap")))
        if category.count is not None and category.weight is not None:
            raise MiaoError("give a count or a weight, not both", where=where)
        if not records:
            share.notes.append("no record belongs to it")
        elif category.count is not None:
            wanted = parse_quantity(category.count, f"{where}.count")
            share.copies = _limited(wanted / max(share.usable, 1), category, share, wanted)
        shares[name] = share
    _plan_weights(categories, shares, total)
    if shares and not any(share.usable for share in shares.values()):
        raise MiaoError(
            "no record belongs to a category of the mix",
            where=f"corpus.mix.{stage}",
            fix="categories are matched by a record's own `source`, or where it has none by the "
            f"name of its file; {_here(sources)}name files after categories, or list the sources",
        )
    return shares


def _here(sources: Collection[str]) -> str:
    more = ", ..." if len(sources) > SHOWN_SOURCES else ""
    return f"here are {', '.join(sorted(sources)[:SHOWN_SOURCES])}{more}: " if sources else ""


def _plan_weights(
    categories: Mapping[str, CategoryOptions], shares: dict[str, Share], total: float | None
) -> None:
    weighted = {
        name: float(category.weight)
        for name, category in categories.items()
        if category.weight and shares[name].usable
    }
    size = {
        name: shares[name].characters * shares[name].usable / shares[name].records
        for name in weighted
    }
    if not weighted:
        return
    everything = sum(weighted.values())
    part = {name: weight / everything for name, weight in weighted.items()}
    if total is None:
        main = max(weighted, key=lambda name: weighted[name])
        once = size[main] / part[main]
        bound = min(size[name] * categories[name].max_epochs / part[name] for name in weighted)
        total = min(once, bound)
    for name in weighted:
        share, wanted = shares[name], total * part[name]
        share.copies = _limited(wanted / size[name], categories[name], share, wanted, "characters")


def _limited(
    copies: float, category: CategoryOptions, share: Share, wanted: float, unit: str = "records"
) -> float:
    """The copies that max_epochs allows; what is repeated or missing is noted."""
    if copies > category.max_epochs + 1e-9:
        given = wanted * category.max_epochs / copies
        share.notes.append(
            f"too small: {wanted:,.0f} {unit} wanted, repeated {category.max_epochs:g} times "
            f"(max_epochs) it gives {given:,.0f}"
        )
        return category.max_epochs
    if copies > 1 + 1e-9:
        share.notes.append(f"repeated {copies:.2f} times to give {wanted:,.0f} {unit}")
    return copies


@dataclass(frozen=True)
class Taking:
    """How to take the records of a category: by their key, a random number below 2^64."""

    below: int
    """Only records with a key below this."""
    whole: int
    """Each of them so often, ..."""
    once_more_below: int
    """... and those with a key below this once more."""
    repeat: int

    @property
    def most(self) -> int:
        """How often a record is taken at most."""
        return (self.whole + bool(self.once_more_below)) * self.repeat

    def copies(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        more = below(keys, self.once_more_below).astype(np.int64)
        taken = np.where(below(keys, self.below), self.whole + more, 0)
        return taken * self.repeat


def takings(
    shares: Mapping[str, Share], keys_of: Callable[[int], Iterator[NDArray[np.uint64]]]
) -> list[Taking]:
    """The thresholds that take exactly as many records as planned.

    `keys_of(category)` goes through all keys of a category; it is called up to four times.
    """
    taken = []
    for number, share in enumerate(shares.values()):
        below = _FULL
        if share.usable < share.records:
            below = smallest_keys(lambda number=number: keys_of(number), share.usable)  # type: ignore[misc]
        whole = math.floor(share.copies + 1e-9)
        rest = round((share.copies - whole) * share.usable)
        more = smallest_keys(lambda number=number: keys_of(number), rest)  # type: ignore[misc]
        taken.append(Taking(below, whole, more, share.repeat))
    return taken


def smallest_keys(keys_again: Callable[[], Iterator[NDArray[np.uint64]]], count: int) -> int:
    """The bound that exactly the `count` smallest of all (different) keys are below.

    Two passes: one counts by the upper bits, one sorts the single bin where the bound lies.
    """
    if count <= 0:
        return 0
    bins = np.zeros(_BINS, dtype=np.int64)
    for keys in keys_again():
        bins += np.bincount((keys >> np.uint64(48)).astype(np.int64), minlength=_BINS)
    up_to = np.cumsum(bins)
    if count >= up_to[-1]:
        return _FULL
    chosen = int(np.searchsorted(up_to, count))
    inside = [keys[(keys >> np.uint64(48)) == chosen] for keys in keys_again()]
    ordered = np.sort(np.concatenate(inside))
    before = int(up_to[chosen - 1]) if chosen else 0
    return int(ordered[count - before - 1]) + 1


def record_keys(start: int, count: int, seed: int) -> NDArray[np.uint64]:
    """A random word for each record number: all different, since splitmix64 is a bijection."""
    offset = (seed * 0xD1342543DE82EF95 + start * 0x9E3779B97F4A7C15) % _FULL
    return random_words(count, offset)


def below(keys: NDArray[np.uint64], bound: int) -> NDArray[np.bool_]:
    """Which keys are below a bound of up to 2^64."""
    return np.ones(len(keys), dtype=bool) if bound >= _FULL else keys < np.uint64(bound)
