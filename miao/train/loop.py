"""The only training loop. Stages differ in their data and their objective, never in the loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miao.console import ProgressLine, count, say, warn
from miao.errors import Interrupted, MiaoError
from miao.model.counts import flops_per_token
from miao.model.decoder import Decoder
from miao.recipe import StageOptions, of_budget, parse_quantity
from miao.shards.loader import Batch, PackedLoader
from miao.train.balance import ExpertBalance
from miao.train.checkpoint import CheckpointStore, Loaded
from miao.train.gradients import StepGradients
from miao.train.guard import Guard
from miao.train.metrics import Meter, MetricsLog
from miao.train.objectives import Objective
from miao.train.optim import MuonAdamW, learning_rate_factor
from miao.train.prefetch import prefetched
from miao.train.signals import StopRequest


@dataclass
class Summed:
    """What one step adds to the log line, once the guard has found it good."""

    loss: Tensor
    metrics: dict[str, Tensor]
    weight: int
    tokens: int
    """Real tokens of the step."""
    seen: int
    """Real tokens seen after it."""
    waited: float
    lr: float


@dataclass
class TrainResult:
    """What a stage's training came to."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    tokens_per_second: float
    mfu: float


class Trainer:
    """Trains `model` on `loader` until `budget` real tokens are seen.

    Args:
        options: the stage's section of the recipe.
        checkpoints: directory of this stage's checkpoints; the newest good one is resumed.
        peak_flops: what MFU is held against.
        heldout: called now and then with the model, returns numbers to log; or None.
        sample: called now and then with the tokens seen so far; or None.
        writes: whether this process writes metrics and checkpoints; of several that train one
            model, one does.
    """

    def __init__(
        self,
        stage: str,
        options: StageOptions,
        model: Decoder,
        loader: PackedLoader,
        objective: Objective,
        budget: float,
        checkpoints: Path,
        metrics: MetricsLog,
        peak_flops: float,
        heldout: Callable[[Decoder], dict[str, float]] | None = None,
        sample: Callable[[Decoder, int], object] | None = None,
        writes: bool = True,
    ):
        self.stage, self.options, self.model, self.loader = stage, options, model, loader
        self.budget, self.metrics = budget, metrics
        self.heldout, self.sample, self.writes = heldout, sample, writes
        self.device = model.device
        self.rows_per_step = (
            int(parse_quantity(options.batch_tokens, "batch_tokens")) // options.seq_len
        )
        self.optimizer = MuonAdamW(
            list(model.named_parameters()),
            lr=options.learning_rate,
            muon_lr=options.muon_learning_rate,
            weight_decay=options.weight_decay,
            betas=(options.adam_betas[0], options.adam_betas[1]),
            momentum=options.muon_momentum,
            muon_dtype=torch.bfloat16 if self.device.type != "cpu" else model.compute_dtype,
        )
        self.store = CheckpointStore(
            checkpoints, model, self.optimizer, options.keep_last, self.writes
        )
        self.guard: Guard[Summed] = Guard(stage, options, at_once=self.device.type == "cpu")
        self.meter = Meter(flops_per_token(model.config, options.seq_len), peak_flops)
        self.balance = ExpertBalance(model, options.router_bias_rate)
        self.gradients = StepGradients(stage, options, model, objective, self.rows_per_step)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.last: dict[str, float] = {"loss": math.nan}
        self.speeds: list[tuple[float, float]] = []
        self.loader_state = loader.state()
        self.stop = StopRequest()
        self.trouble: dict[str, Any] = {}
        self.disk_warned = False

    def run(self) -> TrainResult:
        """Trains to the end of the budget.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, with a checkpoint written.
            MiaoError: loss or gradient are bad again and again; the last checkpoint cannot be
                written.
        """
        self._resume()
        self.model.train()
        try:
            with ProgressLine(self.stage, self.budget, self.tokens) as line, self.stop:
                self._train(line)
                while self.guard.rollback_to is not None:
                    line.advance(self._roll_back(self.guard.rollback_to), "going back")
                    self._train(line)
            if self.meter.loss is not None:  # the last, incomplete interval
                self._log()
            if self.store.newest_step != self.step:
                self._save(must=True)
        except Exception:
            self._tell_failure(self.store.failure(wait=True))
            raise
        speeds = [speed for speed, _ in self.speeds] or [math.nan]
        median = sorted(speeds)[len(speeds) // 2]
        mfu = median * self.meter.flops_per_token / self.meter.peak_flops
        return TrainResult(self.step, self.tokens, self.seconds, self.last["loss"], median, mfu)

    def _train(self, line: ProgressLine) -> None:
        """Goes on until the budget is spent, or until the guard wants to go back."""
        steps = prefetched(self.loader, self.rows_per_step, self.tokens, self.budget)
        with closing(steps):
            for step, waited in steps:
                began, before = time.perf_counter(), self.tokens
                self._train_step(step.rows, waited)
                self.loader_state = step.loader_state
                if self.step % self.guard.every == 0 or self.tokens >= self.budget:
                    self._settle()
                self.seconds += time.perf_counter() - began + waited
                line.advance(self.tokens - before, self._line())
                if self.guard.rollback_to is not None:
                    return
                self._periodic(before)
                self._tell_failure(self.store.failure())
                if self.stop.number is not None and self.tokens < self.budget:
                    self._save(must=True)
                    raise Interrupted(self.stop.number)

    def _train_step(self, rows: Batch, waited: float) -> None:
        number, seen = self.step + 1, self.tokens + rows.real_tokens
        factor = self._lr_factor(self.tokens + rows.real_tokens / 2)
        self.optimizer.set_lr_factor(factor)
        if not self.guard.leaves_out(number):
            loss, sums, weight, norm = self.gradients.of(rows)
            lr = self.options.learning_rate * factor
            summed = Summed(loss, sums, weight, rows.real_tokens, seen, waited, lr)
            whole = len(rows.ids_bt) == self.rows_per_step
            good = self.guard.watch(number, loss, weight, norm, rows, summed, whole)
            if self.guard.at_once:
                apply = self._settle()
            else:
                self.gradients.zero_where(~good)
                apply = True
            if apply:
                self.optimizer.step()
                self.balance.after_step()
        self.step, self.tokens = number, seen

    def _settle(self) -> bool:
        """Takes the guard's verdicts: good steps count, bad ones are logged. The last verdict."""
        good = True
        for verdict in self.guard.settle():
            good, summed = verdict.good, verdict.payload
            if good:
                self.meter.add(
                    summed.loss, summed.metrics, summed.weight, summed.tokens, summed.waited
                )
                self.last |= {"lr": summed.lr, "grad_norm": verdict.norm}
            elif self.guard.rollback_to is None:
                self._write(step=verdict.step, tokens=summed.seen, **verdict.trouble)
            else:
                self.trouble = verdict.trouble
        return good

    def _periodic(self, before: int) -> None:
        """Logging, held-out loss, samples and saving, each at its own interval."""
        if self.step % self.options.log_every == 0:
            self._log()
        began = time.perf_counter()
        finished = self.tokens >= self.budget
        if self.heldout and (self._crossed(before, "eval_every") or finished):
            self.model.eval()
            values = self.heldout(self.model)
            self._write(step=self.step, tokens=self.tokens, **values)
            self.last |= values
        if self.sample and self._crossed(before, "sample_every") and not finished:
            self.model.eval()
            with self._despite_full_disk():
                self.sample(self.model, self.tokens)
        for_good = self._crossed(before, "keep_every")
        if (for_good or self._crossed(before, "save_every")) and not finished:
            self._save(permanent=for_good)
        self.model.train()
        self.meter.pause(time.perf_counter() - began)

    def _crossed(self, before: int, option: str) -> bool:
        every = of_budget(getattr(self.options, option), self.budget, f"{self.stage}.{option}")
        return every > 0 and before // every != self.tokens // every

    def _log(self) -> None:
        values = self.meter.read()
        self.speeds.append((values["tokens_per_second"], values["mfu"]))
        self.last |= values
        self._write(
            step=self.step,
            tokens=self.tokens,
            seconds=round(self.seconds, 2),
            lr=self.last.get("lr", 0.0),
            grad_norm=self.last.get("grad_norm", math.nan),
            **values,
            **self.balance.read(),
        )

    def _line(self) -> str:
        last = self.last
        if "tokens_per_second" not in last:
            return "warming up" if self.step > 1 else "first step"
        text = f"loss {last['loss']:.3f}"
        if "accuracy" in last:
            text += f" accuracy {last['accuracy']:.0%} margin {last['margin']:.2f}"
        if "heldout_bits_per_byte" in last:
            text += f" held-out {last['heldout_bits_per_byte']:.3f} bits/byte"
        text += f" | {count(last['tokens_per_second'])} tok/s MFU {last['mfu']:.0%}"
        return text + (f" data wait {last['data_wait']:.0%}" if last["data_wait"] >= 0.005 else "")

    def _lr_factor(self, tokens: float) -> float:
        options = self.options
        return learning_rate_factor(
            options.schedule,
            tokens,
            self.budget,
            of_budget(options.warmup, self.budget, f"{self.stage}.warmup"),
            of_budget(options.decay, self.budget, f"{self.stage}.decay"),
            options.final_learning_rate,
        )

    def _resume(self) -> None:
        loaded = self.store.resume(warn)
        if loaded is None:
            self.metrics.forget_after(-1)
            if self.options.spike_action == "rollback":
                self._save()
            return
        self._restore(loaded)
        self.metrics.forget_after(self.step)
        say(f"  resumed at step {self.step} ({count(self.tokens)} of {count(self.budget)} tokens)")

    def _roll_back(self, before: int) -> int:
        """Goes back to the newest checkpoint of a step below `before`; returns the tokens gained,
        a negative number. Whichever it is, training comes to the same weights from there."""
        at, tokens = self.step, self.tokens
        last_bad = self.guard.bad_steps[-1]
        loaded = self.store.resume(warn, before)
        event = self.trouble | {"from_step": at, "left_out": [before, last_bad]}
        if loaded is None:
            warn(f"{self.stage}: there is no checkpoint before step {before} to go back to")
            self.loader.restore(self.loader_state)
            event["event"] = "skipped"
        else:
            self._restore(loaded, rollback=True)
            self.store.forget_after(self.step)
            self.metrics.forget_after(self.step)
            say(f"  back at step {self.step}; steps {before} to {last_bad} will be left out")
        self.guard.went_back(self.step)
        self._write(step=self.step + 1, tokens=self.tokens, **event)
        return self.tokens - tokens

    def _restore(self, loaded: Loaded, rollback: bool = False) -> None:
        state, tensors = loaded
        self.step, self.tokens = state["step"], state["tokens"]
        self.seconds = max(self.seconds, state["seconds"])
        self.last |= state["last"]
        self.loader_state = state["loader"]
        self.loader.restore(self.loader_state)
        self.guard.restore(state["guard"], decisions=not rollback)
        self.gradients.restore(state["micro_batch"])
        tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        self.meter.weight, self.meter.loss = state["weight"], tensors.pop("sum.loss", None)
        loads = {name: t for name, t in tensors.items() if name.startswith("load.")}
        self.balance.loads = {int(name.removeprefix("load.")): t for name, t in loads.items()}
        self.meter.metrics = {
            name.removeprefix("sum.metric."): t for name, t in tensors.items() if name not in loads
        }

    def _save(self, must: bool = False, permanent: bool = False) -> None:
        """Begins a checkpoint in the background.

        Args:
            must: wait until it is on disk, and raise what went wrong.
        """
        self._settle()
        if self.guard.rollback_to is not None:
            return
        self._tell_failure(self.store.failure(wait=True))
        meter = self.meter
        state = {
            "stage": self.stage,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "loader": self.loader_state,
            "last": self.last,
            "guard": self.guard.state(),
            "micro_batch": self.gradients.state(),
            "weight": meter.weight,
        }
        tensors = {f"sum.metric.{name}": value for name, value in meter.metrics.items()}
        tensors |= {f"load.{number}": load for number, load in self.balance.loads.items()}
        if meter.loss is not None:
            tensors["sum.loss"] = meter.loss
        self.store.save(state, tensors, permanent)
        if must and (error := self.store.failure(wait=True)):
            raise error

    def _tell_failure(self, error: Exception | None) -> None:
        if error is not None:
            warn(f"a checkpoint could not be written; training goes on, older ones stay: {error}")

    def _write(self, **values: Any) -> None:
        if self.writes:
            with self._despite_full_disk():
                self.metrics.write(**values)

    @contextmanager
    def _despite_full_disk(self) -> Iterator[None]:
        """A log line that cannot be written is no reason to stop; said once."""
        try:
            yield
        except MiaoError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            if not self.disk_warned:
                warn(f"a log line is lost, training goes on: {error}")
            self.disk_warned = True
