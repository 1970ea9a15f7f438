"""What a stage says before it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from miao.errors import MiaoError
from miao.model import Decoder, ModelConfig
from miao.recipe import Recipe
from miao.rundir import RunDir
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.shards.dataset import Manifest
from miao.shards.write import write_dataset
from miao.train.feed.sources import packing_facts, require_rows
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


def test_nothing_to_learn_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """Prompts that fill the row; alone, and as what DPO replays."""
    recipe, run = Recipe(), RunDir(tmp_path)
    late = [([1] * 100, [False] * 99 + [True], 1)] * 40
    soon = [([1] * 10, [False] * 5 + [True] * 5, 1)] * 2
    rows = {"pretrain": ("document", [([1] * 9, None, 1)]), "sft": ("conversation", late),
            "dpo": ("preference", soon)}  # fmt: skip
    for stage, (kind, sequences) in rows.items():
        manifest = Manifest(kind, "s", "", 9, "uint16")
        write_dataset(run.shards(stage, "train") / "s", manifest, sequences)
    recipe.sft.seq_len = recipe.dpo.seq_len = 99
    recipe.dpo.replay = 0.1
    for stage in rows:
        require_rows(stage, recipe, run)
    recipe.sft.seq_len = 98
    recipe.dpo.seq_len = 64
    require_rows("pretrain", recipe, run)
    for stage in ("sft", "dpo"):
        with pytest.raises(MiaoError, match="has 40 sequences, and of none anything is learned"):
            require_rows(stage, recipe, run)
    recipe.dpo.replay = 0.0
    require_rows("dpo", recipe, run)


def test_sequences_that_teach_nothing_are_said(
    make_dataset: Callable[..., TokenDataset], capsys: pytest.CaptureFixture[str]
) -> None:
    ends = [40] * 36 + [5] * 4
    masks = [[False] * (end - 1) + [True] for end in ends]
    data = make_dataset([[1] * end for end in ends], "conversation", masks)
    loader = PackedLoader([PackedSource("s", data, 16, seed=5)], 16, window_rows=16)
    with torch.device("meta"):
        model = Decoder(ModelConfig(97, 32, 2, 2, 1, 16, 48, max_position_embeddings=64))
    _announce("sft", options(seq_len=16), model, loader, 1e6)
    said = " ".join(capsys.readouterr().out.split())
    assert "36 of 40 sequences are left out" in said and "raise sft.seq_len" in said


def test_of_text_that_is_only_replayed_no_splitting_is_told(
    make_dataset: Callable[..., TokenDataset],
) -> None:
    long = PackedSource("text", make_dataset([list(range(90))] * 9, name="text"), 16, 0)
    talk = [[1, 2, 40, 41, 42]] * 9
    masks = [[False, False, True, True, True]] * 9
    short = PackedSource("talk", make_dataset(talk, "conversation", masks, "talk"), 16, 0)
    assert packing_facts(PackedLoader([long], 16), 4)["split"] > 0.5
    assert packing_facts(PackedLoader([long, short], 16), 4)["split"] == 0
