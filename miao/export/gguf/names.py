"""What llama.cpp knows of each architecture: its settings, tensor names and layout of rows.

Checked against the sources of llama.cpp (src/models/*.cpp, src/llama-context.cpp) and against
transformers' logits; what llama.cpp would load and compute differently is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miao.errors import MiaoError
from miao.export.gguf.rope import rope_settings, rope_type
from miao.model.directory import check_tensors

ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "deepseek_v3": "deepseek2",
    "dots1": "dots1",
}
"""llama.cpp's name of each `model_type` of config.json."""

_QK_NORM = ("qwen3", "qwen3_moe", "dots1")
_SIGMOID_ROUTED = ("deepseek_v3", "dots1")
_FULL = "full_attention"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of a GGUF, and how its rows come out of the model's own tensors.

    Each source is cut into `groups` of equal height (attention heads); of each group the rows
    `take` count, its last `rotary` rows go from halves to pairs, it may be `transposed`, and it
    comes `repeat` times. Sources follow one another (experts); without any, all is zero.
    """

    name: str
    shape: Shape
    sources: tuple[str, ...]
    source_shape: Shape
    groups: int = 1
    take: tuple[int, int] | None = None
    rotary: int = 0
    transposed: bool = False
    repeat: int = 1
    is_router: bool = False


@dataclass(frozen=True)
class Architecture:
    """A model as llama.cpp sees it. `settings` are arguments of `GGUFWriter.add_<key>`."""

    name: str
    settings: dict[str, Any]
    tensors: list[TensorPlan]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Config:
    """The content of a config.json, read with types.

    Raises:
        MiaoError: a key is missing, or its value is of the wrong type.
    """

    def __init__(self, values: Mapping[str, Any], where: Path):
        self.values, self.where = values, where
        self.kind = str(values.get("model_type"))
        self.layers = self.size("num_hidden_layers")
        self.hidden = self.size("hidden_size")
        self.heads = self.size("num_attention_heads")
        self.key_value_heads = self.size("num_key_value_heads", self.heads)
        self.head_dim = self.size("head_dim", self.hidden // self.heads)
        self.positions = self.size("max_position_embeddings", 2048)
        self.tied = bool(values.get("tie_word_embeddings", False))
        rope, older = (values.get(key) or {} for key in ("rope_parameters", "rope_scaling"))
        kinds = {rope_type(found) for found in (rope, older) if found}
        if len(kinds) > 1:
            raise MiaoError(
                f"rope_parameters and rope_scaling disagree ({', '.join(sorted(kinds))})",
                where=where,
                fix="keep the one that the model was trained with",
            )
        self.rope: dict[str, Any] = {**older, **rope}
        for key in ("rope_theta", "original_max_position_embeddings"):
            if key not in self.rope and values.get(key):
                self.rope[key] = values[key]

    def size(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise MiaoError(f"the key '{key}' is missing", where=self.where)
        if not isinstance(value, int):
            raise MiaoError(f"'{key}' should be a whole number, not {value!r}", where=self.where)
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key)
        return default if value is None else bool(value)

    @property
    def dense_layers(self) -> int:
        """The first layers, which have no experts."""
        if self.kind == "qwen3_moe":
            return 0
        if self.kind in _SIGMOID_ROUTED and self.values.get("n_routed_experts"):
            return min(self.size("first_k_dense_replace", 0), self.layers)
        return self.layers

    @property
    def key_value_copies(self) -> int:
        """How often each key/value head is written: llama.cpp's dots1 does not share them."""
        return self.heads // self.key_value_heads if self.kind == "dots1" else 1

    @property
    def experts(self) -> int:
        names = ("n_routed_experts", "num_experts", "num_local_experts")
        return next((self.size(name) for name in names if self.values.get(name)), 0)


