"""Answers in generated texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miao.errors import MiaoError
from miao.evaluate.tasks.extract import EXTRACTORS, extractor, is_right, to_number
from miao.evaluate.tasks.option import option
from miao.files import read_jsonl


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("first_capital", "the answer is b, or B", "B"),
        ("first_capital", "没有字母", None),
        ("last_number", "3+4=7，一共 1,200 个", "1,200"),
        ("last_number", "82-45", "45"),
        ("last_number", "答案是-6", "-6"),
        ("first_number", "2 and 3", "2"),
        ("last_number", "none", None),
        ("text", "  x y ", "x y"),
        ("last:(-?[$0-9.,]{2,})|(-?[0-9]+)", "She has 5 and $1,200.", "$1,200."),
        ("first:#### (\\-?[0-9\\.\\,]+)", "so\n#### 18\n#### 19", "18"),
    ],
)
def test_what_is_found(name: str, text: str, found: str | None) -> None:
    assert extractor([name])(text, "ABCD") == found


def test_a_hundred_answers_and_the_letter_that_each_settles_on() -> None:
    """Chinese and English, half and half; three of them settle on none."""
    table = read_jsonl(Path(__file__).parent / "data/letters.jsonl")
    assert [sum(row["lang"] == lang for row in table) for lang in ("zh", "en")] == [50, 50]
    missed = [row for row in table if option(row["text"], "ABCD") != row["right"]]
    assert not missed


@pytest.mark.parametrize(
    ("text", "letters", "found"),
    [
        ("DNA 是遗传物质，所以选B", "ABCD", "B"),
        ("I believe it's C.", "ABCDEFGHIJ", "C"),
        ("排除选项A，选B", "ABCD", "B"),
        ("选E", "ABCD", None),  # no option of this question
        ("选E", "ABCDE", "E"),
        ("答案是A或B", "ABCD", None),
        ("A、B 都错，选C", "ABC", "C"),
        ("A is wrong. B is wrong.", "ABC", "C"),
        ("A是B的两倍", "ABCD", None),
        ("答案是B。\n\n问题：下一题？\n答案：C", "ABCD", "B"),
        ("", "ABCD", None),
        ("B", "", None),
        ("这道题选1", "1234", "1"),
    ],
)
def test_only_the_options_letters_count(text: str, letters: str, found: str | None) -> None:
    assert option(text, letters) == found


def test_the_first_that_finds_something_counts() -> None:
    extract = extractor(["first:#### (\\d+)", "last_number"])
    assert extract("1 2 #### 3 4", "") == "3"
    assert extract("1 2", "") == "2"
    assert extract("", "") is None


@pytest.mark.parametrize("name", ["first_captal", "last:(", "regex"])
def test_mistakes_are_explained(name: str) -> None:
    with pytest.raises(MiaoError):
        extractor([name])


@pytest.mark.parametrize(
    ("found", "answer", "right"),
    [
        ("1,200", "1200", True),
        ("$1,200.", "1200", True),
        ("600.0", "600", True),
        ("3/4", "0.75", True),
        ("50%", "0.5", True),
        ("20%", "20", True),
        ("20", "20%", True),
        ("20%", "21", False),
        ("2%", "0.2", False),
        ("601", "600", False),
        ("1/0", "600", False),
        ("abc", "600", False),
        (None, "600", False),
    ],
)
def test_numbers_are_compared_as_numbers(found: str | None, answer: str, right: bool) -> None:
    assert is_right(found, answer, "number") is right


def test_tolerance_texts_and_letters() -> None:
    assert is_right("0.1927", "0.1928", "number", 0.001)
    assert not is_right("0.19", "0.1928", "number", 0.001)
    assert is_right(" New  York", "new york", "text")
    assert is_right("B", "B", "letter") and not is_right("b", "B", "letter")


@given(st.text(), st.sampled_from(sorted(EXTRACTORS)))
def test_any_text_will_do(text: str, name: str) -> None:
    found = extractor([name])(text, "ABCD")
    assert found is None or (found and found in text) or name == "option"
    if found:
        to_number(found)
