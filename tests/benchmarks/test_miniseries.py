"""The miniseries' trials and the fit of the rules: what is put in comes out."""

from __future__ import annotations

import importlib
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from miao import rules

SCRIPTS = Path(__file__).parent.parent.parent / "benchmarks"
LAW = {"E": 0.3, "B": 2.4, "beta": 0.16, "D0": 0.35, "A": 0.03, "alpha": 1.2}
SIZES = {"0.3": 0.296, "0.6": 0.554, "1.2": 1.2, "2.6": 2.6, "4.4": 4.4, "9.7": 9.7}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def made_up(trial: Any, rng: random.Random, best_muon: float = 0.02) -> dict[str, Any]:
    size = SIZES[trial.n]
    bits = rules._law(LAW, size * 1e6, trial.tokens)
    bits *= 1 + 0.01 * math.log2(trial.muon / best_muon) ** 2 + rng.gauss(0, 5e-4)
    return {
        "key": trial.key, **asdict(trial), "trial": trial, "parameters": size * 1e6, "bits": bits,
    }  # fmt: skip


def test_a_law_that_made_the_numbers_is_found_again(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, fit = load("miniseries"), load("fit_rules")
    monkeypatch.setattr(fit, "DRAWS", 5)
    rng = random.Random(0)
    rows = [made_up(trial, rng) for trial in series.trials("surface")]
    found = fit.fit_loss(fit.surface(rows))
    assert found["scatter"] < 1e-3
    for size, tokens in ((0.3, 0.25), (10.0, 0.5), (10.0, 4.0)):  # the last one was in no trial
        said = fit._law(list(found["best"].values()), size, tokens)
        assert said == pytest.approx(rules._law(LAW, size * 1e6, tokens * 1e6), rel=0.01)


def test_the_best_rate_of_every_size_is_found_again(load: Any) -> None:
    series, fit = load("miniseries"), load("fit_rules")
    rng = random.Random(0)
    rows = [made_up(trial, rng, best_muon=0.03) for trial in series.trials("rates")]
    found = fit.fit_rates(rows)["muon"]
    assert found["value"] == pytest.approx(0.03, rel=0.15)
    assert abs(found["size"]) < 0.1 and abs(found["batch"]) < 0.1


def test_a_trials_words_make_the_trial_again(load: Any) -> None:
    series = load("miniseries")
    for name in ("surface", "rates", "ablations", "heldout", "repeats"):
        for trial in series.trials(name):
            assert series.said(trial.key.split(" ")) == trial


def test_variants_end_with_their_trial(load: Any) -> None:
    variants = load("variants")
    before = [getattr(owner, name) for owner, name in variants.PLACES]
    with pytest.raises(ValueError), variants.applied("+".join(variants.VARIANTS)):
        assert all(
            getattr(o, n) is not b for (o, n), b in zip(variants.PLACES, before, strict=True)
        )
        raise ValueError
    assert [getattr(owner, name) for owner, name in variants.PLACES] == before


def test_polar_express_is_nearer_to_orthogonal(load: Any) -> None:
    import torch

    variants, muon = load("variants"), importlib.import_module("miao.train.muon")
    matrix = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))

    def off(x: torch.Tensor) -> float:
        return float((torch.linalg.svdvals(x) - 1).abs().max())

    plain = muon.newton_schulz(matrix, torch.float32)
    with variants.applied("polar_express"):
        assert off(muon.newton_schulz(matrix, torch.float32)) < off(plain)


def test_another_decay_is_what_a_budget_follows(load: Any) -> None:
    from miao.recipe import StageOptions
    from miao.train.budget import Budget

    budget = Budget("pretrain", StageOptions(schedule="wsd", warmup=0, decay=0.5), 100)
    budget.at = 75
    plain = budget.rate(0)
    with load("variants").applied("sqrt_decay"):
        assert budget.rate(0) == 1 - math.sqrt(0.5) < plain == 0.5
    assert budget.rate(0) == plain


def test_a_study_of_choices_compares_one_difference_at_a_time(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from miao.grow.found import Found, Source
    from miao.grow.machine import Speed

    study = load("grow_choice")
    speed = Speed("cpu", "float32", ((1e6, 4.5e-5), (1e9, 2.502e-2)), 0, 1, "here")
    monkeypatch.setattr(study, "measure", lambda seconds, world: speed)
    source = Source("zh", "document", records=4000, characters=3e6, bytes=8e6, chinese=1, seen=1)
    plan, *others = study.alternatives(Found([source]), 120.0, 1.0)
    assert len({one.label for one in others}) == len(others) >= 10
    told = ("label", "adam")  # both rates are one thing
    for other in others:
        different = {k for k, v in asdict(other).items() if v != getattr(plan, k)} - set(told)
        assert len(different) == 1 or different == {"width", "layers"}
        assert other.batch >= other.seq_len and other.config()["vocab_size"] == other.vocab
        assert f"label={other.label}" in other.key
    row = {**asdict(plan), "all_parameters": 1, "cpu_seconds": 1.0, "error": 0.0}
    lines = list(study.result([row | {"bits": 2.02}, row | {"bits": 2.0, "label": "batch 512"}]))
    assert "batch 512" in lines[2] and "1.0% off the best of 2" in lines[-1]
