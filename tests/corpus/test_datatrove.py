"""Both runners make the same of every document, rule by rule."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.build.pipeline import build_corpus, given_paths
from miao.corpus.clean import classifier, reasons
from miao.corpus.dedup import chunks, duplicates
from miao.corpus.read import blocks
from miao.corpus.read.frequent import FREQUENT
from miao.corpus.records import KINDS
from miao.errors import MiaoError
from miao.files import read_json
from miao.recipe import CorpusOptions
from miao.recipe.cleaning import (
    CategoryOptions,
    CleanOptions,
    ContaminationOptions,
    DedupOptions,
    MixOptions,
    WebOptions,
)
from miao.tokenizer import Tokenizer

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


def made_of(directory: Path) -> tuple[Any, dict[str, bytes]]:
    """The manifest of a corpus, and its files."""
    files = sorted(p for p in directory.rglob("*") if p.suffix in (".jsonl", ".parquet"))
    found = {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}
    return read_json(directory / "manifest.json"), found


def both(tmp_path: Path, options: CorpusOptions, tasks: int = 1) -> tuple[Any, Any]:
    """What the two runners make; the steps of datatrove's run in this process."""
    from miao.corpus.build.datatrove_steps import datatrove_executors

    stages = [stage for stage, paths in given_paths(options).items() if paths]
    build_corpus(options, 1, tmp_path / "built", stages=stages)
    work, out = str(tmp_path / "work"), str(tmp_path / "out")
    for executor in datatrove_executors(options, work, out, tasks, seed=1):
        for rank in range(executor.tasks):
            for step in executor.pipeline:
                list(step.run(None, rank, executor.tasks))
    ours, theirs = made_of(tmp_path / "built"), made_of(tmp_path / "out")
    if not theirs[1]["problems.jsonl"]:
        del theirs[1]["problems.jsonl"]
    return ours, theirs


def write(path: Path, rows: list[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


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
    last = {"text": text, "score": 0.1, "url": "https://a.spam.example/1"}
    options.paths, options.workers, options.heldout = [str(tmp_path / "in")], 1, 0.0
    write(tmp_path / "in" / "rows.jsonl", [*rows, last])
    ours, theirs = both(tmp_path, options)
    assert ours == theirs
    accounts = ours[0]["accounts"]["pretrain"]
    if rule == "repeated passages":
        written = b"".join(ours[1].values()).decode()
        assert written.count(FREQUENT[40:80]) == 1
    else:
        assert rule in accounts["rejected"].keys() | accounts["edited"].keys()


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
    options = CorpusOptions(skip_bad_records=True, heldout=0.0, workers=1)
    options.paths = [write(tmp_path / "in.jsonl", [{"text": text} for text in texts])]
    ours, theirs = both(tmp_path, options)
    assert ours == theirs and ours[1]["problems.jsonl"]
    kept = [json.loads(line)["text"] for line in ours[1]["pretrain/train/in.jsonl"].splitlines()]
    assert "你好，世界" in kept and "有零的文字" in kept
    assert not any("锟" in text or "ä" in text for text in kept)


def test_a_bad_document_stops_a_strict_run(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"text": "好"}, {"text": "锟斤拷锟斤拷锟斤拷"}])
    with pytest.raises(MiaoError, match=r"in.jsonl:2: .*锟斤拷.*\n.*skip_bad_records true"):
        both(tmp_path, CorpusOptions(paths=[path]))


