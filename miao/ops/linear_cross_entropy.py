"""Output head and cross-entropy in one, chunk by chunk: the full float32 logits never exist.

`linear_cross_entropy` forms its gradients while the logits of a chunk are at hand, so the head's
product is not computed twice. `linear_logprobs` gives a value per token that any objective may
weigh (DPO, GRPO), and recomputes the logits of a chunk in the backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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
    hidden_nd, labels_n = _trained_only(hidden_nd, labels_n)
    chunk = chunk or _default_chunk(hidden_nd, weight_vd)
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
    chunk, tokens = chunk or _default_chunk(hidden_nd, weight_vd), tokens or len(weight_vd)
    return _LinearLogprobs.apply(hidden_nd, weight_vd, labels_n, chunk, tokens, fused)


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


def _gradient_formula(
    logits_nr: Tensor, labels_n: Tensor, factor_n: Tensor | None, tokens: int
) -> tuple[Tensor, Tensor]:
    """Of a chunk log p of the labels [n] (float32), and factor·(softmax - one-hot), the gradient of
    -factor·log p, in the logits' type. Labels that are ignored need a factor of 0.

    One expression, from which the compiler makes one pass or two over the logits.
    """
    columns, index = torch.arange(logits_nr.shape[1], device=logits_nr.device), labels_n[:, None]
    logits = logits_nr.float()
    if tokens < logits.shape[1]:
        logits = torch.where(columns < tokens, logits, IMPOSSIBLE)
    sums_n1 = logits.logsumexp(dim=-1, keepdim=True)
    logprobs_n1 = logits.gather(1, index.clamp(min=0)) - sums_n1
    gradient = (logits - sums_n1).exp() - (columns == index).float()
    if factor_n is not None:
        gradient = gradient * factor_n[:, None]
    return logprobs_n1.squeeze(1), gradient.to(logits_nr.dtype)


def _logprobs_formula(logits_nr: Tensor, labels_n: Tensor, tokens: int) -> Tensor:
    return _gradient_formula(logits_nr, labels_n, None, tokens)[0]


@functools.cache
def compiled(formula: Callable[..., Any]) -> Callable[..., Any]:
    """A formula of a chunk as the compiler makes it; of other shapes than the first at once for
    all."""
    return torch.compile(formula, fullgraph=True)


def _eager(
    logits_nr: Tensor, labels_n: Tensor, factor_n: Tensor | None, tokens: int, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """`_gradient_formula` operation by operation, in as little memory."""
    logits = logits_nr.float()
    if tokens < logits.shape[1]:
        logits[:, tokens:] = IMPOSSIBLE
    logprobs, index = F.log_softmax(logits, dim=-1), labels_n.clamp(min=0)[:, None]
    del logits
    found = logprobs.gather(1, index).squeeze(1)
    if not gradient:
        return found, None
    slopes = logprobs.exp_()
    slopes.scatter_add_(1, index, torch.full_like(slopes[:, :1], -1.0))
    slopes = slopes if factor_n is None else slopes.mul_(factor_n[:, None])
    return found, slopes.to(logits_nr.dtype)


def _of_chunk(
    logits_nr: Tensor,
    labels_n: Tensor,
    factor_n: Tensor | None,
    tokens: int,
    gradient: bool,
    fused: bool,
) -> tuple[Tensor, Tensor | None]:
    if not fused:
        return _eager(logits_nr, labels_n, factor_n, tokens, gradient)
    if gradient:
        return compiled(_gradient_formula)(logits_nr, labels_n, factor_n, tokens)
    return compiled(_logprobs_formula)(logits_nr, labels_n, tokens), None


class HeadGradients:
    """The gradients that are formed while a chunk's logits are at hand.

    Args:
        wanted: of the hidden states, of the head.
    """

    def __init__(self, hidden: Tensor, operand: Tensor, wanted: Sequence[bool]):
        self._hidden, self._operand, self.any = hidden, operand, any(wanted)
        self._of_hidden = torch.empty_like(hidden) if wanted[0] else None
        self._of_weight = torch.zeros_like(operand, dtype=torch.float32) if wanted[1] else None

    def add(self, part: slice, logits_gradient: Tensor) -> None:
        """Takes that of a chunk's logits, in the compute type."""
        if self._of_hidden is not None:
            torch.mm(logits_gradient, self._operand, out=self._of_hidden[part])
        if self._of_weight is None:
            return
        left, right = logits_gradient.T, self._hidden[part]
        if left.dtype == torch.float32:
            self._of_weight.addmm_(left, right)
        elif left.device.type == "cuda":  # summed in float32 anyway; float16 would overflow
            self._of_weight += torch.mm(left, right, out_dtype=torch.float32)
        else:
            self._of_weight += left @ right

    def own_rows(self, weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Both, without the rows that `head_operand` added."""
        of_weight = self._of_weight
        return self._of_hidden, None if of_weight is None else of_weight[: len(weight)]


def scaled_gradients(
    upstream: Tensor, saved: Sequence[Tensor | None], scale: Tensor | None
) -> list[Tensor | None]:
    """Gradients of a sum that was multiplied with `scale` already. The factor stays float32 also
    beside bfloat16 gradients: 1/n must not be rounded."""
    factor = upstream if scale is None else upstream / scale
    return [None if gradient is None else gradient * factor for gradient in saved]


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
            kept = None if host_knows_labels(hidden) else (labels[part] != IGNORE).float()
            factor = kept
            if scale is not None:
                factor = scale.expand(len(labels[part])) if kept is None else kept * scale
            logits = F.linear(hidden[part], operand)
            logprobs, gradient = _of_chunk(
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
            found[part], _ = _of_chunk(logits, labels[part], None, tokens, False, fused)
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
            _, gradient = _of_chunk(
                logits, labels[part], upstream[part], ctx.tokens, True, ctx.fused
            )
            assert gradient is not None
            gradients.add(part, gradient)
        return *gradients.own_rows(weight), *[None] * 4
