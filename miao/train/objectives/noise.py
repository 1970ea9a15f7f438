"""Noise on what is read, against learning answers by heart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from miao.model.decoder import Decoder
from miao.shards.loader import Batch


class EmbeddingNoise:
    """NEFTune (arXiv:2310.05914): uniform noise in ±alpha/sqrt(tokens · width) on the embeddings
    while training; `tokens` are those of the conversation, not of the row it is packed in."""

    def __init__(self, model: Decoder, alpha: float):
        self.alpha = alpha
        self._lengths_bt: Tensor | None = None
        model.model.embed_tokens.register_forward_hook(torch.compiler.disable(self._add))

    def of(self, batch: Batch) -> None:
        """The next forward pass is of this batch."""
        segments_bt = batch.segments_bt
        counts = torch.zeros_like(segments_bt)
        # A row of t slots has segments 0 (padding) to at most t.
        counts = torch.cat((counts, counts[:, :1]), dim=1)
        counts = counts.scatter_add(1, segments_bt, torch.ones_like(segments_bt))
        self._lengths_bt = counts.gather(1, segments_bt)

    def _add(self, module: nn.Module, _: Any, embedded_btd: Tensor) -> Tensor:
        lengths_bt = self._lengths_bt
        if not module.training or lengths_bt is None or not torch.is_grad_enabled():
            return embedded_btd
        if lengths_bt.shape != embedded_btd.shape[:2]:  # a pass only for the other processes
            return embedded_btd
        width = embedded_btd.shape[-1]
        most_bt1 = self.alpha * (lengths_bt * width).float().rsqrt()[..., None]
        return embedded_btd + most_bt1 * (2 * torch.rand_like(embedded_btd) - 1)
