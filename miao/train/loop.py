"""The only training loop. Stages differ in their data and their objective, never in the loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from miao.console import ProgressLine, by_product, warn
from miao.errors import Interrupted, MiaoError
from miao.model.counts import mfu_conventions
from miao.model.decoder import Decoder
from miao.recipe import StageOptions, parse_quantity
from miao.shards.loader import Batch, PackedLoader, merged_states
from miao.train.balance import ExpertBalance
from miao.train.budget import Budget
from miao.train.distributed.parallel import Parallel
from miao.train.distributed.world import World
from miao.train.feed.prefetch import StepSource, Whole, prefetched
from miao.train.gradients import StepGradients
from miao.train.objectives import Objective
from miao.train.safety.checkpoint import CheckpointStore, Loaded
from miao.train.safety.guard import Guard
from miao.train.safety.keeper import Keeper
from miao.train.safety.signals import NO_ROOM, StopRequest
from miao.train.safety.spread import SpreadStore
from miao.train.watch.metrics import (
    Meter,
    MetricsLog,
    Summed,
    TrainResult,
    context_of,
    status_line,
)
from miao.train.watch.samples import SampleLog
from miao.train.watch.tasks import TaskWatch


class Trainer:
    """Trains `model` on `loader` until a budget (a number: of real tokens) is spent.

    Args:
        options: the stage's section of the recipe.
        checkpoints: directory of this stage's checkpoints; the newest good one is resumed.
        peak_flops: what MFU is held against.
        heldout: called now and then with the model, returns numbers to log; or None.
        samples, tasks: written and asked now and then; or None.
        parallel: how `model` is trained by several processes; default: by this one alone.
        fitted: `options.micro_batch` was found by trial, and a checkpoint's own counts more.
    """

    def __init__(
        self,
        stage: str,
        options: StageOptions,
        model: Decoder,
        loader: PackedLoader | StepSource,
        objective: Objective,
        budget: float | Budget,
        checkpoints: Path,
        metrics: MetricsLog,
        peak_flops: float,
        heldout: Callable[[Decoder], dict[str, float]] | None = None,
        samples: SampleLog | None = None,
        parallel: Parallel | None = None,
        fitted: bool = False,
        tasks: TaskWatch | None = None,
    ):
        self.stage, self.options, self.model, self.loader = stage, options, model, loader
        self.budget = budget if isinstance(budget, Budget) else Budget(stage, options, budget)
        self.metrics = metrics
        self.heldout, self.samples, self.tasks = heldout, samples, tasks
        self.parallel = parallel or Parallel(model, options, World())
        self.world, self.optimizer = self.parallel.world, self.parallel.optimizer
        self.device = model.device
        batch_tokens = int(parse_quantity(options.batch_tokens, "batch_tokens"))
        self.rows_per_step = batch_tokens // options.seq_len
        kind = SpreadStore if self.parallel.in_parts else CheckpointStore
        self.store = kind(checkpoints, self.parallel, options.keep_last)
        on_cpu = self.device.type == "cpu"
        self.guard: Guard[Summed] = Guard(stage, options, on_cpu, self.world)
        counted = partial(mfu_conventions, model.config, options.seq_len)
        self.meter = Meter(counted, peak_flops * self.world.size)
        self.balance = ExpertBalance(model, options.router_bias_rate)
        self.gradients = StepGradients(
            stage, options, self.parallel, objective, self.rows_per_step, fitted
        )
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.last: dict[str, float] = {"loss": math.nan}
        self.speeds: list[tuple[float, float]] = []
        self.loader_state = loader.state()
        self.stop = StopRequest()
        self.stop_agreed = 0
        """The signal that every process knows of."""
        self.trouble: dict[str, Any] = {}
        self.keeper = Keeper(self.budget, self, self.store, self.guard, metrics, samples)

    def run(self) -> TrainResult:
        """Trains to the end of the budget.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, with a checkpoint written.
            MiaoError: loss or gradient are bad again and again; the last checkpoint cannot be
                written.
        """
        self.keeper.begin()
        self.model.train()
        try:
            with ProgressLine(self.stage, self.budget.total, self.budget.at) as line, self.stop:
                self._train(line)
                while self.guard.rollback_to is not None:
                    back = self.keeper.roll_back(self.guard.rollback_to, self.trouble)
                    line.advance(back, "going back")
                    self._train(line)
            if self.meter.loss is not None:  # the last, incomplete interval
                self._log()
            self.keeper.end()
        except Exception:
            self.keeper.tell_failure(wait=True)
            raise
        speeds = [speed for speed, _ in self.speeds] or [math.nan]
        median = sorted(speeds)[len(speeds) // 2]
        loss, shares = self.last["loss"], self.meter.utilization(median)
        return TrainResult(self.step, self.tokens, self.seconds, loss, median, **shares)

    def _train(self, line: ProgressLine) -> None:
        """Goes on until the budget is spent, or the guard wants to go back."""
        self.budget.agree(self.world)
        loader, end = self.loader, (self.tokens, self.budget.tokens)
        with closing(
            prefetched(loader, self.rows_per_step, *end, self.world)
            if isinstance(loader, PackedLoader)
            else loader.steps(*end)
        ) as steps:
            for step, waited in steps if not self.budget.is_spent else ():
                began, before = time.perf_counter(), self.budget.at
                self._train_step(step.share, waited, step.whole)
                self.loader_state = step.loader_state
                self.budget.step_to(self.tokens, self.world)
                if self.step % self.guard.every == 0 or self.budget.is_spent:
                    self._settle()
                self.seconds += time.perf_counter() - began + waited
                line.advance(self.budget.at - before, status_line(self.step, self.last))
                if self.guard.rollback_to is not None:
                    return
                self._periodic()
                self.keeper.tell_failure()
                if self.keeper.disk_full:
                    self.stop.number = self.stop.number or NO_ROOM
                if self.world.size == 1:
                    self.stop_agreed = self.stop.number or 0
                if self.budget.is_spent:
                    return
                if self.stop_agreed:
                    self._settle()
                    if self.guard.rollback_to is not None:  # back first, then a step, then the stop
                        return
                    if self.stop_agreed == NO_ROOM:
                        self.stop.number, self.stop_agreed = None, 0
                        self.keeper.end_for_want_of_room()
                        continue
                    raise Interrupted(self.stop_agreed, whole=self.keeper.save(must=True))

    def _train_step(self, rows: Batch, waited: float, whole: Whole | None = None) -> None:
        """Trains on a step of which this process has `rows`; `whole` (default: these) is all."""
        whole = whole or Whole(len(rows.ids_bt), rows.real_tokens, rows.sequences)
        number, seen = self.step + 1, self.tokens + whole.tokens
        factor = self.budget.rate(whole.tokens)
        self.optimizer.set_lr_factor(factor)
        if not self.guard.leaves_out(number):
            step = self.gradients.of(rows, self.stop.number or 0)
            self.stop_agreed = step.stop
            lr = self.options.learning_rate * factor
            sums = (step.loss, step.metrics, step.weight, whole.tokens, seen)
            summed = Summed(*sums, context_of(rows), waited, lr)
            good = self.guard.watch(
                number,
                step.loss,
                step.weight,
                step.norm,
                whole.sequences,
                summed,
                whole.rows == self.rows_per_step,
                step.scale,
            )
            if not self.guard.at_once:  # the device knows, and leaves a bad step out by itself
                self.parallel.step(good)
                self.balance.after_step(good)
            elif self._settle():
                self.parallel.step()
                self.balance.after_step()
            else:
                self.parallel.leave_out()
        self.step, self.tokens = number, seen

    def _settle(self) -> bool:
        """Takes the guard's verdicts: good steps count, bad ones are logged. The last verdict."""
        good = True
        for verdict in self.guard.settle():
            good, summed = verdict.good, verdict.payload
            if not (good or self.guard.at_once):
                self.optimizer.num_steps -= 1  # it had no effect
            if good:
                self.meter.add(summed)
                self.last |= {"lr": summed.lr, "grad_norm": verdict.norm}
            elif self.guard.rollback_to is None:
                self.keeper.write(step=verdict.step, tokens=summed.seen, **verdict.trouble)
            else:
                self.trouble = verdict.trouble
        return good

    def _periodic(self) -> None:
        """Logging, held-out loss, samples and saving, each at its own interval."""
        if self.step % self.options.log_every == 0:
            self._log()
        began = time.perf_counter()
        crossed, finished = self.budget.crossed, self.budget.is_spent
        measures = self.heldout and self.budget.watches()
        samples = self.samples and crossed("sample_every") and not finished
        asks = self._asks(finished)
        if self.heldout and measures:
            if values := self.parallel.measure(self.heldout):
                at = {"step": self.step, "tokens": self.tokens, "share": self.budget.share}
                self.keeper.write(**at, **values)
                self.last |= values
            self.budget.watched(time.perf_counter() - began if values else 0.0, self.world)
        model = self.parallel.plain_model() if samples or asks else None
        if model is not None:
            model.eval()
            if self.samples and samples:
                with by_product("samples"), self.keeper.despite_full_disk():
                    self.samples.write(model, self.tokens, self.seconds)
            if self.tasks and asks:
                with by_product("tasks while training"):
                    scores = self.tasks.ask(model, self.budget.at, self.tokens)
                    self.keeper.write(step=self.step, **scores)
        for_good = crossed("keep_every")
        if (for_good or crossed("save_every")) and not finished:
            self._settle()
            if self.guard.rollback_to is None:
                self.keeper.save(permanent=for_good)
        self.model.train()
        self.meter.pause(time.perf_counter() - began)
        self.budget.pause()

    def _asks(self, finished: bool) -> bool:
        """Whether all processes stop for tasks now; the clock of one decides, at log lines."""
        if not self.tasks or not (finished or self.step % self.options.log_every == 0):
            return False
        return self.world.from_main(self.tasks.wants(self.budget.at, self.tokens, self.seconds))

    def _log(self) -> None:
        values = self.meter.read()
        self.speeds.append((values["tokens_per_second"], values["mfu"]))
        self.last |= values
        self.keeper.write(
            step=self.step,
            tokens=self.tokens,
            seconds=round(self.seconds, 2),
            lr=self.last.get("lr", 0.0),
            grad_norm=self.last.get("grad_norm", math.nan),
            **values,
            **self.balance.read(),
            **self.parallel.model.compilations(),
        )

    def repeat_step(self) -> None:
        """The data go back to where the last finished step left them."""
        self.loader.restore(self.loader_state)

    def restore(self, loaded: Loaded, rollback: bool = False) -> None:
        """Takes back a `content`; after a rollback the guard keeps its decisions."""
        state, tensors = loaded
        self.step, self.tokens = state["step"], state["tokens"]
        self.seconds = max(self.seconds, state["seconds"])
        self.budget.restore(state, rollback)
        self.last |= state["last"]
        try:
            self.loader.restore(state["loader"])
            self.loader_state = state["loader"]
        except MiaoError as error:  # of data that were changed on purpose
            warn(f"the data begin from their start: {error.what}")
        self.guard.restore(state["guard"], decisions=not rollback)
        self.gradients.restore(state["micro_batch"])
        tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        if self.gradients.scaler is not None:
            self.gradients.scaler.restore(tensors)
        self.meter.restore(state["weight"], tensors)
        self.balance.restore(tensors)
        if self.tasks and "tasks" in state:
            self.tasks.restore(state["tasks"])

    def content(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint holds beside weights and optimizer."""
        state = {
            "stage": self.stage,
            "step": self.step,
            "tokens": self.tokens,
            **self.budget.state(),
            "seconds": self.seconds,
            "loader": merged_states(self.world.gather_objects(self.loader_state)),
            "last": self.last,
            "guard": self.guard.state(),
            "micro_batch": self.gradients.state(),
            "weight": self.meter.weight,
        }
        if self.tasks:
            state["tasks"] = self.tasks.state()
        tensors = self.meter.state() | self.balance.state()
        if self.gradients.scaler is not None:
            tensors |= self.gradients.scaler.state()
        return state, tensors
