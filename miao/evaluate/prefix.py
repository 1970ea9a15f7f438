"""Many texts with the same beginning: it is read once, and only the ends are read for each."""

from __future__ import annotations

import torch
from torch import Tensor

from miao.model.cache import KVCache
from miao.model.decoder import Decoder

SHORTEST = 16
"""Tokens below which a common beginning is not worth a pass of its own."""


class SharedPrefix(KVCache):
    """Keys and values of one text, which every row of the coming forward passes continues.

    The rows' own keys and values are put behind those of the prefix and forgotten again: nothing
    is kept but the prefix. Its length may be 0.
    """

    def __init__(self, num_layers: int):
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._keep = True
        self._prefix_length = 0
        self._width = 0

    @property
    def prefix_length(self) -> int:
        return self._prefix_length

    @property
    def visible(self) -> int:
        """How many positions the coming forward pass looks at."""
        return self._prefix_length + self._width

    def extend(self, width: int) -> None:
        """Announces rows of `width` tokens behind the prefix."""
        self._width = width

    def update(
        self, layer: int, key: Tensor, value: Tensor, positions_bt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[b, t, k, d] behind the prefix: all visible [b, s, k, d]."""
        kept = self._layers[layer]
        if self._keep:
            assert kept is None and len(key) == 1, "the prefix is read once, as one row"
            self._layers[layer] = key, value
            return key, value
        if kept is None:
            return key, value
        before = [part.expand(len(key), -1, -1, -1) for part in kept]
        return torch.cat((before[0], key), dim=1), torch.cat((before[1], value), dim=1)

    @classmethod
    def read(cls, model: Decoder, ids: list[int]) -> tuple[SharedPrefix, Tensor]:
        """Reads the prefix; its keys and values, and its hidden states [t, d]."""
        cache = cls(model.config.num_hidden_layers)
        hidden = torch.empty(0, model.config.hidden_size, device=model.device)
        if ids:
            cache.extend(len(ids))
            row = torch.tensor([ids], device=model.device)
            hidden = model(row, cache=cache, output="hidden")[0]
        cache._keep, cache._prefix_length = False, len(ids)
        return cache, hidden
