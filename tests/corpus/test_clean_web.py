"""Limits of Gopher, C4 and FineWeb by hand and beside datatrove; rules that the user wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.clean import Cleaned, Cleaner, Rejected, web
from miao.corpus.ngrams import TextView
from miao.corpus.records import Conversation, Document, Message
from miao.errors import MiaoError
from miao.recipe.cleaning import CleanOptions, WebOptions

PROSE = "The seedling had to be watered with care, and that is what we have done all summer."
GOOD = f"{PROSE}\nIt grew. It grew every day! Would it bloom? The answer came in June."


def rule_of(text: str, options: CleanOptions) -> str | None:
    found = Cleaner(options).clean(Document(text))
    return found.rule if isinstance(found, Rejected) else None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("short_lines", "一二三四五六七八九十一二三四五\n" + "长" * 16 + "\nshort", 2 / 3),
        ("ended_lines", "Ended.\n“完了。”\nHeading\n菜单", 2 / 4),
        ("line_ends", "one two\nthree\n四五", 2 / 5),
        ("list_lines", "- a\n• b\nc\n* d", 3 / 4),
        ("ellipsis_lines", "more...\n未完……\nend.", 2 / 3),
        ("marks", "#one #two three four", 2 / 4),
        ("marks", "等等……好吧", 1 / 4),
        ("lettered_words", "12 34 ab 五 。", 2 / 4),
        ("stop_words", "The end OF the day", 2),
        ("stop_words", "北京大学数学系", 0),
        ("word_length", "a bb ccc (2026)", 2),
        ("word_length", "你好 world", None),
        ("sentences", "One. Two? 三。四！ 3.14 is pi", 4),
        ("repeated_paragraphs", "abcd\n\nabcd\n\nef", 4 / 10),
    ],
)
def test_measures_by_hand(name: str, text: str, expected: float | None) -> None:
    found = web.MEASURES[name](web.Page(TextView(text)))
    assert found == (None if expected is None else pytest.approx(expected))


def test_repetition_by_hand() -> None:
    """Of ten words the commonest pair makes up six; "b c d e f" repeats, so five are covered."""
    assert web.repetition(TextView("x y x y x y p q r s"), 2) == pytest.approx(6 / 10)
    assert web.repetition(TextView("a b c d e f b c d e f"), 5) == pytest.approx(5 / 11)
    assert web.repetition(TextView("a b c d e f g h i j k"), 5) == 0
    # Two characters of Chinese count as one word.
    assert web.repetition(TextView("春眠不觉春眠不觉处处闻啼鸟了"), 2) == pytest.approx(8 / 14)


@pytest.mark.parametrize("like", list(web.PUBLISHED))
def test_good_prose_passes_and_each_limit_is_an_option(like: str) -> None:
    assert rule_of(GOOD, CleanOptions(web=WebOptions(like=[like]))) is None
    assert web.PUBLISHED[like].keys() <= vars(WebOptions()).keys() | {"max_repeated_lines"}


@pytest.mark.parametrize(
    ("like", "rule", "text"),
    [
        ("fineweb", "short lines", f"{GOOD}\nHome.\nNews.\nSport.\nShop.\nHelp."),
        ("fineweb", "ended lines", "\n".join(f"a heading of the page that has number {i}" for i in range(9))),
        ("fineweb", "repeated lines", f"{GOOD}\n" * 4),
        ("gopher", "stop words", "Berlin Paris London Madrid"),
        ("gopher", "repetition", "buy it now and save that money " * 9),
        ("gopher", "lettered words", "The sum of 1 2 3 4 5 6 7 8 9 10 and 11 to be"),
        ("c4", "sentences", "Only one sentence here."),
        ("c4", "placeholders", f"{GOOD} Lorem ipsum dolor."),
        ("c4", "placeholders", "{" + GOOD + "}."),
    ],
)  # fmt: skip
def test_published_limits_find_their_pages(like: str, rule: str, text: str) -> None:
    assert rule_of(text, CleanOptions(web=WebOptions(like=[like]))) == rule


def test_own_limits_win_over_published_ones() -> None:
    text = "Berlin Paris London Madrid"
    options = CleanOptions(web=WebOptions(like=["gopher"], min_stop_words=0))
    assert rule_of(text, CleanOptions(web=WebOptions(like=["gopher"]))) == "stop words"
    assert rule_of(text, options) is None
    with pytest.raises(MiaoError, match="'gofer' is no published set"):
        Cleaner(CleanOptions(web=WebOptions(like=["gofer"])))


def test_whole_lines_stay() -> None:
    text = "A whole line stays here.\nMenu\nWe use cookies on this site.\n\n整句留下来。\nOh yes."
    assert web.whole_lines(text) == "A whole line stays here.\n\n整句留下来。"


def test_gopher_and_fineweb_agree_with_datatrove() -> None:
    filters: Any = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document as TheirDocument
    from datatrove.pipeline.filters import (
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    modules: list[Any] = [
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    ]
    for module in modules:  # words by white space: theirs come from a library of models
        module.split_into_words = lambda text, language: re.findall(r"\S+", text)
    theirs = {
        "gopher": [
            filters.GopherRepetitionFilter(),
            filters.GopherQualityFilter(min_doc_words=None, max_doc_words=None),
        ],
        "fineweb": [filters.FineWebQualityFilter()],
    }
    words = [
        "the",
        "be",
        "to",
        "of",
        "and",
        "that",
        "have",
        "with",
        "river",
        "stone",
        "green",
        "walked",
        "seven",
    ]
    words += [word + word for word in words]  # long enough: of few words theirs calls any repeated
    texts = [
        GOOD,
        "- a list of the things\n" * 2,
        "wait...\nand then...\nof the\nend",
        "# # of the",
    ]
    texts += [
        "buy it now of the " * 8,
        "12 34 56 78 the of",
        "\n".join(words),
    ]
    texts += [" ".join(words[i:] + words[:i]) + ("." if i % 2 else "") for i in range(8)]
    for like, rules in theirs.items():
        for text in texts:
            passed = all(rule.filter(TheirDocument(text=text, id="0")) is True for rule in rules)
            ours = rule_of(text, CleanOptions(web=WebOptions(like=[like])))
            assert (ours is None) == passed, (like, text, ours)


OWN = """
def keep(text):
    return "it shouts" if text.isupper() else len(text) > 3

