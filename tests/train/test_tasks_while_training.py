"""Tasks asked while a model is trained: they change nothing of the training and take little of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from miao.errors import Interrupted, MiaoError
from miao.recipe import DuringOptions, Recipe
from miao.run.preflight import preflight
from miao.shards import TokenDataset
from miao.tokenizer import Tokenizer
from miao.train.distributed.world import World
from miao.train.loop import Trainer
from miao.train.watch.tasks import TaskWatch
from tests.train.pair import Pair
from tests.train.shared_cases import Case, train
from tests.train.tiny import assert_same_bits, curve, stop_after, trainer, watch


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return tmp_path / "pairs.yaml"


def asking(
    sources: list[TokenDataset], directory: Path, task: Path, seed: int = 0, share: float = 1.0
) -> Trainer:
    made = trainer(sources, directory, seed=seed)
    made.tasks = watch(task, share=share)
    return made


def asked(directory: Path) -> list[dict[str, Any]]:
    lines = [line for line in curve(directory) if "scores" in line]
    return [{k: v for k, v in line.items() if k != "asking_seconds"} for line in lines]


def test_training_is_the_same_to_the_bit_whether_tasks_are_asked_or_not(
    sources: list[TokenDataset], tmp_path: Path, task: Path
) -> None:
    plain = trainer(sources, tmp_path / "plain")
    plain.run()
    watched = asking(sources, tmp_path / "watched", task)
    watched.run()
    assert_same_bits(plain.model, watched.model)
    lines = asked(tmp_path / "watched")
    assert len(lines) >= 4 and lines[0]["scores"][0]["count"] == 4
    rest = [line for line in curve(tmp_path / "watched") if "scores" not in line]
    assert rest == curve(tmp_path / "plain")
    stopped = asking(sources, tmp_path / "stopped", task)
    stop_after(stopped, 9)
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = asking(sources, tmp_path / "stopped", task, seed=1)
    resumed.run()
    assert_same_bits(plain.model, resumed.model)
    assert asked(tmp_path / "stopped") == lines


@pytest.mark.parametrize("cost", [0.01, 0.5, 3.0, 40.0])
def test_asking_stays_within_its_share_of_the_time(task: Path, cost: float) -> None:
    """1,000 seconds, a point each 20: 1,000 tokens a second, of which a question has some 20."""
    watching = watch(task, budget=1e6, step=cost, every=0.02, share=0.02)
    with patch("miao.train.watch.tasks._scores", lambda *of: []):
        for second in range(1, 1001):
            if watching.wants(second * 1000, second * 1000, second):
                watching.ask(None, second * 1000, second * 1000)  # type: ignore[arg-type]
            assert watching.spent <= max(0.02 * second, cost)  # the first is estimated
    assert watching.spent <= max(20, cost)
    assert watching.times == min(51, 20 // cost or 1)  # one at the beginning
    assert watching.fell_short == (watching.times < 25)
    assert f"asked {watching.times} times" in watching.summary(1000)


def test_a_first_asking_that_cannot_be_paid_waits(task: Path, tokenizer: Tokenizer) -> None:
    watch(task)
    options = DuringOptions(tasks=[str(task)], every=0.1, questions=20)
    watching = TaskWatch(options, tokenizer, 1e6)
    assert not watching.wants(1000, 1000, 10.0)  # 100 tokens a second: thousands of them are read
    assert watching.wants(900_000, 900_000, 9000.0) and watching.tokens > 500


def test_a_stage_that_the_clock_ends_is_asked_at_shares_of_its_time(task: Path) -> None:
    """Ten seconds of a thousand tokens each, a point each two seconds."""
    watching = watch(task, budget=10.0, every=0.2, share=1.0)
    with patch("miao.train.watch.tasks._scores", lambda *of: []):
        for tenth in range(101):
            if watching.wants(tenth / 10, tenth * 100, tenth / 10):
                watching.ask(None, tenth / 10, tenth * 100)  # type: ignore[arg-type]
    assert watching.times == 6 and not watching.fell_short


def test_unknown_tasks_and_missing_files_are_said_before_the_first_stage() -> None:
    recipe = Recipe()
    for name, said in (("erly", "erly"), ("ceval", "no files of the task ceval")):
        recipe.evaluate.during.tasks = [name]
        with pytest.raises(MiaoError, match=said):
            preflight(recipe)


def test_two_processes_ask_once_and_train_as_without(
    sources: list[TokenDataset], tmp_path: Path, task: Path
) -> None:
    pair = Pair()
    try:
        places = [str(source.directory) for source in sources]
        found = {}
        for name, chosen in (("plain", None), ("watched", task)):
            case = Case(places, "ddp", watched=chosen)
            answers = pair.run(train, case, tmp_path / name)
            assert answers[0]["checksum"] == answers[1]["checksum"]
            found[name] = answers[0]["checksum"]
    finally:
        pair.close()
    assert found["plain"] == found["watched"]
    lines = asked(tmp_path / "watched")
    train(World(), Case(places, watched=task), tmp_path / "one")
    assert [line["tokens"] for line in lines] == [
        line["tokens"] for line in asked(tmp_path / "one")
    ]
