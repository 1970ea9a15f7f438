"""What is measured after which stage, with what a run directory holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from miao.corpus.records import Document, Message, Preference
from miao.corpus.seedbed.items import ChoiceItem, QuestionItem
from miao.evaluate.stage import changed_answers, evaluate_stage, heldout_preferences
from miao.files import write_jsonl
from miao.model import Decoder
from miao.recipe import EvaluateOptions
from miao.rundir import RunDir
from miao.shards import build_dataset
from miao.tokenizer import Tokenizer


def preference(number: int) -> Preference:
    return Preference(
        [Message("user", f"{number}?")], [Message("assistant", "9")], [Message("assistant", "2")]
    )


@pytest.fixture
def run(tokenizer: Tokenizer, tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    for source in ("en", "zh"):
        target = run.shards("pretrain", "heldout") / source
        build_dataset([Document("rain"), Document("水")], "document", source, tokenizer, target)
    choices = [ChoiceItem("A", ["1", "2"], 0, "c", "en") for _ in range(3)]
    write_jsonl(run.eval_items / "choice.jsonl", [item.to_json() for item in choices])
    questions = [QuestionItem("?", ["no such answer"], category="q") for _ in range(2)]
    write_jsonl(run.eval_items / "questions.jsonl", [item.to_json() for item in questions])
    pairs = [preference(number).to_json() for number in range(5)]
    write_jsonl(run.eval_items / "preferences.jsonl", pairs)
    return run


def test_what_is_measured(
    tokenizer: Tokenizer, bigram_model: Callable[..., Decoder], run: RunDir
) -> None:
    model, options = bigram_model({}), EvaluateOptions(max_new_tokens=4, preference_pairs=4)
    known = [
        ("bits per byte", "en", 2),
        ("bits per byte", "zh", 2),
        ("multiple choice", "c", 3),
        ("multiple choice", "all", 3),
    ]
    asked = [("questions", "q", 2), ("questions", "all", 2)]
    likelihood = [("preference (likelihood)", "all", 4)]
    reward = [("preference (reward)", "", 4), ("preference (reward)", "all", 4)]
    margin = [("preference margin", "all", 4)]

    def measured(reference: Decoder | None = None) -> list[tuple[str, str, int]]:
        found = evaluate_stage(model, tokenizer, run, options, reference, beta=0.1)
        assert len(found.answers) == 2
        assert not any(answer["right"] for answer in found.answers)
        return [(score.task, score.category, score.count) for score in found.scores]

    assert measured() == known + asked + likelihood
    assert measured(model) == known + asked + likelihood + reward + margin


def test_a_run_without_built_in_items_measures_what_it_can(
    tokenizer: Tokenizer, bigram_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    run = RunDir(tmp_path)
    found = evaluate_stage(bigram_model({}), tokenizer, run, EvaluateOptions())
    assert (found.scores, found.answers) == ([], [])
    own = run.corpus / "dpo" / "heldout" / "preferences.jsonl"
    write_jsonl(own, [preference(number).to_json() for number in range(3)])
    assert heldout_preferences(run, 2) == [preference(0), preference(1)]


def test_changed_answers() -> None:
    before = [
        {"question": "a", "answer": "1", "right": True},
        {"question": "b", "answer": "2", "right": False},
        {"question": "gone", "answer": "3", "right": False},
    ]
    after = [
        {"question": "a", "answer": "1", "right": True},
        {"question": "b", "answer": "5", "right": True},
        {"question": "new", "answer": "6", "right": True},
    ]
    assert changed_answers(before, after) == [
        {"question": "b", "before": "2", "after": "5", "right_before": False, "right_after": True}
    ]
