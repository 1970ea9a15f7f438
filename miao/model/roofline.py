"""How fast a device can train a shape, part by part, by arithmetic alone.

Every part takes the longer of two times: its FLOPs over what the device computes, or its bytes over
what its memory moves (the roofline, Williams et al. 2009). Three things that a bare roofline leaves
out decide for small models, and are in it: a matrix product of few rows and columns does not fill a
large card (`tile`), kernels cannot follow each other faster than the host starts them (`launch`),
and every pass over a micro-batch reads and writes the weights however few tokens it has.

The result is what careful code reaches, times `REACHED`: published runs stay 10-20 % below such
models (docs, page 13).
"""

from __future__ import annotations

from dataclasses import dataclass

from miao.gpus import Gpu
from miao.model.config import ModelConfig
from miao.model.counts import (
    attention_matrices,
    count_parameters,
    feed_forward_matrices,
    muon_flops,
)

REACHED = 0.8
"""Share of the roofline that training is taken to reach."""
COMPILE_PAYS_AFTER = 900.0
"""Seconds of training on a CPU from which on `compile: auto` compiles: that takes 20 to 60 s, and
gains some 6 % with small shapes (docs/LOG.md)."""
_WEIGHT_PASS_BYTES = 20
"""Per weight and micro-batch: reading and casting it, writing its gradient, adding it up."""
_WEIGHT_STEP_BYTES = 44
"""Per weight and optimizer step: gradient norm, states, update."""
_BLOCK_KERNELS, _STEP_KERNELS = 44, 300
"""Kernels of one block forward and backward, fused; of a step's loss and optimizer."""


@dataclass(frozen=True)
class Rates:
    """What a device reaches, in the type that it trains in."""

    matmul: float
    """FLOP/s of large matrix products."""
    bandwidth: float
    """Bytes per second, read and written."""
    number: int = 2
    """Bytes of an activation."""
    tile: float = 192.0
    """A product over k numbers takes as long as one over k + tile at full rate."""
    attention: float | None = None
    """Share of `matmul` that attention reaches over the causal half; None: a GPU's, by head
    size."""
    flash: float = 1.0
    """Of that by head size, what the kernel reaches."""
    launch: float = 4e-6
    """Seconds between two kernels."""
    unfused: float = 1.0
    """How often what is element by element passes through memory, compared with fused kernels."""
    logit_bytes: float = 36.0
    """Memory traffic per logit beside the head's products: what `ops.linear_cross_entropy` reads
    and writes of a chunk, operation by operation; compiled 6."""
    reached: float = REACHED


@dataclass(frozen=True)
class TimeParts:
    """Seconds per token of each part of training."""

    linears: float
    attention: float
    elementwise: float
    head: float
    weights: float
    """Casting weights and adding gradients up, once per micro-batch."""
    optimizer: float
    waiting: float
    """For the host to start the next kernel."""

    @property
    def total(self) -> float:
        return sum(vars(self).values())

    @property
    def limit(self) -> str:
        """What takes most: `compute`, `vocabulary`, `memory bandwidth`, `small batches` or
        `optimizer`."""
        groups = {
            "compute": self.linears + self.attention,
            "vocabulary": self.head,
            "memory bandwidth": self.elementwise + self.weights,
            "small batches": self.waiting,
            "optimizer": self.optimizer,
        }
        return max(groups, key=lambda name: groups[name])


def gpu_rates(gpu: Gpu, compiled: bool = True, varlen: bool = True, flash: int = 2) -> Rates:
    """What a card reaches of its datasheet: 80 % in large products, 90 % of its bandwidth.

    Args:
        varlen: attention by FlashAttention; False: by a kernel that takes a mask.
        flash: which FlashAttention. On Hopper 2 reaches 0.6 of what 3 does (arXiv:2407.08608,
            figure 5: 362 and 625 TFLOP/s with heads of 128 and 2,048 tokens).
    """
    return Rates(
        matmul=0.8 * gpu.flops,
        bandwidth=0.9 * 0.85 * gpu.bandwidth,
        attention=None if varlen else 0.2,
        flash=0.6 if gpu.is_hopper and flash < 3 else 1.0,
        launch=4e-6 if compiled else 7e-6,
        unfused=1.0 if compiled else 3.0,
        logit_bytes=6.0 if compiled else 36.0,
    )


def cpu_rates(matmul: float, bandwidth: float, compiled: bool, number: int = 4) -> Rates:
    """A CPU's, from its measured peaks. Its kernels start fast, and half of what they move stays
    in caches; attention computes the whole square of a row, at 65 % of the peak."""
    return Rates(
        matmul=matmul,
        bandwidth=bandwidth,
        number=number,
        tile=16.0,
        attention=0.33,
        launch=0.0,
        unfused=1.5 if compiled else 4.0,
        logit_bytes=24.0,
        reached=0.95 if compiled else 0.85,
    )


