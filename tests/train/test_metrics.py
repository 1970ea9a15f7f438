"""The meter: model FLOPs utilization in every convention, by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from miao.model import ModelConfig
from miao.model.counts import mfu_conventions
from miao.model.presets import preset
from miao.shards.loader import Batch
from miao.train.watch import metrics as module
from miao.train.watch.metrics import Meter, Summed, context_of


def test_conventions_of_bitbrain_by_hand() -> None:
    """Qwen3-0.6B's shape at 2,048: 28 blocks, 16 query and 8 key heads of 128, 1,024 wide."""
    counted = mfu_conventions(preset("bitbrain-0.6b").config, 2048)
    matrices = 28 * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072) + 151_936 * 1024
    square = 12 * 28 * 16 * 128 * 2048
    assert counted["mfu"] == 6 * matrices + square / 2
    assert counted["mfu_palm"] == 6 * matrices + square
    extra = 1 + 2048 / (12 * 1024) + 151_936 / (16 * 28 * 1024)
    assert counted["mfu_bitbrain"] == pytest.approx(6 * 596_049_920 * extra)
    # What the page on speed says: by so much the convention is above the causal one.
    assert counted["mfu_bitbrain"] / counted["mfu"] == pytest.approx(1.251, abs=0.001)
    assert counted["mfu_palm"] / counted["mfu"] == pytest.approx(1.165, abs=0.001)


def test_experts_count_when_they_work() -> None:
    sparse = ModelConfig(97, 32, 2, 2, 1, 16, 48, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24)  # fmt: skip
    more = replace(sparse, num_experts=16)
    router = 6 * 2 * 32 * 8
    for name, flops in mfu_conventions(more, 64).items():
        assert flops == pytest.approx(mfu_conventions(sparse, 64)[name] + router, rel=1e-2)


def test_the_meter_reads_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    counted = {"mfu_palm": 300.0, "mfu_bitbrain": 500.0}
    meter = Meter(lambda seen: {"mfu": 20 * seen} | counted, 1e6, began=10.0)
    meter.add(Summed(torch.tensor(6.0), {}, 3, 4000, 4000, 10.0, 0.5, 0.1))
    now = 12.0
    values = meter.read()
    assert values == {
        "loss": 2.0,
        "tokens_per_second": 2000.0,
        "mfu": 0.4,
        "mfu_palm": 0.6,
        "mfu_bitbrain": 1.0,
        "data_wait": 0.25,
    }
    assert meter.utilization(1000.0) == {"mfu": 0.2, "mfu_palm": 0.3, "mfu_bitbrain": 0.5}


def test_mfu_counts_the_attention_of_documents_not_of_rows() -> None:
    """Rows of 8: documents of 3 and 4 and a slot of padding; one of 8."""
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0], [*range(8)]])
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0], [1] * 8])
    rows = Batch(positions, positions, positions, segments, sequences=[])
    assert context_of(rows) == pytest.approx((6 + 10 + 36) / 15)
    assert context_of(Batch(*[x[:0] for x in (positions,) * 3], segments[:0], sequences=[])) == 0
    config = preset("26m").config
    whole, halves = (mfu_conventions(config, 2048, seen) for seen in (1024.5, 512.5))
    square = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    assert whole["mfu"] - halves["mfu"] == square * 512
    assert whole["mfu"] == pytest.approx(mfu_conventions(config, 2048)["mfu"], rel=1e-3)
    assert whole["mfu_palm"] == halves["mfu_palm"], "the others count rows"
