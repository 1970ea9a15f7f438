"""The corpus stage as a whole: every record is accounted for, whatever comes and happens."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miao.cli import main
from miao.corpus.build import assemble, cleaning, output, stages
from miao.corpus.build.pipeline import build_corpus, input_stamps
from miao.corpus.dedup import chunks, duplicates, shuffle
from miao.corpus.read import blocks, readers
from miao.corpus.read.formats import read_records
from miao.corpus.read.frequent import FREQUENT
from miao.corpus.records import Preference
from miao.corpus.seedbed import Seedbed
from miao.errors import MiaoError
from miao.files import read_json
from miao.recipe import CorpusOptions, SeedbedOptions
from miao.recipe.cleaning import (
    CategoryOptions,
    CleanOptions,
    ContaminationOptions,
    DedupOptions,
    MixOptions,
)
from miao.report.data_report import render


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(lines, encoding="utf-8")
    return path


def lines_of(directory: Path, split: str = "train", stage: str = "pretrain") -> list[Any]:
    files = sorted((directory / stage / split).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.open(encoding="utf-8")]


def some_texts(count: int, seed: int = 0, length: int = 120) -> list[str]:
    rng = random.Random(seed)
    characters = FREQUENT  # of rare ones the rule on garbled text would take offence
    return ["".join(rng.choices(characters, k=length)) for _ in range(count)]


def options_for(path: Path, **values: Any) -> CorpusOptions:
    return CorpusOptions(paths=[str(path)], **{"workers": 1, "heldout": 0.0, **values})


WORDS = st.sampled_from(
    ["你好世界", "第二段话", "。。。", "ａｂｃ", "\u200b", "x" * 70, "", "甲乙丙丁" * 20, "\n\n"]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(st.lists(WORDS, min_size=1, max_size=5).map("".join), min_size=1, max_size=25),
    heldout=st.sampled_from([0.0, 0.2]),
    near=st.booleans(),
    spans=st.booleans(),
    count=st.none() | st.integers(1, 40),
)
def test_every_record_is_accounted_for(
    tmp_path_factory: Any, texts: list[str], heldout: float, near: bool, spans: bool, count: Any
) -> None:
    directory = tmp_path_factory.mktemp("accounts")
    path = write(
        directory / "in.jsonl", [{"text": t, "source": "ab"[i % 2]} for i, t in enumerate(texts)]
    )
    mix = MixOptions(pretrain={"a": CategoryOptions(count=count, max_epochs=2)} if count else {})
    dedup = DedupOptions(near=near, near_min_tokens=5, paragraphs=spans, lines=spans, min_span=4)
    options = options_for(path, heldout=heldout, dedup=dedup, mix=mix, skip_bad_records=True)
    try:
        report = build_corpus(options, 1, directory / "corpus", stages=["pretrain"])
    except MiaoError as error:
        assert re.search(
            "no record is left|none is left to train on|no document|no record belongs", str(error)
        )
        return
    accounts = report.accounts["pretrain"]
    assert accounts.read + report.problems == len(texts)
    assert accounts.read == accounts.accounted
    train, held = (lines_of(directory / "corpus", split) for split in ("train", "heldout"))
    assert len(train) == accounts.train + accounts.repeated and len(held) == accounts.heldout
    assert not {r["text"] for r in train} & {r["text"] for r in held}
    distinct = Counter("".join(record["text"].split()) for record in train)
    if not spans:
        assert len(distinct) == accounts.train, "no text stands there twice, repetitions aside"
    assert max(distinct.values()) <= (2 if count else 1) or spans
    assert all(record["source"] in "ab" for record in train)


def test_the_built_in_corpus_is_left_alone(tmp_path: Path) -> None:
    options = CorpusOptions(clean=CleanOptions(min_characters={"zh": 10_000}), heldout=0.02)
    options.seedbed.characters, options.seedbed.conversations = "20K", 60
    options.seedbed.preferences = 20
    report = build_corpus(options, 3, tmp_path / "corpus")
    assert not report.accounts
    written = [r for split in ("train", "heldout") for r in lines_of(tmp_path / "corpus", split)]
    generated = {json.dumps(r.to_json()) for r in Seedbed(options.seedbed, 3).records("document")}
    assert {json.dumps(record) for record in written} == generated


def test_the_defaults_take_out_only_what_is_broken(tmp_path: Path) -> None:
    good = [
        "短。",
        "1 2 3",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "<p>教程</p> 联系 a@b.cn 或 13812345678",
        "啦啦啦，啦啦啦，我是卖报的小行家。\n" * 3,
        "if x:\n    return {}\n",
    ]
    path = write(
        tmp_path / "in.jsonl",
        [{"text": t} for t in [*good, "。。。", good[0], "好" + "\ufffd" * 2]],
    )
    report = build_corpus(options_for(path), 1, tmp_path / "corpus", stages=["pretrain"])
    accounts = report.accounts["pretrain"]
    assert accounts.rejected == {"empty": 1, "broken": 1} or accounts.rejected == {"empty": 1}
    assert accounts.exact == 1
    assert [r["text"] for r in lines_of(tmp_path / "corpus")][: len(good)] == [
        t.rstrip("\n") for t in good
    ]


def test_many_processes_and_an_interruption_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = some_texts(400)
    path = write(tmp_path / "in.jsonl", [{"text": t} for t in texts + texts[::3]])
    monkeypatch.setattr(blocks, "PART_BYTES", 12_000)
    build_corpus(options_for(path), 1, tmp_path / "one", stages=["pretrain"])
    build_corpus(options_for(path, workers=2), 1, tmp_path / "two", stages=["pretrain"])
    seen: list[str] = []
    real = cleaning.ChunkFile.write

    def breaks_off(chunk: Any, builder: Any) -> None:
        seen.append(chunk.name)
        real(chunk, builder)
        if len(seen) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(cleaning.ChunkFile, "write", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(options_for(path), 1, tmp_path / "three", stages=["pretrain"])
    assert not (tmp_path / "three").exists()
    done = set(seen[:-1])
    opened: list[int] = []
    lines = readers.raw_lines_between

    def note(file: Any, start: int, stop: int) -> Any:
        opened.append(start)
        return lines(file, start, stop)

    monkeypatch.setattr(readers, "raw_lines_between", note)
    build_corpus(options_for(path), 1, tmp_path / "three", stages=["pretrain"])
    assert len(seen) > 8 and not set(seen[8:]) & done, "done chunks are not done again"
    assert min(opened) == 7 * 12_000, "nor is what they were made of read again"
    assert not (tmp_path / ".three.work").exists()
    digests = [
        read_json(tmp_path / name / "manifest.json")["sha256"] for name in ("one", "two", "three")
    ]
    assert digests[0] == digests[1] == digests[2]


def test_what_was_made_of_other_options_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "in.jsonl", [{"text": "一段ＡＢＣ文字"}])

    def broken_off(*arguments: Any) -> None:
        raise KeyboardInterrupt

    for halfwidth in (True, True, False):
        options = options_for(path, clean=CleanOptions(halfwidth=halfwidth))
        with monkeypatch.context() as patched:
            patched.setattr(stages.Assembly, "write", broken_off)
            with pytest.raises(KeyboardInterrupt):
                build_corpus(options, 1, tmp_path / "out", stages=["pretrain"])
    build_corpus(options, 1, tmp_path / "out", stages=["pretrain"])
    assert [record["text"] for record in lines_of(tmp_path / "out")] == ["一段ＡＢＣ文字"]


def test_many_parts_and_many_files_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All kinds of record, however they are cut: the records, the accounts, the lines of what is
    wrong; several files of a source, in order, hold what one does."""
    texts = some_texts(150)
    rows: list[Any] = [{"text": t, "source": "ab"[n % 2]} for n, t in enumerate(texts)]
    rows += [{"text": f"{t[:90]}改了{t[92:]}\n\n{texts[0][:40]}"} for t in texts[::4]] + rows[::9]
    rows[60:60] = [{"words": "no text"}, {"text": "。。。"}]
    write(tmp_path / "in" / "web.jsonl", rows)
    packed = write(tmp_path / "packed.jsonl", [{"text": t} for t in some_texts(60, 9)])
    (tmp_path / "in" / "more.jsonl.gz").write_bytes(gzip.compress(packed.read_bytes()))
    (tmp_path / "in" / "note.txt").write_text(texts[3], encoding="utf-8")
    turns = [
        [{"role": "user", "content": t[:9]}, {"role": "assistant", "content": t}] for t in texts
    ]
    chats = write(tmp_path / "chats.jsonl", [{"messages": t} for t in turns + turns[::5]])
    pair = {"chosen": "好", "rejected": "坏"}
    pairs = [{"prompt": t[:12], **pair} for t in texts]
    pairs += [
        {"prompt": t[5:15], "completion": "嗯", "label": n % 2 == 0} for n in (0, 1) for t in texts
    ]
    asked = write(tmp_path / "pairs.jsonl", pairs)
    options = options_for(
        tmp_path / "in",
        conversations=[str(chats)],
        preferences=[str(asked)],
        dedup=DedupOptions(near=True, paragraphs=True, min_span=20, prefer=["b"]),
        mix=MixOptions(pretrain={"a": CategoryOptions(count=90, repeat=2), "b": CategoryOptions()}),
        heldout=0.2,
        skip_bad_records=True,
    )
    options.mix.others = True

    def build(name: str) -> tuple[dict[str, Any], dict[str, bytes], bytes]:
        build_corpus(options, 1, tmp_path / name)
        manifest = read_json(tmp_path / name / "manifest.json")
        held: dict[str, bytes] = {}
        for path in sorted((tmp_path / name).glob("*/*/*.jsonl")):
            place = f"{path.parent.relative_to(tmp_path / name)}/{output.source_of(path)}"
            held[place] = held.get(place, b"") + path.read_bytes()
        assert len(manifest.pop("sha256")) >= len(held)
        return manifest, held, (tmp_path / name / "problems.jsonl").read_bytes()

    whole = build("whole")
    assert len(whole[1]) == 10 and b'"line": 61,' in whole[2]
    monkeypatch.setattr(cleaning, "CHUNK_CHARACTERS", 900)
    monkeypatch.setattr(blocks, "PART_BYTES", 5000)
    monkeypatch.setattr(blocks, "BLOCK_CHARACTERS", 1500)
    monkeypatch.setattr(chunks, "GROUP_CHARACTERS", 5000)
    monkeypatch.setattr(duplicates, "PART_BYTES", 30_000)
    monkeypatch.setattr(shuffle, "RUN_BYTES", 4000)
    monkeypatch.setattr(assemble, "OUTPUT_BYTES", 15_000)
    assert build("cut") == whole
    assert len(list((tmp_path / "cut").glob("pretrain/train/a-*-of-*.jsonl"))) > 1


