"""Keeps the experts of mixture blocks equally busy, and says how busy they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from miao.model.decoder import Decoder


class ExpertBalance:
    """Counts the tokens of every expert, and after each optimizer step moves the routers' biases.

    Args:
        rate: step of the bias in loss-free balancing (arXiv:2408.15664); sigmoid routing only.
    """

    def __init__(self, model: Decoder, rate: float):
        self.mixtures, self.rate = model.mixtures(), rate
        self.loads: dict[int, Tensor] = {}

    def after_step(self, good: Tensor | None = None) -> None:
        """Takes the step's counts, or none where `good` (bool []) does not hold; no synchronisation
        with the device."""
        for number, mixture in self.mixtures.items():
            load_e = mixture.take_load()
            if good is not None:
                load_e = load_e * good
            mixture.nudge_bias(load_e, self.rate)
            self.loads[number] = self.loads[number] + load_e if number in self.loads else load_e

    def state(self) -> dict[str, Tensor]:
        """The counts, for a checkpoint."""
        return {f"load.{number}": load for number, load in self.loads.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what `state` gave, from among others."""
        loads = {name: load for name, load in tensors.items() if name.startswith("load.")}
        self.loads = {int(name.removeprefix("load.")): load for name, load in loads.items()}

    def read(self) -> dict[str, Any]:
        """The balance since the last reading, and starts over; empty for a dense model.

        `expert_load`: per mixture block the share of each expert, as a multiple of an equal share.
        `expert_entropy`: mean over the blocks, 1 when all experts are equally busy, 0 when one does
        everything. `dropped_tokens`: always 0, no expert has a capacity.
        """
        if not self.loads:
            return {}
        shares = torch.stack([load / load.sum().clamp(min=1) for load in self.loads.values()])
        self.loads = {}
        num_experts = shares.shape[1]
        entropy = -(shares * shares.clamp(min=1e-12).log()).sum(dim=1).mean() / math.log(
            max(num_experts, 2)
        )
        return {
            "expert_load": [[round(x * num_experts, 3) for x in row] for row in shares.tolist()],
            "expert_entropy": round(float(entropy), 4),
            "dropped_tokens": 0,
        }
