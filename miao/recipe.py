"""The options of every stage, as dataclasses; a recipe is one YAML file of them.

Defaults < recipe YAML < `--key.sub value` on the command line. Quantities of training are in
tokens; a number below 1 is a fraction of the stage's budget. `4M` and `1.5B` are understood.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from miao.errors import MiaoError

STAGES = ("pretrain", "sft", "dpo")
TRACKERS = ("tensorboard", "wandb", "swanlab")
Quantity = int | float | str


@dataclass
class SeedbedOptions:
    """The built-in generated corpus, used for every kind of record you bring none of."""

    characters: Quantity = "10M"
    """Size of the pretraining text, in characters."""
    conversations: int = 24000
    """How many conversations for SFT."""
    preferences: int = 3000
    """How many preference pairs for DPO."""
    document_weights: dict[str, float] = field(default_factory=dict)
    """Share of each topic in the pretraining text (knowledge, arithmetic, stories, dialogues,
    recall)."""
    recall_characters: int = 600
    """Longest text of the topic recall, which says numbers again that it has said long before."""
    conversation_weights: dict[str, float] = field(default_factory=dict)
    """Share of each topic in the conversations (general, knowledge, math, identity)."""
    name_zh: str = "小苗"
    """The assistant's name in Chinese."""
    name_en: str = "Miao"
    """The assistant's name in English."""
    maker_zh: str = "Miao 开源项目"
    """Who made the assistant, in Chinese."""
    maker_en: str = "the Miao open-source project"
    """Who made the assistant, in English."""


@dataclass
class CorpusOptions:
    """Raw text in: your files, or the built-in corpus."""

    paths: list[str] = field(default_factory=list)
    """Text to pretrain on: files, folders or globs of txt, md, jsonl, csv, parquet (also .gz .xz
    .bz2 .zst). Each path is one source. Empty: the built-in corpus."""
    conversations: list[str] = field(default_factory=list)
    """Conversations for SFT (messages, sharegpt, alpaca, question/answer). Empty: built-in."""
    preferences: list[str] = field(default_factory=list)
    """Preference pairs for DPO (chosen/rejected). Empty: built-in."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each pretraining source in training (default: by its size)."""
    heldout: float = 0.01
    """Fraction of records kept out of training to measure on (chosen by content hash)."""
    heldout_max: int = 400
    """At most this many held-out records per source."""
    skip_bad_records: bool = False
    """Count and skip unreadable records (listed in corpus/problems.jsonl) instead of stopping."""
    seedbed: SeedbedOptions = field(default_factory=SeedbedOptions)
    """The built-in corpus."""


@dataclass
class TokenizerOptions:
    """Byte-level BPE."""

    path: str | None = None
    """Use this tokenizer (a directory with tokenizer.json) instead of training one."""
    vocab_size: int = 6400
    """Number of tokens, special ones included."""
    sample: Quantity = "50M"
    """Train on at most this many characters, spread evenly over the sources."""


@dataclass
class RopeScalingOptions:
    """How rotary positions are stretched over a longer context."""

    rope_type: Literal["default", "linear", "dynamic", "yarn"] = "default"
    """default: not at all; linear: divide positions; dynamic: NTK, by the length at hand; yarn."""
    factor: float = 1.0
    """New context length / trained context length."""
    original_max_position_embeddings: int | None = None
    """yarn: the trained context length (default: that of model.path, or the context / factor)."""


