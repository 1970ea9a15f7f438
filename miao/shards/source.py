"""One dataset cut into pieces that fit a row, in an order that only the seed decides.

A dataset of documents is never read as a whole, nor is anything kept of each of them: where the
pieces of long documents lie is looked up beside the memory-mapped offsets, and the order of a large
one is computed, not stored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from miao.errors import MiaoError
from miao.shards.answers import LabelledAnswers
from miao.shards.dataset import TokenDataset

Ints = NDArray[np.int64]
BLOCK = 128
"""Documents whose pieces are counted together."""
STORED = 2**20
"""Pieces up to which a random order is stored (8 bytes each)."""
AHEAD = 1024
"""Pieces that are looked up at once."""
ROUNDS = 6


@dataclass
class PackedSource:
    """What happens to a sequence longer than a row: a document becomes several pieces that continue
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

    def __post_init__(self) -> None:
        self.split_tokens = self.truncated = self.left_out = self.single = self.unlearned = 0
        self.total_tokens = 0
        """Real tokens of one epoch."""
        self._kept: Ints | None = None
        """The groups that are pieces, where not all are."""
        if isinstance(self.dataset, TokenDataset) and self.dataset.manifest.kind == "document":
            self._count_documents(self.dataset)
        else:
            self._choose_groups()
        self._require_some()

    def __len__(self) -> int:
        return self._pieces

    def _count_documents(self, dataset: TokenDataset) -> None:
        """Goes through the offsets once."""
        counted = [np.zeros(1, dtype=np.int64)]
        for lengths in dataset.length_chunks(BLOCK):
            slots = lengths - 1
            pieces = -(-slots // self.seq_len)
            self.split_tokens += int(slots[pieces > 1].sum())
            counted.append(np.add.reduceat(pieces, np.arange(0, len(pieces), BLOCK)))
        self._before = np.cumsum(np.concatenate(counted))
        """Pieces before each block of documents; blocks begin anew with every shard."""
        self._blocks = dataset.blocks(BLOCK)
        documents = np.diff(self._blocks, append=len(dataset))
        self._plain = np.diff(self._before) == documents
        """Of each block, whether all its documents are one piece."""
        self._pieces = int(self._before[-1])
        self.total_tokens = dataset.manifest.tokens - len(dataset)

    def _choose_groups(self) -> None:
        group = self.dataset.group_size
        slots = (self.dataset.lengths - 1).reshape(-1, group)
        long, whole = slots.sum(axis=1) > self.seq_len, (slots > 0).all(axis=1)
        each = self.dataset.learns(self.seq_len if group == 1 else None)
        learns = np.logical_and.reduce(each.reshape(-1, group), axis=1)
        self._kept = np.flatnonzero(whole & ~long & learns if group > 1 else learns)
        self._sizes = np.minimum(slots[self._kept].sum(axis=1), self.seq_len)
        self._pieces, self.total_tokens = len(self._kept), int(self._sizes.sum())
        self.left_out = int((whole & long).sum()) if group > 1 else 0
        self.single = int((~whole).sum())
        self.unlearned = int((whole & ~learns & ~(long & (group > 1))).sum())
        self.truncated = int((long & learns).sum()) if group == 1 else 0

    def _require_some(self) -> None:
        if len(self):
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

    def pieces(self, numbers: Ints) -> tuple[Ints, Ints, Ints]:
        """Of these pieces the document (or group), its first token, and the slots they take;
        int64 [n] each."""
        if self._kept is not None:
            return self._kept[numbers], np.zeros_like(numbers), self._sizes[numbers]
        assert isinstance(self.dataset, TokenDataset)
        block = np.searchsorted(self._before, numbers, side="right") - 1
        within = numbers - self._before[block]
        unit, start = self._blocks[block] + within, np.zeros_like(numbers)
        if len(hard := np.flatnonzero(~self._plain[block])):
            slots_nd = self.dataset.neighbours(self._blocks[block[hard]], BLOCK) - 1
            ends_nd = np.cumsum(-(-slots_nd // self.seq_len), axis=1)
            place = (ends_nd <= within[hard, None]).sum(axis=1)
            before = np.where(place > 0, ends_nd[np.arange(len(hard)), place - 1], 0)
            start[hard] = (within[hard] - before) * self.seq_len
            unit[hard] = self._blocks[block[hard]] + place
        begins, ends = self.dataset.bounds(unit)
        return unit, start, np.minimum(ends - begins - 1 - start, self.seq_len)

    def order(self, epoch: int, positions: Ints) -> Ints:
        """The pieces at these places of an epoch's random order."""
        key = (self.seed, _stable_number(self.name), epoch)
        if len(self) <= STORED:
            return _permutation(key, len(self))[positions]
        return shuffled(positions, len(self), key)


class Cursor:
    """Where one lane is in a source: of its order, epoch after epoch, it takes every `lanes`-th
    piece."""

    def __init__(self, source: PackedSource, lane: int = 0, lanes: int = 1):
        self.source, self.lane, self.lanes = source, lane, lanes
        drawn = 0
        if lanes > 1:  # else all lanes would turn to a rare source in the same step
            late = np.random.default_rng([source.seed, _stable_number(source.name), lane]).random()
            drawn = -int(late * source.total_tokens / len(source))
        self.restore({"epoch": 0, "position": lane, "drawn": drawn})

    def restore(self, state: dict[str, int]) -> None:
        self.epoch, self.position, self.drawn = state["epoch"], state["position"], state["drawn"]
        self._wrap()
        self._pieces: list[int] = []
        self._sizes: list[int] = []
        self._at = 0

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "drawn": self.drawn}

    def next_piece(self) -> tuple[int, int]:
        """The next piece and its size; goes on to the next epoch by itself."""
        if self._at == len(self._pieces):
            self._look_up()
        piece, size = self._pieces[self._at], self._sizes[self._at]
        self._at += 1
        self.drawn += size
        self.position += self.lanes
        self._wrap()
        return piece, size

    def _wrap(self) -> None:
        while self.position >= len(self.source):
            self.position, self.epoch = self.position - len(self.source), self.epoch + 1

    def _look_up(self) -> None:
        stop = min(len(self.source), self.position + AHEAD * self.lanes)
        pieces = self.source.order(self.epoch, np.arange(self.position, stop, self.lanes))
        self._pieces, self._at = pieces.tolist(), 0
        self._sizes = self.source.pieces(pieces)[2].tolist()


@lru_cache(maxsize=16)
def _permutation(key: tuple[int, ...], size: int) -> Ints:
    return np.random.default_rng(key).permutation(size)


def shuffled(positions: Ints, size: int, key: tuple[int, ...]) -> Ints:
    """Where these places lead in a random order of `size` things that nobody has to store: a
    Feistel network over the next power of two, walked until it is inside.

    Args:
        positions: int64 [n], from 0 to below `size`.
    """
    bits = max(2, (size - 1).bit_length())
    low = np.uint64(bits // 2)
    masks = [np.uint64(2 ** (bits // 2) - 1), np.uint64(2 ** (bits - bits // 2) - 1)]
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    found = positions.astype(np.uint64)
    outside = np.ones(len(found), dtype=bool)
    while outside.any():
        halves = [found[outside] & masks[0], found[outside] >> low]
        for number, one in enumerate(keys):
            side = number % 2
            halves[side] ^= _mixed(halves[1 - side] + one) & masks[side]
        found[outside] = halves[0] | halves[1] << low
        outside = found >= size
    return found.astype(np.int64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The last steps of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _stable_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
