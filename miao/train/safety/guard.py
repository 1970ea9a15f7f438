"""Watches the loss and the gradient of every step: what is not finite is never applied, what jumps
far above its recent past is left out, and repeated trouble ends the run with advice.

On a CPU the numbers of a step are read before its update: a bad step changes nothing at all. On a
GPU reading would make the host wait, so the verdict stays on the device, where the update of a bad
step changes neither weights nor buffers, and the host reads the verdicts when it logs. The limits
of a spike move at those steps only, so that they do not depend on when a run was stopped.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from miao.console import warn
from miao.errors import MiaoError
from miao.recipe import StageOptions
from miao.train.distributed.world import World

MAX_TROUBLE, TROUBLE_WINDOW = 5, 64
"""So many bad steps within so many steps end the run."""
LEFT_OUT_BEFORE = 4
"""After a rollback, so many steps before the spike are left out with it: they led there."""
LOSS_SPREAD, NORM_SPREAD = 0.02, 0.1
"""The least spread of losses and gradient norms, as a share of their median."""
Payload = TypeVar("Payload")


@dataclass
class Watched(Generic[Payload]):
    """One step: what is judged, and what its owner wants to know again with the verdict."""

    step: int
    mean_loss: Tensor
    norm: Tensor
    good: Tensor
    scale: Tensor
    whole: bool
    sequences: list[list[tuple[str, int]]]
    payload: Payload


@dataclass
class Verdict(Generic[Payload]):
    """A step's numbers, read."""

    step: int
    loss: float
    norm: float
    good: bool
    payload: Payload
    trouble: dict[str, Any] = field(default_factory=dict)
    """Of a bad step: reason, numbers, and every document of the batch, for metrics.jsonl."""


