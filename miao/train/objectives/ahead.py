"""The seam of objectives that read a whole step before they train on it (KTO)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from miao.shards.loader import Batch
from miao.train.objectives.base import Objective


@runtime_checkable
class AheadObjective(Objective, Protocol):
    """An objective that needs numbers of the whole step before its first backward pass."""

    def divide(self, rows: Batch) -> tuple[Batch, Batch]:
        """A process's rows of a step: those to read ahead without a gradient, and those to train
        on; on the host."""
        ...

    def read_ahead(self, module: nn.Module, batches: list[Batch], rows: Batch) -> list[float]:
        """Numbers to add up over the processes.

        Args:
            batches: what is read ahead, in micro-batches on the device; without a gradient.
            rows: what this process trains on.
        """
        ...

    def begin_step(self, sums: list[float]) -> None:
        """Takes the numbers of all processes."""
        ...
