"""Packed batches from weighted sources, in an order that only the seed decides.

The loader's state is a few integers per source. Every rank walks the same sequence of rows and
takes its share, so the order does not depend on how many ranks there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from miao.errors import MiaoError
from miao.ops.linear_cross_entropy import IGNORE
from miao.shards.dataset import TokenDataset
from miao.shards.packing import best_fit_rows

WINDOW = 16384
"""Units (documents or pairs) that are shuffled and packed together."""


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
            part = slice(start, start + rows)
            yield Batch(**{k: None if v is None else v[part] for k, v in vars(self).items()})

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        moved = {
            name: value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return Batch(**(vars(self) | moved))


@dataclass
class PackedSource:
    """One dataset cut into pieces that fit a row, and where we are in it.

    `cut`: what happens to a sequence longer than a row. "split": pieces that continue each other
    (documents); "truncate": its beginning is kept (conversations). A preference whose two sides do
    not fit one row together is left out. All three are counted.
    """

    name: str
    dataset: TokenDataset
    seq_len: int
    seed: int
    weight: float | None = None
    reference: NDArray[np.float32] | None = None
    epoch: int = 0
    window: int = 0
    row: int = 0
    drawn: int = 0
    split_tokens: int = 0
    """Tokens in documents that had to be split."""
    truncated: int = 0
    left_out: int = 0
    _rows: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        kind, group = self.dataset.manifest.kind, self.dataset.group_size
        slots = (self.dataset.lengths - 1).reshape(-1, group)
        long = slots.sum(axis=1) > self.seq_len
        if kind == "document":
            pieces = -(-slots[:, 0] // self.seq_len)
            self.unit = np.repeat(np.arange(len(slots)), pieces)
            part = np.arange(len(self.unit)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            self.start = part * self.seq_len
            self.size = np.minimum(slots[self.unit, 0] - self.start, self.seq_len)
            self.split_tokens = int(slots[long].sum())
        else:
            kept = np.flatnonzero(~long) if group > 1 else np.arange(len(slots))
            self.unit, self.start = kept, np.zeros(len(kept), dtype=np.int64)
            self.size = np.minimum(slots[kept].sum(axis=1), self.seq_len)
            self.left_out = int(long.sum()) if group > 1 else 0
            self.truncated = int(long.sum()) if group == 1 else 0
        if len(self.unit) == 0:
            raise MiaoError(
                f"the source '{self.name}' has nothing that fits a row of {self.seq_len} tokens",
                where=self.dataset.directory,
                fix="bring more data or raise seq_len",
            )
        self.total_tokens = int(self.size.sum())
        """Real tokens of one epoch."""

    def next_row(self) -> list[int]:
        """The pieces of the next row; goes on to the next window and epoch by itself."""
        if not self._rows:
            self._rows = self._pack_window()
        pieces = self._rows[self.row]
        self.row += 1
        if self.row == len(self._rows):
            self.row, self._rows, self.window = 0, [], self.window + 1
            if self.window * WINDOW >= len(self.unit):
                self.window, self.epoch = 0, self.epoch + 1
        self.drawn += 1
        return pieces

    def _pack_window(self) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, _stable_number(self.name), self.epoch])
        order = rng.permutation(len(self.unit))[self.window * WINDOW : (self.window + 1) * WINDOW]
        rows = best_fit_rows(self.size[order].tolist(), self.seq_len)
        shuffled = np.random.default_rng([self.seed, self.epoch, self.window]).permutation(len(rows))
        return [order[rows[i]].tolist() for i in shuffled]

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "window": self.window, "row": self.row, "drawn": self.drawn}

    def restore(self, state: dict[str, int]) -> None:
        self.epoch, self.window = state["epoch"], state["window"]
        self.row, self.drawn = state["row"], state["drawn"]
        self._rows = self._pack_window() if self.row else []


class PackedLoader:
    """Draws rows from the sources in proportion to their weights, and makes batches of them."""

    def __init__(self, sources: list[PackedSource], seq_len: int):
        if not sources:
            raise MiaoError("there is nothing to train on: no source has any data")
        self.sources, self.seq_len = sources, seq_len
        weights = [
            float(s.total_tokens) if s.weight is None else s.weight for s in sources
        ]
        if sum(weights) <= 0:
            raise MiaoError("all sources have weight 0", where="corpus.weights")
        self.weights = [weight / sum(weights) for weight in weights]

    @property
    def epoch_tokens(self) -> int:
        """Real tokens of one pass over every source."""
        return sum(source.total_tokens for source in self.sources)

    def next_rows(self, count: int) -> list[tuple[int, list[int]]]:
        """The next `count` rows as (source number, pieces)."""
        rows = []
        for _ in range(count):
            drawn = sum(source.drawn for source in self.sources) + 1
            lag = [
                weight * drawn - source.drawn
                for weight, source in zip(self.weights, self.sources, strict=True)
            ]
            number = int(np.argmax(lag))
            rows.append((number, self.sources[number].next_row()))
        return rows

    def one_epoch(self, rows: int) -> Iterator[Batch]:
        """Every row once, in batches of at most `rows`; the loader must be at its beginning."""
        assert len(self.sources) == 1 and self.sources[0].drawn == 0
        source, pending = self.sources[0], []
        while source.epoch == 0:
            pending += self.next_rows(1)
            if len(pending) == rows or source.epoch:
                yield self.batch(pending)
                pending = []

    def batch(self, rows: list[tuple[int, list[int]]]) -> Batch:
        """Reads the tokens of these rows."""
        shape = (len(rows), self.seq_len)
        ids, positions, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        labels = np.full(shape, IGNORE, dtype=np.int64)
        with_reference = any(source.reference is not None for source in self.sources)
        reference = np.zeros(shape, dtype=np.float32) if with_reference else None
        names: list[list[tuple[str, int]]] = []
        for b, (number, pieces) in enumerate(rows):
            source, slot = self.sources[number], 0
            names.append([])
            for sequence, start, stop in self._sequences(source, pieces):
                tokens = source.dataset.tokens(sequence, start, stop)
                size = len(tokens) - 1
                here = slice(slot, slot + size)
                ids[b, here] = tokens[:-1]
                learned = source.dataset.mask(sequence, start, stop)
                labels[b, here] = tokens[1:] if learned is None else np.where(learned[1:], tokens[1:], IGNORE)
                positions[b, here] = np.arange(size)
                names[b].append((source.name, sequence))
                segments[b, here] = len(names[b])
                if reference is not None and source.reference is not None:
                    first = source.dataset.flat_offset(sequence) + start + 1
                    reference[b, here] = source.reference[first : first + size]
                slot += size
        columns: dict[str, Any] = {
            "ids_bt": ids, "labels_bt": labels, "positions_bt": positions, "segments_bt": segments
        }  # fmt: skip
        tensors = {name: torch.from_numpy(array) for name, array in columns.items()}
        extra = None if reference is None else torch.from_numpy(reference)
        return Batch(**tensors, sequences=names, reference_bt=extra)

    def _sequences(self, source: PackedSource, pieces: list[int]) -> list[tuple[int, int, int]]:
        """(sequence, first token, end) of every sequence in a row, pairs side by side."""
        group = source.dataset.group_size
        found = []
        for piece in pieces:
            start = int(source.start[piece])
            stop = start + self.seq_len + 1
            for side in range(group):
                found.append((int(source.unit[piece]) * group + side, start, stop))
        return found

    def state(self) -> dict[str, dict[str, int]]:
        """Where every source is: a few integers."""
        return {source.name: source.state() for source in self.sources}

    def restore(self, state: dict[str, dict[str, int]]) -> None:
        """Goes to a state returned before, exactly.

        Raises:
            MiaoError: the sources are not those of the state.
        """
        if set(state) != {source.name for source in self.sources}:
            raise MiaoError(
                f"the checkpoint was made with the sources {sorted(state)}, the recipe has "
                f"{sorted(source.name for source in self.sources)}",
                fix="restore the recipe, or start anew with another --name",
            )
        for source in self.sources:
            source.restore(state[source.name])


def _stable_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
