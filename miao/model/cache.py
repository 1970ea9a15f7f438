"""Keys and values of the tokens read so far, one row per running sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from miao.model.config import ModelConfig


class KVCache:
    """A fixed buffer per layer; a token's key and value stand at the index of its position.

    A query at position p sees the indices 0..p, so what a row's former owner (or a padded prompt)
    left behind at higher indices is overwritten before it can be seen. Rows are independent:
    sequences may join and leave at any step.

    Latent attention keeps its latent in place of the key, and its rotary key in place of the value.

    Args:
        rows: how many sequences at most. length: how many positions each.
    """

    def __init__(
        self, config: ModelConfig, rows: int, length: int, dtype: torch.dtype, device: torch.device
    ):
        first, second = config.cache_shapes
        size = (config.num_hidden_layers, rows, length)
        self.keys = torch.zeros(*size, *first, dtype=dtype, device=device)
        self.values = torch.zeros(*size, *second, dtype=dtype, device=device)
        self.rows, self.length = rows, length
        self._selected: Tensor | None = None
        self._visible = length

    def select(self, rows: Tensor | None, visible: int) -> None:
        """Names the rows of the coming forward pass (None: all, in order), and how many
        positions it looks at."""
        assert visible <= self.length, f"{visible} positions in a cache of {self.length}"
        self._selected, self._visible = rows, visible

    @property
    def visible(self) -> int:
        return self._visible

    def update(
        self, layer: int, key: Tensor, value: Tensor, positions_bt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Writes [b, t, k, d] at `positions_bt`; returns all visible [b, s, k, d]."""
        keys, values = self.keys[layer], self.values[layer]
        rows = self._selected
        if rows is None:
            rows = torch.arange(len(key), device=key.device)
        keys[rows[:, None], positions_bt] = key
        values[rows[:, None], positions_bt] = value
        if self._selected is None:
            return keys[: len(key), : self._visible], values[: len(key), : self._visible]
        return keys[rows, : self._visible], values[rows, : self._visible]
