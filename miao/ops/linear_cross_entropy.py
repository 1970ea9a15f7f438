"""Output head and cross-entropy in one, chunk by chunk: the full float32 logits never exist.

`linear_cross_entropy` forms its gradients while the logits of a chunk are at hand, so the head's
product is not computed twice. `linear_logprobs` gives a value per token that any objective may
weigh (DPO, GRPO), and recomputes the logits of a chunk in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
CPU_CHUNK, GPU_CHUNK = 1024, 16384
GPU_LOGITS = 2**29
"""Tokens whose logits exist at one time: on a CPU few enough for the cache, on a GPU enough to
keep it busy, but so few that a large vocabulary's logits stay near 2 GiB."""
ROWS_TOGETHER = 64
"""A GPU's fast kernels want a multiple of so many rows; 151,669 tokens are none."""
IMPOSSIBLE = -1e30
"""The logit of a row that is no token. (Infinite ones would leave NaN in a KL divergence.)"""


def linear_cross_entropy(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    labels_n: Tensor,
    chunk: int | None = None,
    tokens: int | None = None,
) -> Tensor:
    """Sum over tokens of -log softmax(hidden·weightᵀ)[label], as a float32 scalar.

    Args:
        hidden_nd: [n, d] in the compute type; weight_vd: [v, d] in any type.
        labels_n: int64 token ids; `IGNORE` (-100) takes no part.
        chunk: tokens whose logits exist at one time (default: by the device).
        tokens: rows of the head that stand for a token (default: all).
    """
    hidden_nd, labels_n = _trained_only(hidden_nd, labels_n)
    chunk = chunk or _default_chunk(hidden_nd, weight_vd)
    wanted = gradients_wanted(hidden_nd, weight_vd)
    tokens = tokens or len(weight_vd)
    return _LinearCrossEntropy.apply(hidden_nd, weight_vd, labels_n, chunk, wanted, tokens)


def linear_logprobs(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    labels_n: Tensor,
    chunk: int | None = None,
    tokens: int | None = None,
) -> Tensor:
    """log softmax(hidden·weightᵀ)[label] per token, float32 [n]; 0 where the label is `IGNORE`."""
    chunk = chunk or _default_chunk(hidden_nd, weight_vd)
    return _LinearLogprobs.apply(hidden_nd, weight_vd, labels_n, chunk, tokens or len(weight_vd))


def linear_cross_entropy_reference(
    hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor
) -> Tensor:
    """The plain twin: all logits at once, in float32."""
    logits = F.linear(hidden_nd, weight_vd.to(hidden_nd.dtype)).float()
    return F.cross_entropy(logits, labels_n, ignore_index=IGNORE, reduction="sum")


def gradients_wanted(*tensors: Tensor) -> tuple[bool, ...]:
    """Which of these get a gradient: a frozen head gets none, and without gradients nothing does.
    Inside of an autograd function nobody can tell any more."""
    return tuple(torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors)