def describe(config: Mapping[str, Any], shapes: Mapping[str, Shape], where: Path) -> Architecture:
    """How a model goes into a GGUF.

    Args:
        config: the content of config.json.
        shapes: of every stored tensor, by its Hugging Face name.
        where: the config.json, for messages.

    Raises:
        MiaoError: llama.cpp cannot represent the model (each reason is named), or tensors are
            missing, unknown or of the wrong shape.
    """
    if config.get("model_type") not in ARCHITECTURES:
        raise MiaoError(
            f"model_type {config.get('model_type')!r} cannot be written as GGUF",
            where=where,
            fix="supported: " + ", ".join(ARCHITECTURES),
        )
    c = Config(config, where)
    if reasons := list(_refusals(c)):
        listed = "".join(f"\n  - {reason}" for reason in reasons)
        raise MiaoError(
            f"llama.cpp cannot represent this {c.kind} model:{listed}",
            where=where,
            fix="serve the Hugging Face directory instead, or train without it",
        )
    rope, constants = rope_settings(
        c.rope, c.kind, head_dim=c.head_dim, positions=c.positions, where=where
    )
    tensors = list(_tensors(c))
    _check_shapes(c, tensors, shapes)
    return Architecture(ARCHITECTURES[c.kind], _settings(c) | rope, tensors, constants, _notes(c))


def _refusals(c: Config) -> Iterator[str]:
    """Why llama.cpp would not load the model, or would compute something else."""
    if c.values.get("hidden_act", "silu") != "silu":
        yield f"its activation is {c.values['hidden_act']!r}; these architectures have silu only"
    if c.rope.get("partial_rotary_factor", c.values.get("partial_rotary_factor") or 1) != 1:
        yield "only a part of each head is rotated (partial_rotary_factor)"
    kinds = c.values.get("layer_types") or (
        ["sliding"] if c.flag("use_sliding_window") else [_FULL]
    )
    if {*kinds} != {_FULL} and (c.values.get("sliding_window") or 0) < c.positions:
        yield "it has sliding-window attention, which llama.cpp leaves out for this architecture"
    if c.heads % c.key_value_heads:
        yield "num_attention_heads is no multiple of num_key_value_heads"
    if c.flag("attention_bias") and c.kind not in ("llama", "qwen2"):
        yield "its attention output has a bias (attention_bias)"
    if c.flag("mlp_bias") and c.kind != "llama":
        yield "its MLP has biases (mlp_bias)"
    if c.kind == "qwen2" and c.heads * c.head_dim != c.hidden:
        yield (
            f"heads x head_dim ({c.heads} x {c.head_dim}) is not hidden_size ({c.hidden}), which "
            "llama.cpp takes for granted in qwen2"
        )
    if c.kind == "qwen3_moe":
        if c.values.get("mlp_only_layers") or c.size("decoder_sparse_step", 1) != 1:
            yield (
                "some layers are dense; llama.cpp's qwen3moe has experts in every layer "
                "(train with first_k_dense_replace 0)"
            )
        if not c.flag("norm_topk_prob"):
            yield "norm_topk_prob is false; llama.cpp always normalises qwen3moe's expert weights"
    if c.kind == "deepseek_v3":
        lite = c.layers in (26, 27) or (c.layers == 48 and c.size("vocab_size") == 128256)
        if lite and c.values.get("q_lora_rank"):
            yield (
                f"it has q_lora_rank and {c.layers} layers; with so many layers llama.cpp takes "
                "every deepseek2 model for one without"
            )
    if c.dense_layers < c.layers and c.size("num_experts_per_tok") > c.experts:
        yield "num_experts_per_tok is larger than the number of experts"


def _notes(c: Config) -> list[str]:
    notes = []
    if c.kind == "deepseek_v3" and c.values.get("rms_norm_eps", 1e-6) != 1e-6:
        notes.append(
            "transformers normalises DeepSeek's latents with 1e-6, llama.cpp with rms_norm_eps: "
            "tiny differences are expected"
        )
    if c.key_value_copies > 1:
        notes.append(
            "llama.cpp loads dots1 only with as many key/value heads as query heads: each was "
            f"written {c.key_value_copies} times (same answers, larger cache)"
        )
    if (
        c.dense_layers < c.layers
        and c.kind in _SIGMOID_ROUTED
        and not c.size("n_shared_experts", 0)
    ):
        notes.append("llama.cpp wants a shared expert here: one of zeros was added")
    return notes


