"""GRPO by the command line: a recipe of one stage, on a model that is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miao.cli import main
from miao.files import read_jsonl
from miao.model import save_model
from miao.tokenizer import Tokenizer
from tests.train.grpo_cases import tiny_model

RECIPE = """
name: practice
corpus: {local: null, seedbed: {characters: 4K, conversations: 20, preferences: 8}}
tokenizer: {path: base}
model: {path: base}
pretrain: {enabled: false}
sft: {enabled: false}
dpo: {enabled: false}
grpo:
  enabled: true
  problems: [problems.jsonl]
  rewards: {"own.py:ascii_share": 1.0, exact_answer: 0.5}
  heldout: 4
  tokens: 1500
  seq_len: 96
  prompts_per_rollout: 3
  group_size: 4
  max_new_tokens: 8
  learning_rate: 1.0e-2
  precision: fp32
  compile: "off"
evaluate: {choice_items: 4, question_items: 4, preference_pairs: 2, heldout_tokens: 200,
           max_new_tokens: 4}
sample_prompts: ["hi"]
"""
OWN = """
def ascii_share(prompt, completion, record):
    return sum(letter.isascii() for letter in completion) / max(len(completion), 1)
"""


@pytest.fixture
def place(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    save_model(tiny_model(tokenizer), tmp_path / "base")
    tokenizer.save(tmp_path / "base", model_max_length=128)
    problems = [{"question": f"{n} + 1 = ?", "answer": n + 1} for n in range(12)]
    text = "".join(json.dumps(problem) + "\n" for problem in problems)
    (tmp_path / "problems.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def test_a_recipe_of_rewards(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipe.yaml"]) == 0
    run = place / "runs" / "practice"
    said = capsys.readouterr().out
    assert "8 problems and 4 held out; 3 × 4 answers per rollout" in said
    results = {line["stage"]: line for line in read_jsonl(run / "eval_results.jsonl")}
    changes = {change["after"]["category"]: change for change in results["grpo"]["rewards"]}
    assert set(changes) == {"own.py:ascii_share", "exact_answer", "all"}
    total = changes["all"]
    assert total["after"]["count"] == 4
    difference = total["after"]["value"] - total["before"]["value"]
    assert total["difference"]["value"] == pytest.approx(difference)
    lines = [line for line in read_jsonl(run / "metrics.jsonl") if "reward" in line]
    assert all("reward own.py:ascii_share" in line for line in lines)
    assert any("heldout_reward" in line for line in read_jsonl(run / "metrics.jsonl"))
    assert "Did training with rewards move?" in (run / "report.html").read_text(encoding="utf-8")
    assert any("[reward" in sample["answer"] for sample in read_jsonl(run / "samples.jsonl"))

    assert main(["grpo", "recipe.yaml"]) == 0
    assert "grpo: done before" in capsys.readouterr().out
    (place / "own.py").write_text(OWN + "\n# changed\n", encoding="utf-8")
    assert main(["grpo", "recipe.yaml"]) == 0
    assert "grpo: done before" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--grpo.enabled", "false"], "the recipe does not enable grpo"),
        (["--grpo.rewards", "{'own.py:asci_share': 1}"], "did you mean 'ascii_share'"),
        (["--grpo.problems", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--grpo.seq_len", "16"], "no problem fits a row of 16 tokens"),
    ],
)
def test_mistakes_are_said(
    words: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grpo", "recipe.yaml", "--evaluate.enabled", "false", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
