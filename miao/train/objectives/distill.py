"""Distillation: next-token prediction with a larger model's whole distribution as second label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from miao.model import Decoder
from miao.ops.linear_distillation import Mixture, linear_distillation
from miao.recipe.stages import TeacherOptions
from miao.shards.loader import Batch
from miao.train.objectives.base import hidden_states


class DistillObjective:
    """Mean over the labelled tokens of cross-entropy and KL divergence from the teacher, mixed
    (`ops.linear_distillation`). Metrics, per token in nats: `cross_entropy`, and `teacher_kl`, at
    the temperature.

    Args:
        head: the student whose output matrix is used; the one that the loop trains.
    """

    def __init__(self, options: TeacherOptions, teacher: Decoder, head: Decoder):
        self.mixture = Mixture(options.weight, options.temperature, options.kl)
        self.teacher, self.head = teacher, head

    def weight(self, batch: Batch) -> int:
        return batch.trained_tokens

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            teacher_btd = hidden_states(self.teacher, batch)
        hidden_btd = hidden_states(model, batch)
        loss, cross_entropy, divergence = linear_distillation(
            hidden_btd.flatten(0, 1),
            self.head.head_weight,
            batch.labels_bt.flatten(),
            teacher_btd.flatten(0, 1),
            self.teacher.lm_head.weight,
            self.mixture,
            tokens=self.head.config.tokens,
            fused=self.head.fuses_loss,
            scale=self.head.loss_scale,
        )
        return loss, {"cross_entropy": cross_entropy.detach(), "teacher_kl": divergence.detach()}
