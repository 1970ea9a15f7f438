"""The decoder's shape, in Hugging Face's key names; each shape is one native architecture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from miao.errors import MiaoError

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclass(frozen=True)
class ModelConfig:
    """What a decoder is made of. Sizes are counts of numbers, positions are tokens."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    qk_norm: bool = True
    attention_bias: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    """Keys of a loaded config.json that mean nothing here but belong to the model."""

    @property
    def model_type(self) -> str:
        """The native architecture with exactly these parts.

        Raises:
            MiaoError: no architecture of transformers has this combination.
        """
        if self.qk_norm and self.attention_bias:
            raise MiaoError(
                "no native architecture has both QK-norm and q/k/v biases",
                where="model.qk_norm, model.attention_bias",
                fix="switch one of them off: Qwen3 has the norm, Qwen2 the biases",
            )
        if self.qk_norm:
            return "qwen3"
        return "qwen2" if self.attention_bias else "llama"

    def num_parameters(self) -> int:
        """Trainable numbers, tied embeddings counted once."""
        embedding = self.vocab_size * self.hidden_size
        head = 0 if self.tie_word_embeddings else embedding
        return (
            embedding + head + self.hidden_size + self.num_hidden_layers * self._block_parameters()
        )

    def _block_parameters(self) -> int:
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        count = 2 * self.hidden_size * (query + key) + 3 * self.hidden_size * self.intermediate_size
        count += 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return count + (query + 2 * key if self.attention_bias else 0)

    def flops_per_token(self, seq_len: int, causal: bool = True) -> float:
        """Training FLOPs (forward and backward) of one token in a row of `seq_len`.

        6 per weight of a matrix product (the input embedding is a look-up, the head is counted
        once), plus attention: 12·L·d_attn·T over the full square (the PaLM convention, appendix B
        of arXiv:2204.02311), or half of it when `causal`.
        """
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        block = 2 * self.hidden_size * (query + key) + 3 * self.hidden_size * self.intermediate_size
        matmul = self.num_hidden_layers * block + self.vocab_size * self.hidden_size
        attention = 12 * self.num_hidden_layers * query * seq_len
        return 6.0 * matmul + (attention / 2 if causal else attention)

    def to_hf(self) -> dict[str, Any]:
        """The content of `config.json`, readable by transformers 4 and 5.

        transformers 5 looks for `rope_parameters`, 4.x for `rope_theta` (and falls back to 10000
        without a word): both are written.
        """
        config = dict(self.extra)
        config |= {
            "architectures": [ARCHITECTURES[self.model_type]],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "use_sliding_window": False,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "torch_dtype": "float32",
            "dtype": "float32",
        }
        if self.model_type != "qwen2":
            config["attention_bias"] = False
        if self.model_type == "llama":
            config["mlp_bias"] = False
        return config

    @classmethod
    def from_hf(cls, config: dict[str, Any], where: str) -> ModelConfig:
        """Reads the content of a `config.json`.

        Raises:
            MiaoError: an architecture, activation or rope type that is not supported; a key that
                is missing. With the place.
        """
        if not isinstance(config, dict):
            raise MiaoError("a JSON object was expected here", where=where)
        model_type = config.get("model_type")
        if model_type not in ARCHITECTURES:
            raise MiaoError(
                f"model_type {model_type!r} is not supported",
                where=where,
                fix="supported: " + ", ".join(ARCHITECTURES),
            )
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        unsupported = {
            f"rope_type {rope_type!r}": rope_type != "default",
            f"hidden_act {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
            "use_sliding_window": bool(config.get("use_sliding_window")),
            "mlp_bias": bool(config.get("mlp_bias")),
            "attention_bias": bool(config.get("attention_bias")),
        }
        for what, wrong in unsupported.items():
            if wrong:
                raise MiaoError(f"{what} is not supported", where=where)
        try:
            heads = int(config["num_attention_heads"])
            hidden = int(config["hidden_size"])
            return cls(
                vocab_size=int(config["vocab_size"]),
                hidden_size=hidden,
                num_hidden_layers=int(config["num_hidden_layers"]),
                num_attention_heads=heads,
                num_key_value_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                intermediate_size=int(config["intermediate_size"]),
                max_position_embeddings=int(config.get("max_position_embeddings", 2048)),
                rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
                rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
                qk_norm=model_type == "qwen3",
                attention_bias=model_type == "qwen2",
                bos_token_id=config.get("bos_token_id"),
                eos_token_id=config.get("eos_token_id"),
            )
        except KeyError as error:
            raise MiaoError(f"the key {error} is missing", where=where) from error
        except (TypeError, ValueError) as error:
            raise MiaoError(f"a value is of the wrong type: {error}", where=where) from error


def round_up(value: float, multiple: int) -> int:
    """The smallest multiple not below `value`."""
    return -int(-value // multiple) * multiple
