"""A judge that is known, and training text that holds some of the questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miao.commands import eval_arena
from miao.errors import MiaoError
from miao.evaluate.judge import OpenAIJudge, WinRate, judge_pair, win_rate
from miao.evaluate.tasks.contamination import find_contamination
from miao.evaluate.tasks.items import Item
from tests.json_server import JsonServer, Reply


def longer(prompt: str) -> str:
    first, second = prompt.split("[Answer 1]\n")[1].split("\n\n[Answer 2]\n")
    second = second.split("\n\nEnd with")[0]
    if len(first) == len(second):
        return "I cannot say."
    return f"Hm.\nVerdict: {1 if len(first) > len(second) else 2}"


def judge_pairs(
    questions: list[str], a: list[str], b: list[str], ask: Callable[[str], str]
) -> WinRate:
    rows = zip(questions, a, b, strict=True)
    return win_rate([judge_pair(question, x, y, ask) for question, x, y in rows])


def test_wins_losses_and_ties() -> None:
    found = judge_pairs(["q"] * 4, ["a", "aaa", "a", "a"], ["bb", "b", "b", "bbb"], longer)
    assert (found.wins, found.losses, found.ties, found.unclear) == (2, 1, 1, 2)
    assert found.value == pytest.approx((2 + 0.5) / 4) and found.first_place == 0.5
    assert found.p_value == 1.0 and 0 < found.stderr < 0.5


def test_a_judge_that_prefers_a_place_decides_nothing() -> None:
    found = judge_pairs(["q"] * 3, ["a"] * 3, ["b"] * 3, lambda prompt: "Verdict: 1")
    assert (found.wins, found.losses, found.ties, found.first_place) == (0, 0, 3, 1.0)
    assert found.value == 0.5


def test_swapping_the_models_swaps_the_result() -> None:
    one = judge_pairs(["q"] * 3, ["a", "aa", "a"], ["b", "b", "bbb"], longer)
    other = judge_pairs(["q"] * 3, ["b", "b", "bbb"], ["a", "aa", "a"], longer)
    assert (one.wins, one.losses) == (other.losses, other.wins)
    assert one.value == pytest.approx(1 - other.value)


def first(prompt: str) -> str:
    return "Verdict: 1"


def shy(prompt: str) -> str:
    """Has an opinion on every second question only."""
    number = int(prompt.split("[Request]\n")[1].split("\n")[0])
    return longer(prompt) if number % 2 else "As a language model I take no side. \x00\ud7ff"


JUDGES = {"longer": longer, "first": first, "shy": shy, "stumbling": longer}


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[Any]]]:
    """A chat endpoint that answers with what the test puts into its list of replies."""
    seen: list[Any] = []

    def hear(path: str, headers: Mapping[str, str], body: Any) -> Reply:
        seen.append((path, headers.get("Authorization"), body))
        prompt, model = body["messages"][0]["content"], body["model"]
        said, turn = "Verdict: tie", len(seen)
        if "[Answer 1]" in prompt and model in JUDGES:
            said = JUDGES[model](prompt)
        reply: Any = {"choices": [{"message": {"content": said}}]}
        bad = model == "bad" or (model == "stumbling" and turn % 4 == 2)
        if model == "stumbling" and turn % 4 == 0:
            reply = {"error": "overloaded"}
        data = b"not json" if model == "garbage" else reply
        return 429 if model == "bad" else 500 if bad else 200, b"slow down" if bad else data

    server = JsonServer(hear)
    yield f"{server.url}/v1/", seen
    server.stop()


def test_the_protocol(endpoint: tuple[str, list[Any]]) -> None:
    url, seen = endpoint
    assert OpenAIJudge(url, "m", "secret")("hello") == "Verdict: tie"
    path, key, body = seen[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert body["messages"] == [{"role": "user", "content": "hello"}] and body["temperature"] == 0


def test_a_judge_that_fails_is_explained(endpoint: tuple[str, list[Any]]) -> None:
    url, _ = endpoint
    with pytest.raises(MiaoError, match=r"429 .*: slow down"):
        OpenAIJudge(url, "bad")("x")
    with pytest.raises(MiaoError, match="does not answer"):
        OpenAIJudge(url, "garbage")("x")
    with pytest.raises(MiaoError, match="does not answer"):
        OpenAIJudge("http://127.0.0.1:9/v1", "m", timeout=2)("x")
    with pytest.raises(MiaoError, match="not http"):
        OpenAIJudge("file:///etc/passwd", "m")


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("longer", ["longer answer won 12 of 12", "longer answer wins too often", "orders: 100%"]),
        ("first", ["prefers a place: 100%", "orders: 0%", "no difference can be told"]),
        ("shy", ["12 judgements had no verdict", "longer answer won 6 of 6"]),
        ("stumbling", ["longer answer won 12 of 12", "orders: 100%"]),
    ],
)
def test_what_is_wrong_with_a_judge_is_said(
    endpoint: tuple[str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    judge: str,
    said: list[str],
) -> None:
    """A preference for a place or a length, silence, errors of the server and answers that are
    none: over HTTP, as `miao eval arena` reports them."""
    monkeypatch.setattr("miao.evaluate.judge.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(eval_arena, "_target", lambda name: name)
    questions = [str(number) for number in range(12)]
    texts = {"a": ["x" * (2 + n) for n in range(12)], "b": ["x" * (1 + 2 * n) for n in range(12)]}
    texts["b"][1] = "longer than that of a"
    monkeypatch.setattr(eval_arena, "fixed_prompts", lambda: ([], questions))
    monkeypatch.setattr(
        eval_arena,
        "written_answers",
        lambda target, options, asked: [{"answer": text} for text in texts[target]],
    )
    words = ["a", "b", "--url", endpoint[0], "--judge", judge, "--out", str(tmp_path)]
    assert eval_arena.main(words) == 0
    told = " ".join("".join(capsys.readouterr()).split())
    for words_said in said:
        assert words_said in told, told


def test_a_judge_that_is_not_there_is_found_before_anything_is_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def written(*arguments: Any) -> Any:
        raise AssertionError("answers are generated for nobody")

    monkeypatch.setattr(eval_arena, "written_answers", written)
    monkeypatch.setattr(eval_arena, "find_target", lambda *names: None)
    with pytest.raises(MiaoError, match="does not answer") as told:
        eval_arena.main(["a", "b", "--url", "http://127.0.0.1:9/v1", "--judge", "m"])
    assert "does it run" in str(told.value.fix)


def item(question: str, *options: str) -> Item:
    return Item("0", "all", question, list(options), 0, {})


def test_questions_in_the_training_text_are_found() -> None:
    copied = "下列关于光合作用的说法，正确的是哪一项？请仔细阅读后再作答。"
    english = "Which of the following gases do plants take from the air while the sun is shining?"
    items = [
        item(copied, "甲", "乙"),
        item(english, "oxygen"),
        item("水的沸点在标准大气压下是多少摄氏度？这是一道没有出现过的题目。"),
        item("太短了"),
    ]
    texts = [
        "随便写些别的内容。" * 5,
        f"题库：{copied.replace('，', ', ')} A 甲 B 乙",
        english.upper(),
    ]
    done: list[int] = []
    found = find_contamination(items, iter(texts), done.append)
    assert found.flagged == [True, True, False, False]
    assert found.shares[2] == 0.0 and found.shares[3] is None
    assert found.documents == sum(done) == 3


def test_half_a_question_is_half_contaminated() -> None:
    words = [f"word{n}" for n in range(60)]
    half = find_contamination([item(" ".join(words))], [" ".join(words[:36])])
    assert half.shares == [pytest.approx(34 / 58)] and half.flagged == [True]
    less = find_contamination([item(" ".join(words))], [" ".join(words[:30])])
    assert less.shares == [0.0] and less.flagged == [False]
    assert find_contamination([], ["x"]).shares == []
    assert find_contamination([item("x")], []).shares == [None]