@dataclass
class ModelOptions:
    """The decoder's shape, in the key names of Hugging Face configurations."""

    path: str | None = None
    """Start from this trained model (directory, run, hf:owner/name or modelscope:owner/name)
    instead of random weights. Its shape counts; of the options below only
    max_position_embeddings, when it is longer, and rope_scaling apply: they extend the context."""
    hidden_size: int = 256
    """Width of the residual stream."""
    num_hidden_layers: int = 6
    """Number of blocks."""
    num_attention_heads: int = 4
    """Query heads."""
    num_key_value_heads: int = 2
    """Key/value heads (fewer than query heads: grouped-query attention)."""
    head_dim: int | None = None
    """Size of one head (default: hidden_size / num_attention_heads)."""
    intermediate_size: int | None = None
    """Width inside the SwiGLU feed-forward (default: 8/3 of hidden_size, rounded up to 64)."""
    max_position_embeddings: int = 512
    """The longest context the model is meant for, in tokens."""
    rope_theta: float = 10000.0
    """Base of the rotary position embedding."""
    rope_scaling: RopeScalingOptions = field(default_factory=RopeScalingOptions)
    """Stretching of the rotary positions, to extend a trained model's context."""
    rms_norm_eps: float = 1e-6
    """Epsilon of the RMS norms."""
    tie_word_embeddings: bool = True
    """Share the embedding matrix with the output head."""
    qk_norm: bool = True
    """Normalise queries and keys per head (Qwen3; not with latent attention)."""
    attention_bias: bool = False
    """Biases on the query/key/value projections (Qwen2)."""
    kv_lora_rank: int | None = None
    """Size of the latent that keys and values are made from; given: multi-head latent attention
    (DeepSeek-V3), which caches only the latent and one rotary key per token."""
    q_lora_rank: int | None = None
    """Latent attention: size of the latent that queries are made from (null: made directly)."""
    qk_nope_head_dim: int = 64
    """Latent attention: size of a head's part without position."""
    qk_rope_head_dim: int = 32
    """Latent attention: size of a head's part with rotary position."""
    v_head_dim: int = 64
    """Latent attention: size of a value head."""
    num_experts: int = 0
    """Routed experts per block (0: dense blocks)."""
    num_experts_per_tok: int = 2
    """Routed experts that each token visits."""
    moe_intermediate_size: int | None = None
    """Width inside one expert (default: intermediate_size / num_experts_per_tok)."""
    n_shared_experts: int = 0
    """Experts that every token visits (sigmoid routing only)."""
    first_k_dense_replace: int = 0
    """So many blocks at the beginning stay dense."""
    scoring_func: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: balanced by a loss (Qwen3-MoE); sigmoid: by a bias, loss-free (DeepSeek-V3)."""
    norm_topk_prob: bool = True
    """Make the weights of a token's chosen experts sum to one."""
    n_group: int = 1
    """Sigmoid routing: experts stand in so many groups."""
    topk_group: int = 1
    """Sigmoid routing: a token chooses from its best so many groups."""
    routed_scaling_factor: float = 1.0
    """Sigmoid routing: factor on the routed experts' output."""
    router_aux_loss_coef: float = 0.001
    """Softmax routing: weight of the load-balancing loss."""


@dataclass
class StageOptions:
    """What every training stage has in common."""

    enabled: bool = True
    """Run this stage."""
    tokens: Quantity | None = None
    """Budget in real tokens (padding is not counted). Give this or `epochs`."""
    epochs: float | None = None
    """Budget in passes over the data. Give this or `tokens`."""
    seq_len: int = 256
    """Length of a packed row, in tokens."""
    batch_tokens: Quantity = 8192
    """Token slots per optimizer step, over all devices and accumulation."""
    micro_batch: int | Literal["auto"] = "auto"
    """Rows per forward pass; the rest of batch_tokens is accumulated."""
    learning_rate: float = 3e-3
    """Peak rate of AdamW (embeddings, head, norms, biases)."""
    muon_learning_rate: float = 2e-2
    """Peak rate of Muon (2-D matrices inside the blocks); 0 uses AdamW for all."""
    weight_decay: float = 0.0
    """Decoupled weight decay on matrices."""
    adam_betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's two decay rates."""
    muon_momentum: float = 0.95
    """Muon's (Nesterov) momentum."""
    schedule: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    """Learning-rate shape after warm-up; wsd = warm-up, stable, decay."""
    warmup: Quantity = 0.02
    """Linear warm-up: tokens, or a fraction of the budget."""
    decay: Quantity = 0.4
    """Length of wsd's final linear decay: tokens, or a fraction of the budget."""
    final_learning_rate: float = 0.0
    """The rate at the very end, as a fraction of the peak."""
    router_bias_rate: float = 0.001
    """Sigmoid-routed experts: step of the balancing bias after every optimizer step."""
    grad_clip: float = 1.0
    """Clip the global gradient norm to this; 0 switches it off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute type of matrix products; weights and optimizer stay fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile the blocks (auto: on a GPU, or when the budget repays the waiting)."""
    eval_every: Quantity = 0.25
    """Held-out loss every so many tokens, or fraction of the budget."""
    sample_every: Quantity = 0.5
    """Write samples every so many tokens, or fraction of the budget."""
    save_every: Quantity = 0.25
    """Checkpoint every so many tokens, or fraction of the budget."""
    keep_last: int = 2
    """How many checkpoints to keep; older ones make room, but those of keep_every."""
    keep_every: Quantity = 0
    """Keep a checkpoint for good every so many tokens, or fraction of the budget; 0: none."""
    spike_action: Literal["off", "skip", "rollback"] = "skip"
    """When loss or gradient norm jump: skip that step; or go back to the checkpoint before it and
    train on without the batches that led there. What is not finite is always skipped."""
    spike_threshold: float = 20.0
    """A jump is more than the recent median plus this many (robust) standard deviations."""
    spike_window: int = 64
    """How many recent steps a jump is measured against."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""


@dataclass
class PretrainOptions(StageOptions):
    """Next-token prediction on documents."""

    tokens: Quantity | None = "4M"


@dataclass
class SftOptions(StageOptions):
    """Supervised fine-tuning: the loss is on what the assistant says."""

    epochs: float | None = 1.0
    last_turn_only: bool = False
    """Learn only the last assistant turn of each conversation."""
    replay: float = 0.0
    """Share of the tokens that are pretraining documents again, against forgetting."""


@dataclass
class DpoOptions(StageOptions):
    """Direct preference optimization: raise the chosen answer over the rejected one."""

    epochs: float | None = 1.0
    learning_rate: float = 1e-4
    muon_learning_rate: float = 0.0
    spike_action: Literal["off", "skip", "rollback"] = "off"
    beta: float = 0.1
    """How strongly the reference model holds the policy back."""
    sft_weight: float = 0.0
    """Weight of the chosen answers' cross-entropy in the loss (RPO); keeps them likely."""


