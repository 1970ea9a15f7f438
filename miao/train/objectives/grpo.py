"""Group relative policy optimization (GRPO, arXiv:2402.03300) and its variants, on packed answers.

Several answers to one problem are held against each other: what is better than the group's mean is
made likelier, what is worse less likely. The numbers that stand beside every token (advantage, log
p when it was said, weight) come with the batch.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from miao.model.decoder import Decoder
from miao.ops.head_chunks import IGNORE
from miao.ops.linear_cross_entropy import linear_logprobs
from miao.recipe.grpo import GrpoOptions
from miao.shards.loader import Batch
from miao.train.objectives.base import hidden_states, token_logprobs

EPSILON = 1e-4
"""Added to a group's spread before dividing by it."""


@dataclass
class RolloutBatch(Batch):
    """Packed answers. `reference_bt` is there where a KL divergence is wanted."""

    advantages_bt: Tensor | None = None
    shares_bt: Tensor | None = None
    """1 / tokens of the answer, so that a sum over it is its mean; 0 where nothing is learned."""
    scales_bt: Tensor | None = None
    """What a token's loss is multiplied with."""
    old_bt: Tensor | None = None
    """log p when it was said; None: the weights have not moved since."""


def group_advantages(rewards: Sequence[float], divide: bool) -> list[float]:
    """How much better each answer of a group is than their mean.

    Args:
        divide: by the group's standard deviation (n - 1) plus 1e-4; Dr. GRPO does not.
    """
    if max(rewards) == min(rewards):  # a mean of equal numbers may be off by a rounding
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    spread = statistics.stdev(rewards) + EPSILON if divide else 1.0
    return [(reward - mean) / spread for reward in rewards]


class TokenLosses(NamedTuple):
    """Loss of each token, and whether clipping took its gradient (or capped its weight)."""

    loss: Tensor
    clipped: Tensor


def grpo_losses(
    options: GrpoOptions,
    policy: Tensor,
    old: Tensor,
    advantages: Tensor,
    reference: Tensor | None = None,
) -> TokenLosses:
    """The loss of each token, before anything is averaged. With r = exp(policy - old):

    - grpo, dapo, dr_grpo: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), that of PPO.
    - cispo (arXiv:2506.13585): -min(r, 1 + clip_high) A log p, the weight without gradient: no
      token loses its gradient.

    With a reference, plus kl_coef times the estimator exp(d) - d - 1 of KL(policy || reference),
    d = reference - policy (http://joschu.net/blog/kl-approx.html).

    Args:
        policy, old, reference: log p of the tokens, of any one shape.
    """
    ratio = (policy - old).exp()
    low, high = 1 - options.clip_low, 1 + options.clip_high
    if options.loss == "cispo":
        loss = -ratio.detach().clamp(max=high) * advantages * policy
        clipped = ratio > high
    else:
        loss = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
        clipped = ((ratio > high) & (advantages > 0)) | ((ratio < low) & (advantages < 0))
    if reference is not None and options.kl_coef:
        loss = loss + options.kl_coef * divergence(policy, reference)
    return TokenLosses(loss, clipped)


def divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """exp(d) - d - 1 per token, d = reference - policy: never negative, KL on average."""
    difference = reference - policy
    return difference.exp() - difference - 1


def policy_logprobs(model: nn.Module, head: Decoder, batch: Batch, temperature: float) -> Tensor:
    """log p(label) of every slot [b, t] under the model at this temperature, 0 where there is no
    label.

    Args:
        head: the decoder whose output matrix is used.
    """
    if temperature == 1.0:
        return token_logprobs(model, batch)
    labels_bt = batch.labels_bt
    hidden_nd = (hidden_states(model, batch) / temperature).flatten(0, 1)
    labels_n, tokens = labels_bt.flatten(), head.config.tokens
    values_n = linear_logprobs(
        hidden_nd, head.head_weight, labels_n, tokens=tokens, fused=head.fuses_loss
    )
    return values_n.view_as(labels_bt)


class GrpoObjective:
    """`grpo_losses`, weighted as the batch says.

    Metrics, means over the answers of their means over tokens: `clip_fraction`; `entropy`, by its
    estimate -log p of the tokens drawn; with a reference `kl`. And what is known of the rollouts
    (`figures`: reward and so on).

    Args:
        head: the decoder that the loop trains. figures: of the rollouts that the coming batches
            are made of; kept up to date by who makes them.
    """

    def __init__(self, options: GrpoOptions, head: Decoder, figures: Mapping[str, float]):
        self.options, self.head, self.figures = options, head, figures

    def weight(self, batch: Batch) -> int:
        return sum(map(len, batch.sequences))

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(batch, RolloutBatch)
        advantages_bt, shares_bt = batch.advantages_bt, batch.shares_bt
        assert advantages_bt is not None and shares_bt is not None and batch.scales_bt is not None
        policy_bt = policy_logprobs(model, self.head, batch, self.options.temperature)
        old_bt = policy_bt.detach() if batch.old_bt is None else batch.old_bt
        learned_bt = batch.labels_bt != IGNORE
        old_bt = torch.where(learned_bt, old_bt, policy_bt.detach())
        reference_bt = batch.reference_bt
        loss_bt, clipped_bt = grpo_losses(
            self.options, policy_bt, old_bt, advantages_bt, reference_bt
        )
        loss = (loss_bt * batch.scales_bt).sum()
        with torch.no_grad():
            metrics = {
                "clip_fraction": (clipped_bt * shares_bt).sum(),
                "entropy": -(policy_bt * shares_bt).sum(),
            }
            if reference_bt is not None:
                metrics["kl"] = (divergence(policy_bt, reference_bt) * shares_bt).sum()
            count = self.weight(batch)
            for name, value in self.figures.items():
                metrics[name] = torch.full((), value * count, device=loss.device)
        return loss, {name: value.detach() for name, value in metrics.items()}
