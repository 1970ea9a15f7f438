"""Random models of transformers' own classes, saved beside a small tokenizer of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from miao.tokenizer import Tokenizer
from tests.export.architectures import COMMON, KINDS


@pytest.fixture(scope="session")
def make_directory(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A model directory as transformers saves it, random in every parameter and buffer, with
    weights large enough that a misplaced one shows in the logits."""
    made: dict[tuple[str, torch.dtype, float], Path] = {}

    def make(kind: str, dtype: torch.dtype = torch.float32, gain: float = 1.5) -> Path:
        key = kind, dtype, gain
        if key in made:
            return made[key]
        family, settings = KINDS[kind]
        config = getattr(transformers, f"{family}Config")(**COMMON | settings)
        with warnings.catch_warnings():  # about the empty matrices of no shared expert
            warnings.simplefilter("ignore", UserWarning)
            model = getattr(transformers, f"{family}ForCausalLM")(config)
        generator = torch.Generator().manual_seed(5)
        state = model.state_dict(keep_vars=True)
        for name, values in state.items():
            noise = torch.randn(values.shape, generator=generator)
            scale = 0.3 if values.ndim == 1 else gain * max(1, values.shape[-1]) ** -0.5
            if "embed_tokens" in name or "lm_head" in name:
                scale = 0.4
            shift = 1.0 if "norm" in name else 0.0
            values.data = (shift + scale * noise).to(values.dtype)
        if config.tie_word_embeddings:
            model.tie_weights()
        directory = made[key] = tmp_path_factory.mktemp("model")
        model.to(dtype).save_pretrained(directory)
        tokenizer.save(directory)
        return directory

    return make