def head_rows(weight_vd: Tensor) -> int:
    """How many rows the head has where it is multiplied."""
    step = 1 if weight_vd.device.type == "cpu" else ROWS_TOGETHER
    return -(-len(weight_vd) // step) * step


def head_operand(weight_vd: Tensor, dtype: torch.dtype, rows: int | None = None) -> Tensor:
    """The head in the compute type, with rows of zeros behind its own (default: see `head_rows`).
    Where the type is another anyway, that costs nothing: there is a copy."""
    rows = rows or head_rows(weight_vd)
    if rows == len(weight_vd):
        return weight_vd.to(dtype)
    operand = weight_vd.new_zeros((rows, weight_vd.shape[1]), dtype=dtype)
    operand[: len(weight_vd)] = weight_vd
    return operand


def head_logits(hidden_nd: Tensor, operand_rd: Tensor, tokens: int) -> Tensor:
    """float32 logits [n, r]; rows that are no tokens have no chance."""
    logits_nr = F.linear(hidden_nd, operand_rd).float()
    if tokens < len(operand_rd):
        logits_nr[:, tokens:] = IMPOSSIBLE
    return logits_nr


def gpu_chunk(vocab_size: int) -> int:
    """Tokens whose logits exist at one time on a GPU."""
    return min(GPU_CHUNK, max(CPU_CHUNK, GPU_LOGITS // vocab_size))


def host_knows_labels(hidden_nd: Tensor) -> bool:
    """Whether tokens without a label can be left out. On a GPU their number is unknown without a
    synchronisation, which costs more than their logits."""
    return hidden_nd.device.type == "cpu"


def _default_chunk(hidden_nd: Tensor, weight_vd: Tensor) -> int:
    return CPU_CHUNK if hidden_nd.device.type == "cpu" else gpu_chunk(len(weight_vd))


def _trained_only(hidden_nd: Tensor, labels_n: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves out tokens without a label, where `host_knows_labels`."""
    if not host_knows_labels(hidden_nd):
        return hidden_nd, labels_n
    kept = (labels_n != IGNORE).nonzero().squeeze(1)
    if len(kept) == len(labels_n):
        return hidden_nd, labels_n
    return hidden_nd[kept], labels_n[kept]


def _chunk_logprobs(
    hidden: Tensor, operand: Tensor, labels: Tensor, tokens: int
) -> tuple[Tensor, Tensor]:
    """float32 log-probabilities [n, r] of a chunk, and its labels with IGNORE made indexable."""
    logits = head_logits(hidden, operand, tokens)
    return F.log_softmax(logits, dim=-1), labels.clamp(min=0)[:, None]


def _logits_gradient(logprobs: Tensor, index: Tensor, upstream: Tensor | None) -> Tensor:
    """d(sum of -upstream·logprob)/d(logits) = upstream·(softmax - one-hot), over the input's
    memory. `upstream` None: all ones."""
    gradient = logprobs.exp_()
    gradient.scatter_add_(1, index, torch.full_like(gradient[:, :1], -1.0))
    return gradient if upstream is None else gradient.mul_(upstream[:, None])


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        chunk: int,
        wanted: tuple[bool, bool],
        tokens: int,
    ) -> Tensor:
        operand = head_operand(weight, hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if wanted[0] else None
        grad_weight = torch.zeros_like(operand, dtype=torch.float32) if wanted[1] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        all_kept = host_knows_labels(hidden)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logprobs, index = _chunk_logprobs(hidden[part], operand, labels[part], tokens)
            kept = None if all_kept else (labels[part] != IGNORE).float()
            losses = -logprobs.gather(1, index).squeeze(1)
            total += losses.sum() if kept is None else (losses * kept).sum()
            if any(wanted):
                gradient = _logits_gradient(logprobs, index, kept).to(hidden.dtype)
                if grad_hidden is not None:
                    torch.mm(gradient, operand, out=grad_hidden[part])
                if grad_weight is not None:
                    _add_product(grad_weight, gradient, hidden[part])
        ctx.save_for_backward(grad_hidden, _own_rows(grad_weight, weight))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0]  # float32 also beside bfloat16 gradients: 1/n must not be rounded
        scaled = [None if saved is None else saved * scale for saved in ctx.saved_tensors]
        return *scaled, None, None, None, None


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int, tokens: int
    ) -> Tensor:
        operand = head_operand(weight, hidden.dtype)
        found = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logprobs, index = _chunk_logprobs(hidden[part], operand, labels[part], tokens)
            found[part] = logprobs.gather(1, index).squeeze(1)
        ctx.save_for_backward(hidden, weight, labels)
        ctx.chunk, ctx.tokens = chunk, tokens
        return found.masked_fill_(labels == IGNORE, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels = ctx.saved_tensors
        operand = head_operand(weight, hidden.dtype)
        for_hidden, for_weight, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if for_hidden else None
        grad_weight = torch.zeros_like(operand, dtype=torch.float32) if for_weight else None
        upstream = -grads[0].masked_fill(labels == IGNORE, 0.0)
        for start in range(0, len(labels), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logprobs, index = _chunk_logprobs(hidden[part], operand, labels[part], ctx.tokens)
            gradient = _logits_gradient(logprobs, index, upstream[part]).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, operand, out=grad_hidden[part])
            if grad_weight is not None:
                _add_product(grad_weight, gradient, hidden[part])
        return grad_hidden, _own_rows(grad_weight, weight), None, None, None


def _own_rows(gradient: Tensor | None, weight: Tensor) -> Tensor | None:
    """Without those that `head_operand` added."""
    return None if gradient is None else gradient[: len(weight)]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ·right; in float32 without a temporary."""
    if left.dtype == total.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right
