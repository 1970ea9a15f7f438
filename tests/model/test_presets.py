"""Presets: their shapes are the references', counted by building them and by transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from miao.errors import MiaoError
from miao.model import Decoder, count_parameters, native_architecture
from miao.model.hf_config import to_hf
from miao.model.presets import PRESETS, preset
from miao.recipe.reading import shipped_recipes

NAMES = pytest.mark.parametrize("name", PRESETS)
# Counted by hand from the references' published modules; where Miao's shape is not quite theirs,
# their number and what Miao has more (or fewer).
REFERENCES = {
    "26m": (25_829_888, 0),
    "64m": (63_912_192, 0),
    "64m-head128": (63_912_192, 8 * 2 * (128 - 96)),  # wider norms
    "104m": (104_030_976, 0),
    "moe-145m": (145_029_760, 8 * 2 * 80),  # the norms of queries and keys
    "buddy-0.1b": (158_974_464, 0),
    "buddy-0.3b": (381_900_800, 0),
    "buddy-0.3b-mla": (433_026_432, 0),
    "buddy-0.7b-moe": (803_547_264, -24 * 16),  # the balancing biases are buffers here
    "bitbrain-0.6b": (596_049_920, 0),
}
ARCHITECTURES = {
    "26m": "llama",
    "64m": "qwen3",
    "64m-head128": "qwen3",
    "104m": "llama",
    "moe-145m": "dots1",
    "buddy-0.1b": "qwen2",
    "buddy-0.3b": "qwen2",
    "buddy-0.3b-mla": "deepseek_v3",
    "buddy-0.7b-moe": "deepseek_v3",
    "bitbrain-0.6b": "qwen3",
}


def numbers_of(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@NAMES
def test_the_decoder_has_the_reference_s_parameters(name: str) -> None:
    config = preset(name).config
    with torch.device("meta"):
        built = numbers_of(Decoder(config))
    reference, more = REFERENCES[name]
    assert built == count_parameters(config).total == reference + more


@NAMES
def test_transformers_builds_the_same_shape(name: str) -> None:
    config = preset(name).config
    keys = to_hf(config)
    assert native_architecture(config) == ARCHITECTURES[name]
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**keys), attn_implementation="eager"
        )
        ours = Decoder(config)
    assert numbers_of(theirs) == numbers_of(ours)


# Shapes as the references publish them: width, blocks, heads, key/value heads, head, feed-forward.
SHAPES = {
    "26m": (512, 8, 8, 2, 64, 1408),
    "64m": (768, 8, 8, 4, 96, 2432),
    "64m-head128": (768, 8, 6, 3, 128, 2432),
    "104m": (768, 16, 8, 2, 96, 2048),
    "moe-145m": (640, 8, 8, 2, 80, 1728),
    "buddy-0.1b": (768, 8, 16, 8, 48, 1536),
    "buddy-0.3b": (1024, 24, 16, 8, 64, 2048),
    "buddy-0.3b-mla": (1536, 12, 16, 16, 24, 3072),
    "buddy-0.7b-moe": (1536, 24, 16, 16, 24, 3072),
    "bitbrain-0.6b": (1024, 28, 16, 8, 128, 3072),
}


@NAMES
def test_shapes(name: str) -> None:
    c = preset(name).config
    heads = (c.num_attention_heads, c.num_key_value_heads, c.head_dim)
    shape = (c.hidden_size, c.num_hidden_layers, *heads, c.intermediate_size)
    assert shape == SHAPES[name]
    assert c.tie_word_embeddings


def test_parts_that_only_some_have() -> None:
    moe, latent = preset("moe-145m").config, preset("buddy-0.3b-mla").config
    assert (moe.num_experts, moe.num_experts_per_tok, moe.n_shared_experts) == (4, 2, 1)
    assert moe.moe_intermediate_size == 1728
    both = preset("buddy-0.7b-moe").config
    assert (both.num_experts, both.num_experts_per_tok, both.n_shared_experts) == (16, 2, 2)
    assert both.moe_intermediate_size == 256 and both.first_k_dense_replace == 0
    for config in (latent, both):
        assert (config.q_lora_rank, config.kv_lora_rank) == (16, 16)
        head = (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim)
        assert head == (72, 24, 96)
    bitbrain = preset("bitbrain-0.6b")
    config = bitbrain.config
    assert (config.rope_theta, config.max_position_embeddings) == (10_000, 4096)
    assert (config.vocab_size, bitbrain.seq_len) == (151_936, 2048)
    assert {preset(n).config.vocab_size for n in PRESETS if n.startswith("buddy")} == {151_669}


@NAMES
def test_a_preset_gives_every_option_it_depends_on(name: str) -> None:
    """A change of the recipe's defaults must not change a reference's shape."""
    recipe = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8"))
    given: dict[str, Any] = recipe["model"]
    needed = {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
    needed |= {"max_position_embeddings", "rope_theta", "tie_word_embeddings", "qk_norm"}
    if "kv_lora_rank" not in given:
        needed.add("num_key_value_heads")
    assert needed <= set(given)


@NAMES
def test_budgets_are_about_twenty_tokens_per_active_parameter(name: str) -> None:
    entry = preset(name)
    counted = count_parameters(entry.config)
    assert entry.tokens / (counted.active - counted.embedding) == pytest.approx(20, rel=0.025)
    assert entry.batch_tokens % entry.seq_len == 0
    assert entry.seq_len <= entry.config.context_length
    assert 3000 < entry.tokens / entry.batch_tokens < 20_000, "steps"


def test_an_unknown_name_is_helped() -> None:
    assert preset("104m") is preset("104m")
    with pytest.raises(MiaoError, match=r"did you mean 'bitbrain-0\.6b'"):
        preset("bitbrain-0.6")
    with pytest.raises(MiaoError, match="presets: 26m, 64m"):
        preset("llama-405b-instruct")
