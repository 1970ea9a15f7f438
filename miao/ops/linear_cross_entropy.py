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


def linear_cross_entropy(
    hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor, chunk: int | None = None
) -> Tensor:
    """Sum over tokens of -log softmax(hidden·weightᵀ)[label], as a float32 scalar.

    Args:
        hidden_nd: [n, d] in the compute type; weight_vd: [v, d] in any type.
        labels_n: int64 token ids; `IGNORE` (-100) takes no part.
        chunk: tokens whose logits exist at one time (default: by the device).
    """
    hidden_nd, labels_n = _trained_only(hidden_nd, labels_n)
    chunk = chunk or _default_chunk(hidden_nd, weight_vd)
    wanted = gradients_wanted(hidden_nd, weight_vd)
    return _LinearCrossEntropy.apply(hidden_nd, weight_vd, labels_n, chunk, wanted)


def linear_logprobs(
    hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor, chunk: int | None = None
) -> Tensor:
    """log softmax(hidden·weightᵀ)[label] per token, float32 [n]; 0 where the label is `IGNORE`."""
    return _LinearLogprobs.apply(
        hidden_nd, weight_vd, labels_n, chunk or _default_chunk(hidden_nd, weight_vd)
    )


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


def _chunk_logprobs(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """float32 log-probabilities [n, v] of a chunk, and its labels with IGNORE made indexable."""
    logits = F.linear(hidden, weight).float()
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
    ) -> Tensor:
        compute_weight = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if wanted[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        all_kept = host_knows_labels(hidden)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logprobs, index = _chunk_logprobs(hidden[part], compute_weight, labels[part])
            kept = None if all_kept else (labels[part] != IGNORE).float()
            losses = -logprobs.gather(1, index).squeeze(1)
            total += losses.sum() if kept is None else (losses * kept).sum()
            if any(wanted):
                gradient = _logits_gradient(logprobs, index, kept).to(hidden.dtype)
                if grad_hidden is not None:
                    torch.mm(gradient, compute_weight, out=grad_hidden[part])
                if grad_weight is not None:
                    _add_product(grad_weight, gradient, hidden[part])
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0]  # float32 also beside bfloat16 gradients: 1/n must not be rounded
        scaled = [None if saved is None else saved * scale for saved in ctx.saved_tensors]
        return *scaled, None, None, None


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:
        compute_weight = weight.to(hidden.dtype)
        found = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logprobs, index = _chunk_logprobs(hidden[part], compute_weight, labels[part])
            found[part] = logprobs.gather(1, index).squeeze(1)
        ctx.save_for_backward(hidden, weight, labels)
        ctx.chunk = chunk
        return found.masked_fill_(labels == IGNORE, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels = ctx.saved_tensors
        compute_weight = weight.to(hidden.dtype)
        for_hidden, for_weight, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if for_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if for_weight else None
        upstream = -grads[0].masked_fill(labels == IGNORE, 0.0)
        for start in range(0, len(labels), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logprobs, index = _chunk_logprobs(hidden[part], compute_weight, labels[part])
            gradient = _logits_gradient(logprobs, index, upstream[part]).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, compute_weight, out=grad_hidden[part])
            if grad_weight is not None:
                _add_product(grad_weight, gradient, hidden[part])
        return grad_hidden, grad_weight, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += leftᵀ·right; in float32 without a temporary."""
    if left.dtype == total.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right