def _settings(c: Config) -> dict[str, Any]:
    from gguf import ExpertGatingFuncType

    settings: dict[str, Any] = {
        "context_length": c.positions,
        "embedding_length": c.hidden,
        "block_count": c.layers,
        "feed_forward_length": c.size("intermediate_size"),
        "head_count": c.heads,
        "head_count_kv": c.key_value_heads * c.key_value_copies,
        "key_length": c.head_dim,
        "value_length": c.head_dim,
        "rope_dimension_count": c.head_dim,
        "layer_norm_rms_eps": float(c.values.get("rms_norm_eps", 1e-6)),
        "vocab_size": c.size("vocab_size"),
    }
    if c.dense_layers < c.layers:
        settings["expert_count"] = c.experts
        settings["expert_used_count"] = c.size("num_experts_per_tok")
        settings["expert_feed_forward_length"] = c.size("moe_intermediate_size")
        if c.kind in _SIGMOID_ROUTED:
            settings["expert_gating_func"] = ExpertGatingFuncType.SIGMOID
            settings["expert_weights_scale"] = float(c.values.get("routed_scaling_factor", 1.0))
            normalises = c.flag("norm_topk_prob", c.kind == "deepseek_v3")
            settings["expert_weights_norm"] = normalises
            groups, kept = c.size("n_group", 1), c.size("topk_group", 1)
            if kept < groups:  # all groups kept: the same as none
                settings |= {"expert_group_count": groups, "expert_group_used_count": kept}
    if c.kind in _SIGMOID_ROUTED:
        settings["leading_dense_block_count"] = c.dense_layers
        shared = c.size("n_shared_experts", 0)
        settings["expert_shared_count"] = max(shared, int(c.dense_layers < c.layers))
        # A key that llama.cpp wants even where no layer has experts.
        settings.setdefault("expert_feed_forward_length", c.size("intermediate_size"))
    if c.kind == "deepseek_v3":
        # llama.cpp multiplies kv_b into the queries: one key/value head as wide as the latents.
        latent, rotary = c.size("kv_lora_rank"), c.size("qk_rope_head_dim")
        settings |= {
            "head_count_kv": 1,
            "key_length": latent + rotary,
            "value_length": latent,
            "key_length_mla": c.size("qk_nope_head_dim") + rotary,
            "value_length_mla": c.size("v_head_dim"),
            "rope_dimension_count": rotary,
            "kv_lora_rank": latent,
            "q_lora_rank": c.size("q_lora_rank", 0),
        }
    return settings


def _tensors(c: Config) -> Iterator[TensorPlan]:
    import gguf

    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == ARCHITECTURES[c.kind])
    names = gguf.get_tensor_name_map(arch, c.layers)

    def plan(source: str, source_shape: Shape, known_as: str = "", **changes: Any) -> TensorPlan:
        base, _, suffix = (known_as or source).rpartition(".")
        name = names.get_name(base)
        assert name is not None, base
        settings: dict[str, Any] = {"sources": (source,), "shape": source_shape, **changes}
        return TensorPlan(f"{name}.{suffix}", source_shape=source_shape, **settings)

    vocabulary = (c.size("vocab_size"), c.hidden)
    yield plan("model.embed_tokens.weight", vocabulary)
    yield plan("model.norm.weight", (c.hidden,))
    if not c.tied:
        yield plan("lm_head.weight", vocabulary)
    elif c.kind == "dots1":  # for which llama.cpp knows no tied head
        yield plan("model.embed_tokens.weight", vocabulary, "lm_head.weight")
    for layer in range(c.layers):
        prefix = f"model.layers.{layer}"
        yield plan(f"{prefix}.input_layernorm.weight", (c.hidden,))
        yield plan(f"{prefix}.post_attention_layernorm.weight", (c.hidden,))
        yield from (_latent_attention if c.kind == "deepseek_v3" else _attention)(c, plan, prefix)
        if layer < c.dense_layers:
            inner = c.size("intermediate_size")
            yield from _mlp(plan, f"{prefix}.mlp", c.hidden, inner, c.flag("mlp_bias"))
        else:
            yield from _experts(c, plan, f"{prefix}.mlp")


Plan = Callable[..., TensorPlan]


