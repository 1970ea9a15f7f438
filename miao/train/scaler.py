"""Loss scaling for float16, whose smallest numbers would swallow small gradients."""

from __future__ import annotations

import torch
from torch import Tensor

GROWTH, BACKOFF, GROWTH_INTERVAL, FIRST_SCALE = 2.0, 0.5, 2000, 2.0**16


class LossScaler:
    """A factor on the loss, doubled after 2,000 good steps and halved after a gradient that
    overflows; the rule of `torch.amp.GradScaler`. All of it stays on the device."""

    def __init__(self, device: torch.device):
        self.scale = torch.full((), FIRST_SCALE, device=device)
        self.good_steps = torch.zeros((), device=device)

    def update(self, norm: Tensor) -> None:
        """Moves the scale after a step.

        Args:
            norm: of the step's gradient; not finite: it has overflowed.
        """
        grown = self.good_steps + 1 >= GROWTH_INTERVAL
        finite = norm.isfinite()
        after_good = torch.where(grown, self.scale * GROWTH, self.scale)
        self.scale = torch.where(finite, after_good, self.scale * BACKOFF)
        self.good_steps = torch.where(finite & ~grown, self.good_steps + 1, 0.0)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"scaler.scale": self.scale, "scaler.good_steps": self.good_steps}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes its state out of a checkpoint's tensors; one made without scaling has none."""
        for name in self.state():
            if name in tensors:
                value = tensors.pop(name).to(self.scale.device)
                setattr(self, name.removeprefix("scaler."), value)
