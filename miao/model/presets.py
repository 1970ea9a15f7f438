"""Shapes by name: every size of the projects that Miao grew from, as the recipe of its name has it.

Shapes are the references' own, read from their published code; where no native architecture of
transformers has one exactly, the nearest is taken, and the recipe's head says what differs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from miao.errors import MiaoError, did_you_mean
from miao.model.build import new_config
from miao.model.config import ModelConfig
from miao.options import read_yaml
from miao.recipe import ModelOptions, parse_quantity
from miao.recipe.reading import head_of, shipped_recipes

PRESETS = (
    *("26m", "64m", "64m-head128", "104m", "moe-145m"),
    *("buddy-0.1b", "buddy-0.3b", "buddy-0.3b-mla", "buddy-0.7b-moe", "bitbrain-0.6b"),
)


@dataclass(frozen=True)
class Plan:
    """A shape, and the pretraining that is meant for it."""

    name: str
    config: ModelConfig
    tokens: int
    """Budget; of a preset about 20 per active parameter outside the embedding (arXiv:2203.15556,
    table 3)."""
    seq_len: int
    """Length of a packed row, in tokens."""
    batch_tokens: int
    """Token slots per optimizer step."""
    note: str = ""
    """Where the shape comes from, and what differs from there."""


@functools.cache
def preset(name: str) -> Plan:
    """The preset of that name.

    Raises:
        MiaoError: there is none; with the nearest name, or all of them.
    """
    if name not in PRESETS:
        raise MiaoError(
            f"there is no preset '{name}'",
            fix=did_you_mean(name, PRESETS) or "presets: " + ", ".join(PRESETS),
        )
    path = shipped_recipes()[name]
    recipe = read_yaml(path)
    trained = recipe["pretrain"]
    return Plan(
        name,
        new_config(ModelOptions(**recipe["model"]), recipe["tokenizer"]["vocab_size"], None),
        int(parse_quantity(trained["tokens"], "tokens")),
        trained["seq_len"],
        int(parse_quantity(trained["batch_tokens"], "batch_tokens")),
        head_of(path),
    )
