"""What training and serving a shape will take: memory and time, by arithmetic alone.

Nothing here is measured. Memory follows what the code keeps, tensor by tensor; time is that of
`model.roofline` for the GPU's datasheet.

Training memory, in bytes:

- always: 4 per weight (float32 masters), 4 per gradient, and the optimizer: 4 per weight under Muon
  (momentum; the matrices inside the blocks), 8 per weight under AdamW (two moments; the rest);
  where an adapter is trained, gradients and optimizer are its alone; a teacher or reference that
  is held beside the model adds its weights;
- while a micro-batch is at work, the largest of three moments that do not overlap:
  forward and backward: 2 per matrix weight (bfloat16 casts), the activations that the backward pass
  waits for plus one block's gradients of them (with activation checkpointing the inputs of all
  blocks, and one block's activations and gradients), the document mask, and the fused loss with
  the logits of one chunk of tokens (never all of them);
  the end of the backward pass: 4 per weight, the new gradients beside those accumulated before;
  the optimizer step: Newton-Schulz over the largest stack of equal matrices.

Left out: what attention kernels and the compiler take for themselves. Of a card, `USABLE` of its
memory is counted, the rest is for the CUDA context and fragmentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from miao.gpus import DEVICES, Gpu
from miao.model.config import ModelConfig
from miao.model.counts import count_parameters, flops_per_token, kv_bytes_per_token, matmul_weights
from miao.model.roofline import gpu_rates, training_time
from miao.ops.head_chunks import gpu_chunk

GIB = 2**30
USABLE = 0.9
MICRO_TOKENS = 65536
"""Tokens of the micro-batch that training tries first on a GPU; beyond it nothing grows faster."""
_LOGIT_BYTES, _CHUNK_BEFORE_BYTES = 10, 4
"""Bytes per logit at the worst moment of a pass that is not compiled: logits in bfloat16 and
float32, log-probabilities in float32; and of a chunk before logits and gradient in bfloat16."""
_NEWTON_SCHULZ_BYTES = 14
"""Per number of a stack: gradients and their stack in float32, three copies in bfloat16."""


GPUS = tuple(
    gpu
    for name in ("RTX 3060 12 GB", "RTX 4090 24 GB", "A100 80 GB", "H100 80 GB")
    for gpu in DEVICES
    if gpu.name == name
)
"""The cards that `miao model show` and the recipes state."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training holds."""

    weights: float
    """Of the model, its adapter and the models beside it."""
    gradients: float
    optimizer: float
    work: float
    """The largest of: forward and backward, end of the backward pass, optimizer step."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.work


@dataclass(frozen=True)
class Extras:
    """What training holds that the shape does not tell."""

    adapter: int = 0
    """Numbers of an adapter, which then is all that is trained, by AdamW."""
    beside: float = 0.0
    """Bytes of models that only compute: a teacher, a reference."""
    later: float = 0.0
    """Bytes that are taken after the first step is tried: what GRPO's answers keep."""


PLAIN = Extras()
"""All weights of one model are trained."""


@dataclass(frozen=True)
class TrainingEstimate:
    """How one GPU trains a shape."""

    gpu: Gpu
    micro_batch: int | None
    """Rows per forward pass; None: not even one row fits."""
    memory: TrainingMemory
    """With that micro-batch (with one row where none fits)."""
    tokens_per_second: float
    hours: float
    mfu: float
    """Causal, against the datasheet."""
    limit: str
    """What takes most of the time (`TimeParts.limit`)."""


@dataclass(frozen=True)
class _Weights:
    """A shape's weights by what happens to them."""

    total: int
    blocks: int
    """Matrices inside the blocks, routers left out: Muon's, and cast for every pass."""
    largest_stack: int
    """Numbers of the largest group of equal matrices (the gate and up projections)."""


