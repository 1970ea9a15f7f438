"""The seedbed's tables: how one adds a fact, and that a slip of the pen is named with its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from miao.corpus.seedbed import facts, phrasing, scenes, tables, words
from miao.errors import MiaoError


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The tables where they may be spoiled; nothing that was read of them is remembered."""
    folder = tmp_path / "tables"
    shutil.copytree(tables.FOLDER, folder)
    monkeypatch.setattr(tables, "FOLDER", folder)
    readers = (tables.table, tables.phrases, facts.relations, facts.facts, phrasing.talks)
    readers += (scenes.scenes, words.words, words.riddles)
    for reader in readers:
        reader.cache_clear()
    yield folder
    for reader in readers:
        reader.cache_clear()


def test_a_fact_is_added_by_one_line(copied: Path) -> None:
    path = copied / "en" / "facts.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("    Spain: Madrid\n", "    Spain: Madrid\n    Cuba: Havana\n"))
    added = [fact for fact in facts.facts() if fact.value == "Havana"]
    assert added[0].sentence == "The capital of Cuba is Havana."
    assert "Madrid" in added[0].distractors


SLIPS = [
    # file, old, new, reader, what the message says
    ("en/facts.yaml", "Spain: Madrid", "China: Beijing", facts.facts, r"facts.yaml:\d+: 'China' stands here a second"),
    ("en/facts.yaml", "Spain: Madrid", "Spain: 7", facts.facts, r"country_capital.facts: 'Spain: 7' is not text"),
    ("en/facts.yaml", "Spain: Madrid", "Spain Madrid", facts.facts, r"facts.yaml:\d+: not valid YAML"),
    ("en/facts.yaml", "    The capital of {s} is {v}.", "    The capital of {x} is {v}.", facts.facts, r"province_capital.statements: nothing fills the \{x\}"),
    ("en/facts.yaml", "    The capital of {s} is {v}.", "    The capital of {s is {v}.", facts.facts, "brace without its other"),
    ("en/facts.yaml", "  statements:", "  statement:", facts.facts, r"province_capital.statements: missing"),
    ("en/facts.yaml", "  follow_up:", "  folow_up:", facts.facts, r"no such key\n.*did you mean 'follow_up'"),
    ("en/facts.yaml", "  counted: true", "  counted: yes", facts.facts, r"counted: not true or false"),
    ("zh/facts.yaml", "    {v}是{s}的省会。\n", "    {s}的省会是{v}。\n", facts.facts, "stands here 2 times"),
    ("zh/smalltalk.yaml", "\nhello:", "\nhallo:", lambda: phrasing.talks("smalltalk"), "'hallo' stands in one language alone"),
    ("zh/smalltalk.yaml", "    不客气！\n", "", lambda: phrasing.talks("smalltalk"), "thanks.replies: not as many replies"),
    ("zh/plots.yaml", "硬币/小铃铛/玻璃球/小钥匙/贝壳 | ", "", lambda: scenes.scenes("plots", "zh"), "lost.a b c: not 3 cells"),
    ("zh/plots.yaml", "{h}(很着急", "{who}(很着急", lambda: scenes.scenes("plots", "zh"), r"lost.text: nothing fills the \{who\}"),
    ("words.tsv", "苹果\tapple", "苹果 apple", words.words, r"words.tsv:2: 4 cells are needed"),
    ("words.tsv", "香蕉\t", "苹果\t", words.words, r"words.tsv:3: '苹果' stands here twice"),
    ("words.tsv", "zh\ten", "en\tzh", words.words, r"words.tsv:1: .*name the columns"),
    ("en/verses.yaml", " | a shadow", "", lambda: words.riddles("en"), "riddles: not 2 cells"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "read", "message"), SLIPS)
def test_a_slip_in_a_table_is_named_with_its_place(
    copied: Path, name: str, old: str, new: str, read, message: str
) -> None:
    path = copied / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(MiaoError, match=message):
        read()


def test_a_relation_of_few_values_is_refused(copied: Path) -> None:
    path = copied / "zh" / "facts.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("    西藏: 拉萨\n    宁夏: 银川\n", ""), encoding="utf-8")
    with pytest.raises(MiaoError, match=r"region_capital.facts: .* has 2 wrong answers"):
        facts.facts()
