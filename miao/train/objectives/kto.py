"""KTO (arXiv:2402.01306): single answers, each desirable or not.

Every answer is held against the KL divergence between the policy and the reference, which is
estimated on the prompts of the step, each with the answer to another one. The whole step's estimate
is needed before its first backward pass, so those are read first, without a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from miao.device import send
from miao.ops.head_chunks import IGNORE
from miao.recipe.stages import DpoOptions
from miao.shards.loader import Batch
from miao.train.objectives.base import token_logprobs
from miao.train.objectives.preference import Segments, kl_sums, mean_logprobs, segment_sums


def kto_loss(options: DpoOptions, ratio_n: Tensor, desirable_n: Tensor, origin: float) -> Tensor:
    """Loss of each answer: `desirable_weight` (1 - sigmoid(beta (r - z))), or, of an undesirable
    one, `undesirable_weight` (1 - sigmoid(beta (z - r))).

    Args:
        ratio_n: r = log(policy/reference) of the answers. desirable_n: their labels, bool.
        origin: z, the estimate of KL(policy || reference), without gradient.
    """
    sign_n = torch.where(desirable_n, 1.0, -1.0)
    weight_n = torch.where(desirable_n, options.desirable_weight, options.undesirable_weight)
    return weight_n * (1 - torch.sigmoid(options.beta * sign_n * (ratio_n - origin)))


@dataclass
class Step:
    """What is known of a whole step, over all processes, before its first backward pass."""

    origin: float = 0.0
    """z."""
    desirable: float = 1.0
    undesirable: float = 1.0
    """How many answers there are of either kind."""


class KtoObjective:
    """Unpaired preferences, from rows of `LabelledAnswers`; see `kto_loss`.

    Metrics, per answer: `accuracy` (on its label's side of z), `margin` (mean reward of the
    desirable answers minus that of the undesirable ones, times beta), `chosen_...`/`rejected_...`
    (log-probability and tokens of either kind), `origin` (z), and `kl` per token as for DPO.

    Args:
        labels: of the answers of each source; other sources are replayed.
    """

    def __init__(self, options: DpoOptions, labels: Mapping[str, NDArray]):
        self.options, self.labels = options, labels
        self.step = Step()

    def weight(self, batch: Batch) -> int:
        return len(self._segments(batch)[0])

    def divide(self, rows: Batch) -> tuple[Batch, Batch]:
        """The mismatched answers, to read ahead, and what is trained on."""
        answers, mixed, replayed = self._segments(rows)
        return rows.only(mixed), rows.only(sorted(answers + replayed))

    def read_ahead(self, module: nn.Module, batches: list[Batch], rows: Batch) -> list[float]:
        """Sum and number of the mismatched answers' r, and how many answers are (un)desirable."""
        total, count = 0.0, 0
        for batch in batches:
            logprobs_bt = token_logprobs(module, batch)
            if mixed := self._segments(batch)[1]:
                total += float(self._ratio(logprobs_bt, batch, mixed)[0].cpu().double().sum())
                count += len(mixed)
        labels = [self._label(rows, at) for at in self._segments(rows)[0]]
        return [total, count, sum(labels), len(labels) - sum(labels)]

    def begin_step(self, sums: list[float]) -> None:
        total, count, desirable, undesirable = sums
        self.step = Step(max(total / max(count, 1), 0.0), desirable, undesirable)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs_bt = token_logprobs(model, batch)
        answers, _, replayed = self._segments(batch)
        good = [self._label(batch, at) for at in answers]
        good_n = send(torch.tensor(good, dtype=torch.bool), logprobs_bt.device)
        ratio_n, policy_n, tokens_n = self._ratio(logprobs_bt, batch, answers)
        loss = kto_loss(self.options, ratio_n, good_n, self.step.origin).sum()
        loss = loss - self.options.sft_weight * (policy_n / tokens_n * good_n).sum()
        loss = loss - mean_logprobs(logprobs_bt, batch, replayed)
        with torch.no_grad():
            metrics = self._metrics(ratio_n, policy_n, tokens_n, good_n)
            metrics["kl"] = (kl_sums(logprobs_bt, batch, answers) / tokens_n).sum()
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _metrics(
        self, ratio_n: Tensor, policy_n: Tensor, tokens_n: Tensor, good_n: Tensor
    ) -> dict[str, Tensor]:
        step, answers = self.step, self.step.desirable + self.step.undesirable
        # The loop divides by the number of all answers: means over one kind are scaled for it.
        chosen_n = good_n * (answers / max(step.desirable, 1))
        rejected_n = ~good_n * (answers / max(step.undesirable, 1))
        return {
            "accuracy": ((ratio_n > step.origin) == good_n).float().sum(),
            "margin": (self.options.beta * ratio_n * (chosen_n - rejected_n)).sum(),
            "chosen_logprob": (policy_n * chosen_n).sum(),
            "rejected_logprob": (policy_n * rejected_n).sum(),
            "chosen_tokens": (tokens_n * chosen_n).sum(),
            "rejected_tokens": (tokens_n * rejected_n).sum(),
            "origin": torch.full((), step.origin * len(good_n), device=ratio_n.device),
        }

    def _ratio(
        self, logprobs_bt: Tensor, batch: Batch, segments: Segments
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log(policy/reference), log(policy) and the number of tokens of answers."""
        assert batch.reference_bt is not None, "KTO needs reference log-probabilities"
        learned_bt = (batch.labels_bt != IGNORE).float()
        policy_n = segment_sums(logprobs_bt, batch, segments)
        tokens_n = segment_sums(learned_bt, batch, segments).clamp(min=1)
        ratio_n = policy_n - segment_sums(batch.reference_bt, batch, segments)
        return ratio_n / tokens_n if self.options.length_normalized else ratio_n, policy_n, tokens_n

    def _segments(self, batch: Batch) -> tuple[Segments, Segments, Segments]:
        """(row, segment) of the answers, of the mismatched ones, and of what is replayed."""
        found: tuple[Segments, Segments, Segments] = ([], [], [])
        for b, row in enumerate(batch.sequences):
            for number, (source, sequence) in enumerate(row, start=1):
                kind = sequence % 2 if source in self.labels else 2
                found[kind].append((b, number))
        return found

    def _label(self, batch: Batch, at: tuple[int, int]) -> bool:
        source, sequence = batch.sequences[at[0]][at[1] - 1]
        return bool(self.labels[source][sequence // 2])
