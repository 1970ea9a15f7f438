"""Many texts with the same beginning: it is read once, and only the ends are read for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miao.model.decoder import Decoder
from miao.ops.attention import Mask
from miao.ops.shared_attention import SharedBeginning

SHORTEST = 16
"""Tokens below which a common beginning is not worth a pass of its own."""


class SharedPrefix:
    """Keys and values of one text, which every text of the coming forward passes continues.

    Those texts stand end to end in one row: nothing is padded, and the beginning is copied for none
    of them. Their own keys and values are forgotten again. The beginning may be empty.
    """

    def __init__(self, num_layers: int):
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._texts: SharedBeginning | None = None
        self._prefix_length = 0

    @property
    def prefix_length(self) -> int:
        return self._prefix_length

    def extend(self, widths: Sequence[int]) -> None:
        """Announces a row of texts of these lengths behind the prefix."""
        self._texts = SharedBeginning.of(self._prefix_length, widths)

    def mask(self, positions_bt: Tensor, dtype: torch.dtype) -> Mask:
        return self._texts

    def update(
        self, layer: int, key: Tensor, value: Tensor, positions_bt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[1, t, k, d] behind the prefix: all of it [1, s, k, d]."""
        kept = self._layers[layer]
        if self._texts is None:
            assert kept is None and len(key) == 1, "the prefix is read once, as one row"
            self._layers[layer] = key, value
            return key, value
        if kept is None:
            return key, value
        return torch.cat((kept[0], key), dim=1), torch.cat((kept[1], value), dim=1)

    @classmethod
    def read(cls, model: Decoder, ids: Sequence[int], first: int) -> tuple[SharedPrefix, Tensor]:
        """Reads the prefix; its keys and values, and its hidden states from position `first` on
        [t, d]."""
        cache = cls(model.config.num_hidden_layers)
        hidden = torch.empty(0, model.config.hidden_size, device=model.device)
        if ids:
            row = torch.tensor([list(ids)], device=model.device)
            wanted = torch.arange(first, len(ids), device=model.device)
            hidden = model(row, cache=cache, wanted_n=wanted, output="hidden")[0]
        cache._prefix_length = len(ids)
        return cache, hidden