@pytest.mark.parametrize("url", [False, True])
def test_all_kinds_of_record_in_many_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: bool
) -> None:
    """Near-duplicates, passages, mix, held-out, decontamination; by paths and by URLs."""
    monkeypatch.setattr(blocks, "PART_BYTES", 9000)
    monkeypatch.setattr(chunks, "GROUP_CHARACTERS", 6000)
    monkeypatch.setattr(duplicates, "PART_BYTES", 60_000)
    rng = random.Random(5)
    texts = ["".join(rng.choices(FREQUENT, k=110)) for _ in range(120)]
    rows: list[Any] = [{"text": t, "source": "ab"[n % 2]} for n, t in enumerate(texts)]
    rows += [{"text": f"{t[:70]}改{t[70:]}"} for t in texts[::3]] + rows[::7]
    fresh = ["".join(rng.choices(FREQUENT, k=150)) for _ in range(9)]
    rows += [{"text": f"{text}\n\n{FREQUENT[:40]}", "source": "a"} for text in fresh]
    rows += [{"words": 1}, {"text": f"{texts[3]}下列关于光合作用的说法中哪一项是正确的请选择答案"}]
    exam = {"question": "下列关于光合作用的说法中，哪一项是正确的？请选择答案。"}
    start = f"file://{tmp_path}/" if url else f"{tmp_path}/"
    for name, some in (("one", rows[::2]), ("two", rows[1::2])):
        write(tmp_path / "in" / f"{name}.jsonl", some)
    turns = [
        [{"role": "user", "content": t[:8]}, {"role": "assistant", "content": t}] for t in texts
    ]
    write(tmp_path / "chats.jsonl", [{"messages": t} for t in turns + turns[::5]])
    pairs = [{"prompt": t[:12], "chosen": t[12:40], "rejected": t[40:60]} for t in texts]
    write(tmp_path / "pairs.jsonl", pairs)
    options = CorpusOptions(
        paths=[f"{start}in"],
        conversations=[f"{start}chats.jsonl"],
        preferences=[f"{start}pairs.jsonl"],
        dedup=DedupOptions(near=True, paragraphs=True, min_span=20),
        contamination=ContaminationOptions(paths=[write(tmp_path / "exam.jsonl", [exam])]),
        mix=MixOptions(
            pretrain={"a": CategoryOptions(count=90), "b": CategoryOptions(cap=40)},
            sft={"chats": CategoryOptions(count=150, sources=["*"])},
        ),
        heldout=0.1,
        skip_bad_records=True,
        workers=1,
    )
    ours, theirs = both(tmp_path, options, tasks=3)
    assert ours == theirs
    accounts = ours[0]["accounts"]["pretrain"]
    for what in ("exact", "near", "edited", "contaminated", "left_out", "repeated", "heldout"):
        assert accounts[what], f"nothing tried of {what}"
    assert {"sft/heldout/conversations.jsonl", "dpo/train/preferences.jsonl"} <= ours[1].keys()


@pytest.mark.parametrize("url", [False, True])
def test_shards_of_many_tasks_are_those_of_one_machine(
    tmp_path: Path, tokenizer: Tokenizer, url: bool
) -> None:
    """All kinds of record, a source in several files; tasks are done again without harm."""
    from miao.shards.bulk import Job, build_datasets
    from miao.shards.cluster import shard_executors

    corpus, chat = tmp_path / "corpus", [{"role": "assistant", "content": GOOD[0]}]
    rows: dict[str, list[Any]] = {
        "pretrain/train/web-00000-of-00002": [{"text": text, "source": "web"} for text in GOOD],
        "pretrain/train/web-00001-of-00002": [{"text": PROSE * 3, "source": "web"}],
        "sft/train/conversations": [{"messages": [{"role": "user", "content": "好"}, *chat]}],
        "dpo/train/preferences": [{"prompt": "好", "chosen": "好", "rejected": "坏"}],
    }
    rows["pretrain/heldout/web"] = rows["pretrain/train/web-00001-of-00002"]
    for name, some in rows.items():
        write(corpus / f"{name}.jsonl", some)
    digests = {f"{name}.jsonl": "" for name in rows}
    (corpus / "manifest.json").write_text(json.dumps({"sha256": digests}), encoding="utf-8")
    tokenizer.save(tmp_path / "tokenizer")
    for name in ("pretrain/train/web", "pretrain/heldout/web", *list(rows)[2:4]):
        files = sorted(corpus.glob(f"{name}*.jsonl"))
        job = Job(files, KINDS[name.split("/")[0]], name.split("/")[2], tmp_path / "ours" / name)
        build_datasets([job], tokenizer, 1)
    start = f"file://{tmp_path}" if url else str(tmp_path)
    places = (str(tmp_path / "tokenizer"), 3, str(tmp_path / "logs"))
    tokenise, number = shard_executors(f"{start}/corpus", f"{start}/theirs", *places)
    for executor in (tokenise, tokenise, number):
        for rank in range(executor.tasks):
            list(executor.pipeline[0].run(None, rank, executor.tasks))
    ours, theirs = (
        {p.relative_to(tmp_path / side).as_posix(): p.read_bytes() for p in found}
        for side in ("ours", "theirs")
        for found in [[p for p in (tmp_path / side).rglob("*") if p.is_file()]]
    )
    assert ours == theirs and "pretrain/train/web/tokens-00001.bin" in ours
