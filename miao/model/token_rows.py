"""Rows of the embedding and of the head that are trained while all others stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDING, HEAD = "embed_tokens", "lm_head"
GROWN = "grown_config.json"
"""Beside a model whose last rows nothing has trained: `first`, the first of them."""


class TokenRows(nn.Module):
    """What PEFT calls trainable tokens: a few rows instead of whole matrices, where new tokens are
    learned beside low-rank adapters.

    Args:
        ids: the tokens. embedding_vd, head_vd: where their rows begin; no head: it is tied.
    """

    ids: Tensor
    place_v: Tensor

    def __init__(self, ids: Sequence[int], embedding_vd: Tensor, head_vd: Tensor | None):
        super().__init__()
        device = torch.device("cpu") if embedding_vd.is_meta else embedding_vd.device
        self.register_buffer("ids", torch.tensor(list(ids), device=device), persistent=False)
        place_v = torch.full((len(embedding_vd),), -1, device=device)
        place_v[self.ids] = torch.arange(len(ids), device=device)
        self.register_buffer("place_v", place_v, persistent=False)
        tables = {EMBEDDING: embedding_vd} | ({} if head_vd is None else {HEAD: head_vd})
        self.rows = nn.ParameterDict(
            {n: table.detach()[self.ids.to(table.device)].clone() for n, table in tables.items()}
        )

    def embed(self, module: nn.Module, inputs: tuple[Any, ...], output_btd: Tensor) -> Tensor:
        """A forward hook of the embedding: its output, with these rows for these tokens."""
        place_bt = self.place_v[inputs[0]]
        own_btd = self.rows[EMBEDDING][place_bt.clamp(min=0)].to(output_btd.dtype)
        return torch.where((place_bt >= 0)[..., None], own_btd, output_btd)

    def within(self, name: str, table_vd: Tensor) -> Tensor:
        """A whole matrix with these rows in their places."""
        return table_vd.index_copy(0, self.ids, self.of(name).to(table_vd.dtype))

    def of(self, name: str) -> Tensor:
        """The rows that are trained for a matrix; of a tied pair those of its one."""
        return self.rows[name if name in self.rows else EMBEDDING]
