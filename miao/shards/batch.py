"""Packed rows of tokens, as a model takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from miao.device import send
from miao.ops.head_chunks import IGNORE
from miao.ops.varlen import document_places, document_starts
from miao.shards.packing import best_fit_rows


@dataclass
class Batch:
    """Packed rows. Slots without a prediction to learn have the label -100."""

    ids_bt: Tensor
    labels_bt: Tensor
    positions_bt: Tensor
    segments_bt: Tensor
    """Number of the sequence within its row, from 1; 0 is padding."""
    sequences: list[list[tuple[str, int]]]
    """Per row and segment: (source, index of the sequence in its dataset)."""
    reference_bt: Tensor | None = None
    """Reference log-probability of each slot's label, where the source has that column."""
    starts_n: Tensor | None = None
    """`document_starts` of the segments, for the kernel that wants them."""

    @property
    def real_tokens(self) -> int:
        """Slots that are not padding."""
        return int((self.segments_bt > 0).sum())

    @property
    def trained_tokens(self) -> int:
        """Slots with a label."""
        return int((self.labels_bt != IGNORE).sum())

    def split(self, rows: int) -> Iterator[Batch]:
        """Micro-batches of at most `rows` rows."""
        for start in range(0, len(self.ids_bt), rows):
            yield self._part(slice(start, start + rows))

    def padded(self, rows: int) -> Batch:
        """The same batch with empty rows up to `rows`: one shape for a compiled model."""
        missing = rows - len(self.ids_bt)
        if missing <= 0:
            return self
        fills = {"labels_bt": IGNORE}
        columns = {
            name: F.pad(value, (0, 0, 0, missing), value=fills.get(name, 0))
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **columns, sequences=self.sequences + [[]] * missing)

    def empty(self, rows: int) -> Batch:
        """So many rows of padding, with the same columns."""
        return self._part(slice(0)).padded(rows)

    def _part(self, rows: slice) -> Batch:
        columns: dict[str, Any] = {
            name: None if value is None else value[rows] for name, value in vars(self).items()
        }
        return replace(self, **columns)

    def only(self, segments: list[tuple[int, int]]) -> Batch:
        """These (row, segment) packed anew, into fewer rows of the same length; on the host."""
        width = self.ids_bt.shape[1]
        sizes = torch.zeros(len(self.ids_bt), width + 1, dtype=torch.int64)
        sizes.scatter_add_(1, self.segments_bt, torch.ones_like(self.segments_bt))
        ends = sizes[:, 1:].cumsum(1)
        wanted = [(b, int(ends[b, n - 1]), int(sizes[b, n])) for b, n in segments]
        rows = best_fit_rows([size for _, _, size in wanted], width)
        index = torch.zeros(len(rows), width, dtype=torch.int64)
        numbers = torch.zeros_like(index)
        for row, members in enumerate(rows):
            slot = 0
            for number, member in enumerate(members, start=1):
                b, end, size = wanted[member]
                index[row, slot : slot + size] = torch.arange(end - size, end) + b * width
                numbers[row, slot : slot + size] = number
                slot += size
        columns: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                fill = IGNORE if name == "labels_bt" else 0
                columns[name] = value.flatten()[index].masked_fill(numbers == 0, fill)
        names = [
            [self.sequences[b][n - 1] for b, n in (segments[member] for member in members)]
            for members in rows
        ]
        return Batch(**columns | {"segments_bt": numbers, "sequences": names})

    @property
    def document_places(self) -> int:
        """Room for its documents in `starts_n`."""
        return document_places(self.segments_bt)

    def to(self, device: torch.device, places: int | None = None) -> Batch:
        """The same batch on a device.

        Args:
            places: with `starts_n` of so many documents.
        """
        if places:
            return replace(self, starts_n=document_starts(self.segments_bt, places)).to(device)
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: send(value, device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)
