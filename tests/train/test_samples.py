"""samples.jsonl: what the model said, and nothing that another model or another path said."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.errors import Interrupted, MiaoError
from miao.files import read_jsonl, write_jsonl
from miao.model import Decoder
from miao.recipe import Recipe
from miao.shards import TokenDataset
from miao.tokenizer import Tokenizer
from miao.train.loop import Trainer
from miao.train.watch.samples import CAUTION, LONGEST, SampleLog
from tests.train.test_guard import SPIKES, disturb, high
from tests.train.tiny import stop_after, trainer


class Saying(SampleLog):
    """Instead of the model's words, which trainer was asked."""

    share = 1e9

    def __init__(self, directory: Path, name: str):
        super().__init__(directory / "samples.jsonl", "pretrain", Recipe(), None)  # type: ignore[arg-type]
        self.name = name

    def _continued(self, model: Decoder) -> list[dict[str, Any]]:
        return [{"prompt": "?", "answer": self.name}]


def saying(
    sources: list[TokenDataset], directory: Path, name: str, seed: int = 0, **changes: Any
) -> Trainer:
    made = trainer(sources, directory, seed=seed, sample_every=500, **changes)
    made.samples = made.keeper.samples = Saying(directory, name)
    return made


def lines(directory: Path) -> list[tuple[str, int, str]]:
    found = read_jsonl(directory / "samples.jsonl")
    return [(line["stage"], line["tokens"], line["answer"]) for line in found]


def test_continuations_then_answers_in_place_of_later_ones(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    recipe = Recipe(sample_texts=["Once"], sample_prompts=["Who?", "Why?"])
    path = tmp_path / "samples.jsonl"
    before = [{"stage": "sft", "tokens": n, "prompt": "?", "answer": "old"} for n in (1, 5, 9)]
    write_jsonl(path, before)
    said = SampleLog(path, "pretrain", recipe, tokenizer).write(model, 3)
    assert [(r["stage"], r["tokens"], r["prompt"]) for r in said] == [("pretrain", 3, "Once")]
    assert read_jsonl(path) == before + said
    more: list[dict[str, Any]] = [{"prompt": "1 + 1", "answer": "2  [reward 1]"}]
    answers = SampleLog(path, "sft", recipe, tokenizer, lambda model: more).write(model, 5)
    assert [r["prompt"] for r in answers] == ["Who?", "Why?", "1 + 1"]
    assert read_jsonl(path) == before[:1] + said + answers


def test_samples_on_the_way_take_one_percent_of_training_at_most(tmp_path: Path) -> None:
    said = Saying(tmp_path, "x")
    said.share = 0.01
    moments = [n for n in range(1, 101) if said.write(None, 10_000 * n, trained=float(n))]  # type: ignore[arg-type]
    assert moments == [*range(moments[0], 101)], "what costs next to nothing can always be paid"
    expected = CAUTION * len(said.recipe.sample_texts) * LONGEST / 10_000
    assert moments[0] == math.ceil(expected / 0.01), "before one was timed, it is thought dear"
    lines = read_jsonl(said.path)
    write_jsonl(said.path, [line | {"seconds": 0.5} for line in lines[:1]])
    assert said.write(None, 10**6, trained=99.0) == [], "0.5 s spent and 0.5 s to come are more"  # type: ignore[arg-type]
    assert said.write(None, 10**6, trained=101.0), "and now they are not"  # type: ignore[arg-type]
    assert said.write(None, 10**6 + 1), "at the end of a stage, whatever it costs"  # type: ignore[arg-type]


def test_a_run_without_a_checkpoint_forgets_all_of_its_stage(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    old = [{"stage": s, "tokens": 700, "answer": "old"} for s in ("pretrain", "sft")]
    write_jsonl(tmp_path / "samples.jsonl", old)
    saying(sources, tmp_path, "new").run()
    found = lines(tmp_path)
    assert found[0] == ("sft", 700, "old") and len(found) > 4
    assert {name for stage, _, name in found if stage == "pretrain"} == {"new"}


def test_resumed_it_keeps_what_led_to_the_checkpoint(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    saying(sources, tmp_path / "whole", "first").run()
    running = saying(sources, tmp_path / "torn", "first", save_every=0)
    stop_after(running, 6)
    with pytest.raises(Interrupted):
        running.run()
    resumed = saying(sources, tmp_path / "torn", "then", seed=1, save_every=0)
    kept = lines(tmp_path / "torn")
    gone = {"stage": "pretrain", "tokens": running.tokens + 1, "prompt": "?", "answer": "gone"}
    write_jsonl(resumed.samples.path, [*read_jsonl(resumed.samples.path), gone])  # type: ignore[union-attr]
    resumed.run()
    whole, torn = lines(tmp_path / "whole"), lines(tmp_path / "torn")
    assert [line[:2] for line in whole] == [line[:2] for line in torn]
    assert torn[: len(kept)] == kept and len(kept) > 1
    assert {name for *_, name in torn[len(kept) :]} == {"then"}


def test_gone_back_it_forgets_the_path_that_was_left(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    running = saying(sources, tmp_path, "before", spike_action="rollback", **SPIKES)
    disturb(running, {13}, high)
    roll_back = running.keeper.roll_back

    def roll_back_as_another(before: int, trouble: dict[str, Any]) -> int:
        gained = roll_back(before, trouble)
        assert running.samples is not None
        assert all(tokens <= running.tokens for _, tokens, _ in lines(tmp_path))
        running.samples.name = "after"  # type: ignore[attr-defined]
        return gained

    running.keeper.roll_back = roll_back_as_another  # type: ignore[method-assign]
    running.run()
    tokens = [seen for _, seen, _ in lines(tmp_path)]
    assert tokens == sorted(set(tokens))
    assert {name for *_, name in lines(tmp_path)} == {"before", "after"}


def test_a_full_disk_does_not_stop_training(
    sources: list[TokenDataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*arguments: Any) -> None:
        raise MiaoError("the disk is full") from OSError(28, "no space left")

    monkeypatch.setattr("miao.train.watch.samples.append_jsonl", full)
    saying(sources, tmp_path, "new").run()
    assert capsys.readouterr().out.count("a log line is lost, training goes on") == 1
