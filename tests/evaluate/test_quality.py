"""How texts are written: figures of texts that are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from miao.engine import SamplingOptions
from miao.evaluate.measure.quality import (
    Written,
    ask_in_chat,
    consistency,
    continue_texts,
    distinct,
    ends_properly,
    goes_in_circles,
    in_language,
    manner,
    obedience,
    repetition,
    units,
)
from miao.evaluate.tasks.instructions import Instructed
from miao.model import Decoder
from miao.tokenizer import Tokenizer

Bigrams = Callable[[Mapping[tuple[int | None, int], float]], Decoder]


def test_units_are_chinese_characters_words_and_marks() -> None:
    assert units("我爱 Python3！a-b") == ["我", "爱", "Python3", "！", "a", "-", "b"]


def test_repetition_and_variety_by_hand() -> None:
    assert repetition("一二三四五") == 0 and repetition("") == 0
    assert repetition("甲乙丙丁甲乙丙丁") == pytest.approx(1 / 5)
    assert repetition("啊" * 10) == pytest.approx(6 / 7)
    assert distinct(["a b a", "b"], 1) == 0.5 and distinct(["a b a", "b a"], 2) == pytest.approx(
        2 / 3
    )
    assert distinct([""], 2) == 0


def test_what_goes_in_circles() -> None:
    assert goes_in_circles("好的" + "，" * 10)
    assert goes_in_circles("the cat of the house of the house of the house of the house")
    assert not goes_in_circles("哈哈哈") and not goes_in_circles("")
    assert not goes_in_circles("一只猫坐在门口，看着外面的雨，等主人回家。")


def test_ends_and_languages() -> None:
    def one(answer: str, ended: bool = True, prompt: str = "你好吗？") -> Written:
        return Written(prompt, answer, ended)

    assert ends_properly(one("很好。")) and ends_properly(one('He said "yes."'))
    assert not ends_properly(one("很好。", ended=False)) and not ends_properly(one("很"))
    assert in_language(one("很好")) and not in_language(one("fine")) and not in_language(one(""))
    assert in_language(one("fine", prompt="How are you?")) and not in_language(one("12"))


def test_answers_end_by_themselves_or_are_cut(bigram_model: Bigrams, tokenizer: Tokenizer) -> None:
    letter = tokenizer.encode("a")[0]
    options = SamplingOptions(max_new_tokens=6)
    endless = bigram_model({(None, letter): 9.0})
    [said] = ask_in_chat(endless, tokenizer, ["?"], options)
    assert said == Written("?", "aaaaaa", False)
    end = tokenizer.end_of_turn_id
    assert end is not None
    ending = bigram_model({(None, letter): 9.0, (letter, end): 18.0, (letter, letter): -9.0})
    assert ask_in_chat(ending, tokenizer, ["?"], options) == [Written("?", "a", True)]
    assert continue_texts(endless, tokenizer, ["x"], options)[0].chat is False


def test_a_model_that_says_nothing_is_counted_and_breaks_nothing(
    bigram_model: Bigrams, tokenizer: Tokenizer
) -> None:
    end = tokenizer.end_of_turn_id
    assert end is not None
    silent = bigram_model({(None, end): 9.0})
    answers = ask_in_chat(silent, tokenizer, ["你好", "hello"], SamplingOptions(max_new_tokens=4))
    found = {score.category: score.value for score in manner(answers)}
    assert found["answers: not empty"] == 0 and found["answers: distinct 1-grams"] == 0
    assert found["answers: Chinese to Chinese"] == 0
    sure = {s.category: s.value for s in consistency(silent, tokenizer, 3, 0.7, 4)}
    assert set(sure.values()) == {0.0}


def test_sums_asked_again_agree_when_the_model_is_sure(
    bigram_model: Bigrams, tokenizer: Tokenizer
) -> None:
    one, end = tokenizer.encode("7")[0], tokenizer.end_of_turn_id
    assert end is not None
    sure = bigram_model({(None, one): 60.0, (one, end): 120.0})
    found = {s.category: s.value for s in consistency(sure, tokenizer, 3, 0.7, 4)}
    assert found["sums, said again: two answers agree"] == 1.0
    assert (
        found["sums, said again: one is right"]
        == found["sums, said again: the commonest of 3 is right"]
    )


def test_who_says_nothing_follows_some_instructions_and_that_is_the_chance() -> None:
    asked = [
        Instructed("0", "少于十个字", ("length_constraints:number_characters",),
                   ({"relation": "less than", "num_characters": 10},)),
        Instructed("1", "Three lines", ("detectable_format:number_bullet_lists",),
                   ({"num_bullets": 3},)),
    ]  # fmt: skip
    found = {score.category: score for score in obedience(asked, ["好", "- a\n- b\n- c"])}
    assert found["prompts followed, strict"].value == 1.0
    assert found["prompts followed, strict"].chance == 0.5
    assert found["Chinese prompts followed"].count == 1
    assert found["Chinese prompts followed"].chance == 1.0, "each language has its own"
    assert found["English prompts followed"].chance == 0.0
