"""`miao corpus check`: everything recognised, shown and counted; bad records in quarantine.
Also the files that are used without being named, and standard input."""

import io
import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.commands.corpus_build import main as build
from miao.commands.corpus_check import main
from miao.corpus.check import Found, language_of
from miao.corpus.local import with_local_files
from miao.corpus.read import stdin
from miao.corpus.read.formats import RecordCounts, read_records
from miao.corpus.read.problems import Problem
from miao.corpus.read.readers import read_objects
from miao.corpus.read.sources import find_sources
from miao.corpus.records import Document
from miao.errors import MiaoError
from miao.recipe import CorpusOptions


def lines(path: Path, *values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [v if isinstance(v, bytes) else json.dumps(v, ensure_ascii=False).encode()
               for v in values]  # fmt: skip
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "mine"
    texts = [{"text": f"第{number}篇：今天天气很好。"} for number in range(50)]
    lines(top / "web.jsonl", *texts, b"{broken", {"txet": "a"}, b'{"text": "\xff\xfe\xfd"}')
    chats = [{"instruction": "Say hello", "output": "Hello."}] * 3
    lines(top / "chat.jsonl", *chats, {"instruction": "a", "output": ""})
    lines(top / "pairs.jsonl", {"prompt": "问", "chosen": "好", "rejected": "坏"})
    (top / "novel.txt").write_bytes("从前有座山，山上有座庙。\n".encode("gbk") * 20)
    (top / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (top / "photo.png").write_bytes(b"png")
    return top


def test_a_folder_of_everything(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quarantine = tmp_path / "bad.jsonl"
    assert main([str(folder), "--quarantine", str(quarantine), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    files = {Path(file["path"]).name: file for file in found["files"]}
    facts = {name: (f["kind"], f["records"], f["rejected"]) for name, f in files.items()}
    assert facts == {
        "web.jsonl": ("document", 50, 3),
        "chat.jsonl": ("conversation", 3, 1),
        "pairs.jsonl": ("preference", 1, 0),
        "novel.txt": ("document", 1, 0),
        "cut.jsonl.gz": ("document", 0, 1),
    }
    assert files["novel.txt"]["mended"] == {"read as GB18030": 1}
    assert files["chat.jsonl"]["shapes"] == {"instruction/output": 3}
    assert found["kinds"]["document"]["languages"] == {"zh": 51}
    assert found["kinds"]["conversation"]["languages"] == {"en (Latin)": 3}
    assert found["kinds"]["document"]["length"]["longest"] == 13 * 20
    assert len(found["kinds"]["document"]["samples"]) == 3
    assert found["skipped_files"] == [f"{folder / 'photo.png'}: unknown extension"]
    bad = [json.loads(line) for line in quarantine.read_text("utf-8").splitlines()]
    places = sorted((Path(line["path"]).name, line["line"]) for line in bad)
    assert places == [("chat.jsonl", 4), ("cut.jsonl.gz", 0)] + [
        ("web.jsonl", number) for number in (51, 52, 53)
    ]
    assert all(line["reason"] for line in bad)
    assert [line["record"] for line in bad if line["line"] in (51, 52)] == [
        "{broken",
        {"txet": "a"},
    ]


def test_what_the_user_sees(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quarantine = tmp_path / "bad.jsonl"
    assert main([str(folder), "--quarantine", str(quarantine)]) == 1
    out = capsys.readouterr().out
    for words in (
        "web.jsonl: 50 documents (text)",
        "3 REJECTED",
        "3 conversations",
        "user: Say hello",
        "web.jsonl:52: no document in these keys: 'txet'",
        "did you mean 'text'?",
        "read as GB18030",
        "photo.png (unknown extension)",
        f"all of them, with their records: {quarantine}",
    ):
        assert words in out, words
    good = tmp_path / "good.jsonl"
    lines(good, {"text": "好"})
    quarantine.unlink()
    assert main([str(good), "--quarantine", str(quarantine)]) == 0
    assert "no problems" in capsys.readouterr().out and not quarantine.exists()
    with pytest.raises(MiaoError, match="must be positive"):
        main([str(good), "--limit", "0"])


def test_what_a_turn_says_is_honoured_or_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "3", "weight": 0, "mood": "glad"},
        {"role": "user", "content": "No."},
        {"role": "assistant", "content": "2", "thinking": "1 + 1 = 2"},
    ]
    file = lines(tmp_path / "chats.jsonl", *[{"messages": turns}] * 3)
    assert main([str(file), "--quarantine", str(tmp_path / "q")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not read: 'mood' (3)" in out and "no problems" not in out
    assert "assistant: (not learned) 3" in out
    assert "<think> 1 + 1 = 2 </think> 2" in out
    assert main([str(file), "--quarantine", str(tmp_path / "q"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unread_keys"] == found["files"][0]["unread_keys"] == {"'mood'": 3}


def test_nothing_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lines(tmp_path / "a.jsonl", {"x": 1})
    assert main([str(file), "--quarantine", str(tmp_path / "q")]) == 1
    assert "no records were found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("今天天气很好 a b", "zh"),
        ("The weather is fine today, 好", "en (Latin)"),
        ("今日はとても良い天気です", "ja"),
        ("오늘 날씨가 좋다", "ko"),
        ("Сегодня хорошая погода", "ru"),
        ("12345 !!", "none"),
        ("天气 weather 好 fine", "mixed"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


def test_memory_does_not_grow_with_the_records() -> None:
    found, draw = Found(), random.Random(0)
    for number in range(12_000):
        found.add(Document("a" * (number % 100)), draw)
    assert found.records == 12_000 and len(found.samples) == 3 and len(found.lengths) == 10_000
    assert abs(found.quantiles()["median"] - 50) <= 3


def test_a_damaged_file_is_one_problem_and_the_others_are_read(folder: Path) -> None:
    problems: list[Problem] = []
    counts = RecordCounts()
    paths = [folder / "cut.jsonl.gz", folder / "novel.txt"]
    records = list(read_records(paths, "document", problems.append, counts))
    assert len(records) == 1 and counts.problems == 1
    assert (problems[0].path, problems[0].line) == (paths[0], 0)
    with pytest.raises(MiaoError, match="truncated"):
        list(read_records(paths, "document"))


LINE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(["你好世界", "a", "\ufffd", "\0", "浣犲ソ涓栫晫"]).map(
        lambda text: json.dumps({"text": text}, ensure_ascii=False).encode()
    ),
    st.sampled_from(["今天天气", "very fine"]).map(
        lambda text: json.dumps({"text": text}, ensure_ascii=False).encode("gbk")
    ),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(LINE.map(lambda line: b"[" + line.replace(b"\n", b"")), max_size=5)
       | st.lists(LINE.map(lambda line: line.replace(b"\n", b"")), max_size=8))  # fmt: skip
def test_every_line_is_a_record_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_lines.jsonl"
    path.write_bytes(b'{"text": "ASCII first"}\n' + b"\n".join(content))
    problems: list[Problem] = []
    read = len(list(read_records([path], "document", problems.append)))
    full = [line for line in content if line.replace(b"\xef\xbb\xbf", b"").strip(b" \t\r")]
    assert read + len(problems) == 1 + len(full)
    for problem in problems:
        json.dumps(problem.to_json(), default=str)


@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow(tmp_path: Path, form: str) -> None:
    rows = [{"text": f"文{number}", "n": number} for number in range(600)]
    table = pyarrow.Table.from_pylist(rows)
    file = tmp_path / "a.arrow"
    new = pyarrow.ipc.new_file if form == "file" else pyarrow.ipc.new_stream
    with new(str(file), table.schema) as writer:
        writer.write_table(table)
    assert list(read_objects(file)) == list(enumerate(rows, 1))
    file.write_bytes(file.read_bytes()[:-600])
    with pytest.raises(MiaoError, match="damaged"):
        list(read_objects(file))


def test_local_files_are_used_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_local_files(CorpusOptions()) == CorpusOptions()
    folder = Path("data/chinese")
    qa = {"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]}
    for name in ("general", "math", "identity"):
        lines(folder / f"{name}.jsonl", qa)
    lines(folder / "preference.jsonl", {"prompt": "问", "chosen": "好", "rejected": "坏"})
    lines(folder / "books.jsonl", {"text": "好"})
    lines(folder / "odd.jsonl", {"x": 1})
    (folder / "notes.txt").write_text("not a category", "utf-8")
    found = with_local_files(CorpusOptions())
    assert found.paths == ["data/chinese/books.jsonl"]
    assert found.conversations == [
        f"data/chinese/{name}.jsonl" for name in ("general", "identity", "math")
    ]
    assert found.preferences == ["data/chinese/preference.jsonl"]
    sources = {record.source for record in read_records(found.conversations, "conversation")}
    assert sources == {"general", "math", "identity"}
    mine = with_local_files(CorpusOptions(paths=["mine/"]))
    assert mine.paths == ["mine/"] and mine.preferences == found.preferences
    assert with_local_files(CorpusOptions(local=None)) == CorpusOptions(local=None)


@pytest.mark.parametrize(
    ("content", "extension", "text"),
    [
        (b'{"text": "a"}\n{"text": "b"}\n', ".jsonl", "a"),
        (b'[\n{"text": "a"}]', ".json", "a"),
        (b'{\n"text": "a"}', ".json", "a"),
        ("从前".encode(), ".txt", "从前"),
        (b"<!DOCTYPE html><p>a note</p>", ".html", "a note"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, extension: str, text: str,
    packed: bool,
) -> None:  # fmt: skip
    import gzip

    monkeypatch.setenv("MIAO_CACHE", str(tmp_path))
    given_names = []
    for _ in range(2):  # the same input has the same name and time in another run
        stdin.standard_input.cache_clear()
        data = gzip.compress(content, mtime=0) if packed else content
        piped = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", piped)
        [(path, source)] = find_sources(["-"])
        given_names.append((path, os.stat(path).st_mtime))
        assert source == "stdin" and path.name.endswith(extension + (".gz" if packed else ""))
        assert next(iter(read_records(["-"], "document"))) == Document(text, "stdin")
    assert given_names[0] == given_names[1]
    stdin.standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(MiaoError, match="nothing is piped"):
        find_sources(["-"])
    stdin.standard_input.cache_clear()


def test_what_was_found_is_put_into_options_of_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats = lines(tmp_path / "chats.jsonl", {"question": "1+1?", "answer": "2"})
    main([str(chats)])
    assert f"miao run seedling --name mine --corpus.conversations {chats}\n" in (
        capsys.readouterr().out
    )
    texts = lines(tmp_path / "my texts.jsonl", {"text": "一"}, {"txet": "二"})
    main([str(chats), str(texts), "--quarantine", str(tmp_path / "bad.jsonl")])
    options = f"--corpus.conversations {chats} --corpus.paths '{texts}'"
    assert f"{options} --corpus.skip_bad_records true\n" in capsys.readouterr().out


def test_where_nothing_is_there_is_no_praise_and_no_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert main([str(tmp_path / "empty.jsonl")]) == 1
    said = capsys.readouterr().out
    assert "EMPTY" in said and "no records were found" in said
    assert "no problems" not in said and "miao run" not in said


def test_a_remedy_is_said_once_for_problems_that_follow_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "people.csv"
    table.write_text("id,colour\n1,red\n2,blue\n3,green\n", encoding="utf-8")
    assert main([str(table), "--quarantine", str(tmp_path / "bad.jsonl")]) == 1
    said = capsys.readouterr().out
    assert said.count("no document in these keys: 'id', 'colour'") == 3
    assert said.count("the first line of a table names its columns") == 1


def test_nothing_comes_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin.standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(MiaoError, match="is empty"):
        stdin.standard_input()
    stdin.standard_input.cache_clear()


def test_files_that_are_alike_share_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        path = tmp_path / "poems" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"第{number}首：春眠不觉晓" if number else "", encoding="utf-8")
    lines(tmp_path / "poems" / "more.jsonl", {"text": "处处闻啼鸟"}, {"txet": "a"})
    assert main([str(tmp_path), "--quarantine", str(tmp_path / "bad")]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path / 'poems'}/: 30 .txt, 29 documents (text), " in out
    assert f"{tmp_path / 'poems' / 'more.jsonl'}: 1 document (text), 5 characters, 1 REJEC" in out
    assert "7.txt:" not in out


def test_build_and_check_decide_the_kind_alike(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cut.jsonl.gz", "photo.png"):
        (folder / name).unlink()
    given, out = [str(folder), "--corpus.skip_bad_records", "true"], tmp_path / "out"
    assert build([*given, "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["records"] == {"pretrain": 51, "sft": 1, "dpo": 1}
    assert "chat.jsonl: conversations" in capsys.readouterr().out
    main([str(folder), "--quarantine", str(tmp_path / "q"), "--json"])
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert {kind: found["records"] for kind, found in kinds.items()} == {
        **{"document": 51, "conversation": 3, "preference": 1},
    }
    chats = str(folder / "chat.jsonl")
    assert build([chats, *given[1:], "--kind", "document", "--out", str(tmp_path / "texts")]) == 0
    assert "conversations read as documents" in "".join(capsys.readouterr())


def test_columns_and_encoding_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes("q,a\nGröße?,Zwölf\n".encode("cp1252"))
    words = [str(table), "--columns", "question=q", "answer=a", "--encoding", "cp1252"]
    assert main([*words, "--quarantine", str(tmp_path / "q")]) == 0
    out = capsys.readouterr().out
    assert "user: Größe?" in out and "read as CP1252" in out
    assert """--corpus.columns '{"question": "q", "answer": "a"}' --corpus.encoding cp1252""" in out
    assert build([*words, "--out", str(tmp_path / "out")]) == 0
    assert "Größe?" in next((tmp_path / "out").glob("sft/*/*.jsonl")).read_text("utf-8")


def test_unread_columns_are_a_problem_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"question": "一？", "answer": "答。", "notes": "这里有一条很长的说明，没有人读它。"}
    file = lines(tmp_path / "a.jsonl", value)
    assert main([str(file), "--quarantine", str(tmp_path / "q")]) == 1
    out = capsys.readouterr().out
    assert "'notes' (77%)" in out and "--columns unused=notes" in out and "next:" not in out
