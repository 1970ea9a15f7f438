"""Every recipe that ships can be loaded and gives a model of the size it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from miao.model import ModelConfig, round_up
from miao.recipe import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
MILLIONS = {"seedling": 2.4, "26m": 25.8, "smoke": 0.7}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    model = recipe.model
    config = ModelConfig(
        recipe.tokenizer.vocab_size,
        model.hidden_size,
        model.num_hidden_layers,
        model.num_attention_heads,
        model.num_key_value_heads,
        model.head_dim or model.hidden_size // model.num_attention_heads,
        model.intermediate_size or round_up(model.hidden_size * 8 / 3, 64),
    )
    assert config.num_parameters() / 1e6 == pytest.approx(MILLIONS[path.stem], abs=0.06)
    assert config.head_dim in (64, 128)
