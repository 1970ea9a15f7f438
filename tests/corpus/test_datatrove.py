"""Both runners make the same of every document, rule by rule."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.build.pipeline import build_corpus
from miao.corpus.clean import classifier, reasons
from miao.corpus.read.frequent import FREQUENT
from miao.errors import MiaoError
from miao.recipe import CorpusOptions
from miao.recipe.cleaning import CleanOptions, DedupOptions, WebOptions

pytest.importorskip("datatrove")

PROSE = "The seedling had to be watered with care, and that is what we have done all summer."
OF_TURNS = {"empty turn", "role order", "refusal"}
RARE = "".join(chr(code) for code in range(0x8000, 0x8050))
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "unicode": ({}, "e\u0301té\u200b，好"),
    "controls": ({}, "文\x07字"),
    "halfwidth": ({}, "ＡＢＣ１２３"),
    "whitespace": ({}, "一行   \n\n\n\n又一行"),
    "mojibake": ({"mojibake": True}, "РџСЂРёРІРµС‚, РјРёСЂ"),
    "html": ({"html": True}, "<p>正文&nbsp;</p>"),
    "boilerplate": ({"boilerplate": True}, "正文。\n返回首页\n版权所有 某某公司"),
    "simplify": ({"simplify": True}, "這裡有說明"),
    "id": ({}, "号码是11010519491231002X。"),
    "email": ({"personal": ["email"]}, "写信给 someone@mail.cn 吧"),
    "phone": ({"personal": ["phone"]}, "请打 13812345678 找他"),
    "empty": ({}, "。。。"),
    "too short": ({"min_characters": {"zh": 4}}, "短文"),
    "too long": ({"max_characters": 200}, FREQUENT[:201]),
    "broken": ({}, "好\ufffd\ufffd的"),
    "garbled": ({"max_one_character": None}, RARE),
    "symbols": ({"max_symbols": 0.4}, "★★★★★好★★★★★"),
    "digits": ({"max_digits": 0.4}, "1234567890 好"),
    "repeated lines": ({"max_repeated_lines": 0.5}, "同样的一行\n" * 8),
    "repeated n-grams": ({"max_repeated_ngrams": 0.6}, FREQUENT[:12] * 9),
    "one character": ({}, "哈" * 60),
    "language": ({"languages": ["zh"]}, "これは日本語の文章です。" * 9),
    "chinese share": ({"min_chinese": 0.5}, PROSE),
    "blocklist": ({"blocklists": ["{}/words.txt"]}, "这里有一则广告"),
    "quality": ({"quality_column": "score", "min_quality": 0.5}, "低分"),
    "domain": ({"blocked_domains": ["{}/domains.txt"]}, "来自别处"),
    "short lines": ({"web": WebOptions(max_short_lines=0.67)}, "一\n二\n三\n四"),
    "ended lines": ({"web": WebOptions(min_ended_lines=0.5)}, "标题\n菜单\n目录"),
    "line ends": ({"web": WebOptions(max_line_ends=0.3)}, "一\n二\n三\n四"),
    "list lines": ({"web": WebOptions(max_list_lines=0.9)}, "- 一\n- 二\n- 三"),
    "ellipsis lines": ({"web": WebOptions(max_ellipsis_lines=0.3)}, "更多……\n未完……"),
    "marks": ({"web": WebOptions(max_marks=0.1)}, "#one #two three"),
    "lettered words": ({"web": WebOptions(min_lettered_words=0.8)}, "1 2 3 4 5 a b"),
    "stop words": ({"web": WebOptions(min_stop_words=2)}, "Berlin Paris London Madrid"),
    "word length": ({"web": WebOptions(min_word_length=3)}, "a b c d e f g h i j"),
    "sentences": ({"web": WebOptions(min_sentences=2)}, "只有一句。"),
    "repeated paragraphs": ({"web": WebOptions(max_repeated_paragraphs=0.2)}, "一段\n\n一段"),
    "repetition": ({"web": WebOptions(max_repetition={2: 0.2})}, "buy it now " * 9),
    "placeholders": ({"web": WebOptions(placeholders=True)}, "{名字}你好"),
    "whole lines": ({"web": WebOptions(whole_lines=True)}, "菜单\n这是完整的一句话。"),
    "classifier": ({"classifier": "{}/judge"}, "限时秒杀，全场包邮，加微信领取优惠券。"),
    "own rule": ({"keep_functions": ["{}/own.py:keep"]}, "不要这一篇"),
    "repeated passages": ({}, f"另一篇的开头。\n\n{FREQUENT[40:80]}"),
}
GOOD = (
    f"{PROSE} It grew. It has bloomed.",
    "春天来了，小草绿了，花也开了。",
    f"一篇好文章。\n\n{FREQUENT[40:80]}",
)


def documents_of(folder: Path) -> list[Any]:
    lines: list[str] = []
    for file in sorted(folder.rglob("*.jsonl*")):
        raw = file.read_bytes()
        lines += (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode().splitlines()
    return sorted(map(json.loads, lines), key=json.dumps)


def both(tmp_path: Path, options: CorpusOptions, rows: list[dict[str, Any]]) -> tuple[Any, Any]:
    """What the two runners kept, and (rejected, edited) of each."""
    from datatrove.pipeline.readers import JsonlReader

    from miao.corpus.build import datatrove_steps as steps

    source = tmp_path / "in"
    source.mkdir()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (source / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options.paths, options.workers, options.heldout = [str(source)], 1, 0.0
    work, out = tmp_path / "work", tmp_path / "out"
    report = build_corpus(options, 1, tmp_path / "built", stages=["pretrain"])
    executors = steps.datatrove_executors(
        options, JsonlReader(str(source)), str(work), str(out), tasks=1, source="in"
    )
    for executor in executors:  # in this process
        data = None
        for step in executor.pipeline:
            data = step(data, rank=0, world_size=1) if callable(step) else step
        list(data or ())
    accounts = report.accounts["pretrain"]
    facts: dict[str, Any] = {}
    for path in (work / "hashes").glob("*.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
    edited = {k: v for k, v in accounts.edited.items() if k != "repeated passages"}
    ours = documents_of(tmp_path / "built/pretrain/train"), dict(accounts.rejected), edited
    return ours, (documents_of(out), facts["rejected"], facts["edited"])


def test_every_rule_of_documents_is_tried() -> None:
    assert CASES.keys() == reasons().keys() - OF_TURNS


@pytest.mark.parametrize("rule", CASES)
def test_both_runners_make_the_same_of_each_rule(tmp_path: Path, rule: str) -> None:
    needs = {
        "mojibake": "ftfy",
        "simplify": "opencc",
        "language": "lingua",
        "classifier": "sklearn",
    }
    if rule in needs:
        pytest.importorskip(needs[rule])
    (tmp_path / "words.txt").write_text("广告", encoding="utf-8")
    (tmp_path / "domains.txt").write_text("spam.example\n", encoding="utf-8")
    own = "def keep(text):\n    return '不要' not in text\n"
    (tmp_path / "own.py").write_text(own, encoding="utf-8")
    values, text = CASES[rule]
    if rule == "classifier":
        good = [f"{GOOD[number % 3]}{number}" for number in range(60)]
        classifier.train(good, [f"{text}{number}" for number in range(60)], tmp_path / "judge")
    filled = {
        key: json.loads(json.dumps(value).replace("{}", str(tmp_path)))
        if isinstance(value, str | list)
        else value
        for key, value in values.items()
    }
    options = CorpusOptions(clean=CleanOptions(**filled))
    options.dedup = DedupOptions(paragraphs=rule == "repeated passages")
    rows = [{"text": good, "score": 0.9, "source": "web"} for good in GOOD]
    ours, theirs = both(
        tmp_path, options, [*rows, {"text": text, "score": 0.1, "url": "https://a.spam.example/1"}]
    )
    assert ours == theirs
    fired = ours[1].keys() | ours[2].keys()
    if rule == "repeated passages":
        assert sum(FREQUENT[40:80] in record["text"] for record in ours[0]) == 1
    else:
        assert rule in fired, fired


def test_both_runners_mend_and_refuse_the_same(tmp_path: Path) -> None:
    """What lives in reading: wrong decodings turned back, NUL, characters that are lost."""
    texts = [
        "鎴戜滑鍦ㄨ繖閲屽涔犱腑鏂囥€�",
        "ä½\xa0å¥½ï¼Œä¸–ç•Œ",
        "锟斤拷锟斤拷锟斤拷",
        "有\0零的文字",
        "好" * 20 + "\ufffd",
        *GOOD,
    ]
    options = CorpusOptions(skip_bad_records=True)
    ours, theirs = both(tmp_path, options, [{"text": text} for text in texts])
    assert ours == theirs
    kept = [record["text"] for record in ours[0]]
    assert "你好，世界" in kept and "有零的文字" in kept
    assert not any("锟" in text or "ä" in text for text in kept)


def test_a_bad_document_stops_a_strict_run(tmp_path: Path) -> None:
    from datatrove.data import Document

    from miao.corpus.build.datatrove_steps import CleanStep

    step = CleanStep(CorpusOptions(), str(tmp_path))
    with pytest.raises(MiaoError, match=r"document 7: .*锟斤拷.*\n.*skip_bad_records = True"):
        list(step.run([Document("锟斤拷锟斤拷锟斤拷", id="7")]))
