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

from miao.ops.linear_cross_entropy import (
    CPU_CHUNK,
    IGNORE,
    gpu_chunk,
    gradients_wanted,
    head_logits,
    head_operand,
    head_rows,
    host_knows_labels,
)

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
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the tokens with a label (float32 scalars): the loss, with gradient for the student;
    its cross-entropy; the KL divergence at the temperature, not multiplied with anything.

    Args:
        hidden_nd, weight_vd: the student's hidden states [n, d] in the compute type, and its head.
        teacher_nd, teacher_vd: the teacher's, of any width; the same vocabulary.
        labels_n: int64 token ids; -100 takes no part.
        chunk: tokens whose logits exist at one time (default: by the device).
        tokens: rows of both heads that stand for a token (default: all).
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


def _divergence(
    student: Tensor, teacher: Tensor, heat: float, kind: Divergence
) -> tuple[Tensor, Tensor]:
    """KL per token [n], and heat² times its derivative by the student's logits [n, v]."""
    own = F.log_softmax(student / heat, dim=-1)
    other = F.log_softmax(teacher / heat, dim=-1)
    own_p = own.exp()
    if kind == "forward":
        other_p = other.exp()
        return (other_p * (other - own)).sum(-1), heat * (own_p - other_p)
    difference = own - other
    divergence_n = (own_p * difference).sum(-1)
    return divergence_n, heat * own_p * (difference - divergence_n[:, None])


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
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = max(head_rows(weight), head_rows(teacher_weight))
        own_weight = head_operand(weight, hidden.dtype, rows)
        other_weight = head_operand(teacher_weight, teacher_hidden.dtype, rows)
        grad_hidden = torch.empty_like(hidden) if wanted[0] else None
        grad_weight = torch.zeros_like(own_weight, dtype=torch.float32) if wanted[1] else None
        sums = torch.zeros(2, dtype=torch.float32, device=hidden.device)
        share, heat = mixture.weight, mixture.temperature
        all_kept = host_knows_labels(hidden)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            student = head_logits(hidden[part], own_weight, tokens)
            teacher = head_logits(teacher_hidden[part], other_weight, tokens)
            kept_n1 = 1.0 if all_kept else (labels[part, None] != IGNORE).float()
            logprobs, index = F.log_softmax(student, dim=-1), labels[part, None].clamp(min=0)
            divergence_n, gradient = _divergence(student, teacher, heat, mixture.divergence)
            sums[0] -= (logprobs.gather(1, index) * kept_n1).sum()
            sums[1] += (divergence_n[:, None] * kept_n1).sum()
            if not any(wanted):
                continue
            towards_label = logprobs.exp_().scatter_add_(
                1, index, torch.full_like(logprobs[:, :1], -1.0)
            )
            gradient = gradient.mul_(share).add_(towards_label, alpha=1 - share)
            if not all_kept:
                gradient.mul_(kept_n1)
            gradient = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, own_weight, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += gradient.T @ hidden[part]
        own_rows = None if grad_weight is None else grad_weight[: len(weight)]
        ctx.save_for_backward(grad_hidden, own_rows)
        loss = (1 - share) * sums[0] + share * heat**2 * sums[1]
        cross_entropy, divergence = sums[0].clone(), sums[1].clone()
        ctx.mark_non_differentiable(cross_entropy, divergence)
        return loss, cross_entropy, divergence

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0]
        scaled = [None if saved is None else saved * scale for saved in ctx.saved_tensors]
        return *scaled, None, None, None, None, None, None, None
