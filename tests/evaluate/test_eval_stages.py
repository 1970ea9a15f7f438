"""The table of stages: scores as they stand in the runs, and paired changes by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from miao.commands.eval import main
from miao.errors import MiaoError
from miao.files import write_jsonl
from miao.rundir import RunDir


def score(task: str, category: str, value: float, stderr: float | None = 0.01) -> dict[str, object]:
    return {"task": task, "category": category, "value": value, "stderr": stderr, "count": 4}


def answers(*right: bool) -> list[dict[str, object]]:
    return [{"category": "sums", "question": str(n), "right": r} for n, r in enumerate(right)]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "mine")
    bits = [score("bits per byte", "a", 0.5, 0.3), score("bits per byte", "b", 0.7, 0.4)]
    bits.append(score("bits per byte", "one text", 9.0, None))
    before = [*bits, score("questions", "sums", 0.25), score("multiple choice", "animals", 0.9)]
    after = [score("questions", "sums", 0.75), score("preference (reward)", "all", 0.8, None)]
    lines = [{"stage": "before", "scores": before}, {"stage": "sft", "scores": after}]
    write_jsonl(run.eval_results, lines)
    write_jsonl(run.answers("before"), answers(True, False, False, False))
    write_jsonl(run.answers("sft"), answers(False, True, True, True))
    return run


def test_scores_and_changes(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stages", str(run.path), "--markdown"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["run", "stage", "bits per byte, mean of 2", "sums", "preference (reward)"]
    assert cells[2] == ["mine", "before", "0.600 ±0.250", "25.0% ±1.0", ""]
    assert cells[3] == ["mine", "sft", "", "75.0% ±1.0", "80.0%"]
    # Steps of -1, 1, 1, 1: mean 0.5, standard deviation 1, over the root of 4 questions.
    assert cells[6] == [
        "mine",
        "before → sft",
        "sums",
        "4",
        "25.0%",
        "75.0%",
        "+50.0 ±50.0",
        "0.62",
    ]


def test_all_questions_together_and_rewards(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of lines in any order; one of a benchmark is no stage."""
    asked = [answers(*right) for right in ((True, False), (True, True), (True, True))]
    for stage, records in zip(("pretrain", "sft", "grpo"), asked, strict=True):
        other = {"category": "words", "question": "w", "right": stage != "pretrain"}
        write_jsonl(run.answers(stage), [*records, other])
    reward = [score("rewards", "short", value, 0.02) for value in (0.4, 0.7, 0.3)]
    change = dict(zip(("before", "after", "difference"), reward, strict=True))
    lines = [
        {"stage": "grpo", "scores": [reward[1]], "rewards": [change]},
        {"stage": "benchmark ceval of model", "task": "ceval", "scores": []},
        {"stage": "sft", "scores": []},
        {"stage": "pretrain", "scores": []},
    ]
    write_jsonl(run.eval_results, lines)
    assert main(["stages", str(run.path), "--markdown"]) == 0
    lines_ = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines_]
    assert [row[1] for row in cells[2:5]] == ["pretrain", "sft", "grpo"]
    assert cells[4][2] == "0.700 ±0.020"
    # Of three questions two were mended: steps 0, 1, 1; mean 2/3, deviation sqrt(1/3), over sqrt(3).
    assert cells[9] == [
        "mine",
        "pretrain → sft",
        "all",
        "3",
        "33.3%",
        "100.0%",
        "+66.7 ±33.3",
        "0.5",
    ]
    assert cells[-1] == [
        "mine", "before → grpo", "reward short", "4",
        "0.400 ±0.020", "0.700 ±0.020", "+0.300 ±0.020", "",
    ]  # fmt: skip


def test_a_measure_a_line_in_a_terminal(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    scores = [score("rewards", "short", value, 0.02) for value in (0.4, 0.7)]
    lines = zip(("pretrain", "sft"), scores, strict=True)
    write_jsonl(run.eval_results, [{"stage": stage, "scores": [one]} for stage, one in lines])
    assert main(["stages", str(run.path)]) == 0
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in said.splitlines()]
    assert ["reward short", "0.400 ±0.020", "0.700 ±0.020"] in cells, said


def test_a_run_without_results(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="measured nothing"):
        main(["stages", str(tmp_path)])
