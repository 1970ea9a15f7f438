"""The seam between the loop and a stage."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from miao.shards.loader import Batch


class Objective(Protocol):
    """batch -> (loss sum, metric sums); the loop divides both by the whole step's weight.

    Because a micro-batch returns a sum, and the weight of a step is known before its first
    backward pass, accumulating k micro-batches of any filling equals one batch.
    """

    def weight(self, batch: Batch) -> int:
        """How much a micro-batch counts; computed on the host, before the forward pass."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss of a micro-batch (with gradient), and detached sums of its metrics."""
        ...


def token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Summed next-token cross-entropy in nats."""
    return _read(model, batch, "loss", batch.labels_bt)


def hidden_states(model: nn.Module, batch: Batch) -> Tensor:
    """What stands before the head [b, t, d]."""
    return _read(model, batch, "hidden", None)


def token_logprobs(model: nn.Module, batch: Batch) -> Tensor:
    """log p(label) of every slot [b, t] in nats, 0 where there is none."""
    return _read(model, batch, "logprobs", batch.labels_bt)


def _read(model: nn.Module, batch: Batch, output: str, labels_bt: Tensor | None) -> Tensor:
    return model(
        batch.ids_bt,
        batch.positions_bt,
        batch.segments_bt,
        labels_bt=labels_bt,
        starts_n=batch.starts_n,
        output=output,
    )
