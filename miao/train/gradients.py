"""The gradient of one step, micro-batch by micro-batch, in the memory there is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from miao.console import warn
from miao.errors import MiaoError, first_line
from miao.model.estimate import MICRO_TOKENS as GPU_MICRO_TOKENS
from miao.recipe import StageOptions
from miao.shards.loader import Batch
from miao.train.distributed.parallel import Parallel
from miao.train.microbatch import CPU_MICRO_TOKENS
from miao.train.objectives import Objective
from miao.train.objectives.ahead import AheadObjective
from miao.train.scaler import LossScaler


class Gradients(NamedTuple):
    """What a step came to, over all processes."""

    loss: Tensor
    """Summed over the step."""
    metrics: dict[str, Tensor]
    """Summed too."""
    weight: int
    """What both are divided by for a mean."""
    norm: Tensor
    """Of the gradient of the mean loss, before clipping."""
    scale: Tensor | None
    """The loss scale that it was computed with (float16)."""
    stop: int
    """The highest `stop` of any process."""


class StepGradients:
    """Fills `.grad` with the gradient of a step's mean loss, clipped to `grad_clip`.

    Args:
        rows_per_step: rows of one optimizer step over all processes; `micro_batch` is never larger
            than this process's share.
        fitted: `micro_batch` was found by trial: a resumed run goes on with the one it began with.
    """

    def __init__(
        self,
        stage: str,
        options: StageOptions,
        parallel: Parallel,
        objective: Objective,
        rows_per_step: int,
        fitted: bool = False,
    ):
        self.stage, self.options = stage, options
        self.parallel, self.objective, self.fitted = parallel, objective, fitted
        self.model, self.world = parallel.model, parallel.world
        on_cpu = self.model.device.type == "cpu"
        rows = (CPU_MICRO_TOKENS if on_cpu else GPU_MICRO_TOKENS) // options.seq_len
        wanted = rows if options.micro_batch == "auto" else int(options.micro_batch)
        share = -(-rows_per_step // self.world.size)
        self.micro_batch = self.first_micro_batch = max(1, min(share, wanted))
        self.places: int | None = 0 if self.model.has_varlen else None
        """Room for the documents of a micro-batch: the most so far, in any process, so that each
        compiles as rarely as can be, and all at the same step."""
        half = self.model.compute_dtype == torch.float16
        self.scaler = LossScaler(self.model.device) if half else None

    def of(self, rows: Batch, stop: int = 0) -> Gradients:
        """Of a step of which this process has these rows. Where memory runs out in any process,
        all halve the micro-batch, and the whole step is computed anew: nothing of the pass that
        failed remains.

        Args:
            stop: anything above 0 is made known to all processes.

        Raises:
            MiaoError: out of memory with a single row, or where processes depend on each other
                within a pass.
        """
        while True:
            passed = None
            try:
                passed = self._accumulate_or_go_eager(rows)
            except torch.OutOfMemoryError as error:
                if self.parallel.lockstep:
                    raise self._too_large() from error
                # The traceback holds on to the activations: halve after it is gone.
            self.parallel.sum_gradients()
            told = self.world.gather([int(passed is None), stop])
            if passed is not None and not any(failed for failed, _ in told):
                return self._finish(*passed, max(number for _, number in told))
            del passed
            self._halve_micro_batch()

    def state(self) -> list[int]:
        """The micro-batch at first and now."""
        return [self.first_micro_batch, self.micro_batch]

    def restore(self, state: list[int]) -> None:
        """Goes on with a halved micro-batch, unless the option has been changed."""
        first, now = state
        if self.fitted:
            self.first_micro_batch, self.micro_batch = first, now
        elif first == self.first_micro_batch:
            self.micro_batch = min(self.micro_batch, now)

    def _accumulate_or_go_eager(self, rows: Batch) -> tuple[Tensor, dict[str, Tensor], list[int]]:
        """A compiler that fails (none there, no room for its files) is no reason to end."""
        if not self.model.is_compiled:
            return self._accumulate(rows)
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        try:
            return self._accumulate(rows)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            if self.world.size > 1:  # the others would wait within a pass
                raise MiaoError(
                    f"the compiler failed: {first_line(error)}",
                    where=self.stage,
                    fix=f"--{self.stage}.compile off",
                ) from error
            warn(f"the compiler failed, going on without it: {first_line(error)}")
        self.model.without_compiling()
        return self._accumulate(rows)

    def _accumulate(self, rows: Batch) -> tuple[Tensor, dict[str, Tensor], list[int]]:
        """This process's sums, and the weight of every process's rows."""
        self.parallel.forget_gradients()
        if isinstance(self.objective, AheadObjective):
            rows = self._read_ahead(self.objective, rows)
        for mixture in self.model.mixtures().values():
            mixture.take_load()  # of a pass that ran out of memory, or of a step that was skipped
        parts = self._parts(rows)
        weights = [self.objective.weight(part) for part in parts]
        told = self.world.gather([sum(weights), len(parts), self._places(parts)])
        total = sum(weight for weight, _, _ in told)
        places = self._agree_on_places([needed for _, _, needed in told])
        if self.parallel.lockstep:
            empty = rows.empty(self.micro_batch if self.model.is_compiled else 1)
            parts += [empty] * (max(count for _, count, _ in told) - len(parts))
            weights += [0] * (len(parts) - len(weights))
        if self.parallel.graphs and len(parts) > 1:
            self._leave_graphs()
        factor = None if self.scaler is None else self.scaler.scale / max(total, 1)
        self.model.loss_scale = factor
        loss = torch.zeros((), device=self.model.device)
        sums: dict[str, Tensor] = {}
        device = self.model.device
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True), start=1):
            # What is replayed beside pairs has no weight of its own, but a gradient.
            idle = total == 0 or not (weight or part.trained_tokens)
            if idle and not self.parallel.lockstep:
                continue
            if self.parallel.graphs:
                torch.compiler.cudagraph_mark_step_begin()
            part_loss, part_sums = self._pass(part.to(device, places), idle)
            share = part_loss / max(total, 1) if factor is None else part_loss * factor
            self.parallel.backward(share, last=number == len(parts))
            loss += part_loss.detach()
            for name, value in part_sums.items():
                sums[name] = sums[name] + value if name in sums else value
        return loss, sums, [weight for weight, _, _ in told]

    def _leave_graphs(self) -> None:
        """Gradients that several graphs add to are freed and used again too early
        (https://github.com/pytorch/pytorch/issues/169545)."""
        warn(
            "CUDA graphs need a step in one micro-batch: compiled without them "
            f"(--{self.stage}.micro_batch as large as the step brings them back)"
        )
        self.parallel.compile(graphs=False)

    def _places(self, parts: list[Batch]) -> int:
        if self.places is None:
            return 0
        return max([self.places, *(part.document_places for part in parts)])

    def _agree_on_places(self, needed: list[int]) -> int | None:
        if self.places is not None:
            self.places = max(needed)
        return self.places

    def _parts(self, rows: Batch) -> list[Batch]:
        parts = list(rows.split(self.micro_batch))
        return [p.padded(self.micro_batch) for p in parts] if self.model.is_compiled else parts

    def _read_ahead(self, objective: AheadObjective, rows: Batch) -> Batch:
        """Tells the objective what it must know of the step; what is left to train on."""
        ahead, rows = objective.divide(rows)
        parts = self._parts(ahead)
        told = self.world.gather([len(parts), self._places(parts)])
        places = self._agree_on_places([needed for _, needed in told])
        if self.parallel.lockstep:
            empty = ahead.empty(self.micro_batch if self.model.is_compiled else 1)
            parts += [empty] * (max(count for count, _ in told) - len(parts))
        numbers = None
        try:
            with torch.no_grad():
                batches = [part.to(self.model.device, places) for part in parts]
                numbers = objective.read_ahead(self.parallel.module, batches, rows)
        except torch.OutOfMemoryError:
            if self.parallel.lockstep or self.world.size == 1:
                raise
        told = self.world.gather_objects(numbers)  # the others wait for a word, whatever it is
        if any(given is None for given in told):
            raise torch.OutOfMemoryError("out of memory while reading ahead, here or elsewhere")
        objective.begin_step([sum(given) for given in zip(*told, strict=True)])
        return rows

    def _pass(self, part: Batch, idle: bool) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = self.objective.loss(self.parallel.module, part)
        # Idle: only for the other processes, which do not go on without this one.
        return (0.0 * loss, {}) if idle else (loss, sums)

    def _finish(
        self, loss: Tensor, sums: dict[str, Tensor], weights: list[int], stop: int
    ) -> Gradients:
        """Sums what is told over the processes, takes the norm, and clips."""
        if sum(weights):
            loss, sums = self._over_processes(loss, sums, weights)
        else:
            self.model.zero_grad()  # nothing is to be learned, and nothing decays
        norm, scale = self.parallel.norm(), None
        if self.scaler is not None:
            scale = self.scaler.scale
            norm = norm / scale
            self.scaler.update(norm)
        if gradients := self.parallel.gradients():
            factor = ((self.options.grad_clip or math.inf) / (norm + 1e-6)).clamp(max=1.0)
            factor = factor if scale is None else factor / scale
            torch._foreach_mul_(gradients, factor.to(self.model.device))
        return Gradients(loss, sums, sum(weights), norm, scale, stop)

    def _over_processes(
        self, loss: Tensor, sums: dict[str, Tensor], weights: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, metrics and the experts' loads of the whole step, in one exchange."""
        if self.world.size == 1:
            return loss, sums
        names = sorted(sums)
        if not all(weights):  # a process without rows does not know what is measured
            names = sorted(set().union(*self.world.gather_objects(names)))
        zero = torch.zeros_like(loss)
        loads = [mixture.load for mixture in self.model.mixtures().values()]
        own = torch.stack([loss, *(sums.get(name, zero).to(loss) for name in names)])
        numbers = torch.cat([own, *loads])
        self.parallel.sum(numbers)
        own, *summed_loads = numbers.split([len(own), *(len(load) for load in loads)])
        for load, summed in zip(loads, summed_loads, strict=True):
            load.copy_(summed)
        return own[0], dict(zip(names, own[1:], strict=True))

    def _halve_micro_batch(self) -> None:
        if self.micro_batch == 1:
            raise MiaoError(
                "out of memory with a single row",
                where=self.stage,
                fix=f"use --{self.stage}.activation_checkpointing on, shorten "
                f"--{self.stage}.seq_len or choose a smaller model",
            )
        self.micro_batch //= 2
        self.parallel.forget_gradients()
        torch.cuda.empty_cache()
        warn(
            f"out of memory: going on with micro_batch {self.micro_batch}; the batch stays the same"
        )

    def _too_large(self) -> MiaoError:
        if self.micro_batch == 1:
            fix = (
                f"use --{self.stage}.activation_checkpointing on, shorten --{self.stage}.seq_len, "
                "choose a smaller model, or use more GPUs"
            )
        else:
            fix = f"run again with --{self.stage}.micro_batch {self.micro_batch // 2}; it continues"
        return MiaoError(
            f"out of memory with micro_batch {self.micro_batch}", where=self.stage, fix=fix
        )
