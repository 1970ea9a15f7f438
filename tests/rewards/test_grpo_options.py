"""GRPO's options: how they are given, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from miao.errors import MiaoError
from miao.options import parse_options
from miao.recipe import Recipe
from miao.recipe.checks import check_recipe
from miao.recipe.reading import load_recipe
from miao.recipe.stages import AdapterOptions

RECIPE = Path(__file__).parent.parent.parent / "miao" / "recipes" / "seedling-grpo.yaml"


def test_options_on_the_command_line() -> None:
    words = [
        "--grpo.rewards", "{exact_answer: 1, 'mine.py:f': 0.1}",
        "--grpo.arithmetic.operations", "-", "<",
        "--grpo.loss", "cispo",
    ]  # fmt: skip
    grpo = parse_options(Recipe, RECIPE, words).grpo
    assert grpo.rewards == {"exact_answer": 1.0, "mine.py:f": 0.1}
    assert grpo.arithmetic.operations == ["-", "<"] and grpo.loss == "cispo"
    assert grpo.enabled and grpo.learning_rate == load_recipe(RECIPE).grpo.learning_rate


def test_it_is_off_unless_asked_for() -> None:
    recipe = Recipe()
    assert not recipe.grpo.enabled
    recipe.grpo.seq_len = 10**6  # what is off is not checked against the model
    check_recipe(recipe)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"group_size": 1}, "grpo.group_size"),
        ({"temperature": 0.0}, "grpo.temperature"),
        ({"rewards": {}}, "grpo.rewards: at least one"),
        ({"rewards": {"short": 0.0}}, "all weights are 0"),
        ({"max_new_tokens": 256}, "holds no prompt"),
        ({"clip_low": 1.5}, "grpo.clip_low"),
        ({"kl_coef": -1.0}, "grpo.kl_coef"),
        ({"tokens": None, "epochs": 1.0}, "grpo.epochs"),
        ({"passes": 0}, "grpo.passes"),
        ({"spike_action": "skip"}, "grpo.spike_action"),
        ({"rollouts": "vllm", "adapter": AdapterOptions(kind="lora")}, "grpo.rollouts"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], says: str) -> None:
    recipe = Recipe()
    recipe.grpo.enabled = True
    for name, value in changes.items():
        setattr(recipe.grpo, name, value)
    with pytest.raises(MiaoError, match=says):
        check_recipe(recipe)


def test_shards_of_deepspeed_are_refused_in_one_line_each() -> None:
    recipe = Recipe(parallel="fsdp")
    recipe.grpo.enabled = True
    recipe.sft.adapter.kind, recipe.pretrain.teacher.path = "lora", "teacher"
    check_recipe(recipe)
    recipe.parallel = "zero2"
    with pytest.raises(MiaoError) as error:
        check_recipe(recipe)
    for what in ("grpo", "sft.adapter", "pretrain.teacher"):
        assert f"{what}: not with parallel zero2 (but with ddp, fsdp, hsdp)" in str(error.value)
