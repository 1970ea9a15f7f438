"""The rules: what they say follows from their numbers, and behaves as such laws must."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miao import rules
from miao.files import write_json
from miao.recipe import Recipe
from miao.run.data import warn_of_babble
from miao.rundir import RunDir
from miao.shards import TokenDataset


def test_repeated_text_is_worth_less_each_time() -> None:
    worth = rules.table()["repeats"]["value"]
    assert rules.effective_tokens(5e5, 1e6) == 5e5
    assert rules.effective_tokens(4e6, None) == 4e6
    by_hand = 1e6 + 1e6 * worth * (1 - math.exp(-3 / worth))
    assert rules.effective_tokens(4e6, 1e6) == pytest.approx(by_hand)
    # read without end, a text is worth 1 + R* of itself
    assert rules.effective_tokens(1e12, 1e6) == pytest.approx(1e6 * (1 + worth))


def test_expected_bits_fall_with_size_and_text_and_keep_their_interval() -> None:
    for size in (3e5, 3e6, 3e7):
        last = math.inf
        for tokens in (2.5e5, 1e6, 4e6, 1e9):
            bits = rules.expected_bits(size, tokens)
            assert bits.low < bits.value < bits.high
            assert bits.value < last
            assert bits.value > rules.expected_bits(2 * size, tokens).value
            last = bits.value
    assert rules.expected_bits(1e6, 8e6, 1e6).value > rules.expected_bits(1e6, 8e6).value


def test_a_training_that_has_hardly_begun_is_promised_little() -> None:
    measured = {(295_680, 4e3): 3.721, (1_180_992, 16e3): 3.399, (295_680, 64e3): 3.203}
    for (parameters, tokens), bits in measured.items():
        expected = rules.expected_bits(parameters, tokens)
        assert expected.value == pytest.approx(bits, rel=0.02)
        assert expected.low < bits < expected.high
    begun = [rules.expected_bits(1e6, tokens).value for tokens in (1, 1e3, 4e3, 1e5, 1e6)]
    assert begun == sorted(begun, reverse=True)
    untrained = math.log2(6400) * 72_138 / 240_000
    assert begun[0] == pytest.approx(untrained, rel=1e-3), "every token is as likely"


def test_settings_are_what_a_recipe_takes() -> None:
    before = 0
    for tokens in (1e5, 1e6, 1e8, 1e10, 1e12):
        found = rules.settings(1e6, tokens)
        assert found.batch_tokens >= before
        assert found.batch_tokens & (found.batch_tokens - 1) == 0
        assert 0 < found.learning_rate < found.muon_learning_rate < 1
        assert 0 < found.warmup < found.decay <= 1
        before = found.batch_tokens


def test_weight_decay_is_by_the_text_and_not_by_how_often_it_is_read() -> None:
    assert rules.weight_decay(1024, 0.03, 72_435) == pytest.approx(0.82, abs=0.005), "page 24"
    often, once = (rules.settings(1e5, tokens, 72_435) for tokens in (1.5e6, 72_435))
    assert often.weight_decay > 0.5 and once.weight_decay > 0.2
    assert rules.settings(1e5, 1e4, 100).weight_decay == 2, "at most"
    assert rules.settings(1e8, 1e10).weight_decay < 0.1
    assert rules.settings(1e5, 1e6).weight_decay == rules.settings(1e5, 1e6, 1e6).weight_decay


def test_a_text_that_is_read_often_is_said_to_want_weight_decay(
    make_dataset: Callable[..., TokenDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path / "run")
    write_json(run.corpus / "manifest.json", {"sources": {}})
    run.shards("pretrain", "train").mkdir(parents=True)
    made = make_dataset([range(1, 90)] * 10).directory
    made.rename(run.shards("pretrain", "train") / "tiny")
    recipe = Recipe()
    recipe.corpus.paths, recipe.pretrain.tokens = ["texts"], 8000
    recipe.sft.enabled = recipe.dpo.enabled = False
    chain: Any = SimpleNamespace(recipe=recipe, run=run)
    warn_of_babble(chain)
    assert "--pretrain.weight_decay 2" in capsys.readouterr().out
    recipe.pretrain.weight_decay = 1.0
    warn_of_babble(chain)
    assert capsys.readouterr().out == ""


def test_what_lies_outside_of_the_measured_is_said() -> None:
    assert rules.extrapolated(64e6, 1e9)
