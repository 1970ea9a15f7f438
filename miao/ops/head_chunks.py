"""What is done with a chunk of the head's logits, before the next chunk takes their place: for the
cross-entropy, for log-probabilities, and for distillation."""

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


def default_chunk(hidden_nd: Tensor, weight_vd: Tensor) -> int:
    return CPU_CHUNK if hidden_nd.device.type == "cpu" else gpu_chunk(len(weight_vd))


def trained_only(hidden_nd: Tensor, labels_n: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves out tokens without a label, where `host_knows_labels`."""
    if not host_knows_labels(hidden_nd):
        return hidden_nd, labels_n
    kept = (labels_n != IGNORE).nonzero().squeeze(1)
    if len(kept) == len(labels_n):
        return hidden_nd, labels_n
    return hidden_nd[kept], labels_n[kept]


def counted_labels(hidden_nd: Tensor, labels_n: Tensor) -> Tensor | None:
    """1 for labels that count, 0 for others, float32; None where `trained_only` left those out."""
    return None if host_knows_labels(hidden_nd) else (labels_n != IGNORE).float()


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


def of_chunk(
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
