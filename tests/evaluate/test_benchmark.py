"""Ways of scoring on models whose preferences are known, and what is made of the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from miao.evaluate.benchmark import Answer, Asked, ask, with_scoring
from miao.evaluate.results.summary import MEAN_OF_SUBJECTS, summarise
from miao.evaluate.tasks.items import Item, Questions, read_questions
from miao.evaluate.tasks.prompts import Encoder
from miao.evaluate.tasks.task import PromptStyle, Subject, Task, load_task
from miao.model import Decoder
from miao.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
Bigram = Callable[[Mapping[tuple[int | None, int], float]], Decoder]


def favouring(tokenizer: Tokenizer, letter: str) -> dict[tuple[int | None, int], float]:
    return {(None, tokenizer.encode(letter)[-1]): 5.0}


@pytest.mark.parametrize("scoring", ["letter", "ppl", "generate"])
def test_a_model_that_always_says_c(
    tokenizer: Tokenizer, bigram_model: Bigram, scoring: Any
) -> None:
    task = load_task("ceval")
    name, style = task.style("lm-eval")
    style = with_scoring(style, scoring)
    questions = read_questions(task, DATA, shots=0)
    model = bigram_model(favouring(tokenizer, "C"))
    asked = ask(model, Encoder(tokenizer), task, questions, name, style, 0)
    assert [answer.choice for answer in asked.answers] == [2] * 5
    assert [answer.right for answer in asked.answers] == [False, False, False, False, True]
    if scoring == "generate":
        assert set(asked.answers[0].text or "") == {"C"} and asked.answers[0].found == "C"


def test_option_scores_by_hand(tokenizer: Tokenizer, bigram_model: Bigram) -> None:
    """Two 9s (logit 2 each) beat one 7 (logit 3) per character, but not as a sum."""
    model = bigram_model({(None, tokenizer.encode(d)[0]): x for d, x in {"9": 2, "7": 3}.items()})
    norm = math.log(math.exp(2) + math.exp(3) + tokenizer.vocab_size - 2)
    assert 3 - norm > 2 * (2 - norm), "the sum prefers the short one"
    style = PromptStyle("Q:", choice="{{option}}", target_delimiter="", scoring="option")
    item = Item("0", "all", "Q", ["7", "99"], 1, {"options": ["7", "99"]})
    task = Task("t", Path("t"), "t", "t", "test", [], {"s": style})
    questions = Questions({"all": [item]}, {}, [], Path(), True)
    (answer,) = ask(model, Encoder(tokenizer), task, questions, "s", style, 0).answers
    assert answer.logprobs == pytest.approx([3 - norm, 2 * (2 - norm)], abs=1e-4)
    assert (answer.choice, answer.right) == (0, False)
    means = [3 - norm, 2 - norm]
    assert (
        answer.others == {"character": means.index(max(means)), "byte": 0} and means[0] > means[1]
    )


def test_an_option_that_is_likely_anywhere_is_weighed_by_what_it_gains(
    tokenizer: Tokenizer, bigram_model: Bigram
) -> None:
    """7 is likelier than 9 after anything; the question makes 9 likelier than it is alone."""
    seven, nine, asked = (tokenizer.encode(text)[0] for text in "79Q")
    model = bigram_model({(None, seven): 5.0, (None, nine): 1.0, (asked, nine): 4.0})
    style = PromptStyle(
        "Q", choice="{{option}}", target_delimiter="", scoring="option", prior=True
    )  # fmt: skip
    item = Item("0", "all", "Q", ["7", "9"], 1, {"options": ["7", "9"]})
    task = Task("t", Path("t"), "t", "t", "test", [], {"s": style})
    questions = Questions({"all": [item]}, {}, [], Path(), True)
    asked_of_it = ask(model, Encoder(tokenizer), task, questions, "s", style, 0)
    (answer,) = asked_of_it.answers
    assert (answer.choice, answer.others) == (0, {"character": 0, "byte": 0, "prior": 1})
    by_task = {score.task: score.value for score in summarise(asked_of_it).scores}
    assert by_task == {
        "t": 0.0, "t (per character)": 0.0, "t (per byte)": 0.0, "t (against the option alone)": 1.0
    }  # fmt: skip


def test_prompts_beyond_the_context_are_cut_or_lose_examples(
    tokenizer: Tokenizer, make_model: Callable[..., Decoder]
) -> None:
    task = load_task("ceval")
    model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    questions = read_questions(task, DATA, shots=5)
    name, style = task.style("lm-eval")
    asked = ask(model, Encoder(tokenizer), task, questions, name, style, 5)
    assert asked.cut == 5 and asked.fewer == 0
    assert any("--shots 0" in note for note in summarise(asked).notes)
    for unlike in (replace(asked, shots=0), replace(asked, cut=2)):
        assert not any("--shots 0" in note for note in summarise(unlike).notes)
    asked = ask(
        model, Encoder(tokenizer), task, questions, name, replace(style, overflow="fewer"), 5
    )
    assert asked.fewer == 5 and asked.cut == 0


def test_few_shot_answers_do_not_depend_on_sharing(
    tokenizer: Tokenizer, make_model: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from miao.evaluate.measure import continuations

    task = load_task("ceval")
    model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=2048)
    questions = read_questions(task, DATA, shots=3)
    for style_name in ("lm-eval", "opencompass"):
        name, style = task.style(style_name)
        found = []
        for least in (1, 10**9):
            monkeypatch.setattr(continuations, "LEAST_SAVED", least)
            asked = ask(model, Encoder(tokenizer), task, questions, name, style, 3)
            found.append([value for answer in asked.answers for value in answer.logprobs])
        assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_generated_numbers(tokenizer: Tokenizer, bigram_model: Bigram) -> None:
    one, two = (tokenizer.encode(d)[0] for d in "12")
    end = tokenizer.end_of_turn_id
    equals = tokenizer.encode("=")[0]
    model = bigram_model({(equals, two): 9.0, (two, end): 9.0, (one, end): 9.0})
    task = load_task("math401")
    name, style = task.style(None)
    questions = read_questions(task, DATA)
    answers = ask(model, Encoder(tokenizer), task, questions, name, style, 0).answers
    assert [(answer.found, answer.right) for answer in answers] == [
        ("2", True),
        ("2", False),
        ("2", False),
    ]


def asked_of(shares: Mapping[str, list[int]], choice: int = 0, groups: bool = True) -> Asked:
    """One subject per key; 1: the right option is the one chosen."""
    names = {"x": ("g",), "y": ("g",), "z": ("h",)}
    subjects = {name: Subject(name, name, name, names[name]) for name in shares}
    style = PromptStyle("Q")
    task = Task("t", Path("t"), "t", "t", "test", [], {"s": style}, subjects=subjects)
    answers = [
        Answer(
            Item(
                str(n), name, "q", list("wxyz"), choice if right else (choice + 1 + n % 3) % 4, {}
            ),
            bool(right),
            choice,
        )
        for name, marks in shares.items()
        for n, right in enumerate(marks)
    ]
    return Asked(task, "s", style, 0, answers)


def test_averages_are_over_all_subjects_zeros_included() -> None:
    summary = summarise(asked_of({"x": [1, 1], "y": [0, 0, 0, 0], "z": [1, 0]}), missing=["w"])
    values = {score.category: (score.value, score.count) for score in summary.scores}
    assert values["y"] == (0.0, 4)
    assert values["g"] == (2 / 6, 6) and values["h"] == (0.5, 2)
    assert values[MEAN_OF_SUBJECTS] == (pytest.approx((1 + 0 + 0.5) / 3), 3)
    assert values["all"] == (3 / 8, 8)
    assert {score.chance for score in summary.scores} == {0.25}
    assert summary.groups == ["g", "h"]
    assert any("1 of 3 subjects have no file: w" in note for note in summary.notes)


def test_a_score_at_chance_says_so() -> None:
    marks = [1, 0, 0, 0] * 25
    summary = summarise(asked_of({"x": marks}))
    assert summary.at_chance and summary.scores[-1].value == 0.25
    assert any("cannot be told from guessing" in note for note in summary.notes)
    assert any("A is chosen for 100%" in note for note in summary.notes)
    assert summary.predicted == {"A": 100} and sum(summary.expected.values()) == 100
    assert summary.majority == max(summary.expected.values()) / 100


def test_a_score_below_the_commonest_letter_says_so() -> None:
    answers = asked_of({"x": [1] * 40 + [0] * 60})
    for answer in answers.answers[40:]:
        object.__setattr__(answer.item, "answer", 3)
    summary = summarise(answers)
    assert not summary.at_chance and summary.majority == 0.6
    assert any("most frequent letter would give 60.0%" in note for note in summary.notes)


def test_a_score_far_below_chance_is_suspicious() -> None:
    summary = summarise(asked_of({"x": [0] * 100}))
    assert any("below guessing" in note for note in summary.notes)


def test_the_last_word_is_right_where_greedy_decoding_writes_it(
    tokenizer: Tokenizer, bigram_model: Bigram
) -> None:
    """By hand: after 1 comes 2, after 2 comes 3; so 1 is followed by 23, never by 24."""
    one, two, three, four = (tokenizer.encode(digit)[0] for digit in "1234")
    model = bigram_model({(one, two): 9.0, (two, three): 9.0, (two, four): 8.0})
    style = PromptStyle("1", choice="{{option}}", target_delimiter="", scoring="greedy")
    task = Task("t", Path("t"), "t", "t", "test", [], {"s": style})
    items = [Item(text, "all", "1", [text], 0, {}) for text in ("23", "24")]
    questions = Questions({"all": items}, {}, [], Path(), True)
    asked = ask(model, Encoder(tokenizer), task, questions, "s", style, 0)
    assert [answer.right for answer in asked.answers] == [True, False]
    assert [answer.choice for answer in asked.answers] == [0, None]
    summary = summarise(asked)
    (share, loss) = summary.scores
    assert (share.value, share.chance, summary.p_value) == (0.5, None, None)
    others = tokenizer.vocab_size
    first = math.log(math.exp(9) + others - 1) - 9
    seconds = [math.log(math.exp(9) + math.exp(8) + others - 2) - logit for logit in (9, 8)]
    assert loss.unit == "nats" and loss.count == 2
    assert loss.value == pytest.approx(first + sum(seconds) / 2, abs=1e-4)


def pairs_of(logprobs: list[list[float]]) -> Asked:
    style = PromptStyle("", choice="{{option}}", scoring="option")
    task = Task("t", Path("t"), "t", "t", "test", [], {"s": style})
    answers = [
        Answer(Item(str(n), "all", "", ["a", "b"], 0, {}), a >= b, int(b > a), logprobs=[a, b])
        for n, (a, b) in enumerate(logprobs)
    ]
    return Asked(task, "s", style, 0, answers)


def test_of_minimal_pairs_no_letter_is_reported() -> None:
    """The good sentence is always the first, and no letter is shown: there is no bias to see."""
    summary = summarise(pairs_of([[-1.0, -2.0]] * 30 + [[-2.0, -1.0]] * 10))
    assert summary.scores[0].value == 0.75 and summary.scores[0].chance == 0.5
    assert not summary.at_chance and summary.notes == []
    assert summary.majority is None and summary.predicted == summary.expected == {}


def test_ties_are_said_since_they_count_as_the_first() -> None:
    summary = summarise(pairs_of([[-1.0, -1.0]] * 7 + [[-2.0, -1.0]] * 3))
    assert summary.scores[0].value == 0.7, "as lm-eval counts them"
    assert any(
        "in 7 of 10 questions several options are equally likely" in n for n in summary.notes
    )


def test_bits_per_byte_by_domain_by_hand(tokenizer: Tokenizer, bigram_model: Bigram) -> None:
    """A model for which all tokens are alike: log2 of the vocabulary for every token of a text."""
    task = load_task("bits")
    name, style = task.style(None)
    questions = read_questions(task, DATA)
    asked = ask(bigram_model({}), Encoder(tokenizer), task, questions, name, style, 0)
    scores = {score.category: score for score in summarise(asked).scores}
    domains = []
    for domain in ("nature", "towns"):
        texts = [item.question for item in questions.items[domain]]
        bits = [len(tokenizer.encode(t)) * math.log2(tokenizer.vocab_size) for t in texts]
        value = sum(bits) / sum(len(t.encode()) for t in texts)
        domains.append(value)
        assert scores[domain].value == pytest.approx(value, rel=1e-4)
        assert scores[domain].count == 2 and scores[domain].unit == "bits" and scores[domain].stderr
    assert scores["mean of domains"].value == pytest.approx(sum(domains) / 2, rel=1e-4)
