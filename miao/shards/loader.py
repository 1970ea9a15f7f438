"""Packed batches from weighted sources, in an order that only the seed decides.

The loader's state is a few integers per source. Every rank walks the same sequence of rows and
reads only its share of each step (`prefetch.py`), so the order does not depend on how many ranks
there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from miao.device import send
from miao.errors import MiaoError
from miao.ops.head_chunks import IGNORE
from miao.ops.varlen import document_places, document_starts
from miao.shards.answers import LabelledAnswers
from miao.shards.dataset import TokenDataset
from miao.shards.packing import best_fit_rows

WINDOW_ROWS = 2048
"""Rows whose pieces are drawn and packed together."""
Row = list[tuple[int, int]]
"""The pieces of a row, as (source number, piece number)."""


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


@dataclass
class PackedSource:
    """One dataset cut into pieces that fit a row, and where we are in it.

    What happens to a sequence longer than a row: a document becomes several pieces that continue
    each other; of a conversation the beginning is kept, and where nothing of that is learned it is
    left out; a preference whose two sides do not fit one row together is left out, and so is one
    that has only one side. All are counted.

    Args:
        weight: share of this source among all (default: by its size).
        reference: float32 per token of the dataset, an extra column for DPO.
    """

    name: str
    dataset: TokenDataset | LabelledAnswers
    seq_len: int
    seed: int
    weight: float | None = None
    reference: NDArray[np.float32] | None = None
    epoch: int = 0
    position: int = 0
    drawn: int = 0
    """Tokens given out so far."""

    def __post_init__(self) -> None:
        kind, group = self.dataset.manifest.kind, self.dataset.group_size
        slots = (self.dataset.lengths - 1).reshape(-1, group)
        long = slots.sum(axis=1) > self.seq_len
        self.split_tokens = self.truncated = self.left_out = self.single = self.unlearned = 0
        if kind == "document":
            pieces = -(-slots[:, 0] // self.seq_len)
            self.unit = np.repeat(np.arange(len(slots)), pieces)
            part = np.arange(len(self.unit)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            self.start = part * self.seq_len
            self.size = np.minimum(slots[self.unit, 0] - self.start, self.seq_len)
            self.split_tokens = int(slots[long].sum())
        else:
            whole = (slots > 0).all(axis=1)
            each = self.dataset.learns(self.seq_len if group == 1 else None)
            learns = np.logical_and.reduce(each.reshape(-1, group), axis=1)
            kept = np.flatnonzero(whole & ~long & learns if group > 1 else learns)
            self.unit, self.start = kept, np.zeros(len(kept), dtype=np.int64)
            self.size = np.minimum(slots[kept].sum(axis=1), self.seq_len)
            self.left_out = int((whole & long).sum()) if group > 1 else 0
            self.single = int((~whole).sum())
            self.unlearned = int((whole & ~learns & ~(long & (group > 1))).sum())
            self.truncated = int((long & learns).sum()) if group == 1 else 0
        self._require_some()
        self.total_tokens = int(self.size.sum())
        """Real tokens of one epoch."""
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def _require_some(self) -> None:
        if len(self.unit):
            return
        what = f"has nothing that fits a row of {self.seq_len} tokens"
        fix = "bring more data or raise seq_len"
        if self.single and not self.left_out:
            what = f"has no pairs, only {self.single:,} single answers"
            fix = "learn from them with --dpo.loss kto, or bring both answers to each prompt"
        elif self.unlearned:
            what = (
                f"has {self.unlearned:,} sequences, and of none anything is learned: in all of "
                f"them the answers begin after the {self.seq_len} tokens of a row"
            )
            fix = "raise seq_len, or shorten the prompts (system texts, tools, documents in them)"
        raise MiaoError(f"the source '{self.name}' {what}", where=self.dataset.directory, fix=fix)

    @property
    def share(self) -> float:
        """The weight, or the size where none is given."""
        return float(self.total_tokens) if self.weight is None else self.weight

    def next_piece(self) -> int:
        """The next piece of this epoch's random order; goes on to the next epoch by itself."""
        piece = int(self._permutation()[self.position])
        self.drawn += int(self.size[piece])
        self.position += 1
        if self.position == len(self.unit):
            self.position, self.epoch = 0, self.epoch + 1
        return piece

    def _permutation(self) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != self.epoch:
            rng = np.random.default_rng([self.seed, _stable_number(self.name), self.epoch])
            self._order = (self.epoch, rng.permutation(len(self.unit)))
        return self._order[1]

    def sequences(self, piece: int) -> list[tuple[int, int]]:
        """(sequence, first token) of a piece; two of them for a preference."""
        group, first = self.dataset.group_size, int(self.unit[piece]) * self.dataset.group_size
        return [(first + side, int(self.start[piece])) for side in range(group)]

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "drawn": self.drawn}


