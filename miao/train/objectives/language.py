"""Next-token prediction: pretraining, and SFT (where only the assistant's tokens have labels)."""

from __future__ import annotations

from torch import Tensor, nn

from miao.shards.loader import Batch
from miao.train.objectives.base import token_loss
from miao.train.objectives.noise import EmbeddingNoise


class LanguageObjective:
    """Mean cross-entropy over labelled tokens. The labels say what is learned, so pretraining
    and supervised fine-tuning are the same objective on different data."""

    def __init__(self, noise: EmbeddingNoise | None = None):
        self.noise = noise

    def weight(self, batch: Batch) -> int:
        return batch.trained_tokens

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.noise is not None:
            self.noise.of(batch)
        return token_loss(model, batch), {}
