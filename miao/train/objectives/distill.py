"""Distillation: next-token prediction with a larger model's whole distribution as second label."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from miao.errors import MiaoError
from miao.model import Decoder, load_model
from miao.ops.linear_distillation import Mixture, linear_distillation
from miao.recipe.stages import TeacherOptions
from miao.shards.loader import Batch
from miao.tokenizer import Tokenizer
from miao.train.objectives.base import hidden_states

PROBE = "苗 grew: 1+2=3\n" * 2
"""The same pieces may still be put together by other rules."""


class DistillObjective:
    """Mean over the labelled tokens of cross-entropy and KL divergence from the teacher, mixed
    (`ops.linear_distillation`). Metrics, per token in nats: `cross_entropy`, and `teacher_kl`, at
    the temperature.

    Args:
        head: the student whose output matrix is used; the one that the loop trains.
    """

    weight_unit = "tokens"

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


def load_teacher(directory: Path, student: Decoder, tokenizer: Tokenizer, seq_len: int) -> Decoder:
    """A teacher on the student's device, in its compute type.

    Raises:
        MiaoError: its tokenizer or vocabulary is another, its context is too short, or the
            student's routing needs a balance loss, which distillation does not compute.
    """
    teacher = load_model(directory)
    if teacher.config.tokens != student.config.tokens:
        raise MiaoError(
            f"the teacher has {teacher.config.tokens} tokens, the student {student.config.tokens}",
            where=directory,
            fix="give the student the teacher's tokenizer: --tokenizer.path DIR",
        )
    theirs = Tokenizer.from_directory(directory)
    if _pieces(theirs) != _pieces(tokenizer) or theirs.encode(PROBE) != tokenizer.encode(PROBE):
        raise MiaoError(
            "the teacher has another tokenizer: its tokens mean something else",
            where=directory,
            fix="give the student the teacher's tokenizer: --tokenizer.path DIR; "
            "or learn from what the teacher says: miao corpus distill",
        )
    if teacher.config.context_length < seq_len:
        raise MiaoError(
            f"the teacher reads {teacher.config.context_length} tokens, a row has {seq_len}",
            where=directory,
            fix="lower seq_len",
        )
    if any(mixture.has_balance_loss for mixture in student.mixtures().values()):
        raise MiaoError(
            "a student with softmax-routed experts cannot be distilled: nothing would balance them",
            where="teacher.path",
            fix="use a dense student, or sigmoid routing (model.scoring_func)",
        )
    teacher.set_compute_dtype(student.compute_dtype)
    return teacher.to(student.device).requires_grad_(False).eval()


def _pieces(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode([number]) for number in range(tokenizer.vocab_size)]
