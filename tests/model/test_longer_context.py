"""A trained model gets a longer context once, whichever stages of the recipe come after."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from miao.errors import MiaoError
from miao.model import Decoder, with_longer_context
from miao.recipe import ModelOptions, RopeScalingOptions


def options(kind: str, factor: float = 4.0, length: int | None = 256) -> ModelOptions:
    scaling = RopeScalingOptions(rope_type=kind, factor=factor)  # type: ignore[arg-type]
    return ModelOptions(max_position_embeddings=length, rope_scaling=scaling)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_a_later_stage_finds_the_context_extended(
    make_model: Callable[..., Decoder], kind: str
) -> None:
    longer = with_longer_context(make_model(), options(kind))  # the tiny model has 64
    assert longer.config.context_length == 256
    assert longer.config.rope_scaling and longer.config.rope_scaling["rope_type"] == kind
    assert with_longer_context(longer, options(kind)) is longer


@pytest.mark.parametrize(
    "other", [options("linear"), options("yarn", factor=8.0), options("yarn", length=512)]
)
def test_scaling_in_another_way_is_refused(
    make_model: Callable[..., Decoder], other: ModelOptions
) -> None:
    longer = with_longer_context(make_model(), options("yarn"))
    with pytest.raises(MiaoError, match="scaled already"):
        with_longer_context(longer, other)


def test_without_a_wanted_length_the_context_is_the_models_own_times_the_factor(
    make_model: Callable[..., Decoder],
) -> None:
    model = make_model()
    assert with_longer_context(model, ModelOptions()) is model
    longer = with_longer_context(model, options("yarn", factor=2.0, length=None))
    assert longer.config.context_length == 128
    assert with_longer_context(longer, options("yarn", factor=2.0, length=None)) is longer
