"""Shapes by name: every size of the projects that Miao grew from, as options of a recipe.

Shapes are the references' own, read from their published code; where no native architecture of
transformers has one exactly, the nearest is taken, and the note says what differs and by how many
parameters. The recipe of its name trains each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from miao.errors import MiaoError, did_you_mean
from miao.model.build import new_config
from miao.model.config import ModelConfig
from miao.recipe import ModelOptions


@dataclass(frozen=True)
class Preset:
    """A named shape, and how much its recipe trains it."""

    name: str
    vocab_size: int
    model: dict[str, Any]
    """What a recipe's `model` section says: keys of `ModelOptions`."""
    tokens: int
    """Pretraining budget: about 20 per active parameter outside the embedding
    (arXiv:2203.15556, table 3)."""
    seq_len: int
    """Length of a packed row in pretraining, in tokens."""
    batch_tokens: int
    """Token slots per optimizer step in pretraining."""
    note: str
    """Where the shape comes from, and what differs from there."""

    def options(self) -> ModelOptions:
        """The `model` section of a recipe."""
        return ModelOptions(**self.model)

    def config(self) -> ModelConfig:
        """The shape with the preset's own vocabulary."""
        return new_config(self.options(), self.vocab_size, None)


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        MiaoError: there is none; with the nearest name, or all of them.
    """
    if name not in PRESETS:
        raise MiaoError(
            f"there is no preset '{name}'",
            fix=did_you_mean(name, PRESETS) or "presets: " + ", ".join(PRESETS),
        )
    return PRESETS[name]


_MINIMIND_2 = {
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
_MINIMIND_3 = {
    "hidden_size": 768,
    "num_hidden_layers": 8,
    "intermediate_size": 2432,
    "max_position_embeddings": 1024,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "qk_norm": True,
}
_BUDDY = {
    "num_attention_heads": 16,
    "max_position_embeddings": 1024,
    "rope_theta": 1e5,
    "tie_word_embeddings": True,
    "qk_norm": False,
}
_BUDDY_LATENT = _BUDDY | {
    "hidden_size": 1536,
    "intermediate_size": 3072,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 72,
    "qk_rope_head_dim": 24,
    "v_head_dim": 96,
}
_TABLE = (
    Preset(
        "26m",
        6400,
        _MINIMIND_2
        | {
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "intermediate_size": 1408,
            "qk_norm": False,
        },
        tokens=450_000_000,
        seq_len=512,
        batch_tokens=65536,
        note="minimind2-small, exactly (its 26M class; counted: 25.83M). Llama architecture. The "
        "reference states 32,768 positions but trains at 512; here 1,024 are stated.",
    ),
    Preset(
        "64m",
        6400,
        _MINIMIND_3 | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 96},
        tokens=1_200_000_000,
        seq_len=512,
        batch_tokens=131072,
        note="minimind-3, exactly: the Qwen3 architecture with heads of 96. The reference states "
        "32,768 positions but trains at 340 to 768; here 1,024 are stated.",
    ),
    Preset(
        "64m-head128",
        6400,
        _MINIMIND_3 | {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 128},
        tokens=1_200_000_000,
        seq_len=512,
        batch_tokens=131072,
        note="64m with 6 heads of 128 for 8 of 96: as wide, 512 parameters more (the norms), and "
        "faster, because attention kernels are built for heads of 64 and 128.",
    ),
    Preset(
        "104m",
        6400,
        _MINIMIND_2
        | {
            "hidden_size": 768,
            "num_hidden_layers": 16,
            "intermediate_size": 2048,
            "qk_norm": False,
        },
        tokens=2_000_000_000,
        seq_len=512,
        batch_tokens=262144,
        note="minimind2, exactly: the Llama architecture with heads of 96.",
    ),
    Preset(
        "moe-145m",
        6400,
        _MINIMIND_2
        | {
            "hidden_size": 640,
            "num_hidden_layers": 8,
            "intermediate_size": 1728,
            "qk_norm": True,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 1728,
            "n_shared_experts": 1,
            "scoring_func": "sigmoid",
        },
        tokens=1_750_000_000,
        seq_len=512,
        batch_tokens=262144,
        note="minimind2-moe. Its softmax routing beside a shared expert has no native "
        "architecture: routing is by sigmoid and queries and keys are normalised (dots1), 1,280 "
        "parameters more than there.",
    ),
    Preset(
        "buddy-0.1b",
        151_669,
        _BUDDY
        | {
            "hidden_size": 768,
            "num_hidden_layers": 8,
            "num_key_value_heads": 8,
            "intermediate_size": 1536,
            "attention_bias": True,
        },
        tokens=850_000_000,
        seq_len=1024,
        batch_tokens=262144,
        note="buddygpt-0.1b, exactly: the Qwen2 architecture with heads of 48 and Qwen3's "
        "tokenizer. 73 % of the parameters are the embedding.",
    ),
    Preset(
        "buddy-0.3b",
        151_669,
        _BUDDY
        | {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_key_value_heads": 8,
            "intermediate_size": 2048,
            "attention_bias": True,
        },
        tokens=4_500_000_000,
        seq_len=1024,
        batch_tokens=524288,
        note="buddygpt-0.3b, exactly: the Qwen2 architecture, Qwen3's tokenizer.",
    ),
    Preset(
        "buddy-0.3b-mla",
        151_669,
        _BUDDY_LATENT | {"num_hidden_layers": 12},
        tokens=4_000_000_000,
        seq_len=1024,
        batch_tokens=524288,
        note="buddygpt's latent attention over dense blocks (deepseek_v3). Its code always takes a "
        "feed-forward of 2x the width, so this shape has 433M parameters whatever the name says "
        "(1x: 348M). No biases, there and here.",
    ),
    Preset(
        "buddy-0.7b-moe",
        151_669,
        _BUDDY_LATENT
        | {
            "num_hidden_layers": 24,
            "num_experts": 16,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 256,
            "n_shared_experts": 2,
            "scoring_func": "sigmoid",
        },
        tokens=3_500_000_000,
        seq_len=1024,
        batch_tokens=524288,
        note="buddygpt-0.7b: every block is a mixture of 16 experts of 256 and a shared one of 512 "
        "(deepseek_v3). The reference counts its 384 balancing biases as parameters; here "
        "they are buffers. Its choice among 4 groups and its factor 0.2 are left out (n_group 4, "
        "topk_group 1, routed_scaling_factor 0.2 bring them back).",
    ),
    Preset(
        "bitbrain-0.6b",
        151_936,
        {
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "max_position_embeddings": 4096,
            "rope_theta": 1e4,
            "tie_word_embeddings": True,
            "qk_norm": True,
        },
        tokens=9_000_000_000,
        seq_len=2048,
        batch_tokens=524288,
        note="Bitbrain-0.6B, exactly: Qwen3-0.6B with a rope base of 10,000 and 4,096 positions. "
        "The reference was trained on some 200B tokens.",
    ),
)
PRESETS = {entry.name: entry for entry in _TABLE}