def test_other_duplicates_or_another_mix_leave_the_cleaning_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = some_texts(30)
    path = write(tmp_path / "in.jsonl", [{"text": t} for t in texts])

    def build(out: str, **values: Any) -> None:
        options = options_for(path, **values)
        build_corpus(options, 1, tmp_path / out, stages=["pretrain"])

    def broken_off(*arguments: Any) -> None:
        raise KeyboardInterrupt

    written: list[Any] = []
    real = cleaning.ChunkFile.write

    def note(chunk: Any, builder: Any) -> None:
        written.append(chunk)
        real(chunk, builder)

    monkeypatch.setattr(cleaning.ChunkFile, "write", note)
    changed = {"dedup": DedupOptions(near_threshold=0.9), "mix": MixOptions(others=True)}
    for number, (values, cleaned) in enumerate(
        [(changed, 0), ({"clean": CleanOptions(unicode=False)}, 1), ({"heldout": 0.5}, 0)]
    ):
        with monkeypatch.context() as patched:
            patched.setattr(stages.Assembly, "write", broken_off)
            with pytest.raises(KeyboardInterrupt):
                build(f"out{number}")
        written.clear()
        build(f"out{number}", **values)
        assert len(written) == cleaned, values
        train = lines_of(tmp_path / f"out{number}")
        assert len(train) + len(lines_of(tmp_path / f"out{number}", "heldout")) == 30


