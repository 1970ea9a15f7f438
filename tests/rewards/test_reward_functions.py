"""Rewards: what they give, and what they say when they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miao.errors import MiaoError
from miao.own_code import source_file
from miao.rewards import BUILT_IN, load_environment, load_rewards
from miao.rewards.functions import final_answer
from miao.rewards.tools import Calculator, calculate


def reward(name: str, completion: str, **record: Any) -> float:
    return BUILT_IN[name]("question", completion, record)


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("37+45=82。", 82, 1.0),
        ("37+45=82.", "82", 1.0),
        ("It is 1,082.", 1082, 1.0),
        ("37+45=83。", 82, 0.0),
        ("82-45", 82, 0.0),
        ("I do not know.", 82, 0.0),
        ("", 82, 0.0),
        ("<think>7+8 is 16</think>The answer is 15.", 15, 1.0),
        ("<think>15", 15, 0.0),  # a thought is no answer
        ("<answer>15</answer> or 16?", 15, 1.0),
        ("It is 3/4.", 0.75, 1.0),
        ("-5", -5, 1.0),
        ("Paris ", "paris", 1.0),
        ("<answer> New  York </answer>", "New York", 1.0),
        ("It is Paris.", "Paris", 0.0),
        ('<tool_call>\n{"a": 82}\n</tool_call>', 82, 0.0),  # a call is no answer
        ("<tool_response>\n82\n</tool_response>\n", 82, 0.0),  # nor is what a tool said
        ("<tool_response>\n82\n</tool_response>\n82!", 82, 1.0),
    ],
)
def test_exact_answer(completion: str, answer: Any, expected: float) -> None:
    assert reward("exact_answer", completion, answer=answer) == expected


@pytest.mark.parametrize(
    ("completion", "thinks", "tagged"),
    [
        ("<think>\nhm\n</think>\n\n<answer>5</answer>", 1.0, 1.0),
        ("<think>hm</think>", 0.0, 0.0),
        ("<think></think>5", 0.0, 0.0),
        ("5<think>hm</think>5", 0.0, 0.0),
        ("<think>a</think><think>b</think>5", 0.0, 0.0),
        ("<answer>5</answer>.", 0.0, 0.0),
        ("<answer>5</answer><answer>5</answer>", 0.0, 0.0),
        ("so <answer>5</answer>\n", 0.0, 1.0),
        ("</answer>5<answer>", 0.0, 0.0),
    ],
)
def test_formats(completion: str, thinks: float, tagged: float) -> None:
    assert reward("think_format", completion) == thinks
    assert reward("answer_format", completion) == tagged


def test_short_and_tool_use() -> None:
    assert reward("short", "x" * 200) == 1.0 and reward("short", "x" * 400) == 0.5
    assert reward("short", "x" * 10, characters=5) == 0.5 and reward("short", "") == 1.0
    asked = "<tool_call>\n{}\n</tool_call>\n<tool_response>\n{}\n</tool_response>\n"
    assert reward("tool_use", asked.format("1", "5") + "It is 5.") == 1.0
    assert reward("tool_use", asked.format("1", "error: no") + "It is 5.") == 0.0
    assert reward("tool_use", asked.format("1", "5")) == 0.0
    assert reward("tool_use", "It is 5.") == 0.0


@given(st.text(alphabet="<>/thinkaswerol_cp \n5-.,", max_size=80))
def test_no_text_breaks_a_reward(text: str) -> None:
    for function in BUILT_IN.values():
        assert 0 <= function("?", text, {"answer": 5}) <= 1
    assert isinstance(final_answer(text), str)


def test_rewards_add_up_with_their_weights() -> None:
    rewards = load_rewards({"exact_answer": 2.0, "answer_format": 0.5})
    values = rewards.values("2+3=?", "<answer>5</answer>", {"answer": 5})
    assert values == {"exact_answer": 1.0, "answer_format": 1.0}
    assert rewards.total(values) == 2.5


OWN = """
from pathlib import Path

def vowels(prompt, completion, record):
    return sum(letter in "aeiou" for letter in completion) / record["most"]

def broken(prompt, completion, record):
    return 1 / 0

def endless(prompt, completion, record):
    return float("nan")

def words(prompt, completion, record):
    return "many"