class PackedLoader:
    """Draws pieces from the sources in proportion to their weights, packs a window of them at a
    time, and makes batches of the rows."""

    def __init__(self, sources: list[PackedSource], seq_len: int, window_rows: int = WINDOW_ROWS):
        if not sources:
            raise MiaoError("there is nothing to train on: no source has any data")
        self.sources, self.seq_len, self.window_rows = sources, seq_len, window_rows
        weights = [source.share for source in sources]
        if sum(weights) <= 0:
            raise MiaoError("all sources have weight 0", where="corpus.weights")
        self.weights = [weight / sum(weights) for weight in weights]
        self._rows: list[Row] = []
        self._row = 0
        self._begin_window()

    @property
    def epoch_tokens(self) -> int:
        """Real tokens of one pass over every source."""
        return sum(source.total_tokens for source in self.sources)

    def next_rows(self, count: int) -> list[Row]:
        """The next `count` rows."""
        taken: list[Row] = []
        while len(taken) < count:
            if self._row == len(self._rows):
                self._begin_window()
                self._rows = self._pack_window()
            part = self._rows[self._row : self._row + count - len(taken)]
            self._row += len(part)
            taken += part
        return taken

    def real_tokens(self, rows: list[Row]) -> int:
        """Slots of these rows that are not padding, without reading them."""
        return sum(int(self.sources[number].size[piece]) for row in rows for number, piece in row)

    def names(self, rows: list[Row]) -> list[list[tuple[str, int]]]:
        """`Batch.sequences` of these rows, without reading them."""
        return [
            [(source.name, sequence) for source, sequence, _ in self._row_sequences(row)]
            for row in rows
        ]

    def one_pass(self, rows: int) -> Iterator[Batch]:
        """Every piece of every source once, in batches of at most `rows` rows; the state stays."""
        everything = [
            (number, piece)
            for number, source in enumerate(self.sources)
            for piece in range(len(source.unit))
        ]
        step = 64 * self.window_rows
        for start in range(0, len(everything), step):
            packed = self._pack(everything[start : start + step])
            for first in range(0, len(packed), rows):
                yield self.batch(packed[first : first + rows])

    def batch(self, rows: list[Row]) -> Batch:
        """Reads the tokens of these rows."""
        shape = (len(rows), self.seq_len)
        ids, positions, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        labels = np.full(shape, IGNORE, dtype=np.int64)
        with_reference = any(source.reference is not None for source in self.sources)
        reference = np.zeros(shape, dtype=np.float32) if with_reference else None
        names: list[list[tuple[str, int]]] = []
        for b, row in enumerate(rows):
            slot = 0
            names.append([])
            for source, sequence, start in self._row_sequences(row):
                tokens = source.dataset.tokens(sequence, start, start + self.seq_len + 1)
                learned = source.dataset.mask(sequence, start, start + self.seq_len + 1)
                size = len(tokens) - 1
                here = slice(slot, slot + size)
                names[b].append((source.name, sequence))
                ids[b, here], segments[b, here] = tokens[:-1], len(names[b])
                positions[b, here] = np.arange(size)
                labels[b, here] = tokens[1:]
                if learned is not None:
                    labels[b, here][~learned[1:]] = IGNORE
                if reference is not None and source.reference is not None:
                    first = source.dataset.flat_offset(sequence) + start + 1
                    reference[b, here] = source.reference[first : first + size]
                slot += size
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(labels),
            torch.from_numpy(positions),
            torch.from_numpy(segments),
            sequences=names,
            reference_bt=None if reference is None else torch.from_numpy(reference),
        )

    def state(self) -> dict[str, Any]:
        """Where the current window began, and how many of its rows are gone: a few integers."""
        return {"sources": self._window_began, "row": self._row}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a state returned before, exactly.

        Raises:
            MiaoError: the sources are not those of the state.
        """
        saved = state["sources"]
        if set(saved) != {source.name for source in self.sources}:
            raise MiaoError(
                f"the checkpoint was made with the sources {sorted(saved)}, the recipe has "
                f"{sorted(source.name for source in self.sources)}",
                fix="restore the recipe, or start anew with another --name",
            )
        for source in self.sources:
            at = saved[source.name]
            source.epoch, source.position, source.drawn = at["epoch"], at["position"], at["drawn"]
        self._begin_window()
        if state["row"]:
            self._rows, self._row = self._pack_window(), state["row"]

    def _begin_window(self) -> None:
        self._window_began = {source.name: source.state() for source in self.sources}
        self._rows, self._row = [], 0

    def _pack_window(self) -> list[Row]:
        """Draws pieces, always from the source that is furthest behind its share, and packs
        them together: short pieces of one source fill the gaps that another leaves."""
        pieces: list[tuple[int, int]] = []
        total = sum(source.drawn for source in self.sources)
        end = total + self.window_rows * self.seq_len
        order = [number for number, weight in enumerate(self.weights) if weight > 0]
        while total < end:
            number = max(order, key=lambda n: self.weights[n] * total - self.sources[n].drawn)
            piece = self.sources[number].next_piece()
            pieces.append((number, piece))
            total += int(self.sources[number].size[piece])
        seeds = [value for source in self.sources for value in (source.epoch, source.position)]
        rows = self._pack(pieces)
        shuffled = np.random.default_rng([self.sources[0].seed, *seeds]).permutation(len(rows))
        return [rows[i] for i in shuffled]

    def _pack(self, pieces: list[tuple[int, int]]) -> list[Row]:
        sizes = [int(self.sources[number].size[piece]) for number, piece in pieces]
        return [[pieces[i] for i in row] for row in best_fit_rows(sizes, self.seq_len)]

    def _row_sequences(self, row: Row) -> Iterator[tuple[PackedSource, int, int]]:
        for number, piece in row:
            source = self.sources[number]
            for sequence, start in source.sequences(piece):
                yield source, sequence, start


def _stable_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
