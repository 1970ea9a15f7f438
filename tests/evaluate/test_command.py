"""`miao eval` from the command line, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miao.cli import main
from miao.files import read_jsonl
from miao.model import Decoder, save_model
from miao.tokenizer import Tokenizer

DATA = str(Path(__file__).parent / "data")


@pytest.fixture
def model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[..., Decoder],
    tokenizer: Tokenizer,
) -> Callable[[str, int], str]:
    """Writes a random model into a directory of this name."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, seed: int = 0) -> str:
        decoder = make_model(seed, vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
        save_model(decoder, Path(name))
        tokenizer.save(Path(name))
        return name

    return make


def run(*words: str) -> int:
    return main(["eval", *words])


def test_a_benchmark_leaves_answers_and_a_line(
    model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = model("tiny")
    assert run(name, "--tasks", "ceval", "--data", DATA, "--shots", "2") == 0
    shown = capsys.readouterr().out
    assert "50 of 52 subjects have no file" in shown and "cannot be told from guessing" in shown
    folder = Path("eval_results/tiny")
    answers = read_jsonl(folder / "benchmarks/model/ceval-val-lm_eval-letter-2shot.jsonl")
    assert len(answers) == 5 and {"subject", "id", "choice", "right"} <= answers[0].keys()
    (line,) = read_jsonl(folder / "eval_results.jsonl")
    assert (line["task"], line["shots"], line["prompts"]) == ("ceval", 2, "lm-eval")
    assert line["scores"][-1]["count"] == 5 and line["at_chance"]
    assert run(name, "--tasks", "ceval", "--data", DATA, "--shots", "2") == 0
    assert len(read_jsonl(folder / "eval_results.jsonl")) == 1, "a repetition replaces its line"
    assert run(name, "--tasks", "arc_easy", "math401", "--data", DATA) == 0
    assert len(read_jsonl(folder / "eval_results.jsonl")) == 3


def test_a_split_without_answers_gives_a_submission(model: Callable[..., str]) -> None:
    words = ["--tasks", "ceval", "--data", DATA, "--split", "test", "--shots", "0"]
    assert run(model("tiny"), *words) == 0
    folder = Path("eval_results/tiny/benchmarks/model")
    (path,) = folder.glob("*.submission.json")
    letters = json.loads(path.read_text())
    assert {subject: sorted(answers) for subject, answers in letters.items()} == {
        "law": ["0", "1", "2"],
        "computer_network": ["0", "1"],
    }
    assert {letter for answers in letters.values() for letter in answers.values()} <= set("ABCD")


def test_contaminated_questions_are_counted_and_left_out(
    model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = "答：下列关于“要约”的说法，正确的是____。可以撤回 不可撤回 A, B 都对 都不对"
    Path("train.txt").write_text(text, encoding="utf-8")
    words = ["--tasks", "ceval", "--data", DATA, "--shots", "0", "--contamination", "train.txt"]
    assert run(model("tiny"), *words) == 0
    assert "1 of 5 questions stand in the training text" in capsys.readouterr().out
    (line,) = read_jsonl("eval_results/tiny/eval_results.jsonl")
    assert line["contaminated"] == ["law/0"]
    assert line["scores"][-1]["category"] == "not in the training text"
    assert line["scores"][-1]["count"] == 4


def test_two_models_are_compared(
    model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        asked = ["--tasks", "ceval", "--data", DATA, "--shots", "0"]
        assert run(model(name, seed), *asked) == 0
        assert run(name, "--tasks", "early", "--limit", "4") == 0
    capsys.readouterr()
    assert run("compare", "eval_results/one", "eval_results/two") == 0
    shown = capsys.readouterr().out
    assert "no difference shown" in shown and "ceval-val-lm_eval-letter-0shot" in shown
    assert "early limit 4 (both): one score of 20 shared questions" in shown
    assert run("compare", "eval_results/one", "eval_results/one", "--task", "early") == 0
    shown = capsys.readouterr().out
    assert "difference +0.0 ± 0.0 (paired, 95 %: +0.0 to +0.0); p = 1 (Holm)" in shown
    assert "grammar-test" not in shown, "a set: its score alone"
    assert run("two", "--tasks", "grammar", "--limit", "2") == 0, "fewer than the score has"
    capsys.readouterr()
    assert run("compare", "eval_results/one", "eval_results/two", "--task", "early") == 0
    assert "early limit 4: 2 questions that only one answered" in capsys.readouterr().out
    assert run("compare", "eval_results/one", "eval_results/none") == 2
    assert run("compare", "eval_results/one") == 2
    assert run("compare", "eval_results/one", "eval_results/two", "--task", "mmlu") == 2


def test_the_table_names_what_is_measured(
    model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model("tiny"), "--tasks", "bits", "--data", DATA, "--limit", "1") == 0
    shown = capsys.readouterr().out
    assert "bits per byte" in shown and "accuracy" not in shown
    assert run("tiny", "--tasks", "lambada", "--data", DATA, "--limit", "2") == 0
    shown = capsys.readouterr().out
    assert "value" in shown and " nats" in shown, "shares and nats in one table"


def test_prompts_are_shown_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nowhere", "--tasks", "piqa", "--data", DATA, "--show", "1") == 0
    shown = capsys.readouterr().out
    assert "Question: To keep bread fresh,\nAnswer:" in shown and "leave it in the rain." in shown


def test_a_data_set_on_a_hub(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from miao.hubs import datasets

    root = Path(DATA) / "ceval-exam"
    there = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.csv"))]
    wanted: list[str] = []

    def download(name: Any, listing: Any, files: list[str]) -> list[Path]:
        wanted.extend(files)
        return [root / file for file in files]

    listing = SimpleNamespace(files={file: 1 for file in ["README.md", *there]})
    monkeypatch.setattr(datasets, "list_dataset", lambda name: listing)
    monkeypatch.setattr(datasets, "download_dataset", download)
    words = ["x", "--tasks", "ceval", "--data", "hf:ceval/ceval-exam", "--show", "1"]
    assert run(*words) == 0
    assert "计算机网络" in capsys.readouterr().out
    assert {file.split("/")[0] for file in wanted} == {"dev", "val"}, "no more than is asked for"
    wanted.clear()
    assert run(*words, "--subjects", "law", "--shots", "0") == 0
    assert wanted == ["val/law_val.csv"]
    assert run(*words[:2], "gsm8k", *words[3:]) == 2
    assert "no files of the task gsm8k" in capsys.readouterr().err


def test_the_list_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "openbookqa" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--tasks", "cevall", "--data", DATA], "did you mean 'ceval'"),
        (["x", "--tasks", "ceval", "--data", "no/folder"], "no such folder"),
        (["x", "--tasks", "ceval", "--data", "."], "no files of the task ceval"),
        (["x", "--tasks", "ceval", "--data", DATA, "--prompts", "miao"], "style of miao"),
        (["x", "--tasks", "ceval", "--data", DATA, "--shots", "-1"], "must not be negative"),
        (["x", "--tasks", "ceval", "--data", DATA, "--scoring", "option"], "prompts are letters"),
        (["x", "--tasks", "piqa", "--data", DATA, "--scoring", "letter"], "prompts are texts"),
        (["x", "--tasks", "ceval", "--data", DATA], "neither a finished run nor a model"),
        (["x", "--tasks", "gsm8k", "--data", DATA, "--stage", "sft"], "no model of the stage sft"),
    ],
)
def test_mistakes_end_with_advice(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_questions_without_options_cannot_be_compared(
    model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--tasks", "math401", "--data", DATA, "--scoring", "letter"]
    assert run(model("tiny"), *words) == 2
    assert "use --scoring generate" in capsys.readouterr().err


def test_a_full_disk_keeps_what_was_there(
    model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from miao import files

    name = model("tiny")
    words = (name, "--tasks", "piqa", "--data", DATA)
    assert run(*words) == 0
    before = {p: p.read_bytes() for p in Path("eval_results").rglob("*") if p.is_file()}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert run(*words) == 2
    assert {p: p.read_bytes() for p in Path("eval_results").rglob("*") if p.is_file()} == before


def test_samples_are_the_same_prompts_for_every_model(
    model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("samples", model("tiny"), "--max-new-tokens", "2") == 0
    records = read_jsonl("eval_results/tiny/benchmarks/model/samples.jsonl")
    assert len(records) == 26 and sum(record["chat"] for record in records) == 16
    assert "中国的首都是" in capsys.readouterr().out


def test_a_set_of_tasks_leaves_one_score(
    model: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = model("tiny")
    assert run(name, "--tasks", "early", "--limit", "2") == 0
    shown = capsys.readouterr().out
    assert "early (zh): " in shown and "early (both): " in shown and "grammar" in shown
    lines = read_jsonl("eval_results/tiny/eval_results.jsonl")
    score = next(line for line in lines if line["task"] == "early")
    assert score["stage"] == "score early limit 2 of model"
    assert [one["category"] for one in score["scores"]] == ["zh", "en", "both"]
    assert {line["task"] for line in lines} >= {"grammar", "idioms", "facts", "sayings"}
    assert {part["unit"] for part in score["ensemble"]["parts"]} == {"probability"}
    assert score["files"]["idioms"] == "idioms-test-miao-option-0shot.jsonl"
    assert "probability" in shown and "accuracy" in shown
    assert run(name, "--tasks", "early", "--limit", "2") == 0
    assert len(read_jsonl("eval_results/tiny/eval_results.jsonl")) == len(lines)
    assert run(name, "--tasks", "early", "--shots", "2", "--prompts", "miao") == 2
    assert "--prompts, --shots: the set 'early' fixes how" in capsys.readouterr().err
