"""Output head and cross-entropy in one, chunk by chunk: the full float32 logits never exist.

`linear_cross_entropy` forms its gradients while the logits of a chunk are at hand, so the head's
product is not computed twice. `linear_logprobs` gives a value per token that any objective may
weigh (DPO, GRPO), and recomputes the logits of a chunk in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORE = -100
CHUNK = 4096


def linear_cross_entropy(
    hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Sum over tokens of -log softmax(hidden·weightᵀ)[label], as a float32 scalar.

    Args:
        hidden_nd: [n, d] in the compute type; weight_vd: [v, d] in any type.
        labels_n: int64 token ids; `IGNORE` (-100) takes no part.
        chunk: tokens whose logits exist at one time.
    """
    hidden_nd, labels_n = _trained_only(hidden_nd, labels_n)
    return _LinearCrossEntropy.apply(hidden_nd, weight_vd, labels_n, chunk)


def linear_logprobs(
    hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor, chunk: int = CHUNK
) -> Tensor:
    """log softmax(hidden·weightᵀ)[label] per token, float32 [n]; 0 where the label is `IGNORE`."""
    return _LinearLogprobs.apply(hidden_nd, weight_vd, labels_n, chunk)


def linear_cross_entropy_reference(hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor) -> Tensor:
    """The plain twin: all logits at once, in float32."""
    logits = torch.nn.functional.linear(hidden_nd, weight_vd.to(hidden_nd.dtype)).float()
    return torch.nn.functional.cross_entropy(logits, labels_n, ignore_index=IGNORE, reduction="sum")


def _trained_only(hidden_nd: Tensor, labels_n: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves out tokens without a label. On a GPU their number is unknown without a
    synchronisation, which costs more than their logits."""
    if hidden_nd.device.type != "cpu":
        return hidden_nd, labels_n
    kept = (labels_n != IGNORE).nonzero().squeeze(1)
    if len(kept) == len(labels_n):
        return hidden_nd, labels_n
    return hidden_nd[kept], labels_n[kept]


def _chunk_logits(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float32 logits of a chunk, their log-sum-exp, and the labels with IGNORE made indexable."""
    logits = torch.nn.functional.linear(hidden, weight).float()
    return logits, torch.logsumexp(logits, dim=-1), labels.clamp(min=0)


def _softmax_minus_one_hot(logits: Tensor, log_sum: Tensor, labels: Tensor) -> Tensor:
    """d(-logprob)/d(logits), written over the logits."""
    gradient = logits.sub_(log_sum[:, None]).exp_()
    return gradient.scatter_add_(1, labels[:, None], -torch.ones_like(log_sum)[:, None])


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:
        compute_weight = weight.to(hidden.dtype)
        needs_gradient = hidden.requires_grad or weight.requires_grad
        grad_hidden = torch.empty_like(hidden) if needs_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_gradient else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            kept = labels[part] != IGNORE
            logits, log_sum, index = _chunk_logits(hidden[part], compute_weight, labels[part])
            loss = log_sum - logits.gather(1, index[:, None]).squeeze(1)
            total += (loss * kept).sum()
            if grad_hidden is not None and grad_weight is not None:
                gradient = _softmax_minus_one_hot(logits, log_sum, index) * kept[:, None]
                gradient = gradient.to(hidden.dtype)
                grad_hidden[part] = gradient @ compute_weight
                grad_weight += gradient.T @ hidden[part]
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0]
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None, None


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:
        compute_weight = weight.to(hidden.dtype)
        logprobs = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits, log_sum, index = _chunk_logits(hidden[part], compute_weight, labels[part])
            logprobs[part] = logits.gather(1, index[:, None]).squeeze(1) - log_sum
        ctx.save_for_backward(hidden, weight, labels)
        ctx.chunk = chunk
        return logprobs.masked_fill_(labels == IGNORE, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels = ctx.saved_tensors
        compute_weight = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        upstream = -grads[0].masked_fill(labels == IGNORE, 0.0)
        for start in range(0, len(labels), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits, log_sum, index = _chunk_logits(hidden[part], compute_weight, labels[part])
            gradient = _softmax_minus_one_hot(logits, log_sum, index) * upstream[part, None]
            gradient = gradient.to(hidden.dtype)
            grad_hidden[part] = gradient @ compute_weight
            grad_weight += gradient.T @ hidden[part]
        return grad_hidden, grad_weight, None, None
