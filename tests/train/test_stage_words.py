"""What a stage says before it trains."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from miao.model import Decoder, ModelConfig
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.train.stage import _announce
from tests.train.tiny import options


@pytest.fixture
def announced(
    sources: list[TokenDataset], capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What is said of a stage with these options."""

    def say(seq_len: int, budget: float = 1e6, **changes: object) -> str:
        packed = [PackedSource(d.manifest.source, d, seq_len, seed=5) for d in sources]
        loader = PackedLoader(packed, seq_len, window_rows=16)
        with torch.device("meta"):
            model = Decoder(ModelConfig(97, 32, 2, 2, 1, 16, 48, max_position_embeddings=512))
        stage_options = options(seq_len=seq_len, **changes)
        _announce("pretrain", stage_options, model, loader, budget)
        printed = capsys.readouterr()
        return printed.out + printed.err

    return say


def test_a_step_is_what_it_reads(announced: Callable[..., str]) -> None:
    said = announced(300, batch_tokens=2048)
    assert "6 rows of 300 = 1,800 per step" in said


def test_too_few_steps_are_said(announced: Callable[..., str]) -> None:
    budget = "lower pretrain.batch_tokens or raise pretrain"
    assert f"only 1 step: {budget}.tokens" in announced(64, 10_000, batch_tokens="1M")
    said = announced(64, 10_000, batch_tokens=1024, tokens=None, epochs=1.0)
    assert " steps: " in said and f"{budget}.epochs" in said
    assert "only" not in announced(64, 1e6, batch_tokens=1024)


def test_rows_shorter_than_most_documents_are_said(
    announced: Callable[..., str], sources: list[TokenDataset]
) -> None:
    lengths = sorted(len(data.tokens(n)) for data in sources for n in range(len(data)))
    median = (lengths[49] + lengths[50]) // 2
    assert f"raise pretrain.seq_len (median document: {median} tokens)" in announced(8)
    assert "median" not in announced(128)