def training_time(
    config: ModelConfig,
    rates: Rates,
    seq_len: int,
    micro_tokens: float,
    batch_tokens: float,
    muon: bool = True,
    recompute: bool = False,
) -> TimeParts:
    """Seconds per token slot.

    Args:
        micro_tokens: tokens of one pass; batch_tokens: of one optimizer step.
        muon: Muon for the matrices inside the blocks. recompute: activation checkpointing.
    """
    again = 4 / 3 if recompute else 1.0
    linears = again * _linears(config, rates)
    attention = again * _attention(config, rates, seq_len)
    elementwise = again * _elementwise(config, rates)
    head = _head(config, rates)
    weights = _WEIGHT_PASS_BYTES * count_parameters(config).total / rates.bandwidth / micro_tokens
    optimizer = _optimizer(config, rates, muon) / batch_tokens
    layers = config.num_hidden_layers
    kernels = (_BLOCK_KERNELS * layers * again * max(1.0, rates.unfused)) / micro_tokens
    kernels += _STEP_KERNELS / batch_tokens
    busy = linears + attention + elementwise + head + weights + optimizer
    waiting = max(0.0, rates.launch * kernels - busy)
    parts = (linears, attention, elementwise, head, weights, optimizer, waiting)
    return TimeParts(*(part / rates.reached for part in parts))


def _linears(c: ModelConfig, rates: Rates) -> float:
    """Products of the blocks: y = x·W, dx = dy·Wᵀ, dW = xᵀ·dy."""
    total = 0.0
    for layer in range(c.num_hidden_layers):
        for inner, outer in [*attention_matrices(c), *feed_forward_matrices(c, layer)]:
            total += _product(inner, outer, rates)
    return total


def _product(inner: int, outer: int, rates: Rates) -> float:
    """Seconds per token of one matrix, forward and backward."""

    def one(summed: int, made: int) -> float:
        filled = summed / (summed + rates.tile) * (0.9 + 0.1 * min(1.0, made / 256))
        flops = 2 * inner * outer / (rates.matmul * filled)
        return max(flops, rates.number * (summed + made) / rates.bandwidth)

    gradient = 2 * inner * outer / (0.88 * rates.matmul)  # sums over tokens: always long
    return one(inner, outer) + one(outer, inner) + gradient


def _attention(c: ModelConfig, rates: Rates, seq_len: int) -> float:
    """The causal half of the square, forward and 2.5 times that backward; kernels reach 47 % of
    the rate of large products with heads of 64 and 63 % with heads of 128 (FlashAttention-3's
    figures on an H100), three quarters of it backward."""
    size = c.query_dim
    if rates.attention is not None:
        share, backward = rates.attention, 2.5
    else:
        share = 0.63 if size >= 128 else 0.42 if size > 64 else 0.47 * size / 64
        share, backward = share * rates.flash, 2.5 / 0.75
    value = c.v_head_dim if c.is_latent else c.head_dim
    forward = c.num_attention_heads * (c.query_dim + value) * seq_len
    return c.num_hidden_layers * forward * (1 + backward) / (share * rates.matmul)


def _elementwise(c: ModelConfig, rates: Rates) -> float:
    """Norms, rotation, activation, residual stream; forward and backward, well fused."""
    heads = c.num_attention_heads
    queries = heads * c.query_dim
    keys = (heads if c.is_latent else c.num_key_value_heads) * c.query_dim
    numbers = 0.0
    for layer in range(c.num_hidden_layers):
        inner = c.intermediate_size
        if c.is_sparse(layer):  # sorting and gathering the tokens comes on top
            inner = c.moe_intermediate_size * (c.num_experts_per_tok + c.n_shared_experts)
            numbers += 8 * c.num_experts_per_tok * c.hidden_size
        numbers += 20 * c.hidden_size + 5 * (queries + keys) + 8 * inner
    embedding = 6 * c.hidden_size
    return (rates.unfused * numbers + embedding) * rates.number / rates.bandwidth


def _head(c: ModelConfig, rates: Rates) -> float:
    traffic = rates.logit_bytes * c.vocab_size / rates.bandwidth
    return _product(c.hidden_size, c.vocab_size, rates) + traffic


def _optimizer(c: ModelConfig, rates: Rates, muon: bool) -> float:
    """Seconds per step."""
    flops = muon_flops(c, fp32=rates.number == 4) if muon else 0.0
    seconds = _WEIGHT_STEP_BYTES * count_parameters(c).total / rates.bandwidth
    return seconds + flops / (0.6 * rates.matmul)
