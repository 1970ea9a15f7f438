"""Preferences: DPO (arXiv:2305.18290) and its relatives, on packed pairs.

A row holds pairs side by side: one segment is the chosen, the next the rejected answer of a pair.
Conversations that are replayed may stand between pairs. The reference model's log-probabilities,
for the losses that have one, are computed once, before training, and read like any other column of
the data.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miao.device import send
from miao.ops.head_chunks import IGNORE
from miao.recipe.stages import REFERENCE_FREE, DpoOptions
from miao.shards.loader import Batch
from miao.train.objectives.base import token_logprobs

Segments = list[tuple[int, int]]


class Compared(NamedTuple):
    """What a loss makes of pairs [p]: the loss of each, and its margin, how much more the chosen
    answer is preferred (times beta)."""

    loss_p: Tensor
    margin_p: Tensor


def preference_loss(
    options: DpoOptions, policy_p2: Tensor, reference_p2: Tensor | None, tokens_p2: Tensor
) -> Compared:
    """The loss of pairs of a chosen and a rejected answer.

    With r = log(policy/reference) of an answer, or log(policy) where there is no reference:

    - sigmoid: -log sigmoid(m), m = beta (r_chosen - r_rejected); DPO. With `length_normalized` r is
      the mean over the answer's tokens. `label_smoothing` s: (1-s)(-log sigmoid(m)) +
      s (-log sigmoid(-m)); cDPO.
    - ipo (arXiv:2310.12036): (r_chosen - r_rejected - 1/(2 beta))^2, r always a mean over tokens.
    - simpo (arXiv:2405.14734): sigmoid with m - `simpo_margin`, no reference, r a mean.
    - orpo (arXiv:2403.07691): -beta log sigmoid(log odds ratio of the mean likelihoods) plus the
      mean cross-entropy of the chosen answer; no reference.

    KTO, which needs no pairs, stands in kto.py.

    Args:
        policy_p2, reference_p2: summed log-probability of (chosen, rejected), float32 [p, 2].
        tokens_p2: their number of learned tokens.
    """
    beta, kind = options.beta, options.loss
    ratio_p2 = policy_p2 if reference_p2 is None else policy_p2 - reference_p2
    if kind in ("ipo", "simpo", "orpo") or options.length_normalized:
        ratio_p2 = ratio_p2 / tokens_p2
    margin_p = beta * (ratio_p2[:, 0] - ratio_p2[:, 1])
    if kind == "ipo":
        return Compared((margin_p / beta - 1 / (2 * beta)).square(), margin_p)
    if kind == "orpo":
        not_p2 = torch.log(-torch.expm1(ratio_p2.clamp(max=-1e-7)))  # log(1 - p)
        odds_p = (ratio_p2[:, 0] - ratio_p2[:, 1]) - (not_p2[:, 0] - not_p2[:, 1])
        return Compared(-beta * F.logsigmoid(odds_p) - ratio_p2[:, 0], margin_p)
    if kind not in ("sigmoid", "simpo"):
        raise ValueError(f"preference_loss has no branch for '{kind}'")
    shifted_p = margin_p - options.simpo_margin if kind == "simpo" else margin_p
    loss_p = -F.logsigmoid(shifted_p)
    if smoothing := options.label_smoothing:
        loss_p = (1 - smoothing) * loss_p - smoothing * F.logsigmoid(-shifted_p)
    return Compared(loss_p, margin_p)


class PreferenceObjective:
    """`preference_loss`, plus `sft_weight` times the mean cross-entropy of the chosen answer's
    tokens (RPO, arXiv:2404.19733): a difference alone is content with both answers becoming
    unlikely, as long as the rejected one falls faster. Of a conversation that is replayed the mean
    cross-entropy of its labels is added.

    At DPO's first step the policy is the reference, so the loss is ln 2. Metrics, per pair:
    `accuracy` (margin > 0), `margin` (times beta), the log-probabilities and numbers of tokens of
    both sides, and, with a reference, `kl`: the estimator exp(r) - r - 1 of KL(policy || reference)
    with r = log(ref/pi) on the chosen tokens (http://joschu.net/blog/kl-approx.html), per token.
    """

    def __init__(self, options: DpoOptions, replayed: Collection[str] = ()):
        self.options, self.replayed = options, frozenset(replayed)

    def weight(self, batch: Batch) -> int:
        return len(segments_of(batch, self.replayed)[0]) // 2

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs_bt = token_logprobs(model, batch)
        learned_bt = (batch.labels_bt != IGNORE).float()
        sides, others = segments_of(batch, self.replayed)
        policy_p2 = segment_sums(logprobs_bt, batch, sides).view(-1, 2)
        reference_p2 = None
        if self.options.loss not in REFERENCE_FREE:
            assert batch.reference_bt is not None, "this loss needs reference log-probabilities"
            reference_p2 = segment_sums(batch.reference_bt, batch, sides).view(-1, 2)
        tokens_p2 = segment_sums(learned_bt, batch, sides).view(-1, 2).clamp(min=1)
        loss_p, margin_p = preference_loss(self.options, policy_p2, reference_p2, tokens_p2)
        loss = loss_p.sum()
        loss = loss - self.options.sft_weight * (policy_p2[:, 0] / tokens_p2[:, 0]).sum()
        loss = loss - mean_logprobs(logprobs_bt, batch, others)
        with torch.no_grad():
            metrics = {
                "accuracy": (margin_p > 0).float().sum(),
                "margin": margin_p.sum(),
                "chosen_logprob": policy_p2[:, 0].sum(),
                "rejected_logprob": policy_p2[:, 1].sum(),
                "chosen_tokens": tokens_p2[:, 0].sum(),
                "rejected_tokens": tokens_p2[:, 1].sum(),
            }
            if reference_p2 is not None:
                kl_p2 = kl_sums(logprobs_bt, batch, sides).view(-1, 2)
                metrics["kl"] = (kl_p2[:, 0] / tokens_p2[:, 0]).sum()
        return loss, {name: value.detach() for name, value in metrics.items()}


def mean_logprobs(logprobs_bt: Tensor, batch: Batch, segments: Segments) -> Tensor:
    """Sum over these segments of the mean log-probability of what is learned in each."""
    learned_bt = (batch.labels_bt != IGNORE).float()
    tokens = segment_sums(learned_bt, batch, segments).clamp(min=1)
    return (segment_sums(logprobs_bt, batch, segments) / tokens).sum()


def kl_sums(logprobs_bt: Tensor, batch: Batch, segments: Segments) -> Tensor:
    """exp(r) - r - 1 with r = log(ref/pi), summed over the learned tokens of each segment: an
    estimate of KL(policy || reference) that is never negative."""
    assert batch.reference_bt is not None
    log_ratio_bt = batch.reference_bt - logprobs_bt
    kl_bt = (log_ratio_bt.exp() - log_ratio_bt - 1) * (batch.labels_bt != IGNORE)
    return segment_sums(kl_bt, batch, segments)


def segments_of(batch: Batch, replayed: Collection[str] = ()) -> tuple[Segments, Segments]:
    """(row, segment) of all sides of pairs, in order, and of what is replayed."""
    sides: Segments = []
    others: Segments = []
    for b, row in enumerate(batch.sequences):
        for number, (source, _) in enumerate(row, start=1):
            (others if source in replayed else sides).append((b, number))
    return sides, others


def segment_sums(values_bt: Tensor, batch: Batch, segments: Segments) -> Tensor:
    """Sums of a value [b, t] over each of these segments."""
    width = max((len(row) for row in batch.sequences), default=0)
    shape = (len(batch.sequences), width + 1)
    sums_bs = torch.zeros(shape, dtype=values_bt.dtype, device=values_bt.device)
    sums_bs = sums_bs.scatter_add(1, batch.segments_bt, values_bt)
    index = send(torch.tensor(segments, dtype=torch.int64).view(-1, 2), values_bt.device)
    return sums_bs[index[:, 0], index[:, 1]]