class ProgressOf:
    """Progress lines that keep, by their name, the total and then every amount."""

    def __init__(self) -> None:
        self.moved: dict[str, list[float]] = {}

    def __call__(self, what: str, total: float) -> ProgressOf:
        self.amounts = self.moved.setdefault(what, [total])
        return self

    def __enter__(self) -> ProgressOf:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def advance(self, amount: float = 1, text: str = "") -> None:
        self.amounts.append(amount)


def test_progress_of_the_built_in_corpus(tmp_path: Path) -> None:
    seedbed = SeedbedOptions(characters="5K", conversations=20, preferences=7)
    progress = ProgressOf()
    build_corpus(CorpusOptions(seedbed=seedbed), 1, tmp_path / "out", progress=progress)
    wanted = {"pretrain": 5000, "sft": 20, "dpo": 7}
    for stage, total in wanted.items():
        said, *amounts = progress.moved[f"{stage}: writing"]
        assert said == total and sum(amounts) == pytest.approx(total, rel=0.1)


def test_progress_counts_all_bytes_of_the_input(tmp_path: Path) -> None:
    rows = [{"text": t} for t in some_texts(50)]
    plain = write(tmp_path / "in" / "a.jsonl", rows)
    with gzip.open(tmp_path / "in" / "b.jsonl.gz", "wb") as file:
        file.write(plain.read_bytes())
    progress = ProgressOf()
    options = options_for(tmp_path / "in", dedup=DedupOptions(near=True, lines=True))
    build_corpus(options, 1, tmp_path / "out", stages=["pretrain"], progress=progress)
    moved = progress.moved
    assert moved["pretrain: cleaning"][0] == sum(
        p.stat().st_size for p in (tmp_path / "in").iterdir()
    )
    assert len(moved) == 6
    for what, (total, *amounts) in moved.items():
        assert sum(amounts) == pytest.approx(total), what


