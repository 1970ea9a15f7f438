"""Learning from a teacher's whole distribution, chunk by chunk: neither model's logits ever exist
all at once.

The loss of a token is (1 - weight) times its cross-entropy plus weight · temperature² times the KL
divergence of the two distributions at that temperature (arXiv:1503.02531, section 2; the square
keeps the gradient's size). forward: KL(teacher || student), which covers all that the teacher would
say; reverse: KL(student || teacher), which keeps to what the teacher finds likely (MiniLLM,
arXiv:2306.08543).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from miao.ops.head_chunks import (
    CPU_CHUNK,
    IGNORE,
    IMPOSSIBLE,
    HeadGradients,
    compiled,
    gpu_chunk,
    gradients_wanted,
    head_operand,
    head_rows,
    host_knows_labels,
    scaled_gradients,
)

BLOCK = 2**19
"""Numbers of a chunk's logits that are worked on at one time where nothing is compiled."""

Divergence = Literal["forward", "reverse"]


class Mixture(NamedTuple):
    """How a loss is mixed."""

    weight: float
    """Of the teacher, from 0 (cross-entropy only) to 1."""
    temperature: float
    divergence: Divergence


def linear_distillation(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    labels_n: Tensor,
    teacher_nd: Tensor,
    teacher_vd: Tensor,
    mixture: Mixture,
    chunk: int | None = None,
    tokens: int | None = None,
    fused: bool = False,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the tokens with a label (float32 scalars): the loss, with gradient for the student;
    its cross-entropy; the KL divergence at the temperature, not multiplied with anything.

    Args:
        hidden_nd, weight_vd: the student's hidden states [n, d] in the compute type, and its head.
        teacher_nd, teacher_vd: the teacher's, of any width; the same vocabulary.
        labels_n: int64 token ids; -100 takes no part.
        chunk: tokens whose logits exist at one time (default: by the device).
        tokens: rows of both heads that stand for a token (default: all).
        fused, scale: as for `linear_cross_entropy`.
    """
    if chunk is None:
        on_cpu = hidden_nd.device.type == "cpu"
        chunk = CPU_CHUNK if on_cpu else gpu_chunk(2 * len(weight_vd))
    if host_knows_labels(hidden_nd):
        kept = (labels_n != IGNORE).nonzero().squeeze(1)
        hidden_nd, labels_n, teacher_nd = hidden_nd[kept], labels_n[kept], teacher_nd[kept]
    loss, cross_entropy, divergence = _LinearDistillation.apply(
        hidden_nd,
        weight_vd,
        labels_n,
        teacher_nd.detach(),
        teacher_vd.detach(),
        mixture,
        chunk,
        gradients_wanted(hidden_nd, weight_vd),
        tokens or len(weight_vd),
        fused,
        scale,
    )
    return loss, cross_entropy, divergence


def linear_distillation_reference(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    labels_n: Tensor,
    teacher_nd: Tensor,
    teacher_vd: Tensor,
    mixture: Mixture,
) -> Tensor:
    """The plain twin: all logits at once; only the loss."""
    kept, heat = labels_n != IGNORE, mixture.temperature
    student = F.linear(hidden_nd[kept], weight_vd.to(hidden_nd.dtype)).float()
    teacher = F.linear(teacher_nd[kept], teacher_vd.to(teacher_nd.dtype)).float()
    own, other = (F.log_softmax(logits / heat, dim=-1) for logits in (student, teacher))
    if mixture.divergence == "reverse":
        own, other = other, own
    divergence = F.kl_div(own, other, reduction="sum", log_target=True)
    cross_entropy = F.cross_entropy(student, labels_n[kept], reduction="sum")
    return (1 - mixture.weight) * cross_entropy + mixture.weight * heat**2 * divergence


def _formula(
    student_nr: Tensor,
    teacher_nr: Tensor,
    labels_n: Tensor,
    factor_n: Tensor,
    mixture: Mixture,
    tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a chunk the student's log p of the labels [n], KL [n], and factor times the derivative of
    the loss by the student's logits [n, r], in their type."""
    share, heat, kind = mixture
    columns, index = torch.arange(student_nr.shape[1], device=labels_n.device), labels_n[:, None]
    student, teacher = student_nr.float(), teacher_nr.float()
    if tokens < len(columns):
        student = torch.where(columns < tokens, student, IMPOSSIBLE)
        teacher = torch.where(columns < tokens, teacher, IMPOSSIBLE)
    logprobs = F.log_softmax(student, dim=-1)
    own = F.log_softmax(student / heat, dim=-1)
    other = F.log_softmax(teacher / heat, dim=-1)
    if kind == "forward":
        divergence_n1 = (other.exp() * (other - own)).sum(-1, keepdim=True)
        slopes = own.exp() - other.exp()
    else:
        divergence_n1 = (own.exp() * (own - other)).sum(-1, keepdim=True)
        slopes = own.exp() * (own - other - divergence_n1)
    towards_label = logprobs.exp() - (columns == index).float()
    gradient = (share * heat * slopes + (1 - share) * towards_label) * factor_n[:, None]
    found_n = logprobs.gather(1, index.clamp(min=0)).squeeze(1)
    return found_n, divergence_n1.squeeze(1), gradient.to(student_nr.dtype)


def _in_blocks(
    student_nr: Tensor,
    teacher_nr: Tensor,
    labels_n: Tensor,
    factor_n: Tensor,
    mixture: Mixture,
    tokens: int,
) -> tuple[Tensor, ...]:
    """`_formula` of a few rows after the other: what it makes on its way is all their size."""
    rows = max(1, BLOCK // student_nr.shape[1])
    blocks = (x.split(rows) for x in (student_nr, teacher_nr, labels_n, factor_n))
    found = [
        _formula(student, teacher, labels, factor, mixture, tokens)
        for student, teacher, labels, factor in zip(*blocks, strict=True)
    ]
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


class _LinearDistillation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        mixture: Mixture,
        chunk: int,
        wanted: tuple[bool, bool],
        tokens: int,
        fused: bool,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = max(head_rows(weight), head_rows(teacher_weight))
        own_weight = head_operand(weight, hidden.dtype, rows)
        other_weight = head_operand(teacher_weight, teacher_hidden.dtype, rows)
        gradients = HeadGradients(hidden, own_weight, wanted)
        sums = torch.zeros(2, dtype=torch.float32, device=hidden.device)
        formula = compiled(_formula) if fused else _in_blocks
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            kept = (labels[part] != IGNORE).float()
            logprobs, divergence, gradient = formula(
                F.linear(hidden[part], own_weight),
                F.linear(teacher_hidden[part], other_weight),
                labels[part],
                kept if scale is None else kept * scale,
                mixture,
                tokens,
            )
            sums[0] -= (logprobs * kept).sum()
            sums[1] += (divergence * kept).sum()
            if gradients.any:
                gradients.add(part, gradient)
        ctx.save_for_backward(*gradients.own_rows(weight), scale)
        share, heat = mixture.weight, mixture.temperature
        loss = (1 - share) * sums[0] + share * heat**2 * sums[1]
        cross_entropy, divergence = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(cross_entropy, divergence)
        return loss, cross_entropy, divergence

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *saved, scale = ctx.saved_tensors
        return *scaled_gradients(grads[0], saved, scale), *[None] * 9
