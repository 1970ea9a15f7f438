"""Problems of files and the built-in ones: what is read, what is held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.seedbed.arithmetic import is_held_out
from miao.errors import MiaoError
from miao.recipe import GrpoOptions
from miao.recipe.grpo import ArithmeticOptions
from miao.rewards import load_problems, problem_files
from miao.rewards.problems import to_problem


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "roles", "prompt"),
    [
        ({"prompt": "2+3=?", "answer": 5}, ["user"], "2+3=?"),
        ({"question": "2+3=?", "system": "Be brief."}, ["system", "user"], "2+3=?"),
        (
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"},
                          {"role": "user", "content": "2+3=?"},
                          {"role": "assistant", "content": "5"}]},
            ["user", "assistant", "user"], "2+3=?",
        ),
        ({"conversations": [{"from": "human", "value": "2+3=?"}], "key": 1}, ["user"], "2+3=?"),
    ],
)  # fmt: skip
def test_records(record: dict[str, Any], roles: list[str], prompt: str) -> None:
    problem = to_problem(record)
    assert [message.role for message in problem.messages] == roles
    assert problem.prompt == prompt and problem.record == record


@pytest.mark.parametrize(
    "record", [5, {}, {"text": "a"}, {"prompt": " "}, {"messages": []}, {"prompt": 5},
               {"messages": [{"role": "assistant", "content": "5"}]}],
)  # fmt: skip
def test_what_is_no_problem_is_named_with_its_line(record: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}, record])
    with pytest.raises(MiaoError, match=r"p.jsonl:3"):
        load_problems(GrpoOptions(problems=[str(path)]), 0)


def test_held_out_problems_are_apart_and_do_not_depend_on_the_order(tmp_path: Path) -> None:
    records = [{"prompt": f"{n}+1=?", "answer": n + 1} for n in range(50)]
    one = write(tmp_path / "one.jsonl", [*records, *records[:5]])
    two = write(tmp_path / "two.jsonl", records[::-1])
    train, heldout = load_problems(GrpoOptions(problems=[str(one)], heldout=10), 0)
    assert len(train) == 40 and len(heldout) == 10  # equal ones count once
    assert {p.prompt for p in train} | {p.prompt for p in heldout} == {r["prompt"] for r in records}
    again = load_problems(GrpoOptions(problems=[str(two)], heldout=10), 5)
    assert [p.prompt for p in again[1]] == [p.prompt for p in heldout]
    few = load_problems(GrpoOptions(problems=[str(one)], heldout=400), 0)
    assert len(few[0]) == len(few[1]) == 25


def test_built_in_problems_hold_out_their_numbers() -> None:
    arithmetic = ArithmeticOptions(["+", "-", "<"], largest=150, largest_result=200, count=300)
    options = GrpoOptions(arithmetic=arithmetic, heldout=80)
    train, heldout = load_problems(options, 3)
    assert len(train) == 300 and len(heldout) == 80
    assert len({p.prompt for p in [*train, *heldout]}) == 380
    results = [p.record["answer"] for p in train]
    assert max(results) > 120 and min(results) >= 0 and max(results) <= 200
    assert load_problems(options, 3)[0] == train != load_problems(options, 4)[0]
    seen = 0
    for problems, held_out in ((train, False), (heldout, True)):
        for problem in problems:
            a, plus, b = problem.prompt.removeprefix("计算").rstrip("。=？?").partition("+")
            if plus and a.isdigit() and b.isdigit():
                assert is_held_out("+", int(a), int(b)) == held_out
                assert problem.record["answer"] == int(a) + int(b)
                seen += 1
    assert seen > 20


def test_numbers_that_do_not_fit_are_said() -> None:
    few = ArithmeticOptions(["+"], largest=1, largest_result=1, count=500)
    assert 0 < len(load_problems(GrpoOptions(arithmetic=few, heldout=0), 0)[0]) < 500


def test_files_that_the_stage_depends_on(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": "a"}])
    code = tmp_path / "own.py"
    code.write_text("f = len", encoding="utf-8")
    options = GrpoOptions(problems=[str(path)], rewards={f"{code}:f": 1.0, "short": 1.0})
    assert problem_files(options) == [path, code]
    assert problem_files(GrpoOptions()) == []