number = 5

class Echo:
    tools = []
    def respond(self, turn, record):
        return [turn]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_rewards.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "my_rewards.py"


def test_functions_of_the_user(own: str) -> None:
    for name in (f"{own}:vowels", "my_rewards:vowels"):
        rewards = load_rewards({name: 1.0})
        assert rewards.values("?", "aloe", {"most": 4}) == {name: 0.75}
        file = source_file(name)  # what a stage's result depends on
        assert file is not None and file.name == "my_rewards.py"
    assert source_file("no_such_module_here:f") is source_file("exact_answer") is None
    environment = load_environment(f"{own}:Echo")
    assert environment is not None and environment.respond("hm", {}) == ["hm"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("exact_anser", "did you mean 'exact_answer'"),
        ("nothing_like_it", "known: exact_answer"),
        ("missing.py:f", "no file"),
        ("no_such_module_here:f", "cannot be loaded: ModuleNotFoundError"),
        ("my_rewards.py:vowel", "did you mean 'vowels'"),
        ("my_rewards.py:number", "no function"),
    ],
)
def test_names_that_are_none(name: str, says: str, own: str) -> None:
    with pytest.raises(MiaoError, match=says):
        load_rewards({name: 1.0})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken", "failed: ZeroDivisionError"),
        ("endless", "the reward is nan"),
        ("words", "failed: ValueError"),
        ("vowels", "failed: KeyError"),
    ],
)
def test_functions_that_fail_are_named(name: str, says: str, own: str) -> None:
    rewards = load_rewards({f"{own}:{name}": 1.0})
    with pytest.raises(MiaoError, match=says) as error:
        rewards.values("what?", "so", {})
    assert f"{own}:{name}" in str(error.value) and "what?" in str(error.value)


def test_a_problem_without_an_answer_is_said() -> None:
    with pytest.raises(MiaoError, match="no 'answer'"):
        load_rewards({"exact_answer": 1.0}).values("what?", "so", {})


def test_environments_that_are_none(own: str) -> None:
    assert load_environment(None) is None
    for name in ("calculater", f"{own}:number", f"{own}:vowels"):
        with pytest.raises(MiaoError):
            load_environment(name)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2+3*4", "14"),
        ("(2+3)×4", "20"),
        ("7÷2", "3.5"),
        ("1,000 − 1", "999"),
        ("-3", "-3"),
        ("2^10", "1024"),
        ("10 % 4", "2"),
        ("1/3", "0.3333333333"),
        ("1/0", "error: division by zero"),
    ],
)
def test_the_calculator_calculates(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "", "2+", "a+1", "__import__('os')", "9**9**9", "2**65", "(" * 150 + ")" * 150, "1" * 201,
        "[1]", "True+1", "1e400", "(-8)**0.5", "1 if 1 else 2", "'a'*9", "9e14*9e14", "lambda: 1",
    ],
)  # fmt: skip
def test_the_calculator_runs_nothing(expression: str) -> None:
    assert calculate(expression).startswith("error: ")


@given(st.text(alphabet="0123456789.+-*/()%e ×÷^,", max_size=40))
def test_no_expression_breaks_the_calculator(expression: str) -> None:
    assert isinstance(calculate(expression), str)


@pytest.mark.parametrize(
    ("turn", "answers"),
    [
        ("It is 5.", None),
        ('<tool_call>\n{"name": "calculator", "arguments": {"expression": "2+3"}}\n</tool_call>',
         ["5"]),
        ('<tool_call>{"name": "calculator", "arguments": "{\\"expression\\": \\"2*3\\"}"}'
         '</tool_call>', ["6"]),
        ('<tool_call>{"name": "search", "arguments": {}}</tool_call>',
         ["error: there is no tool 'search'"]),
        ("<tool_call>5</tool_call>", ["error: not a call of calculator (TypeError)"]),
        ("<tool_call>{</tool_call><tool_call>[]</tool_call>",
         ["error: not a call of calculator (JSONDecodeError)",
          "error: not a call of calculator (TypeError)"]),
        ("<tool_call>{}", None),
    ],
)  # fmt: skip
def test_calls_are_answered(turn: str, answers: list[str] | None) -> None:
    assert Calculator().respond(turn, {}) == answers