def test_what_the_corpus_depends_on(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"text": "文字"}])
    words = tmp_path / "words.txt"
    words.write_text("广告", encoding="utf-8")
    exam = write(tmp_path / "exam.jsonl", [{"question": "问题"}])
    options = options_for(path)
    assert len(input_stamps(options)) == 1
    options.clean.blocklists, options.contamination.paths = [str(words)], [str(exam)]
    assert list(input_stamps(options)) == [str(path), str(exam), str(words)]


def test_contamination(tmp_path: Path) -> None:
    question = "下列关于光合作用的说法中，哪一项是正确的？光合作用主要在叶绿体中进行并且需要光照。"
    exam = write(tmp_path / "exam.jsonl", [{"question": question, "answer": "A"}])
    texts = some_texts(5)
    leaked = texts[0] + question.replace("，", "") + texts[1]
    third = texts[2] + question[:12]
    path = write(tmp_path / "in.jsonl", [{"text": t} for t in (*texts, leaked, third)])
    contamination = ContaminationOptions(paths=[str(exam)])
    report = build_corpus(
        options_for(path, contamination=contamination), 1, tmp_path / "corpus", stages=["pretrain"]
    )
    accounts = report.accounts["pretrain"]
    assert accounts.contaminated == 1 == accounts.overlaps_found and accounts.train == 6
    overlap = read_json(tmp_path / "corpus" / "overlaps.json")["pretrain"][0]
    assert (overlap["question"], overlap["evaluation"]) == (question, f"{exam}:1")
    assert overlap["share"] == 1
    contamination.action = "report"
    report = build_corpus(
        options_for(path, contamination=contamination), 1, tmp_path / "said", stages=["pretrain"]
    )
    assert report.accounts["pretrain"].contaminated == 0
    assert report.accounts["pretrain"].overlaps_found == 1


