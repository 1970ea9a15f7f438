"""Bradley and Terry's strengths against solutions of others; the arena by its command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miao.commands import eval_arena
from miao.errors import MiaoError
from miao.evaluate.arena import PATIENCE, Verdictbook, bradley_terry, hold, standings
from miao.evaluate.judge import Verdicts


def test_two_models_by_hand() -> None:
    """The strengths of two differ by the logarithm of their wins' ratio."""
    found = bradley_terry(np.array([[[0.0, 30.0], [10.0, 0.0]]]), prior=0.0)[0]
    assert found[0] - found[1] == pytest.approx(np.log(3)) and found.sum() == pytest.approx(0)


def test_the_strengths_are_those_of_a_logistic_regression() -> None:
    """Newton's method on the likelihood itself, for random wins of five models."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        won = rng.integers(1, 20, (5, 5)).astype(float)
        np.fill_diagonal(won, 0)
        theta = np.zeros(5)
        for _ in range(100):
            chance = 1 / (1 + np.exp(theta[None] - theta[:, None]))
            games = won + won.T
            slope = (won - games * chance).sum(1)
            curve = games * chance * (1 - chance)
            hessian = np.diag(curve.sum(1)) - curve
            theta += np.linalg.lstsq(hessian, slope, rcond=None)[0]
            theta -= theta.mean()
        assert bradley_terry(won[None], prior=0.0)[0] == pytest.approx(theta, abs=1e-6)


def test_one_that_wins_all_is_strong_but_not_without_end() -> None:
    found = bradley_terry(np.array([[[0.0, 20.0], [0.0, 0.0]]]))[0]
    assert found[0] - found[1] == pytest.approx(np.log(20.5 / 0.5), abs=1e-6)


def test_the_intervals_hold_the_truth() -> None:
    """Three models of known strengths, 100 draws of 200 questions: 95 % of the intervals."""
    rng = np.random.default_rng(0)
    truth = np.array([0.6, 0.0, -0.6])
    held = 0
    for draw in range(100):
        found: dict[tuple[str, str], list[Verdicts]] = {}
        for a, b in ((0, 1), (0, 2), (1, 2)):
            chance = 1 / (1 + np.exp(truth[a] - truth[b]))
            won = rng.random(200) < chance
            found[str(a), str(b)] = [("2", "1") if w else ("1", "2") for w in won]
        for row in standings(found, seed=draw):
            elo = 1000 + 400 / np.log(10) * truth[int(row.name)]
            held += row.low <= elo <= row.high
    assert 0.92 <= held / 300 <= 0.98, held


def longest(prompt: str) -> str:
    first, second = prompt.split("[Answer 1]\n")[1].split("\n\n[Answer 2]\n")
    second = second.split("\n\nEnd with")[0]
    return f"Verdict: {1 if len(first) > len(second) else 2}"


def test_verdicts_are_kept_and_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    answers = {"short": ["a", "same"], "long": ["aaa", "same"]}
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return longest(prompt)

    path = tmp_path / "m.jsonl"
    book = Verdictbook(path, "m", print)
    found = hold(["q", "r"], answers, book, ask)
    assert found == {("short", "long"): [("2", "1"), ("tie", "tie")]}
    assert len(asked) == 2, "equal answers are a tie that nobody is asked about"
    turned = Verdictbook(path, "m", print)
    again = hold(["q", "r"], {"long": answers["long"], "short": answers["short"]}, turned, ask)
    assert again == {("long", "short"): [("1", "2"), ("tie", "tie")]} and len(asked) == 2
    three = answers | {"longest": ["aaaaa", "same"]}
    names = [row.name for row in standings(hold(["q", "r"], three, turned, ask))]
    assert len(asked) == 6 and names == ["longest", "long", "short"]


def test_a_judge_that_answers_garbage_is_given_up(tmp_path: Path) -> None:
    answers = {"a": [f"a{n}" for n in range(20)], "b": ["b"] * 20}
    book = Verdictbook(tmp_path / "m.jsonl", "m", print)
    with pytest.raises(MiaoError, match="no verdict") as told:
        hold(["q"] * 20, answers, book, lambda prompt: "\x00 I like turtles")
    assert book.asked == PATIENCE and "Verdict: 1" in str(told.value.fix)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["a"], "two models"), (["a", "a"], "twice"), (["a", "b", "--stages", "x"], "one for each")],
)
def test_mistakes_are_said_before_anything_is_asked(words: list[str], said: str) -> None:
    with pytest.raises(MiaoError, match=said):
        eval_arena.main([*words, "--url", "http://127.0.0.1:9/v1", "--judge", "m"])


def test_the_command_prints_pairs_and_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Judge:
        def __init__(self, *of: Any):
            self.tokens = [900, 40]

        def __call__(self, prompt: str) -> str:
            return longest(prompt) if "[Answer 1]" in prompt else "ready"

    said: dict[str, Callable[[int], str]] = {"a": lambda n: "x", "b": lambda n: "x" * (n % 3 + 1)}
    monkeypatch.setattr(eval_arena, "OpenAIJudge", Judge)
    monkeypatch.setattr(eval_arena, "_target", lambda name: name)
    monkeypatch.setattr(
        eval_arena,
        "written_answers",
        lambda target, options, questions: [
            {"answer": said[target](n)} for n, _ in enumerate(questions)
        ],
    )
    words = ["a", "b", "--url", "u", "--judge", "m/1", "--out", str(tmp_path)]
    assert eval_arena.main(words) == 0
    text = capsys.readouterr().out
    assert "b against a" in text and "900 tokens read, 40 written" in text
    assert (tmp_path / "m_1.jsonl").exists() and "strength" in text
