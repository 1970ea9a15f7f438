"""Gradients in a few flat tensors, each summed over the processes as soon as it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

BUCKET = 2**23
"""Numbers that are summed over the processes in one exchange (32 MiB in float32)."""


class Buckets:
    """Keeps `.grad` of each parameter as a view of its bucket, the last parameters first: in that
    order gradients come. Every process starts the exchanges in this order, so one that has no rows,
    or ran out of memory, leaves nobody waiting: `finish` starts what it has not."""

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.flats: list[Tensor] = []
        self.views: list[tuple[nn.Parameter, Tensor]] = []
        self.counts: list[int] = []
        """Parameters of each bucket."""
        self._place: dict[nn.Parameter, int] = {}
        for bucket in _buckets(list(parameters)[::-1]):
            sizes = [parameter.numel() for parameter in bucket]
            dtype = bucket[0].grad_dtype
            flat = torch.zeros(sum(sizes), dtype=dtype, device=bucket[0].device)
            for parameter, view in zip(bucket, flat.split(sizes), strict=True):
                self.views.append((parameter, view.view_as(parameter)))
                self._place[parameter] = len(self.flats)
                parameter.register_post_accumulate_grad_hook(self._arrived)
            self.flats.append(flat)
            self.counts.append(len(bucket))
        self.begin()

    def begin(self) -> None:
        """A new gradient: zero, and nothing is exchanged before `last`."""
        for parameter, view in self.views:
            parameter.grad = view
        torch._foreach_zero_(self.flats)
        self._missing: list[int] | None = None
        self._begun: list[Any] = []

    def last(self) -> None:
        """The backward pass that comes is the last of this gradient."""
        self._missing = list(self.counts)

    def finish(self) -> None:
        """Waits until every gradient is the sum over the processes."""
        self._start(len(self.flats))
        for work in self._begun:
            work.wait()

    def _arrived(self, parameter: Tensor) -> None:
        if self._missing is None:
            return
        assert isinstance(parameter, nn.Parameter)
        self._missing[self._place[parameter]] -= 1
        self._start(next((n for n, count in enumerate(self._missing) if count), len(self.flats)))

    def _start(self, stop: int) -> None:
        for flat in self.flats[len(self._begun) : stop]:
            self._begun.append(dist.all_reduce(flat, async_op=True))


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one type, together about BUCKET numbers."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (
            size + parameter.numel() > BUCKET or parameter.grad_dtype != bucket[0].grad_dtype
        ):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket
