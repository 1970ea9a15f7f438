"""Finding files and parsing them: nothing lost, nothing silent, every failure has its place."""

import bz2
import gzip
import json
import lzma
import os
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from miao.corpus.read.opened import FORMATS
from miao.corpus.read.problems import Problem
from miao.corpus.read.readers import TEXT_PIECE, WHOLE_TEXT, read_objects
from miao.corpus.read.sources import find_files, find_sources
from miao.errors import MiaoError, install_hint


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def objects(path: Path) -> list[Any]:
    return [value for _, value in read_objects(path)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "wiki.v1"
    for name in ("b.jsonl", "a.txt", "deep/er/c.md.gz", "photo.png", ".hidden.txt", ".git/d.txt"):
        written(top / name, b"")
    return top


def test_a_folder_is_searched_sorted_and_says_what_it_skips(folder: Path) -> None:
    skipped: list[tuple[str, str]] = []
    files = find_files([str(folder)], lambda path, why: skipped.append((path.name, why)))
    assert files == [folder / "a.txt", folder / "b.jsonl", folder / "deep/er/c.md.gz"]
    assert sorted(skipped) == [
        (".git", "hidden"),
        (".hidden.txt", "hidden"),
        ("photo.png", "unknown extension"),
    ]


def test_sources_are_named_after_what_was_asked_for(folder: Path) -> None:
    asked = [str(folder / "b.jsonl"), str(folder), str(folder / "deep/*/*.gz")]
    names = [(path.name, source) for path, source in find_sources(asked)]
    assert names == [("b.jsonl", "b"), ("a.txt", "wiki.v1"), ("c.md.gz", "wiki.v1")]


def test_globs(folder: Path) -> None:
    assert find_files([f"{folder}/**/*.gz"]) == [folder / "deep/er/c.md.gz"]
    assert find_files([f"{folder}/**"]) == find_files([str(folder)])
    assert find_files([f"{folder}/d*"]) == [folder / "deep/er/c.md.gz"]


def test_links_between_folders_may_go_round(folder: Path) -> None:
    os.symlink(folder, folder / "deep/loop")
    os.symlink(folder / "gone", folder / "broken.txt")
    skipped: list[str] = []
    assert len(find_files([str(folder)], lambda path, why: skipped.append(why))) == 3
    assert sorted(skipped) == ["broken link", "hidden", "hidden", "unknown extension"]


@pytest.mark.parametrize(
    ("asked", "what", "fix"),
    [
        ("nowhere", "no such file or folder", "check the spelling"),
        ("*.jsonl.xz", "no file matches", "pattern"),
        ("photo.png", "files that end in '.png' cannot be read", ".parquet"),
        (
            "*.png",
            "nothing that can be read",
            ".jsonl .ndjson .json .csv .tsv .parquet .arrow .txt .md .html",
        ),
    ],
)
def test_nothing_to_read(folder: Path, asked: str, what: str, fix: str) -> None:
    with pytest.raises(MiaoError) as caught:
        find_files([f"{folder}/{asked}"])
    assert what in caught.value.what and fix in str(caught.value.fix)
    assert caught.value.where == f"{folder}/{asked}"


def test_json_lines_keep_their_line_numbers(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '\ufeff{"a": 1}\r\n\n  [2]\n"\\u4f60\u2028"')
    assert list(read_objects(file)) == [(1, {"a": 1}), (3, [2]), (4, "你\u2028")]


def test_a_bad_json_line_shows_its_place_and_beginning(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '{"text": "好"}\n{"text": 好}' + " " * 3 + "\n{}\n")
    with pytest.raises(MiaoError) as caught:
        list(read_objects(file))
    assert caught.value.where == f"{file}:2"
    assert "column 10 (Expecting value) in '{\"text\": 好}'" in caught.value.what
    problems: list[Problem] = []
    assert list(read_objects(file, problems.append)) == [(1, {"text": "好"}), (3, {})]
    assert [(problem.path, problem.line) for problem in problems] == [(file, 2)]


def test_columns_count_from_the_beginning_of_the_line(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="column 9 "):
        list(read_objects(written(tmp_path / "a.jsonl", '  {"a": }')))


def test_a_list_named_jsonl(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '[\n {"text": "a"}\n]')
    with pytest.raises(MiaoError, match=r"rename the file to \.json"):
        list(read_objects(file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a": 1}, {"a": [2]}]', [{"a": 1}, {"a": [2]}]),
        (" [ ] ", []),
        ("", []),
        (
            '{"version": "1", "data": [{"text": "a"}, {"text": "b"}]}',
            [{"text": "a"}, {"text": "b"}],
        ),
        ('{"text": "a", "tags": []}', [{"text": "a", "tags": []}]),
        ('{"messages": [{"role": "user"}]}', [{"messages": [{"role": "user"}]}]),
        ('{"chosen": [{"a": 1}], "rejected": []}', [{"chosen": [{"a": 1}], "rejected": []}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
    ],
)
def test_json_files(tmp_path: Path, text: str, expected: list[Any]) -> None:
    file = written(tmp_path / "a.json", text)
    assert list(read_objects(file)) == list(enumerate(expected, 1))


def test_a_json_list_is_streamed(tmp_path: Path) -> None:
    rows = [{"text": "字" * 1000, "n": number} for number in range(3000)]
    file = written(tmp_path / "a.json.gz", gzip.compress(json.dumps(rows, indent=1).encode()))
    reader = read_objects(file)
    assert next(reader) == (1, rows[0])
    assert [value for _, value in reader] == rows[1:]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[\n{"a": 1},\n{"a": }]', "3: invalid JSON at column 7"),
        ('[{"a": 1} {"a": 2}]', "1: invalid JSON at column 11"),
        ('[{"a": 1}', "1: invalid JSON at column 10"),
        ("[1]\n[2]", "2: invalid JSON at column 1"),
        ('{"a": "b', "1: invalid JSON at column 7"),
        ("[" * 100_000, "1: invalid JSON at column"),
        ("[1" + "0" * 5000 + "]", "1: invalid JSON at column 2"),
    ],
)
def test_bad_json_files(tmp_path: Path, text: str, place: str) -> None:
    file = written(tmp_path / "a.json", text)
    with pytest.raises(MiaoError) as caught:
        list(read_objects(file))
    assert str(caught.value).startswith(f"{file}:{place}")


def test_small_texts_stay_whole(tmp_path: Path) -> None:
    for name, text in (("a.txt", "一\n\n\n二\r\n"), ("b.md", "# t\n\n" * 200_000), ("c.txt", "")):
        assert list(read_objects(written(tmp_path / name, text))) == [(1, {"text": text})]


PARAGRAPH = "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。\n"


@pytest.mark.parametrize("border", ["\n", "\r\n  \r\n", "\n\n\n\n"])
def test_large_texts_are_cut_at_blank_lines_and_nothing_is_lost(
    tmp_path: Path, border: str
) -> None:
    text = border + (PARAGRAPH + border) * 30_000
    assert len(text.encode()) > WHOLE_TEXT
    pieces = list(
        read_objects(written(tmp_path / "a.txt.xz", lzma.compress(text.encode(), preset=0)))
    )
    texts = [value["text"] for _, value in pieces]
    assert "".join(texts) == text
    assert all(piece.startswith("春眠") for piece in texts[1:])
    sizes = [len(piece.encode()) for piece in texts]
    assert max(sizes) <= 2 * TEXT_PIECE and sum(sizes) / len(sizes) > 0.9 * TEXT_PIECE
    lines = text.split("\n")
    assert all(lines[line - 1] == "春眠不觉晓，处处闻啼鸟。" for line, _ in pieces[1:])


@pytest.mark.parametrize(
    "text", [PARAGRAPH * 30_000, "天地玄黄" * 150_000, PARAGRAPH + " " * 2**21]
)
def test_large_texts_without_blank_lines(tmp_path: Path, text: str) -> None:
    texts = [value["text"] for value in objects(written(tmp_path / "a.txt", text))]
    assert "".join(texts) == text
    assert all(piece.strip() for piece in texts)
    if not text.endswith(" "):
        assert max(len(piece.encode()) for piece in texts) <= 5 * TEXT_PIECE
    if text.startswith("春"):
        assert all(piece.startswith(("春", "夜")) for piece in texts)


def test_csv_with_long_cells_and_line_breaks(tmp_path: Path) -> None:
    long = "长" * 200_000
    file = written(tmp_path / "a.csv", f'text, n\n"a\r\nb ""c""",1\n\n{long},2\n')
    assert list(read_objects(file)) == [
        (2, {"text": 'a\r\nb "c"', "n": "1"}),
        (5, {"text": long, "n": "2"}),
    ]
    assert objects(written(tmp_path / "a.tsv", "a\tb\n1,5\t2")) == [{"a": "1,5", "b": "2"}]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('a,b\n1,2\n"3,4\n5,6\n', 3, "unexpected end of data"),
        ("a,b\n1,2\n3,4,5\n", 3, "a row of 3 cells under a header of 2"),
        ("a,a\n1,2\n", 1, "two columns"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, line: int, what: str) -> None:
    file = written(tmp_path / "a.csv", text)
    with pytest.raises(MiaoError, match=what) as caught:
        list(read_objects(file))
    assert caught.value.where == f"{file}:{line}"


def test_a_tables_unbalanced_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    good = "".join(f'{n},"b, {n}"\n' for n in range(50))
    table = 'a,b\n1,2\n"3,4\n' + good + '5,"6" x\n7,"8\n9"\n'
    problems: list[Problem] = []
    found = list(read_objects(written(tmp_path / "a.csv", table), problems.append))
    assert [(problem.line, problem.raw) for problem in problems] == [(3, '"3,4'), (54, '5,"6" x')]
    assert [line for line, _ in found] == [2, *range(4, 54), 55]
    assert found[-1][1] == {"a": "7", "b": "8\n9"}


def test_quotation_marks_between_tabs_are_text(tmp_path: Path) -> None:
    rows = ['"Hi," he said\t他说：“嗨”', '"open\tb', 'c\td"', '"quoted ""cell"""\te', "f\tg"]
    file = written(tmp_path / "a.tsv", "\n".join(["en\tzh", *rows]))
    repairs: list[str] = []
    found = read_objects(file, on_repair=lambda _, how: repairs.append(how))
    assert [tuple(row.values()) for _, row in found] == [
        ('"Hi," he said', "他说：“嗨”"),
        ('"open', "b"),
        ("c", 'd"'),
        ('quoted "cell"', "e"),
        ("f", "g"),
    ]
    assert repairs == ["rows whose quotation marks are text"] * 2
    several = written(tmp_path / "b.tsv", 'a\tb\tc\n1\t"two\nlines"\t3\n')
    assert objects(several) == [{"a": "1", "b": "two\nlines", "c": "3"}]


WIKI = """<doc id="12" url="https://zh.wikipedia.org/wiki?curid=12" title="数学 "甲"">
数学 "甲"

数学是研究数量的学科。

</doc>
<doc id="13" revid="7" url="u" title="空">
</doc>
<doc id="14" url="u" title="哲学">
哲学

爱智慧。
</doc>
"""


def test_wikiextractor(tmp_path: Path) -> None:
    (tmp_path / "AA").mkdir()
    written(tmp_path / "AA" / "wiki_00", WIKI)
    written(tmp_path / "AA" / "wiki_01.bz2", bz2.compress(WIKI.encode()))
    written(tmp_path / "AA" / "wiki_02", '{"id": "1", "title": "a", "text": "b"}\n')
    written(tmp_path / "AA" / "LICENSE", "nothing that is known")
    skipped: list[tuple[str, str]] = []
    files = find_files([tmp_path], lambda path, why: skipped.append((path.name, why)))
    assert [path.name for path in files] == ["wiki_00", "wiki_01.bz2", "wiki_02"]
    assert skipped == [("LICENSE", "unknown extension")]
    first, second, third = (list(read_objects(path)) for path in files)
    assert first == second
    assert [(line, value["title"], value["text"][-7:]) for line, value in first] == [
        (1, '数学 "甲"', "研究数量的学科。"[-7:]),
        (9, "哲学", "学\n\n爱智慧。"),
    ]
    assert third == [(1, {"id": "1", "title": "a", "text": "b"})]


def test_source_code_is_read_where_it_is_named(tmp_path: Path) -> None:
    written(tmp_path / "convert.py", "print(1)\n")
    written(tmp_path / "a.txt", "text")
    skipped: list[str] = []
    assert [p.name for p in find_files([tmp_path], lambda _, why: skipped.append(why))] == ["a.txt"]
    assert skipped == [f"source code (to read it: '{tmp_path}/**/*.py')"]
    [named] = find_files([f"{tmp_path}/**/*.py"])
    assert objects(named) == [{"text": "print(1)\n"}]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "b.tar", "c.7z"])
def test_an_archive_is_called_one(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, b"")
    ending = re.escape(name[1:])
    with pytest.raises(MiaoError, match=rf"an archive \({ending}\).*\n  -> unpack it"):
        find_files([file])
    with pytest.raises(MiaoError, match=r"end in '.pdf.gz' cannot be read"):
        find_files([written(tmp_path / "a.pdf.gz", b"")])


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_parquet(tmp_path: Path, ending: str) -> None:
    rows = [{"text": f"文{number}", "turns": [{"role": "user"}]} for number in range(1000)]
    file = tmp_path / f"a.parquet{ending}"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "plain")
    raw = (tmp_path / "plain").read_bytes()
    written(file, gzip.compress(raw) if ending else raw)
    assert list(read_objects(file)) == list(enumerate(rows, 1))
    written(file, gzip.compress(raw[:-50]) if ending else raw[:-50])
    with pytest.raises(MiaoError, match="damaged") as caught:
        list(read_objects(file))
    assert caught.value.where == str(file)


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MiaoError, match=re.escape(f"pyarrow\n  -> {install_hint('data')}")):
        list(read_objects(written(tmp_path / "a.parquet", b"")))


JSONISH = st.text('{}[]",:\\ \n\r01e-.truefalsn\ufeff\u4f60"', max_size=60).map(str.encode)


@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=300), JSONISH), compressed=st.booleans())
@example(content=b"\xbb", compressed=False)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, compressed: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for extension in FORMATS:
        ending = ".gz" if compressed else ""
        file = folder / f"any{extension}{ending}"
        file.write_bytes(gzip.compress(content) if compressed else content)
        problems: list[Problem] = []
        repairs: list[str] = []

        def note(path: object, how: str, into: list[str] = repairs) -> None:
            into.append(how)

        try:
            found = list(read_objects(file, problems.append, note))
        except MiaoError as error:
            assert error.where and error.where.startswith(str(file))
            continue
        if extension in (".txt", ".md") and not repairs:
            text = content.decode("utf-8").removeprefix("\ufeff")
            assert "".join(value["text"] for _, value in found) == text
        if extension == ".jsonl" and not any("UTF" in how for how in repairs):
            lines = content.decode("utf-8", "replace").split("\n")
            assert len(found) + len(problems) == sum(bool(x.strip(" \t\r\ufeff")) for x in lines)


@pytest.mark.parametrize(("mark", "name"), [(";", "a.csv"), ("\t", "a.csv"), (",", "a.tsv")])
def test_a_table_with_other_marks_between_its_cells(tmp_path: Path, mark: str, name: str) -> None:
    """Excel writes semicolons where the comma is the decimal point."""
    rows = [["question", "answer"], ["一加一？", f'"二"{mark}对吗？\n对。'], ["几点？", "三点。"]]
    quoted = [[cell.replace('"', '""') for cell in row] for row in rows]
    content = "\r\n".join(mark.join(f'"{cell}"' for cell in row) for row in quoted)
    repairs: list[str] = []
    file = written(tmp_path / name, content)
    found = [row for _, row in read_objects(file, on_repair=lambda path, how: repairs.append(how))]
    assert [list(row) for row in found] == [rows[0]] * 2
    assert found[1]["answer"] == "三点。" and found[0]["answer"] == rows[1][1]
    assert repairs == [f"read with {mark!r} between cells"]


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", 'text\n"一；二; 三"\n')
    assert [row for _, row in read_objects(file)] == [{"text": "一；二; 三"}]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_with_advice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(MiaoError, match=r"only once\n  -> .*standard input.*-`"):
        find_sources([tmp_path / "a.jsonl"])