def tidy(text):
    return text.replace("colour", "color")

def broken(text):
    return 1 / 0

def nothing(text):
    pass
"""


def test_a_rule_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "rules.py"
    path.write_text(OWN)
    options = CleanOptions(keep_functions=[f"{path}:keep"], edit_functions=[f"{path}:tidy"])
    cleaner = Cleaner(options)
    cleaned = cleaner.clean(Document("the colour of grass"))
    assert isinstance(cleaned, Cleaned) and cleaned.view.text == "the color of grass"
    assert cleaned.edits["own rule"][0] == 1
    shouted = cleaner.clean(Document("ALL OF IT"))
    assert isinstance(shouted, Rejected) and shouted.detail == "it shouts"
    assert isinstance(cleaner.clean(Document("abc")), Rejected)
    chat = cleaner.clean(Conversation([Message("user", "colour?"), Message("assistant", "red")]))
    assert isinstance(chat, Cleaned) and chat.record.messages[0].content == "color?"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rules.py:kep", "has no 'kep'"),
        ("missing.py:keep", "there is no file"),
        ("rules.py", "there is no 'rules.py'"),
        ("bad.py:keep", "cannot be loaded"),
        ("rules.py:broken", "ZeroDivisionError.*the text begins"),
        ("rules.py:nothing", "it returned None"),
    ],
)
def test_mistakes_in_own_rules_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.py").write_text(OWN)
    Path("bad.py").write_text("def keep(:")
    with pytest.raises(MiaoError, match=message):
        Cleaner(CleanOptions(keep_functions=[name])).clean(Document("some text"))
