"""Keys and values of the tokens read so far, one row per running sequence."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from miao.model.config import ModelConfig
from miao.ops.attention import Mask, cache_mask


class Cache(Protocol):
    """What a forward pass wants of a cache."""

    def mask(self, positions_bt: Tensor, dtype: torch.dtype) -> Mask:
        """What the tokens of the coming forward pass see, as `attention` wants it."""

    def update(
        self, layer: int, key: Tensor, value: Tensor, positions_bt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Takes keys and values of these tokens [b, t, k, d]; returns all that they see."""
        raise NotImplementedError


class KVCache:
    """A fixed buffer per layer; a token's key and value stand at the index of its position.

    A query at position p sees the indices 0..p, so what a row's former owner left behind at higher
    indices is overwritten before it can be seen. Rows are independent: sequences may join and
    leave at any step.

    Latent attention keeps its latent in place of the key, and its rotary key in place of the value.

    Args:
        rows: how many sequences at most. length: how many positions each.
    """

    def __init__(
        self, config: ModelConfig, rows: int, length: int, dtype: torch.dtype, device: torch.device
    ):
        first, second = config.cache_shapes
        # One slot more than the rows have: `trash`.
        size = (config.num_hidden_layers, rows * length + 1)
        self._flat_keys = torch.zeros(*size, *first, dtype=dtype, device=device)
        self._flat_values = torch.zeros(*size, *second, dtype=dtype, device=device)
        self.keys = self._flat_keys[:, :-1].unflatten(1, (rows, length))
        self.values = self._flat_values[:, :-1].unflatten(1, (rows, length))
        self.rows, self.length = rows, length
        self._selected: Tensor | slice | None = None
        self._visible = length
        self._slots: Tensor | None = None

    @property
    def trash(self) -> int:
        """The slot for what nobody reads: keys and values of padding."""
        return self.rows * self.length

    def select(
        self, rows: Tensor | slice | None, visible: int, slots: Tensor | None = None
    ) -> None:
        """Names the rows of the coming forward pass (None: all, in order), and how many
        positions it looks at.

        Args:
            rows: a slice reads them in place; row numbers [b] gather a copy.
            slots: where the pass writes, row · length + position of each token [b·t], `trash` for
                padding; None: at the tokens' positions.
        """
        assert visible <= self.length, f"{visible} positions in a cache of {self.length}"
        self._selected, self._visible, self._slots = rows, visible, slots

    @property
    def flat(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all rows on end [layers, slots, heads, size], `trash` included."""
        return self._flat_keys, self._flat_values

    @property
    def visible(self) -> int:
        return self._visible

    def mask(self, positions_bt: Tensor, dtype: torch.dtype) -> Mask:
        """What the tokens of the coming forward pass see, as `attention` wants it."""
        return cache_mask(positions_bt, self.visible, dtype)

    def update(
        self, layer: int, key: Tensor, value: Tensor, positions_bt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Writes [b, t, k, d]; returns all visible [b, s, k, d]."""
        if self._slots is None:
            self._slots = self._slots_of(positions_bt)
        self._flat_keys[layer].index_copy_(0, self._slots, key.flatten(0, 1))
        self._flat_values[layer].index_copy_(0, self._slots, value.flatten(0, 1))
        rows = slice(len(key)) if self._selected is None else self._selected
        return self.keys[layer][rows, : self._visible], self.values[layer][rows, : self._visible]

    def _slots_of(self, positions_bt: Tensor) -> Tensor:
        rows = self._selected
        if not isinstance(rows, Tensor):
            first = 0 if rows is None else rows.start or 0
            rows = torch.arange(first, first + len(positions_bt), device=positions_bt.device)
        return (rows[:, None] * self.length + positions_bt).flatten()

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies the first `count` positions of a row."""
        for buffer in (self.keys, self.values):
            buffer[:, target, :count] = buffer[:, source, :count]

    def swap(self, one: int, other: int, count: int) -> None:
        """Exchanges the first `count` positions of two rows."""
        for buffer in (self.keys, self.values):
            kept = buffer[:, one, :count].clone()
            buffer[:, one, :count] = buffer[:, other, :count]
            buffer[:, other, :count] = kept