def test_quality_column(tmp_path: Path) -> None:
    rows = [
        {"text": f"第{n}篇文章", "score": score}
        for n, score in enumerate((0.9, 0.2, "0.8", None, "good"))
    ]
    path = write(tmp_path / "in.jsonl", [*rows, {"text": "没有分数"}])
    clean = CleanOptions(quality_column="score", min_quality=0.5)
    report = build_corpus(
        options_for(path, clean=clean), 1, tmp_path / "corpus", stages=["pretrain"]
    )
    assert report.accounts["pretrain"].rejected == {"quality": 4}
    assert [r["text"] for r in lines_of(tmp_path / "corpus")] == ["第0篇文章", "第2篇文章"]
    clean.max_quality = 0.85
    build_corpus(options_for(path, clean=clean), 1, tmp_path / "corpus", stages=["pretrain"])
    assert [r["text"] for r in lines_of(tmp_path / "corpus")] == ["第2篇文章"]


def test_pages_from_blocked_domains_go(tmp_path: Path) -> None:
    (tmp_path / "domains.txt").write_text("# adult\n\nspam.example\n*.Ads.example\nhk\n", "utf-8")
    urls = {
        "https://spam.example/a": True,
        "http://deep.www.spam.example:8080/b?c=d": True,
        "WWW.ADS.EXAMPLE/x": True,
        "https://news.hk": True,
        "https://notspam.example/": False,
        "https://spam.example.org": False,
        "http://[broken": False,
        "": False,
    }
    rows = [{"text": f"第{n}篇文章", "url": url} for n, url in enumerate(urls)]
    rows += [{"text": "没有地址"}, {"text": "地址是数", "url": 7}]
    path = write(tmp_path / "in.jsonl", rows)
    clean = CleanOptions(blocked_domains=[str(tmp_path / "domains.txt")])
    report = build_corpus(options_for(path, clean=clean), 1, tmp_path / "out", stages=["pretrain"])
    assert report.accounts["pretrain"].rejected == {"domain": 4}
    kept = [r["text"] for r in lines_of(tmp_path / "out")]
    stays = [f"第{n}篇文章" for n, (_, gone) in enumerate(urls.items()) if not gone]
    assert kept == [*stays, "没有地址", "地址是数"]
    with pytest.raises(MiaoError, match="cannot be read"):
        clean.blocked_domains = [str(tmp_path / "none.txt")]
        build_corpus(options_for(path, clean=clean), 1, tmp_path / "no", stages=["pretrain"])


def test_mix_repeats_and_keeps_sources(tmp_path: Path) -> None:
    texts = some_texts(60)
    big = write(tmp_path / "general.jsonl", [{"text": t} for t in texts[:50]])
    small = write(tmp_path / "identity.jsonl", [{"text": t} for t in texts[50:]])
    mix = MixOptions(
        pretrain={
            "general": CategoryOptions(count=20),
            "identity": CategoryOptions(count=10, repeat=2),
        }
    )
    options = CorpusOptions(paths=[str(big), str(small)], mix=mix, heldout=0.1, workers=1)
    report = build_corpus(options, 5, tmp_path / "one", stages=["pretrain"])
    build_corpus(options, 5, tmp_path / "two", stages=["pretrain"])
    build_corpus(options, 6, tmp_path / "other", stages=["pretrain"])
    train, held = (lines_of(tmp_path / "one", split) for split in ("train", "heldout"))
    by_source = Counter(record["source"] for record in train + held)
    held_identity = sum(record["source"] == "identity" for record in held)
    assert by_source == {"general": 20, "identity": 20 - held_identity}
    assert report.accounts["pretrain"].left_out == {"general": 30}
    assert train == lines_of(tmp_path / "two") != lines_of(tmp_path / "other")