class Guard(Generic[Payload]):
    """Judges the steps of one stage.

    Args:
        options: `spike_action`, `spike_threshold` and `spike_window`.
        at_once: read every step's verdict before its update; else every `log_every` steps.
        world: all processes judge alike, and each knows the documents of its own rows.
    """

    def __init__(
        self, stage: str, options: StageOptions, at_once: bool, world: World | None = None
    ):
        self.stage, self.options, self.at_once = stage, options, at_once
        self.world = world or World()
        self.every = 1 if at_once else options.log_every
        self.losses: deque[float] = deque(maxlen=options.spike_window)
        self.norms: deque[float] = deque(maxlen=options.spike_window)
        self.limits = (math.inf, math.inf)
        self.bad_steps: list[int] = []
        self.left_out: set[int] = set()
        self.rollback_to: int | None = None
        """Set by a spike: go back to a checkpoint of an earlier step than this."""
        self._watched: list[Watched[Payload]] = []

    def watch(
        self,
        step: int,
        loss: Tensor,
        weight: int,
        norm: Tensor,
        sequences: list[list[tuple[str, int]]],
        payload: Payload,
        whole: bool = True,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Whether the step's gradient may be applied: a bool [] on the device of `loss`.

        Args:
            loss: the step's summed loss, over `weight` tokens or pairs. norm: of its gradient.
            sequences: (source, document) per row of this process, to be named.
            whole: it has as many rows as the others; the gradient of fewer rows, at the end of the
                budget, is naturally longer and cannot be compared.
            scale: the loss scale of float16; above 1, a gradient that is not finite is no trouble:
                the step is left out, and the scale has been lowered.
        """
        mean, norm = loss / max(weight, 1), norm.to(loss.device)
        good = mean.isfinite() & norm.isfinite()
        if whole:
            good &= (mean <= self.limits[0]) & (norm <= self.limits[1])
        scale = torch.ones_like(mean) if scale is None else scale
        self._watched.append(Watched(step, mean, norm, good, scale, whole, sequences, payload))
        return good

    def settle(self) -> list[Verdict[Payload]]:
        """Reads the verdicts since the last call, and says what was bad. Waits for the device.

        Raises:
            MiaoError: too many bad steps within a short time.
        """
        if not self._watched:
            return []
        watched, self._watched = self._watched, []
        numbers = torch.stack(
            [torch.stack([w.mean_loss, w.norm, w.good.float(), w.scale]) for w in watched]
        )
        verdicts = []
        for step, (loss, norm, good, scale) in zip(watched, numbers.tolist(), strict=True):
            verdict = Verdict(step.step, loss, norm, bool(good), step.payload)
            if scale > 1 and math.isfinite(loss) and not math.isfinite(norm):
                verdict.trouble = {"event": "overflow", "loss_scale": scale}
            elif not verdict.good:
                verdict.trouble = self._trouble(verdict, step.sequences)
            if step.whole and math.isfinite(loss) and math.isfinite(norm):
                self.losses.append(loss)
                self.norms.append(norm)
            verdicts.append(verdict)
        if watched[-1].step % self.every == 0:
            self._move_limits()
        return verdicts

    def leaves_out(self, step: int) -> bool:
        """Whether a rollback decided that this step's batch is read but not trained on."""
        return step in self.left_out

    def went_back(self, step: int) -> None:
        """A checkpoint was loaded whose own state this guard was given before; or none was found
        (`step` is then where training stands). What led to the rollback is known already."""
        self.rollback_to = None
        self.left_out = {number for number in self.left_out if number > step}

    def state(self) -> dict[str, Any]:
        """JSON-like; a restored guard judges as this one would. Settle first."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "limits": [None if math.isinf(limit) else limit for limit in self.limits],
            "bad_steps": self.bad_steps,
            "left_out": sorted(self.left_out),
        }

    def restore(self, state: dict[str, Any], decisions: bool = True) -> None:
        """Takes back a state.

        Args:
            decisions: with the bad steps and those to leave out; a rollback keeps its own.
        """
        self._watched = []
        window = self.options.spike_window
        self.losses = deque(state["losses"], maxlen=window)
        self.norms = deque(state["norms"], maxlen=window)
        low, high = (math.inf if limit is None else limit for limit in state["limits"])
        self.limits = (low, high)
        if decisions:
            self.bad_steps = list(state["bad_steps"])
            self.left_out = set(state["left_out"])

    def _move_limits(self) -> None:
        if self.options.spike_action == "off":
            return
        k = self.options.spike_threshold
        if len(self.losses) >= self.options.spike_window // 2:
            self.limits = (
                spike_limit(self.losses, k, LOSS_SPREAD),
                spike_limit(self.norms, k, NORM_SPREAD),
            )

    def _trouble(
        self, verdict: Verdict[Payload], sequences: list[list[tuple[str, int]]]
    ) -> dict[str, Any]:
        step, finite = verdict.step, math.isfinite(verdict.loss) and math.isfinite(verdict.norm)
        if finite:
            high = "loss" if verdict.loss > self.limits[0] else "gradient norm"
            value, limit = (
                (verdict.loss, self.limits[0]) if high == "loss" else (verdict.norm, self.limits[1])
            )
            reason = f"the {high} jumped to {value:.4g} (limit {limit:.4g})"
        else:
            what = "loss" if not math.isfinite(verdict.loss) else "gradient"
            reason = f"the {what} is not finite"
        rollback = finite and self.options.spike_action == "rollback"
        told = self.world.gather_objects(sequences)
        documents = documents_of([row for rows in told for row in rows])
        warn(
            f"{self.stage} step {step}: {reason}; "
            f"{'going back and leaving it out' if rollback else 'the step is skipped'} "
            f"(documents: {_shortened(documents)})"
        )
        self.bad_steps = [s for s in self.bad_steps if s > step - TROUBLE_WINDOW]
        self.bad_steps.append(step)
        if len(self.bad_steps) >= MAX_TROUBLE:
            raise self._give_up(step, finite)
        if rollback:
            first = max(step - LEFT_OUT_BEFORE, 1)
            self.left_out |= set(range(first, step + 1))
            self.rollback_to = min(self.rollback_to or first, first)
        return {
            "event": "rollback" if rollback else "skipped",
            "reason": reason,
            "step_loss": _jsonable(verdict.loss),
            "step_grad_norm": _jsonable(verdict.norm),
            "documents": documents,
        }

    def _give_up(self, step: int, finite: bool) -> MiaoError:
        name = self.stage
        lower = f"lower --{name}.learning_rate and --{name}.muon_learning_rate"
        fix = f"{lower}, or use --{name}.precision fp32"
        if finite:
            fix = (
                f"{lower}; if the documents named above are odd, leave them out of the corpus; "
                f"if they are not, raise --{name}.spike_threshold (or --{name}.spike_action off) "
                "and go on from the last checkpoint"
            )
        kind = "jumped" if finite else "were not finite"
        return MiaoError(
            f"{len(self.bad_steps)} bad steps within {TROUBLE_WINDOW}: loss or gradient "
            f"{kind} again and again",
            where=f"{name}, step {step}",
            fix=fix,
        )


def spike_limit(values: Iterable[float], threshold: float, least_spread: float) -> float:
    """median + threshold · σ, where σ is 1.4826 · the median distance from the median (that of a
    normal distribution), and at least `least_spread` of the median."""
    numbers = sorted(values)
    middle = median(numbers)
    distance = median(abs(number - middle) for number in numbers)
    return middle + threshold * max(1.4826 * distance, least_spread * abs(middle))


def documents_of(sequences: list[list[tuple[str, int]]]) -> dict[str, list[int]]:
    """source -> the indices of its documents in a batch."""
    found: dict[str, set[int]] = defaultdict(set)
    for row in sequences:
        for source, document in row:
            found[source].add(document)
    return {source: sorted(found[source]) for source in sorted(found)}


def _shortened(documents: dict[str, list[int]], most: int = 8) -> str:
    parts = []
    for source, numbers in documents.items():
        more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
        parts.append(f"{source} {', '.join(str(n) for n in numbers[:most])}{more}")
    return "; ".join(parts)


def _jsonable(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)
