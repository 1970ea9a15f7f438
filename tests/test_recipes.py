"""Every recipe that ships can be loaded, gives the model it says, and explains every option."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from miao.model import count_parameters, new_config
from miao.model.estimate import (
    GPUS,
    estimate_lines,
    estimate_training,
    gib,
    long_time,
    training_memory,
)
from miao.model.presets import PRESETS, preset
from miao.recipe import STAGES, of_budget, parse_quantity, reading

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "miao" / "recipes"
DOCS = [ROOT / "docs" / language / "10-recipes.md" for language in ("en", "zh")]
MILLIONS = {"seedling": 2.4, "smoke": 0.7, "recall": 1.97}
load_recipe = functools.cache(reading.load_recipe)
PRESET_NAMES = pytest.mark.parametrize("name", PRESETS)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    config = new_config(recipe.model, recipe.tokenizer.vocab_size, None)
    total = count_parameters(config).total
    if path.stem in PRESETS:
        assert total == count_parameters(preset(path.stem).config).total
    elif path.stem in MILLIONS:
        assert total / 1e6 == pytest.approx(MILLIONS[path.stem], abs=0.06)
        assert config.head_dim in (64, 128)


def test_every_preset_has_its_recipe() -> None:
    assert set(PRESETS) <= {path.stem for path in RECIPES.glob("*.yaml")}


@PRESET_NAMES
def test_a_preset_is_what_its_recipe_trains(name: str) -> None:
    entry, recipe = preset(name), load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.tokenizer.path is None and recipe.pretrain.tokens is not None
    assert new_config(recipe.model, recipe.tokenizer.vocab_size, None) == entry.config
    assert parse_quantity(recipe.pretrain.tokens, "tokens") == entry.tokens
    assert recipe.pretrain.seq_len == entry.seq_len
    assert parse_quantity(recipe.pretrain.batch_tokens, "batch_tokens") == entry.batch_tokens


@PRESET_NAMES
def test_budgets_and_rates_are_sensible(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    context = recipe.model.max_position_embeddings
    for stage in STAGES[:3]:
        options = getattr(recipe, stage)
        rows = parse_quantity(options.batch_tokens, stage) / options.seq_len
        assert rows == int(rows) and rows >= 8
        assert options.seq_len <= context
    budget = float(preset(name).tokens)
    assert of_budget(recipe.pretrain.warmup, budget, "warmup") < 0.05 * budget
    assert of_budget(recipe.pretrain.decay, budget, "decay") < 0.6 * budget
    rates = [getattr(recipe, stage).learning_rate for stage in STAGES[:3]]
    assert rates == sorted(rates, reverse=True) and rates[-1] <= rates[0] / 50
    assert recipe.dpo.muon_learning_rate == 0 < recipe.sft.muon_learning_rate
    assert recipe.sft.muon_learning_rate < recipe.pretrain.muon_learning_rate


@PRESET_NAMES
def test_every_option_is_explained(name: str) -> None:
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not (option := re.match(r"\s*(\w+):(.*)", line)) or line.startswith("#"):
            continue
        is_group = not option[2].partition("#")[0].strip()
        explained = "#" in option[2] or before.startswith("#") or before.startswith("sample_texts")
        assert is_group or explained, line


@PRESET_NAMES
def test_the_head_s_estimates_are_what_is_computed(name: str) -> None:
    entry = preset(name)
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    lines = estimate_lines(entry.config, entry.tokens, entry.seq_len, entry.batch_tokens)
    assert "\n".join(f"#   {line}" for line in lines) in text
    assert text.count(" GB  ") == len(lines), "and no estimates beside them"
    assert "Estimate, not measured" in text


@pytest.mark.parametrize("page", DOCS, ids=["en", "zh"])
@PRESET_NAMES
def test_the_tables_of_the_page_are_what_is_computed(page: Path, name: str) -> None:
    text = page.read_text(encoding="utf-8")
    for row in (shape_row(name), time_row(name)):
        assert row in text, f"{page.name} should say: {row}"


def shape_row(name: str) -> str:
    config = preset(name).config
    counted = count_parameters(config)
    outside = counted.active - counted.embedding
    return (
        f"| `{name}` | {config.hidden_size}×{config.num_hidden_layers} | {counted.total / 1e6:.2f}M "
        f"| {counted.active / 1e6:.2f}M | {counted.embedding / 1e6:.1f}M | {outside / 1e6:.1f}M |"
    )


def time_row(name: str) -> str:
    """One row at a time from so much memory on; the time on each card, a dash where it is small."""
    entry = preset(name)
    config = entry.config
    least = gib(training_memory(config, 1, entry.seq_len).total)
    cells = []
    for gpu in GPUS:
        e = estimate_training(config, gpu, entry.tokens, entry.seq_len, entry.batch_tokens)
        cells.append("–" if e.micro_batch is None else long_time(e.hours))
    tokens = entry.tokens / 1e9
    return f"| `{name}` | {tokens:g}B | {least} | {' | '.join(cells)} |"