def test_parquet_comes_back_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    calls = [{"name": "weather", "arguments": {"city": "成都", "days": 3}}]
    turns = [
        {"role": "user", "content": "天气？"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "晴"},
        {"role": "assistant", "content": "晴天。", "reasoning": "工具说晴"},
    ]
    tools = [{"type": "function", "function": {"name": "weather"}}]
    chats = write(tmp_path / "chats.jsonl", [{"messages": turns, "tools": tools, "source": "s"}])
    pair = {"prompt": "问", "chosen": "好答案", "rejected": "坏答案", "source": "p"}
    pairs = write(tmp_path / "pairs.jsonl", [pair])
    options = CorpusOptions(
        conversations=[str(chats)], preferences=[str(pairs)], heldout=0.0, workers=1
    )
    directory = tmp_path / "corpus"
    build_corpus(options, 1, directory, stages=["sft", "dpo"], output="parquet")
    assert sorted(read_json(directory / "manifest.json")["sha256"]) == [
        "dpo/train/preferences.parquet",
        "sft/train/conversations.parquet",
    ]
    read = next(iter(read_records([directory / "sft/train/conversations.parquet"], "conversation")))
    assert read == next(iter(read_records([chats], "conversation")))
    preference = next(
        iter(read_records([directory / "dpo/train/preferences.parquet"], "preference"))
    )
    assert isinstance(preference, Preference) and preference.source == "p"
    assert preference.chosen[0].content == "好答案"


@pytest.mark.parametrize("output", ["jsonl", "parquet"])
def test_a_turn_that_is_not_learned_stays_one_and_may_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: Any
) -> None:
    turns = [
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": "As an AI language model I cannot say.", "train": False},
        {"role": "user", "content": "Try again."},
        {"role": "assistant", "content": "Very well, thank you.", "mood": "glad"},
    ]
    path = write(tmp_path / "chats.jsonl", [{"messages": turns}])
    options = CorpusOptions(conversations=[str(path)], heldout=0.0)
    options.clean.refusals = True
    directory = tmp_path / "corpus"
    build_corpus(options, 1, directory, stages=["sft"], output=output)
    written = directory / f"sft/train/conversations.{output}"
    read = next(iter(read_records([written], "conversation")))
    assert [message.learned for message in read.messages] == [True, False, True, True]
    manifest = read_json(directory / "manifest.json")
    assert manifest["unread_keys"] == {"sft": {"'mood'": 1}}
    assert "not read: 'mood' (1)" in " ".join(capsys.readouterr().out.split())


def test_the_command_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = some_texts(40)
    rows = [
        {"text": t, "source": "<b>web</b>"}
        for t in (*texts, texts[0], "。！", "e\u0301" + texts[1])
    ]
    path = write(tmp_path / "in.jsonl", rows)
    out = tmp_path / "clean"
    words = [str(path), "--out", str(out), "--corpus.heldout", "0.1", "--corpus.dedup.near", "true"]
    assert main(["corpus", "build", *words]) == 0
    said = capsys.readouterr().out
    assert "43 records read" in said and "equal to an earlier one" in said and "report.html" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page == render(out)
    for words_in_page in ("完全重复", "exact duplicates", "Rejected, by rule", "é", "dedup.near"):
        assert words_in_page in page
    assert "<b>web" not in page and "&lt;b&gt;web" in page and page.count("<script") == 1
    assert "http://" not in page and "https://" not in page
    assert main(["corpus", "build", *words[3:], str(path), *words[1:3]]) == 0, "any order"
    assert main(["corpus", "build", str(path), "--out", str(path)]) == 2, "a file"
    assert main(["corpus", "build", "--out", str(tmp_path)]) == 2, "nothing to build from"
    assert main(["corpus", "build", str(path), "--out", str(tmp_path)]) == 2, (
        "it holds other things"
    )
    assert path.exists()


def test_a_single_record_that_is_held_out_is_not_called_none(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.jsonl", [{"text": "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"}]
    )
    said = []
    for seed in range(40):
        try:
            build_corpus(options_for(path, heldout=0.4), seed, tmp_path / f"{seed}", ["pretrain"])
        except MiaoError as error:
            said.append(str(error))
    assert said and all("held out 1 of 1 records" in one for one in said)
    assert all("--corpus.heldout 0" in one for one in said)
