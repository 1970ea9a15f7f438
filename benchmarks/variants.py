"""Changes of the optimizer that are tried before they are believed: each by its name, put into the
package of this process only. What has proved itself belongs into the package instead."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import ROOT
from torch import Tensor

sys.path.insert(0, str(ROOT))

from miao.train import budget, muon, optim

POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
"""Coefficients of each step, best for singular values from 1e-3 to 1 (arXiv:2505.16932)."""


def polar_express() -> None:
    """Newton-Schulz with the best polynomial of each step instead of one for all."""

    def orthogonal(x: Tensor, dtype: torch.dtype = torch.bfloat16, steps: int = 5) -> Tensor:
        x = x.to(dtype)
        tall = x.shape[-2] > x.shape[-1]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
        for a, b, c in POLAR_EXPRESS[:steps]:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.mT if tall else x

    muon.newton_schulz = orthogonal


def normuon() -> None:
    """A second moment for each row of the orthogonal update, its norm kept (arXiv:2510.05491)."""
    plain = optim.MuonAdamW._apply

    def apply(self: Any, stack: Any, finish: Callable[[], list[Tensor]], group: Any) -> None:
        def finished() -> list[Tensor]:
            updates = finish()
            normed = []
            for parameter, update in zip(stack, updates, strict=True):
                state = self.state[parameter]
                rows = update.square().mean(-1, keepdim=True)
                moment = state.setdefault("row_moment", torch.zeros_like(rows))
                moment.lerp_(rows, 0.05)
                fair = moment / (1 - 0.95**self.num_steps)
                value = update / (fair.sqrt() + 1e-8)
                normed.append(value * (update.norm() / value.norm().clamp(min=1e-8)))
            return normed

        plain(self, stack, finished, group)

    optim.MuonAdamW._apply = apply  # type: ignore[method-assign]


def sqrt_decay() -> None:
    """The decay as 1 - sqrt (arXiv:2405.18392) instead of a straight line."""
    plain = budget.learning_rate_factor

    def factor(
        shape: Any, done: float, length: float, warmup: float, decay: float, final: float
    ) -> float:
        if shape != "wsd" or done < length - decay:
            return plain(shape, done, length, warmup, decay, final)
        return 1 - math.sqrt((done - length + decay) / decay)

    budget.learning_rate_factor = factor


def cautious_decay() -> None:
    """Weight decay only where the update goes the same way (arXiv:2510.12402)."""
    plain = optim.MuonAdamW._apply

    def apply(self: Any, stack: Any, finish: Callable[[], list[Tensor]], group: Any) -> None:
        decay, group["weight_decay"] = group["weight_decay"], 0.0
        before = [parameter.clone() for parameter in stack]
        plain(self, stack, finish, group)
        for parameter, old in zip(stack, before, strict=True):
            same = (old * (old - parameter)) > 0
            parameter.sub_(old * same, alpha=group["lr"] * decay)
        group["weight_decay"] = decay

    optim.MuonAdamW._apply = apply  # type: ignore[method-assign]


PLACES = ((muon, "newton_schulz"), (optim.MuonAdamW, "_apply"), (budget, "learning_rate_factor"))


@contextmanager
def applied(names: str) -> Iterator[None]:
    """These variants, `+` between them, for as long as it lasts."""
    before = [(owner, name, getattr(owner, name)) for owner, name in PLACES]
    try:
        for name in filter(None, names.split("+")):
            VARIANTS[name]()
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


VARIANTS = {f.__name__: f for f in (polar_express, normuon, sqrt_decay, cautious_decay)}