def _attention(c: Config, plan: Plan, prefix: str) -> Iterator[TensorPlan]:
    bias = c.kind == "qwen2" or c.flag("attention_bias")
    heads = {"q": c.heads, "k": c.key_value_heads, "v": c.key_value_heads}
    for part, count in heads.items():
        # llama.cpp rotates neighbours in llama, halves in the others; Hugging Face always halves.
        paired = c.kind == "llama" and part != "v"
        rows: dict[str, Any] = {"groups": count, "rotary": c.head_dim} if paired else {}
        name, width = f"{prefix}.self_attn.{part}_proj", count * c.head_dim
        if part != "q" and (copies := c.key_value_copies) > 1:
            rows = {"groups": count, "repeat": copies, "shape": (copies * width, c.hidden)}
        yield plan(f"{name}.weight", (width, c.hidden), **rows)
        if bias:
            yield plan(f"{name}.bias", (width,), **rows)
    output = f"{prefix}.self_attn.o_proj"
    yield plan(f"{output}.weight", (c.hidden, c.heads * c.head_dim))
    if bias and c.kind == "llama":
        yield plan(f"{output}.bias", (c.hidden,))
    if c.kind in _QK_NORM:
        for part in "qk":
            yield plan(f"{prefix}.self_attn.{part}_norm.weight", (c.head_dim,))


def _latent_attention(c: Config, plan: Plan, prefix: str) -> Iterator[TensorPlan]:
    latent, rotary = c.size("kv_lora_rank"), c.size("qk_rope_head_dim")
    plain, value, rank = c.size("qk_nope_head_dim"), c.size("v_head_dim"), c.size("q_lora_rank", 0)
    at = f"{prefix}.self_attn"
    # DeepSeek's own rotary rows are neighbours already, as llama.cpp wants them.
    pairs = 0 if c.flag("rope_interleave", True) else rotary
    queries = (c.heads * (plain + rotary), rank or c.hidden)
    if rank:
        yield plan(f"{at}.q_a_proj.weight", (rank, c.hidden))
        yield plan(f"{at}.q_a_layernorm.weight", (rank,))
    name = f"{at}.{'q_b_proj' if rank else 'q_proj'}.weight"
    yield plan(name, queries, groups=c.heads, rotary=pairs)
    yield plan(f"{at}.kv_a_proj_with_mqa.weight", (latent + rotary, c.hidden), rotary=pairs)
    yield plan(f"{at}.kv_a_layernorm.weight", (latent,))
    source = f"{at}.kv_b_proj.weight"
    split = partial(plan, source, (c.heads * (plain + value), latent), groups=c.heads)
    keys, values = (c.heads, latent, plain), (c.heads, value, latent)
    yield split(known_as=f"{at}.k_b_proj.weight", shape=keys, take=(0, plain), transposed=True)
    yield split(known_as=f"{at}.v_b_proj.weight", shape=values, take=(plain, plain + value))
    yield plan(f"{at}.o_proj.weight", (c.hidden, c.heads * value))


def _mlp(plan: Plan, prefix: str, hidden: int, inner: int, bias: bool) -> Iterator[TensorPlan]:
    for part, shape in _mlp_shapes(hidden, inner).items():
        yield plan(f"{prefix}.{part}_proj.weight", shape)
        if bias:
            yield plan(f"{prefix}.{part}_proj.bias", shape[:1])


def _mlp_shapes(hidden: int, inner: int) -> dict[str, Shape]:
    return {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}


def _experts(c: Config, plan: Plan, prefix: str) -> Iterator[TensorPlan]:
    inner = c.size("moe_intermediate_size")
    yield plan(f"{prefix}.gate.weight", (c.experts, c.hidden), is_router=True)
    for part, shape in _mlp_shapes(c.hidden, inner).items():
        names = tuple(f"{prefix}.experts.{e}.{part}_proj.weight" for e in range(c.experts))
        name = f"{prefix}.experts.{part}_proj.weight"
        yield plan(name, shape, sources=names, shape=(c.experts, *shape))
    if c.kind in _SIGMOID_ROUTED:
        bias = f"{prefix}.gate.e_score_correction"
        yield plan(f"{bias}_bias", (c.experts,), f"{bias}.bias")
        shared, found = c.size("n_shared_experts", 0), plan
        if not shared:
            shared, found = 1, partial(plan, sources=())
        yield from _mlp(found, f"{prefix}.shared_experts", c.hidden, inner * shared, bias=False)


def _check_shapes(c: Config, plans: list[TensorPlan], found: Mapping[str, Shape]) -> None:
    expected = {source: plan.source_shape for plan in plans for source in plan.sources}
    unasked = {"lm_head.weight"} - expected.keys() if c.tied else set()
    # Where there is no shared expert, transformers writes empty ones.
    there = {n: s for n, s in found.items() if n in expected or (n not in unasked and 0 not in s)}
    check_tensors(expected, there, c.where.parent)
