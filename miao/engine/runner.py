"""Forward passes over a cache: a chunk of prompts, or one token for every running sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from miao.engine.packed import PackedDecoder
from miao.model.cache import KVCache
from miao.model.config import ModelConfig
from miao.model.decoder import Decoder


class Piece(NamedTuple):
    """Consecutive tokens of one sequence, and where they begin."""

    row: int
    tokens: Sequence[int]
    start: int
    every: bool = False
    """Logits are wanted behind every token, not behind the last alone."""

    @property
    def wanted(self) -> range:
        """Places of the tokens whose logits are wanted."""
        return range(0 if self.every else len(self.tokens) - 1, len(self.tokens))


class ModelFacts(Protocol):
    """What is known of a model, however it is read."""

    config: ModelConfig

    @property
    def device(self) -> torch.device: ...

    @property
    def compute_dtype(self) -> torch.dtype: ...


class Runner:
    """Runs a model on pieces of sequences and returns the logits behind each.

    Args:
        model: a decoder, or one with packed weights.
        rows: sequences at the same time. length: positions of each.
    """

    def __init__(self, model: Decoder | PackedDecoder, rows: int, length: int):
        self.model: ModelFacts = model
        self._decoder = model
        self.cache = KVCache(model.config, rows, length, model.compute_dtype, model.device)

    @property
    def is_current(self) -> bool:
        """Whether it reads the weights that its model has now."""
        return True

    @torch.inference_mode()
    def __call__(self, pieces: Sequence[Piece]) -> Tensor:
        """float32 logits [b, v] behind the wanted tokens of every piece: its last, or all.

        Pieces in neighbouring rows are read in place. Shorter ones are padded on the right: the
        padding stands at its piece's last position and is written where nobody reads.
        """
        device, cache = self.model.device, self.cache
        width = max(len(piece.tokens) for piece in pieces)
        ids, positions, slots = [], [], []
        for piece in pieces:
            count, start = len(piece.tokens), piece.start
            padding = width - count
            last = start + count - 1
            ids.append([*piece.tokens, *[0] * padding])
            positions.append([*range(start, start + count), *[last] * padding])
            first = piece.row * cache.length + start
            slots += [*range(first, first + count), *[cache.trash] * padding]
        rows = [piece.row for piece in pieces]
        selected: slice | Tensor = slice(rows[0], rows[0] + len(rows))
        if rows != list(range(rows[0], rows[0] + len(rows))):
            selected = torch.tensor(rows, device=device)
        visible = max(piece.start + len(piece.tokens) for piece in pieces)
        hidden_btd = self._forward(
            torch.tensor(ids, device=device),
            torch.tensor(positions, device=device),
            torch.tensor(slots, device=device),
            selected,
            visible,
        )
        if width == 1:
            hidden_bd = hidden_btd[:, 0]
        else:
            places = [(b, t) for b, piece in enumerate(pieces) for t in piece.wanted]
            batch, times = torch.tensor(places, device=device).T
            hidden_bd = hidden_btd[batch, times]
        return self._decoder.token_logits(hidden_bd).float()

    def _forward(
        self,
        ids_bt: Tensor,
        positions_bt: Tensor,
        slots: Tensor,
        rows: slice | Tensor,
        visible: int,
    ) -> Tensor:
        """Hidden states [b, t, d]; the arguments are those of the model and of `KVCache.select`."""
        self.cache.select(rows, visible, slots)
        return self._decoder(ids_bt, positions_bt, cache=self.cache, output="hidden")

    @torch.inference_mode()
    def hidden(self, ids: Sequence[int], most: int) -> Iterator[Tensor]:
        """Hidden states [t, d] of one text, behind the final norm, piece by piece of `most` tokens;
        what runs is not touched."""
        model = self.model
        cache = KVCache(model.config, 1, len(ids), model.compute_dtype, model.device)
        for start in range(0, len(ids), most):
            yield self._hidden(cache, ids[start : start + most], start)

    def _hidden(self, cache: KVCache, ids: Sequence[int], start: int) -> Tensor:
        end = start + len(ids)
        cache.select(slice(0, 1), end)
        ids_bt = torch.tensor([list(ids)], device=self.model.device)
        positions_bt = torch.arange(start, end, device=self.model.device)[None]
        return self._decoder(ids_bt, positions_bt, cache=cache, output="hidden")[0].float()
