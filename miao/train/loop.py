"""The only training loop. Stages differ in their data and their objective, never in the loop."""

from __future__ import annotations

import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from miao.console import ProgressLine, count, say, warn
from miao.errors import Interrupted, MiaoError
from miao.model.counts import flops_per_token
from miao.model.decoder import Decoder
from miao.recipe import StageOptions, of_budget, parse_quantity
from miao.shards.loader import Batch, PackedLoader
from miao.train.balance import ExpertBalance
from miao.train.checkpoint import resume, save_checkpoint
from miao.train.metrics import Meter, MetricsLog
from miao.train.objectives import Objective
from miao.train.optim import MuonAdamW, learning_rate_factor

MAX_BAD_STEPS = 5
CPU_MICRO_TOKENS, GPU_MICRO_TOKENS = 8192, 65536


@dataclass
class Step:
    """The rows of one optimizer step, and where the loader stands after them."""

    rows: Batch
    loader_state: dict[str, Any]


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
    ):
        self.stage, self.options, self.model, self.loader = stage, options, model, loader
        self.objective, self.budget = objective, budget
        self.checkpoints, self.metrics = checkpoints, metrics
        self.heldout, self.sample = heldout, sample
        self.device = model.device
        self.rows_per_step = (
            int(parse_quantity(options.batch_tokens, "batch_tokens")) // options.seq_len
        )
        self.micro_batch = self._micro_batch()
        self.optimizer = MuonAdamW(
            list(model.named_parameters()),
            lr=options.learning_rate,
            muon_lr=options.muon_learning_rate,
            weight_decay=options.weight_decay,
            betas=(options.adam_betas[0], options.adam_betas[1]),
            momentum=options.muon_momentum,
            muon_dtype=torch.bfloat16 if self.device.type != "cpu" else model.compute_dtype,
        )
        self.meter = Meter(flops_per_token(model.config, options.seq_len), peak_flops)
        self.balance = ExpertBalance(model, options.router_bias_rate)
        self.step, self.tokens, self.seconds, self.bad_steps = 0, 0, 0.0, 0
        self.last: dict[str, float] = {"loss": math.nan}
        self.speeds: list[tuple[float, float]] = []
        self.loader_state = loader.state()
        self.signal: int | None = None

    def run(self) -> TrainResult:
        """Trains to the end of the budget.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, with a checkpoint written.
            MiaoError: the loss is not finite again and again.
        """
        self._resume()
        self.model.train()
        with ProgressLine(self.stage, self.budget, self.tokens) as line, self._signals():
            for step, waited in self._prefetched():
                began = time.perf_counter()
                before = self.tokens
                self._train_step(step.rows, waited)
                self.loader_state = step.loader_state
                self.seconds += time.perf_counter() - began + waited
                line.advance(self.tokens - before, self._line())
                self._periodic(before)
                if self.signal is not None and self.tokens < self.budget:
                    self._save()
                    raise Interrupted(self.signal)
        if self.step % self.options.log_every:
            self._log()
        self._save()
        speeds = [speed for speed, _ in self.speeds] or [math.nan]
        median = sorted(speeds)[len(speeds) // 2]
        mfu = median * self.meter.flops_per_token / self.meter.peak_flops
        return TrainResult(self.step, self.tokens, self.seconds, self.last["loss"], median, mfu)

    def _train_step(self, rows: Batch, waited: float) -> None:
        factor = self._lr_factor(self.tokens + rows.real_tokens / 2)
        self.optimizer.set_lr_factor(factor)
        while True:
            try:
                loss, sums, weight, norm = self._accumulate(rows)
                break
            except torch.OutOfMemoryError:
                self._halve_micro_batch()
        self.step += 1
        self.tokens += rows.real_tokens
        if not math.isfinite(norm):
            self._skip(rows)
            return
        self.bad_steps = 0
        self.optimizer.step()
        self.balance.after_step()
        self.meter.add(loss, sums, weight, rows.real_tokens, waited)
        self.last |= {"lr": self.options.learning_rate * factor, "grad_norm": norm}

    def _accumulate(self, rows: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], int, float]:
        """Gradients of the step's mean loss, micro-batch by micro-batch."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = list(rows.split(self.micro_batch))
        if self.model.is_compiled:
            parts = [part.padded(self.micro_batch) for part in parts]
        weights = [self.objective.weight(part) for part in parts]
        total = max(sum(weights), 1)
        loss = torch.zeros((), device=self.device)
        sums: dict[str, torch.Tensor] = {}
        for part, weight in zip(parts, weights, strict=True):
            if weight == 0:
                continue
            part_loss, part_sums = self.objective.loss(self.model, part.to(self.device))
            (part_loss / total).backward()
            loss += part_loss.detach()
            for name, value in part_sums.items():
                sums[name] = sums[name] + value if name in sums else value
        limit = self.options.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True)
        return loss, sums, sum(weights), float(norm)

    def _periodic(self, before: int) -> None:
        """Logging, held-out loss, samples and saving, each at its own interval."""
        if self.step % self.options.log_every == 0:
            self._log()
        began = time.perf_counter()
        finished = self.tokens >= self.budget
        if self.heldout and (self._crossed(before, "eval_every") or finished):
            self.model.eval()
            values = self.heldout(self.model)
            self.metrics.write(step=self.step, tokens=self.tokens, **values)
            self.last |= values
        if self.sample and self._crossed(before, "sample_every") and not finished:
            self.model.eval()
            self.sample(self.model, self.tokens)
        if self._crossed(before, "save_every") and not finished:
            self._save()
        self.model.train()
        self.meter.pause(time.perf_counter() - began)

    def _crossed(self, before: int, option: str) -> bool:
        every = of_budget(getattr(self.options, option), self.budget, f"{self.stage}.{option}")
        return every > 0 and before // every != self.tokens // every

    def _log(self) -> None:
        values = self.meter.read()
        self.speeds.append((values["tokens_per_second"], values["mfu"]))
        self.last |= values
        self.metrics.write(
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

    def _prefetched(self) -> Iterator[tuple[Step, float]]:
        """Steps until the budget is spent, read one ahead in a thread; with the seconds waited."""
        ready: queue.Queue[Step | BaseException] = queue.Queue(maxsize=2)
        stop = threading.Event()

        def read() -> None:
            seen = self.tokens
            try:
                while seen < self.budget and not stop.is_set():
                    wanted = math.ceil((self.budget - seen) / self.loader.seq_len)
                    rows = self.loader.next_rows(min(self.rows_per_step, wanted))
                    batch = self.loader.batch(rows)
                    seen += batch.real_tokens
                    _put(ready, Step(batch, self.loader.state()), stop)
            except BaseException as error:
                _put(ready, error, stop)

        thread = threading.Thread(target=read, name="loader", daemon=True)
        thread.start()
        try:
            while self.tokens < self.budget:
                began = time.perf_counter()
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item, time.perf_counter() - began
        finally:
            stop.set()
            thread.join()

    def _skip(self, rows: Batch) -> None:
        self.bad_steps += 1
        sources = sorted({name for row in rows.sequences for name, _ in row})
        first = rows.sequences[0][0]
        warn(
            f"{self.stage} step {self.step}: the gradient is not finite; the step is skipped "
            f"(sources {', '.join(sources)}; first sequence {first[0]}#{first[1]})"
        )
        if self.bad_steps >= MAX_BAD_STEPS:
            raise MiaoError(
                f"{MAX_BAD_STEPS} steps in a row had a gradient that is not finite",
                where=f"{self.stage}, step {self.step}",
                fix=f"lower --{self.stage}.learning_rate and --{self.stage}.muon_learning_rate, "
                f"or use --{self.stage}.precision fp32",
            )

    def _micro_batch(self) -> int:
        if self.options.micro_batch != "auto":
            return min(int(self.options.micro_batch), self.rows_per_step)
        tokens = CPU_MICRO_TOKENS if self.device.type == "cpu" else GPU_MICRO_TOKENS
        return max(1, min(self.rows_per_step, tokens // self.options.seq_len))

    def _halve_micro_batch(self) -> None:
        if self.micro_batch == 1:
            raise MiaoError(
                "out of memory with a single row",
                where=self.stage,
                fix=f"shorten --{self.stage}.seq_len or choose a smaller model",
            )
        self.micro_batch //= 2
        torch.cuda.empty_cache()
        warn(
            f"out of memory: going on with micro_batch {self.micro_batch}; the batch stays the same"
        )

    def _resume(self) -> None:
        state = resume(self.checkpoints, self.model, self.optimizer, warn)
        if state is None:
            self.metrics.forget_after(-1)
            return
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.last |= state["last"]
        self.loader.restore(state["loader"])
        self.loader_state = state["loader"]
        self.metrics.forget_after(self.step)
        say(f"  resumed at step {self.step} ({count(self.tokens)} of {count(self.budget)} tokens)")

    def _save(self) -> None:
        state = {
            "stage": self.stage,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "loader": self.loader_state,
            "last": self.last,
        }
        save_checkpoint(self.checkpoints, self.model, self.optimizer, state, self.options.keep_last)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the loop after the current step; a second Ctrl-C at once."""

        def note(number: int, frame: Any) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = number
            warn("stopping after this step; a checkpoint is written (Ctrl-C again: stop at once)")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _put(items: queue.Queue[Any], item: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            items.put(item, timeout=0.1)
            return
        except queue.Full:
            continue
