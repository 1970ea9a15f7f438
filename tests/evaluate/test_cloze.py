"""Cloze questions from texts of one's own: seeded, of one kind, and of no use to who only copies."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from miao.cli import main
from miao.errors import MiaoError
from miao.evaluate.tasks.cloze import BEFORE, KINDS, PER_TEXT, cloze_items
from miao.evaluate.tasks.items import read_questions
from miao.evaluate.tasks.task import load_task
from miao.files import read_jsonl

ZH = (
    "镇上的老人都记得，1862年河水涨过桥面，王大明撑船救了三十户人家。那时候石磨坊还在，王大明住在石磨坊旁边，"
    "后来他的孙子王小成修好了石磨坊的水车。{n}年大旱，井水见底，李春山带人挖了七天七夜，终于挖到了泉眼。"
    "李春山的名字刻在泉眼边的石头上，水车也刻在那里。人们说做事不能半途而废，更不能守株待兔。"
    "1903年，李春山离开镇子去了省城，王小成送他到渡口，渡口的柳树是1899年种下的。渡口现在没有船，水车也停了。"
)
EN = (
    "In the spring of 1862 the river rose above the bridge, and Thomas saved thirty families with "
    "his ferry. The miller, a friend of Thomas and of Edward, kept the granary dry. In {n} there was "
    "a drought; the granary stood empty, and Edward dug for seven days. After that Edward and his "
    "sister, called Margaret, planted an orchard. The orchard bore fruit in 1903, when Margaret was "
    "old. Every traveller who passed the granary asked whether Thomas had lived there. In 1899 the "
    "orchard was sold to a traveller from the coast, and Margaret left.\n"
)


def texts(count: int = 12) -> list[str]:
    """No two have their millhouses, wheels, granaries and orchards in common."""
    found = []
    for n in range(count):
        zh = ZH.replace("石磨", "甲乙丙丁戊己庚辛壬癸子丑"[n] + "磨").replace(
            "水车", "金木水火土日月星风云雷雨"[n] + "车"
        )
        letter = "abcdefghijkl"[n]
        en = EN.replace("granary", f"gran{letter}rers").replace("orchard", f"orch{letter}rers")
        found += [text.format(n=1870 + n) for text in (zh, en)]
    return found


def test_every_gap_is_filled_by_what_stood_there() -> None:
    whole = texts()
    items = cloze_items(whole)
    kinds = Counter((item["kind"], item["language"]) for item in items)
    assert {kind for kind, _ in kinds} == set(KINDS) and {lang for _, lang in kinds} == {"zh", "en"}
    for item in items:
        right = item["options"][item["answer"]]
        assert any(item["before"] + right + item["after"] in text for text in whole)
        assert len(set(item["options"])) == len(item["options"]) > 1
        assert BEFORE[item["language"]] // 10 <= len(item["before"]) <= BEFORE[item["language"]]
        seen = {option in item["before"] for option in item["options"]}
        assert len(seen) == 1, "who only likes what was read before is at chance"
        if item["kind"] == "number":
            assert len({len(option) for option in item["options"]}) == 1
            assert all(re.fullmatch(r"[\d,.]+", option) for option in item["options"])
    assert max(Counter(item["cluster"] for item in items).values()) <= PER_TEXT


def test_the_same_seed_gives_the_same_questions_whatever_the_order() -> None:
    some = texts()
    first = cloze_items(some, seed=1)
    assert cloze_items(some, seed=1) == first
    backwards = cloze_items(some[::-1], seed=1)
    key = str
    assert sorted(backwards, key=key) == sorted(first, key=key)
    assert cloze_items(some, seed=2) != first


def test_too_little_text_is_refused() -> None:
    with pytest.raises(MiaoError, match="of 3 texts 0 have 200 characters"):
        cloze_items(["短", "short", ""])
    with pytest.raises(MiaoError, match="fewer than 20"):
        cloze_items(texts(1))
    with pytest.raises(MiaoError, match="give 0 cloze questions"):
        cloze_items(["啊" * 5000, "a" * 5000, " \n" * 900])


def test_from_the_command_line_to_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate(texts()):
        Path(f"{number}.txt").write_text(text, encoding="utf-8")
    assert main(["eval", "cloze", ".", "--out", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "--tasks cloze --data mine" in shown
    made = read_jsonl("mine/cloze.jsonl")
    items = read_questions(load_task("cloze"), Path("mine")).all()
    assert len(items) == len(made) and {item.subject for item in items} >= {"idiom zh", "rare en"}
    assert [item.cluster for item in items] == [one["cluster"] for one in made]
    Path("short.txt").write_text("短。", encoding="utf-8")
    assert main(["eval", "cloze", "short.txt"]) == 2
    assert "name more held-out text" in capsys.readouterr().err