@dataclass
class EvaluateOptions:
    """What is measured after every stage."""

    enabled: bool = True
    """Evaluate after every stage."""
    choice_items: int = 400
    """Multiple-choice questions (built-in corpus only)."""
    question_items: int = 400
    """Questions answered in the chat and checked, over all categories (built-in corpus only)."""
    preference_pairs: int = 400
    """Held-out preference pairs."""
    heldout_tokens: Quantity = "40K"
    """Held-out tokens per source for bits per byte."""
    max_new_tokens: int = 48
    """Longest generated answer."""


@dataclass
class Recipe:
    """One model from raw text to chat. A recipe YAML has these keys."""

    name: str = "run"
    """The run's name; its directory is out_dir/name."""
    out_dir: str = "runs"
    """Where run directories go."""
    seed: int = 42
    """Everything random follows from it."""
    device: str = "auto"
    """auto (GPU when there is one), cpu, cuda, cuda:1, mps."""
    corpus: CorpusOptions = field(default_factory=CorpusOptions)
    """Raw text."""
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    """Text to tokens."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """The decoder."""
    pretrain: PretrainOptions = field(default_factory=PretrainOptions)
    """Stage 1."""
    sft: SftOptions = field(default_factory=SftOptions)
    """Stage 2."""
    dpo: DpoOptions = field(default_factory=DpoOptions)
    """Stage 3."""
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    """Measuring."""
    trackers: list[str] = field(default_factory=list)
    """Send the curves of training also to these: tensorboard, wandb, swanlab."""
    trackers_offline: bool = False
    """wandb and swanlab write to the run directory only (runs/NAME/trackers), nothing is sent."""
    sample_texts: list[str] = field(
        default_factory=lambda: [
            "从前，",
            "中国的首都是",
            "Once upon a time, ",
            "The capital of France is",
        ]
    )
    """Beginnings that pretraining samples continue, to look at with your own eyes."""
    sample_prompts: list[str] = field(
        default_factory=lambda: [
            "你好，你是谁？",
            "37加45等于多少？",
            "法国的首都是哪里？",
            "讲一个关于小猫的故事。",
            "Who are you?",
            "What is 62 minus 27?",
            "What is the capital of France?",
            "Tell me a story about a rabbit.",
        ]
    )
    """Questions asked in the chat during and after SFT and DPO."""

    @property
    def run_dir(self) -> Path:
        return Path(self.out_dir) / self.name


def parse_quantity(value: Quantity, where: str) -> float:
    """`4_000_000`, `"4M"`, `"1.5B"`, `0.25` -> a number.

    Raises:
        MiaoError: not a non-negative number with an optional K, M or B.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        match = re.fullmatch(r"\s*([0-9._]+(?:e[+-]?[0-9]+)?)\s*([kmb]?)\s*", str(value).lower())
        try:
            scale = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}[match[2]] if match else 0.0
            number = float(match[1].replace("_", "")) * scale if match else -1.0
        except ValueError:
            number = -1.0
    if not 0 <= number < 1e15:
        raise MiaoError(
            f"{value!r} is not a quantity",
            where=where,
            fix="write a number such as 4000000, 4M or 0.25",
        )
    return number


def of_budget(value: Quantity, budget: float, where: str) -> float:
    """Tokens meant by an option that may be a fraction (below 1) of the budget."""
    number = parse_quantity(value, where)
    return number * budget if number < 1 else number


def to_dict(options: Any) -> dict[str, Any]:
    """A dataclass of options as plain JSON-like values."""
    return dataclasses.asdict(options)
