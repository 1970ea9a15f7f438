"""The gradient of one step, micro-batch by micro-batch, in the memory there is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from miao.console import warn
from miao.errors import MiaoError
from miao.model.decoder import Decoder
from miao.recipe import StageOptions
from miao.shards.loader import Batch
from miao.train.objectives import Objective

CPU_MICRO_TOKENS, GPU_MICRO_TOKENS = 8192, 65536
Gradients = tuple[Tensor, dict[str, Tensor], int, Tensor]
"""Summed loss, summed metrics, their weight, and the norm of the gradient before clipping."""


class StepGradients:
    """Fills `.grad` with the gradient of a step's mean loss, clipped to `grad_clip`.

    Args:
        rows_per_step: rows of one optimizer step; `micro_batch` is never larger.
    """

    def __init__(
        self,
        stage: str,
        options: StageOptions,
        model: Decoder,
        objective: Objective,
        rows_per_step: int,
    ):
        self.stage, self.options = stage, options
        self.model, self.objective = model, objective
        on_cpu = model.device.type == "cpu"
        rows = (CPU_MICRO_TOKENS if on_cpu else GPU_MICRO_TOKENS) // options.seq_len
        wanted = rows if options.micro_batch == "auto" else int(options.micro_batch)
        self.micro_batch = self.first_micro_batch = max(1, min(rows_per_step, wanted))

    def of(self, rows: Batch) -> Gradients:
        """Of these rows. Where memory runs out the micro-batch is halved, and the whole step is
        computed anew: nothing of the pass that failed remains.

        Raises:
            MiaoError: out of memory with a single row.
        """
        while True:
            try:
                return self._accumulate(rows)
            except torch.OutOfMemoryError:
                pass  # the traceback holds on to the activations: halve after it is gone
            self._halve_micro_batch()

    def zero_where(self, bad: Tensor) -> None:
        """Makes the gradient zero where `bad` (bool []) holds, without asking the device."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(bad, 0.0)

    def state(self) -> list[int]:
        """The micro-batch at first and now."""
        return [self.first_micro_batch, self.micro_batch]

    def restore(self, state: list[int]) -> None:
        """Goes on with a halved micro-batch, unless the option has been changed."""
        first, now = state
        if first == self.first_micro_batch:
            self.micro_batch = min(self.micro_batch, now)

    def _accumulate(self, rows: Batch) -> Gradients:
        self.model.zero_grad(set_to_none=True)
        for mixture in self.model.mixtures().values():
            mixture.take_load()  # of a pass that ran out of memory, or of a step that was skipped
        parts = list(rows.split(self.micro_batch))
        if self.model.is_compiled:
            parts = [part.padded(self.micro_batch) for part in parts]
        weights = [self.objective.weight(part) for part in parts]
        total = max(sum(weights), 1)
        loss = torch.zeros((), device=self.model.device)
        sums: dict[str, Tensor] = {}
        for part, weight in zip(parts, weights, strict=True):
            if weight == 0:
                continue
            part_loss, part_sums = self.objective.loss(self.model, part.to(self.model.device))
            (part_loss / total).backward()
            loss += part_loss.detach()
            for name, value in part_sums.items():
                sums[name] = sums[name] + value if name in sums else value
        limit = self.options.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True)
        return loss, sums, sum(weights), norm

    def _halve_micro_batch(self) -> None:
        if self.micro_batch == 1:
            raise MiaoError(
                "out of memory with a single row",
                where=self.stage,
                fix=f"shorten --{self.stage}.seq_len or choose a smaller model",
            )
        self.micro_batch //= 2
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        warn(
            f"out of memory: going on with micro_batch {self.micro_batch}; the batch stays the same"
        )