def training_memory(
    config: ModelConfig,
    micro_batch: int,
    seq_len: int,
    muon: bool = True,
    recompute: bool = False,
    number: int = 2,
    extras: Extras = PLAIN,
) -> TrainingMemory:
    """Bytes that training with `micro_batch` rows of `seq_len` tokens holds at the worst moment.

    Args:
        muon: Muon for the matrices inside the blocks; False: AdamW for all.
        recompute: activation checkpointing. number: bytes of an activation; 4: no casts.
    """
    w = _weights(config)
    trained = extras.adapter or w.total
    muon = muon and not extras.adapter
    tokens = micro_batch * seq_len
    kept = activation_bytes_per_token(config) * tokens * number / 2
    block = kept / config.num_hidden_layers
    if recompute:
        kept = number * config.hidden_size * config.num_hidden_layers * tokens + block
    passing = (
        (2 * w.blocks if number == 2 else 0)
        + kept
        + block  # its gradients
        + 2 * tokens * seq_len  # the mask between documents
        + _loss_bytes(config, tokens)
    )
    optimizer = 4 * w.blocks + 8 * (w.total - w.blocks) if muon else 8 * trained
    stepping = _NEWTON_SCHULZ_BYTES * w.largest_stack if muon else 4 * trained
    return TrainingMemory(
        weights=4 * (w.total + extras.adapter) + extras.beside + extras.later,
        gradients=4 * trained,
        optimizer=optimizer,
        work=max(passing, 4 * trained, stepping),
    )


def activation_bytes_per_token(config: ModelConfig) -> int:
    """Bytes per token, over all blocks, that the backward pass waits for, in bfloat16."""
    c = config
    total = 0
    for layer in range(c.num_hidden_layers):
        numbers = 4 * c.hidden_size  # the stream before and behind both norms
        numbers += _attention_numbers(c)
        if c.is_sparse(layer):
            numbers += 2 * c.hidden_size  # the router's input, in float32
            numbers += c.num_experts_per_tok * (2 * c.hidden_size + 4 * c.moe_intermediate_size)
            numbers += 4 * c.n_shared_experts * c.moe_intermediate_size
        else:
            numbers += 4 * c.intermediate_size  # gate, silu(gate), up, their product
        total += 2 * numbers
    return total


def serving_memory(
    config: ModelConfig, context: int, sequences: int = 1, bytes_per_number: int = 2
) -> float:
    """Bytes of weights and cache for `sequences` of `context` tokens each."""
    weights = count_parameters(config).total * bytes_per_number
    return weights + sequences * context * kv_bytes_per_token(config, bytes_per_number)


