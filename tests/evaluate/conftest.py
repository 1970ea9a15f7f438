"""Models whose probabilities are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from miao.model import Decoder, ModelConfig
from miao.tokenizer import Tokenizer


@pytest.fixture
def bigram_model(
    tokenizer: Tokenizer,
) -> Callable[[Mapping[tuple[int | None, int], float]], Decoder]:
    """A model that looks at the last token alone: `{(last, next): logit}`, all other logits 0.

    Its embedding tells tokens apart perfectly and its blocks do nothing, so the head is a table of
    logits. `last` None: whatever the last token is.
    """

    def make(logits: Mapping[tuple[int | None, int], float]) -> Decoder:
        size = tokenizer.vocab_size
        model = Decoder(ModelConfig(size, size, 1, 2, 1, 8, 8, 512, tie_word_embeddings=False))
        model.initialize(0)
        table = torch.zeros(size, size)
        for (last, following), logit in logits.items():
            table[slice(None) if last is None else last, following] = logit
        with torch.no_grad():
            model.model.embed_tokens.weight.copy_(100 * torch.eye(size))  # the norm's epsilon: 0
            model.lm_head.weight.copy_(table.T / size**0.5)  # the last norm scales by sqrt(size)
        return model.eval()

    return make
