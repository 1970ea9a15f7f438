"""Packed batches from weighted sources, in an order that only the seed decides.

Where there is much data, the rows of a step come from many lanes: each draws pieces of its own from
the sources and packs them, whatever the others do. A rank walks and reads the lanes of its rows and
no others (`prefetch.py`), yet the order does not depend on how many ranks there are. Little data is
one lane, which every rank walks. The state is a few integers per source and lane.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from miao.console import warn
from miao.errors import MiaoError
from miao.ops.head_chunks import IGNORE
from miao.shards.batch import Batch
from miao.shards.packing import best_fit_rows
from miao.shards.source import Cursor, PackedSource

WINDOW_ROWS = 2048
"""Rows whose pieces are drawn and packed together."""
LANE_ROWS = 256
"""The same where there are several lanes."""
LANE_WINDOWS = 8
"""So many windows at least has each of several lanes in an epoch."""
Row = list[tuple[int, int]]
"""The pieces of a row, as (source number, piece number)."""
State = dict[str, Any]
__all__ = ["Batch", "PackedLoader", "PackedSource", "Row", "merged_states"]


class Lane:
    """Draws pieces from the sources in proportion to their weights, and packs a window of them at
    a time."""

    def __init__(self, loader: PackedLoader, number: int):
        self.loader, self.number = loader, number
        self.cursors = [Cursor(source, number, loader.lanes) for source in loader.sources]
        self.first = self.began = self._state_of_sources()
        self.rows: list[Row] = []
        """Of the window; the first `row` of them are gone."""
        self.row = 0

    def next_rows(self, count: int) -> list[Row]:
        taken: list[Row] = []
        while len(taken) < count:
            if self.row == len(self.rows):
                self.begin_window()
                self.rows = self._pack_window()
            part = self.rows[self.row : self.row + count - len(taken)]
            self.row += len(part)
            taken += part
        return taken

    def state(self) -> State:
        """Where the current window began, and how many of its rows are gone."""
        return {"sources": self.began, "row": self.row}

    def restore(self, state: State) -> None:
        for cursor in self.cursors:
            cursor.restore(state["sources"][cursor.source.name])
        self.begin_window()
        if state["row"]:
            self.rows, self.row = self._pack_window(), state["row"]

    def begin_window(self) -> None:
        self.began = self._state_of_sources()
        self.rows, self.row = [], 0

    def _state_of_sources(self) -> dict[str, dict[str, int]]:
        return {cursor.source.name: cursor.state() for cursor in self.cursors}

    def _pack_window(self) -> list[Row]:
        """Draws pieces, always from the source that is furthest behind its share, and packs
        them together: short pieces of one source fill the gaps that another leaves."""
        loader, weights = self.loader, self.loader.weights
        height = loader.window_rows
        if self.began == self.first:  # so that not all lanes pack in the same step
            height = -(-height * (self.number + 1) // loader.lanes)
        pieces: Row = []
        sizes: list[int] = []
        total = sum(cursor.drawn for cursor in self.cursors)
        end = total + height * loader.seq_len
        order = [number for number, weight in enumerate(weights) if weight > 0]
        while total < end:
            number = order[0]
            if len(order) > 1:
                number = max(order, key=lambda n: weights[n] * total - self.cursors[n].drawn)
            piece, size = self.cursors[number].next_piece()
            pieces.append((number, piece))
            sizes.append(size)
            total += size
        seeds = [value for cursor in self.cursors for value in (cursor.epoch, cursor.position)]
        packed = best_fit_rows(sizes, loader.seq_len)
        shuffled = np.random.default_rng([loader.sources[0].seed, *seeds]).permutation(len(packed))
        return [[pieces[i] for i in packed[row]] for row in shuffled]


class PackedLoader:
    """Makes batches of the sources' rows.

    Args:
        rows_per_step: what is taken at once as a rule; large sources are read in as many lanes.
    """

    def __init__(
        self,
        sources: list[PackedSource],
        seq_len: int,
        window_rows: int = WINDOW_ROWS,
        rows_per_step: int = 1,
    ):
        if not sources:
            raise MiaoError("there is nothing to train on: no source has any data")
        self.sources, self.seq_len, self._window_rows = sources, seq_len, window_rows
        self.rows_per_step = rows_per_step
        weights = [source.share for source in sources]
        if sum(weights) <= 0:
            raise MiaoError("all sources have weight 0", where="corpus.weights")
        self.weights = [weight / sum(weights) for weight in weights]
        most = self.epoch_tokens // (seq_len * min(LANE_ROWS, window_rows) * LANE_WINDOWS)
        self.lanes = max(
            (n for n in range(1, rows_per_step + 1) if rows_per_step % n == 0 and n <= most),
            default=1,
        )
        self._lanes: dict[int, Lane] = {}
        self._saved: dict[str, State] = {}
        """Where each lane begins that is not read yet."""

    @property
    def epoch_tokens(self) -> int:
        """Real tokens of one pass over every source."""
        return sum(source.total_tokens for source in self.sources)

    @property
    def window_rows(self) -> int:
        """Rows that are packed together."""
        return self._window_rows if self.lanes == 1 else min(LANE_ROWS, self._window_rows)

    def lane(self, number: int) -> Lane:
        """A lane, which begins when it is first asked for."""
        if number not in self._lanes:
            self._lanes[number] = Lane(self, number)
            if saved := self._saved.get(str(number)):
                self._lanes[number].restore(saved)
        return self._lanes[number]

    def next_rows(self, count: int, rank: int = 0, ranks: int = 1) -> list[Row]:
        """Of the next `count` rows the share of one rank: neighbours, and as many as the others
        have or one more or less. A rank always asks for its own."""
        first, stop = count * rank // ranks, count * (rank + 1) // ranks
        rows: list[Row] = []
        for number in range(self.lanes * rank // ranks, -(-self.lanes * (rank + 1) // ranks)):
            begin, end = count * number // self.lanes, count * (number + 1) // self.lanes
            taken = self.lane(number).next_rows(end - begin)
            rows += taken[max(first - begin, 0) : max(stop - begin, 0)]
        return rows

    def real_tokens(self, rows: list[Row]) -> int:
        """Slots of these rows that are not padding, without reading them."""
        numbers, pieces, _ = _columns(rows)
        return int(self._looked_up(numbers, pieces)[2].sum())

    def _looked_up(
        self, numbers: NDArray[np.int64], pieces: NDArray[np.int64]
    ) -> list[NDArray[np.int64]]:
        """`PackedSource.pieces` of pieces of several sources."""
        found = [np.zeros_like(pieces) for _ in range(3)]
        for number in np.unique(numbers):
            here = numbers == number
            looked_up = self.sources[number].pieces(pieces[here])
            for column, values in zip(found, looked_up, strict=True):
                column[here] = values
        return found

    def one_pass(self, rows: int) -> Iterator[Batch]:
        """Every piece of every source once, in batches of at most `rows` rows; the state stays."""
        everything = [
            (number, piece)
            for number, source in enumerate(self.sources)
            for piece in range(len(source))
        ]
        step = 64 * self.window_rows
        for start in range(0, len(everything), step):
            part = everything[start : start + step]
            numbers, pieces, _ = _columns([part])
            packed = best_fit_rows(self._looked_up(numbers, pieces)[2].tolist(), self.seq_len)
            for first in range(0, len(packed), rows):
                yield self.batch([[part[i] for i in row] for row in packed[first : first + rows]])

    def batch(self, rows: list[Row]) -> Batch:
        """Reads the tokens of these rows."""
        shape = (len(rows), self.seq_len)
        numbers, pieces, row_of = _columns(rows)
        groups = np.array([source.dataset.group_size for source in self.sources], dtype=np.int64)
        unit, start, _ = self._looked_up(numbers, pieces)
        each = groups[numbers]  # every piece once for each of its sequences
        side = _counting(each)
        number_of, row_of = np.repeat(numbers, each), np.repeat(row_of, each)
        sequence, start = np.repeat(unit * each, each) + side, np.repeat(start, each)
        read = _Read(self.sources, number_of, sequence, start, self.seq_len)
        size = read.sizes
        segment = _counting(np.bincount(row_of, minlength=len(rows))) + 1
        ends = np.cumsum(size)
        before = np.concatenate([[0], ends])[np.searchsorted(row_of, np.arange(len(rows)))]
        slot = ends - size - before[row_of]
        position = _counting(size)
        place = np.repeat(row_of * self.seq_len + slot, size) + position
        values = {
            "ids_bt": read.ids, "labels_bt": read.labels, "positions_bt": position,
            "segments_bt": np.repeat(segment, size), "reference_bt": read.reference,
        }  # fmt: skip
        columns: dict[str, Any] = {}
        for name, value in values.items():
            if value is not None:
                fill = IGNORE if name == "labels_bt" else 0
                column = np.full(len(rows) * self.seq_len, fill, dtype=value.dtype)
                column[place] = value
                columns[name] = torch.from_numpy(column.reshape(shape))
        names: list[list[tuple[str, int]]] = [[] for _ in rows]
        for row, number, one in zip(
            row_of.tolist(), number_of.tolist(), sequence.tolist(), strict=True
        ):
            names[row].append((self.sources[number].name, one))
        return Batch(**columns, sequences=names)

    def state(self) -> State:
        """Of the lanes that were read here: each is a few integers (see `merged_states`)."""
        if self.lanes == 1:
            return self.lane(0).state()
        lanes = {str(number): lane.state() for number, lane in self._lanes.items()}
        return {"of": self.lanes, "lanes": lanes or self._saved}

    def restore(self, state: State) -> None:
        """Goes to a state returned before, exactly; with another number of lanes (other rows per
        step, more data) to the next place after it.

        Raises:
            MiaoError: the sources are not those of the state.
        """
        states: dict[str, State] = state.get("lanes", {"0": state})
        for saved in [one["sources"] for one in states.values()]:
            if set(saved) != {source.name for source in self.sources}:
                raise MiaoError(
                    f"the checkpoint was made with the sources {sorted(saved)}, the recipe has "
                    f"{sorted(source.name for source in self.sources)}",
                    fix="restore the recipe, or start anew with another --name",
                )
        now, self.lanes = self.lanes, state.get("of", 1)
        self._lanes, self._saved = {}, states
        if self.lanes != now:
            self._begin_after(now)

    def _begin_after(self, lanes: int) -> None:
        """All lanes of another number begin where the furthest of these has drawn to."""
        warn(
            f"the rows of a step were drawn in {self.lanes} lanes, and now in {lanes}: what has "
            "been drawn of the current epoch and not been trained on is left out"
        )
        before = [self.lane(int(number)) for number in self._saved]
        columns = list(zip(*(lane.cursors for lane in before), strict=True))
        begins = [max((cursor.epoch, cursor.position) for cursor in column) for column in columns]
        drawn = [sum(cursor.drawn for cursor in column) // lanes for column in columns]
        self._lanes, self._saved, self.lanes = {}, {}, lanes
        for number in range(lanes):
            lane = self.lane(number)
            for cursor, (epoch, position), total in zip(lane.cursors, begins, drawn, strict=True):
                at = {"epoch": epoch, "position": position + number, "drawn": total}
                cursor.restore(at)
            lane.begin_window()


class _Read:
    """The tokens of many sequences, end to end in the order given."""

    def __init__(
        self,
        sources: list[PackedSource],
        numbers: NDArray[np.int64],
        sequences: NDArray[np.int64],
        starts: NDArray[np.int64],
        seq_len: int,
    ):
        self.sizes = np.zeros_like(sequences)
        """Slots of each."""
        found: list[Any] = []
        for number in np.unique(numbers):
            here = numbers == number
            dataset = sources[number].dataset
            ids, mask, counts = dataset.read(sequences[here], starts[here], seq_len + 1)
            self.sizes[here] = counts - 1
            found.append((number, here, ids, mask, counts))
        total = int(self.sizes.sum())
        begins = np.cumsum(self.sizes) - self.sizes
        self.ids, self.labels = (np.zeros(total, dtype=np.int64) for _ in range(2))
        with_reference = any(source.reference is not None for source in sources)
        self.reference = np.zeros(total, dtype=np.float32) if with_reference else None
        for number, here, ids, mask, counts in found:
            size = counts - 1
            target: Any = slice(None)
            if len(found) > 1:
                target = np.repeat(begins[here], size) + _counting(size)
            at = np.repeat(np.cumsum(counts) - counts, size) + _counting(size)
            self.ids[target] = ids[at]
            labels = ids[at + 1].astype(np.int64)
            if mask is not None:
                labels[~mask[at + 1]] = IGNORE
            self.labels[target] = labels
            column = sources[number].reference
            if self.reference is not None and column is not None:
                flat = [sources[number].dataset.flat_offset(s) for s in sequences[here].tolist()]
                first = np.array(flat, dtype=np.int64) + starts[here] + 1
                self.reference[target] = column[np.repeat(first, size) + _counting(size)]


def merged_states(states: list[State]) -> State:
    """What `PackedLoader.restore` takes, of the states of all ranks."""
    if "lanes" not in states[0]:
        return states[0]
    lanes = {number: lane for state in states for number, lane in state["lanes"].items()}
    return states[0] | {"lanes": lanes}


def _columns(rows: list[Row]) -> tuple[NDArray[np.int64], ...]:
    """Of every piece its source, its number and its row."""
    flat = np.array([piece for row in rows for piece in row], dtype=np.int64).reshape(-1, 2)
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return flat[:, 0], flat[:, 1], row_of


def _counting(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... up to each size, end to end."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
