"""Output head and cross-entropy in one, chunk by chunk: the full float32 logits never exist.

`linear_cross_entropy` forms its gradients while the logits of a chunk are at hand, so the head's
product is not computed twice. `linear_logprobs` gives a value per token that any objective may
weigh (DPO, GRPO), and recomputes the logits of a chunk in the backward pass. What a chunk needs,
and how much is one, is in `head_chunks.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from miao.ops.head_chunks import (
    IGNORE,
    HeadGradients,
    counted_labels,
    default_chunk,
    gradients_wanted,
    head_operand,
    of_chunk,
    scaled_gradients,
    trained_only,
)


def linear_cross_entropy_reference(
    hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor
) -> Tensor:
    """The plain twin: all logits at once, in float32."""
    logits = F.linear(hidden_nd, weight_vd.to(hidden_nd.dtype)).float()
    return F.cross_entropy(logits, labels_n, ignore_index=IGNORE, reduction="sum")


def linear_cross_entropy(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    labels_n: Tensor,
    chunk: int | None = None,
    tokens: int | None = None,
    fused: bool = False,
    scale: Tensor | None = None,
) -> Tensor:
    """Sum over tokens of -log softmax(hidden·weightᵀ)[label], as a float32 scalar.

    Args:
        hidden_nd: [n, d] in the compute type; weight_vd: [v, d] in any type.
        labels_n: int64 token ids; `IGNORE` (-100) takes no part.
        chunk: tokens whose logits exist at one time (default: by the device).
        tokens: rows of the head that stand for a token (default: all).
        fused: what is done to a chunk's logits is compiled to one kernel or two: 6 bytes move per
            logit instead of 36, and it takes a third of the memory.
        scale: what the sum will be multiplied with before its gradient is taken (float32 []). With
            it the gradient is multiplied before it is rounded to the compute type: in float16 most
            probabilities are too small to be kept without.
    """
    hidden_nd, labels_n = trained_only(hidden_nd, labels_n)
    chunk = chunk or default_chunk(hidden_nd, weight_vd)
    wanted = gradients_wanted(hidden_nd, weight_vd)
    tokens = tokens or len(weight_vd)
    return _LinearCrossEntropy.apply(
        hidden_nd, weight_vd, labels_n, chunk, wanted, tokens, fused, scale
    )


def linear_logprobs(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    labels_n: Tensor,
    chunk: int | None = None,
    tokens: int | None = None,
    fused: bool = False,
) -> Tensor:
    """log softmax(hidden·weightᵀ)[label] per token, float32 [n]; 0 where the label is `IGNORE`."""
    chunk, tokens = chunk or default_chunk(hidden_nd, weight_vd), tokens or len(weight_vd)
    return _LinearLogprobs.apply(hidden_nd, weight_vd, labels_n, chunk, tokens, fused)


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
        fused: bool,
        scale: Tensor | None,
    ) -> Tensor:
        operand = head_operand(weight, hidden.dtype)
        gradients = HeadGradients(hidden, operand, wanted)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            kept = counted_labels(hidden, labels[part])
            factor = kept
            if scale is not None:
                factor = scale.expand(len(labels[part])) if kept is None else kept * scale
            logits = F.linear(hidden[part], operand)
            logprobs, gradient = of_chunk(
                logits, labels[part], factor, tokens, gradients.any, fused
            )
            total -= logprobs.sum() if kept is None else (logprobs * kept).sum()
            if gradient is not None:
                gradients.add(part, gradient)
        ctx.save_for_backward(*gradients.own_rows(weight), scale)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *saved, scale = ctx.saved_tensors
        return *scaled_gradients(grads[0], saved, scale), *[None] * 6


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        chunk: int,
        tokens: int,
        fused: bool,
    ) -> Tensor:
        operand = head_operand(weight, hidden.dtype)
        found = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = F.linear(hidden[part], operand)
            found[part], _ = of_chunk(logits, labels[part], None, tokens, False, fused)
        ctx.save_for_backward(hidden, weight, labels)
        ctx.chunk, ctx.tokens, ctx.fused = chunk, tokens, fused
        return found.masked_fill_(labels == IGNORE, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels = ctx.saved_tensors
        operand = head_operand(weight, hidden.dtype)
        gradients = HeadGradients(hidden, operand, ctx.needs_input_grad[:2])
        upstream = -grads[0].masked_fill(labels == IGNORE, 0.0)
        for start in range(0, len(labels), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = F.linear(hidden[part], operand)
            _, gradient = of_chunk(
                logits, labels[part], upstream[part], ctx.tokens, True, ctx.fused
            )
            assert gradient is not None
            gradients.add(part, gradient)
        return *gradients.own_rows(weight), *[None] * 4
