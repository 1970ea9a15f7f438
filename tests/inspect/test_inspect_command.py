"""`miao inspect`: texts, checkpoints and rows of a run by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from miao.cli import main
from miao.inspect.models import load, models_of, recipe_of
from miao.inspect.rows import packed_row
from miao.model import Decoder
from miao.model.directory import own_tensors, write_safetensors
from miao.rundir import RunDir
from miao.tokenizer import Tokenizer
from miao.train.feed.sources import make_loader
from tests.inspect.runs import grown_run


@pytest.fixture(name="run")
def run_fixture(tokenizer: Tokenizer, tmp_path: Path) -> RunDir:
    return grown_run(tmp_path / "tiny", tokenizer)


def test_a_row_is_what_training_reads_and_what_the_model_says_of_it(run: RunDir) -> None:
    recipe, (model, _) = recipe_of(run), load(run.path)
    for number in range(3):
        found = packed_row(run, recipe, "sft", number, model=model)
        loader = make_loader("sft", recipe, run)
        batch = loader.batch(loader.next_rows(number + 1))
        assert [slot["id"] for slot in found["slots"]] == batch.ids_bt[number].tolist()
        assert [s["document"] for s in found["slots"]] == batch.segments_bt[number].tolist()
        assert [s["position"] for s in found["slots"]] == batch.positions_bt[number].tolist()
        labels = [s["next"]["id"] if s["learned"] else -100 for s in found["slots"]]
        assert labels == batch.labels_bt[number].tolist()
        assert [("some", d["sequence"]) for d in found["documents"]] == batch.sequences[number]
        # Each document alone, in a plain forward pass.
        for document, sequence in enumerate(batch.sequences[number], 1):
            ids = loader.sources[0].dataset.tokens(sequence[1]).tolist()
            with torch.no_grad():
                truth = model(torch.tensor([ids])).log_softmax(-1)[0, range(len(ids) - 1), ids[1:]]
            given = [s["logprob"] for s in found["slots"] if s["document"] == document]
            assert given[:2] == [None, None], "what is masked has no loss"
            np.testing.assert_allclose(given[2:], truth[2 : len(given)], atol=1e-4)
    assert {s["document"] for s in found["slots"]} >= {1, 2}


def test_held_out_text_is_read_row_by_row(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["inspect", str(run.path), "--heldout", "--row", "pretrain"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "heldout" and all(s["learned"] for s in found["slots"][:4])
    assert main(words) == 0 and "row 0 of pretrain, heldout" in capsys.readouterr().out
    assert main([*words[:-1], "pretrain:50"]) == 2
    assert "fills" in capsys.readouterr().err
    assert main([*words[:-1], "sft"]) == 2
    assert "no shards of sft, heldout" in capsys.readouterr().err


def test_checkpoints_are_models_as_they_were_then(run: RunDir) -> None:
    names = [entry["name"] for entry in models_of(run)]
    assert names == ["models/pretrain", "checkpoints/sft/step-00000007"]
    before, after = (load(run.path / name)[0] for name in names)
    assert torch.equal(before.model.norm.weight + 1, after.model.norm.weight)
    assert torch.equal(before.lm_head.weight, after.lm_head.weight)


def test_a_text_is_shown_with_what_changes(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    step = run.path / "checkpoints" / "sft" / "step-00000007"
    given = ["inspect", str(run.path), "你好 world"]
    assert main([*given, "--against", str(step), "--place", "3", "--top-k", "4"]) == 0
    said = capsys.readouterr().out
    assert "KL" in said and "4 of " in said and "the guess after each layer" in said
    assert main([*given, "--without", "head:1.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["other"]["kl"]) == len(found["tokens"]) == len(found["attention"][0][0])
    assert main([*given[:2], "你好", "--answer", "好"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give a text, or --row STAGE"),
        (["a", "--row", "sft"], "give a text, or --row STAGE"),
        (["a", "--without", "head:1"], "no part of a model"),
        (["a", "--without", "layer:3"], "there are 2 layers: no number 3"),
        (["a", "--place", "1"], "there is no guess of token 1"),
        (["a", "--place", "0", "--temperature", "-1"], "temperature must not be negative"),
        (["--row", "sft:x"], "x is no number of a row"),
        (["--row", "ppo"], "no shards of ppo"),
    ],
)
def test_mistakes_are_explained(
    run: RunDir, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(run.path), *words]) == 2
    assert says in capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_is_refused(
    run: RunDir, make_model: Callable[..., Decoder], capsys: pytest.CaptureFixture[str]
) -> None:
    step = run.path / "checkpoints" / "sft" / "step-00000007"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2)}, "an adapter only"),
        (own_tensors(make_model()), "does not fit the recipe"),
    ]
    for tensors, says in cases:
        write_safetensors(tensors, step / "model.safetensors")
        assert main(["inspect", str(step), "a"]) == 2
        assert says in capsys.readouterr().err
