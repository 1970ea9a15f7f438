"""The mix: its plan against numbers worked out by hand, its choice against a sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.build.mix import (
    Share,
    categories_of,
    category_table,
    plan_mix,
    record_keys,
    smallest_keys,
    takings,
)
from miao.errors import MiaoError
from miao.recipe.cleaning import CategoryOptions, MixOptions


def test_the_chinese_mix() -> None:
    options = MixOptions(preset="chinese", sft={"math": CategoryOptions(count=10)})
    sft = categories_of(options, "sft")
    counts = {name: (c.count, c.repeat) for name, c in sft.items()}
    assert counts == {
        "general": (460_000, 1), "knowledge": (100_000, 1), "math": (10, 1), "identity": (1000, 2),
    }  # fmt: skip
    assert {n: c.weight for n, c in categories_of(options, "pretrain").items()} == {
        "zh": 3,
        "en": 1,
    }
    assert categories_of(options, "dpo")["preference"].count == 60_000
    assert categories_of(MixOptions(), "sft") == {}


def test_categories_by_name_pattern_and_language() -> None:
    categories = {
        "math": CategoryOptions(),
        "chat": CategoryOptions(sources=["belle*", "moss"]),
        "zh": CategoryOptions(sources=["*"], language="zh"),
    }
    sources = ["math", "math_v2", "mathematics", "belle-1M", "moss", "wiki"]
    table = category_table(categories, sources)  # columns: zh, en, other
    assert table[:, 0].tolist() == [0, 0, 2, 1, 1, 2]
    assert table[:, 1].tolist() == [0, 0, -1, 1, 1, -1]


def test_counts_repeats_and_caps() -> None:
    categories = {
        "general": CategoryOptions(count="2K"),
        "small": CategoryOptions(count=100, max_epochs=3),
        "middle": CategoryOptions(count=100),
        "twice": CategoryOptions(count=50, repeat=2),
        "capped": CategoryOptions(cap=30),
    }
    available = {
        "general": (5000, 1),
        "small": (20, 1),
        "middle": (40, 1),
        "twice": (50, 1),
        "capped": (90, 1),
    }
    shares = plan_mix(categories, available, None, "sft")
    copies = {name: share.copies for name, share in shares.items()}
    assert copies == {"general": 0.4, "small": 3, "middle": 2.5, "twice": 1, "capped": 1}
    assert shares["small"].notes == [
        "too small: 100 records wanted, repeated 3 times (max_epochs) it gives 60"
    ]
    assert shares["middle"].notes == ["repeated 2.50 times to give 100 records"]
    assert not shares["general"].notes and shares["capped"].usable == 30
    keys = record_keys(0, 5000, 7)
    for name, taking in zip(
        shares,
        takings(shares, lambda number: iter([keys[: list(available.values())[number][0]]])),
        strict=True,
    ):
        taken = taking.copies(keys[: available[name][0]])
        wanted = {
            "general": (2000, 2000),
            "small": (60, 20),
            "middle": (100, 40),
            "twice": (100, 50),
            "capped": (30, 30),
        }
        assert (int(taken.sum()), int((taken > 0).sum())) == wanted[name], name


@pytest.mark.parametrize(
    ("sizes", "epochs", "total", "copies"),
    [
        ((150, 50), 4, None, (1, 1)),  # 3:1 as they are
        ((100, 100), 4, None, (1, 1 / 3)),  # Chinese once, a third of the English
        ((150, 25), 4, None, (1, 2)),  # English twice
        ((150, 10), 4, None, (0.8, 4)),  # four times at most: less Chinese then
        ((150, 10), 1, None, (0.2, 1)),
        ((150, 50), 4, 400, (2, 2)),
        ((150, 10), 4, 200, (1, 4)),  # what is missing is said
    ],
)  # fmt: skip
def test_weights(sizes: Any, epochs: float, total: Any, copies: Any) -> None:
    categories = {
        "zh": CategoryOptions(weight=3, max_epochs=epochs),
        "en": CategoryOptions(weight=1, max_epochs=epochs),
    }
    available = {"zh": (10, sizes[0]), "en": (10, sizes[1])}
    shares = plan_mix(categories, available, total, "pretrain")
    assert [share.copies for share in shares.values()] == pytest.approx(copies)
    short = any(note.startswith("too small") for share in shares.values() for note in share.notes)
    assert short == (total == 200)


def test_mistakes() -> None:
    with pytest.raises(MiaoError, match="no record belongs"):
        plan_mix({"a": CategoryOptions(count=5)}, {"a": (0, 0)}, None, "sft")
    with pytest.raises(MiaoError, match="not both"):
        plan_mix({"a": CategoryOptions(count=5, weight=1)}, {"a": (9, 9)}, None, "sft")
    shares = plan_mix(
        {"a": CategoryOptions(count=5), "b": CategoryOptions()}, {"b": (9, 9)}, None, "sft"
    )
    assert shares["a"].notes == ["no record belongs to it"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=1, max_size=60),
    st.integers(0, 70),
    st.integers(1, 5),
)
def test_smallest_keys_are_those_of_a_sort(values: list[int], count: int, parts: int) -> None:
    keys = np.array(values, dtype=np.uint64)
    bound = smallest_keys(lambda: iter(np.array_split(keys, parts)), count)
    assert sorted(v for v in values if v < bound) == sorted(values)[:count]


def test_keys_are_different_and_evenly_spread() -> None:
    keys = record_keys(0, 20_000, 42)
    assert len(np.unique(keys)) == 20_000
    assert (record_keys(500, 100, 42) == keys[500:600]).all(), "they belong to the record's number"
    assert not (record_keys(0, 100, 43) == keys[:100]).any()
    assert abs((keys >> np.uint64(63)).mean() - 0.5) < 0.02
    plan = {"a": Share(20_000, 1, copies=0.25, usable=20_000)}
    taken = takings(plan, lambda number: iter([keys]))[0].copies(keys)
    assert taken.sum() == 5000 and abs(taken[:10_000].sum() - 2500) < 200


def test_where_no_category_fits_the_sources_that_are_there_are_named() -> None:
    sources = {"web", "books"}
    with pytest.raises(MiaoError, match=r"no record belongs") as caught:
        plan_mix({"a": CategoryOptions(count=5)}, {"a": (0, 0)}, None, "sft", sources)
    assert "a record's own `source`" in str(caught.value)
    assert "here are books, web: " in str(caught.value)
