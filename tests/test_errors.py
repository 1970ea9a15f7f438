"""How errors are put into words."""

from __future__ import annotations

import pytest

from miao.errors import did_you_mean, first_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("one\ntwo", "one"),
        ("\n  \n  third  \nfourth", "third"),
        ("", "ValueError"),
        (" \n\n", "ValueError"),
    ],
)
def test_first_line_always_says_something(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line


def test_a_misspelt_word_is_guessed() -> None:
    assert did_you_mean("pretran", ["pretrain", "sft"]) == "did you mean 'pretrain'?"
    assert did_you_mean("zzz", ["pretrain", "sft"]) is None
