"""Every recipe that ships can be loaded and gives a model of the size it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from miao.model import count_parameters, new_config
from miao.recipe_file import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
MILLIONS = {"seedling": 2.4, "26m": 25.8, "smoke": 0.7}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    config = new_config(recipe.model, recipe.tokenizer.vocab_size, None)
    assert count_parameters(config).total / 1e6 == pytest.approx(MILLIONS[path.stem], abs=0.06)
    assert config.head_dim in (64, 128)