def fitting_micro_batch(
    config: ModelConfig,
    gib: float,
    seq_len: int,
    rows_per_step: int,
    muon: bool = True,
    recompute: bool = False,
    extras: Extras = PLAIN,
) -> int | None:
    """The micro-batch for a card of `gib`: it begins with 65,536 tokens (at most the whole step)
    and halves until it fits; None: a single row does not."""
    micro_batch = max(1, min(rows_per_step, MICRO_TOKENS // seq_len))
    room = USABLE * gib * GIB

    def takes(rows: int) -> float:
        return training_memory(config, rows, seq_len, muon, recompute, extras=extras).total

    while takes(micro_batch) > room:
        if micro_batch == 1:
            return None
        micro_batch //= 2
    return micro_batch


def estimate_training(
    config: ModelConfig,
    gpu: Gpu,
    tokens: float,
    seq_len: int,
    batch_tokens: float,
    muon: bool = True,
    recompute: bool = False,
    extras: Extras = PLAIN,
) -> TrainingEstimate:
    """How `gpu` trains a shape on `tokens` tokens, compiled and in bfloat16.

    Args:
        seq_len, batch_tokens: as in a recipe. recompute: activation checkpointing.
    """
    rows = max(1, int(batch_tokens) // seq_len)
    micro_batch = fitting_micro_batch(config, gpu.gib, seq_len, rows, muon, recompute, extras)
    slots = (micro_batch or 1) * seq_len
    time = training_time(config, gpu_rates(gpu), seq_len, slots, batch_tokens, muon, recompute)
    speed = 1 / time.total
    return TrainingEstimate(
        gpu,
        micro_batch,
        training_memory(config, micro_batch or 1, seq_len, muon, recompute, extras=extras),
        speed,
        tokens / speed / 3600,
        speed * flops_per_token(config, seq_len) / gpu.flops,
        time.limit,
    )


def checkpointing_pays(
    config: ModelConfig,
    gpu: Gpu,
    seq_len: int,
    batch_tokens: float,
    muon: bool = True,
    extras: Extras = PLAIN,
) -> bool:
    """Whether activation checkpointing lets `gpu` train at all, or faster: the larger micro-batch
    must repay computing every block twice."""
    off, on = (
        estimate_training(config, gpu, 1, seq_len, batch_tokens, muon, recompute, extras)
        for recompute in (False, True)
    )
    if on.micro_batch is None:
        return False
    return off.micro_batch is None or on.tokens_per_second > off.tokens_per_second


def estimate_lines(
    config: ModelConfig,
    tokens: float,
    seq_len: int,
    batch_tokens: float,
    gpus: Iterable[Gpu] = GPUS,
) -> list[str]:
    """Plain lines for a recipe's head: GPU, micro-batch, memory, tokens per second, time."""
    lines = []
    for gpu in gpus:
        e = estimate_training(config, gpu, tokens, seq_len, batch_tokens)
        if e.micro_batch is None:
            lines.append(f"{gpu.name:<14}  too small: one row takes {gib(e.memory.total)}")
            continue
        lines.append(
            f"{gpu.name:<14}  micro-batch {e.micro_batch:>3}  {gib(e.memory.total):>8}  "
            f"{e.tokens_per_second / 1000:>6.0f}K tokens/s  {long_time(e.hours):>7}"
        )
    return lines


def gib(size: float) -> str:
    """`1.3 GiB`, `52 GiB`, `640 MiB`."""
    if size < GIB:
        return f"{size / 2**20:.0f} MiB"
    return f"{size / GIB:.1f} GiB" if size < 99.95 * GIB else f"{size / GIB:.0f} GiB"


def long_time(hours: float) -> str:
    """`< 1 min`, `25 min`, `3.4 h`, `5.2 d`."""
    if hours < 1 / 60:
        return "< 1 min"
    if hours < 1:
        return f"{round(hours * 60)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def _attention_numbers(c: ModelConfig) -> int:
    heads = c.num_attention_heads
    if not c.is_latent:
        query, key = heads * c.head_dim, c.num_key_value_heads * c.head_dim
        return 2 * (query + key) + (query + key if c.qk_norm else 0)  # q, k, v and the result
    value = heads * c.v_head_dim
    latents = 2 * (c.q_lora_rank or 0) + 2 * (c.kv_lora_rank or 0) + c.qk_rope_head_dim
    if c.query_dim > c.v_head_dim:  # values are padded to the keys' width, and the result is cut
        return latents + 4 * heads * c.query_dim + value
    return latents + 2 * heads * c.query_dim + heads * c.qk_nope_head_dim + 2 * value


def _loss_bytes(c: ModelConfig, tokens: int) -> float:
    chunk = min(gpu_chunk(c.vocab_size), tokens)
    per_logit = _LOGIT_BYTES + (_CHUNK_BEFORE_BYTES if tokens > chunk else 0)
    logits = per_logit * chunk * c.vocab_size
    head = (2 + 4) * c.vocab_size * c.hidden_size  # its cast, and its gradient
    return logits + head + 3 * 2 * tokens * c.hidden_size


def _weights(c: ModelConfig) -> _Weights:
    count = count_parameters(c)
    head = c.vocab_size * c.hidden_size
    vectors = count.active - count.embedding + head - matmul_weights(c)
    sparse = sum(c.is_sparse(layer) for layer in range(c.num_hidden_layers))
    dense = c.num_hidden_layers - sparse
    blocks = count.inner - vectors - sparse * c.num_experts * c.hidden_size
    stacks = (
        dense * c.intermediate_size,
        sparse * c.num_experts * c.moe_intermediate_size,
        sparse * c.n_shared_experts * c.moe_intermediate_size,
    )
    return _Weights(count.total, blocks, 2 * c.hidden_size * max(stacks))
