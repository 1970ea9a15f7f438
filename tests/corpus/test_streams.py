"""Decompression and decoding: right to the byte, and every failure says where and what to do."""

import bz2
import gzip
import lzma
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from miao.corpus.read.json_stream import JsonStream
from miao.corpus.read.opened import DamagedFile, format_of, read_bytes
from miao.corpus.read.streams import decode_line, read_lines, read_text
from miao.errors import MiaoError, install_hint

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}
TEXT = "".join(f"第 {number} 行: the quick brown fox 🦊\n" for number in range(3000))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", (".jsonl", "")),
        ("a.b.JSONL.XZ", (".jsonl", ".xz")),
        ("a.csv.zst", (".csv", ".zst")),
        ("a.gz", None),
        ("a.pdf", None),
        ("noextension", None),
    ],
)
def test_extension_and_compression(name: str, expected: tuple[str, str] | None) -> None:
    assert format_of(Path(name)) == expected


@pytest.mark.parametrize("ending", ["", *PACK])
@pytest.mark.parametrize("size", [7, 1000, 1 << 20])
def test_text_is_the_same_in_any_packing_and_chunk_size(
    tmp_path: Path, ending: str, size: int
) -> None:
    raw = TEXT.encode()
    file = written(tmp_path / f"a.txt{ending}", PACK[ending](raw) if ending else raw)
    assert "".join(read_text(file, size)) == TEXT
    chunks = list(read_bytes(file, size))
    assert {len(chunk) for chunk in chunks[:-1]} <= {size}


@pytest.mark.parametrize("ending", PACK)
def test_several_compressed_parts_in_one_file(tmp_path: Path, ending: str) -> None:
    file = written(tmp_path / f"a.txt{ending}", PACK[ending](b"one ") + PACK[ending](b"two"))
    assert b"".join(read_bytes(file)) == b"one two"


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_truncated_file_is_named(tmp_path: Path, ending: str, kept: float) -> None:
    packed = PACK[ending](TEXT.encode())
    file = written(tmp_path / f"cut.jsonl{ending}", packed[: int(len(packed) * kept)])
    with pytest.raises(MiaoError) as caught:
        list(read_text(file))
    assert ("truncated" if kept else "empty (0 bytes)") in caught.value.what
    assert caught.value.where == str(file) and "again" in str(caught.value.fix)


@pytest.mark.parametrize("ending", PACK)
def test_damaged_file_is_named(tmp_path: Path, ending: str) -> None:
    sound = PACK[ending](b"text" * 99)
    file = written(tmp_path / f"bad.txt{ending}", sound[:6] + b"certainly not compressed" * 20)
    with pytest.raises(MiaoError) as caught:
        list(read_text(file))
    assert "damaged" in caught.value.what or "truncated" in caught.value.what
    assert caught.value.where == str(file)


def test_zst_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "a.txt.zst", zstandard.compress(b"a"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MiaoError, match=re.escape(f"zstandard\n  -> {install_hint('data')}")):
        list(read_text(file))


def test_byte_order_mark_goes_only_at_the_beginning(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "\ufeffa\ufeffb".encode())
    for size in (1, 2, 100):
        assert "".join(read_text(file, size)) == "a\ufeffb"


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "a\u2028b\x0cc\r\n\nd".encode())
    assert list(read_lines(file)) == [(1, "a\u2028b\x0cc\r"), (2, ""), (3, "d")]


@pytest.mark.parametrize("size", [5, 1 << 20])
@pytest.mark.parametrize(
    ("content", "place", "what", "fix"),
    [
        (
            "好\n".encode() * 600 + "你好，世界。今天天气很好".encode("gb18030"),
            601,
            "offset 2400)",
            "one part of it is UTF-8",
        ),
        (b"ok\n\nab\x00c", 3, "a NUL byte (0x00 at byte offset 6)", "no text file"),
        ("le café répété à l'été".encode("latin-1"), 1, "offset 6)", "find out its encoding"),
        ("die Größe der schönen Häuser".encode("latin-1"), 1, "offset 6)", "find out its encoding"),
        ("a\n好".encode()[:-1], 2, "unexpected end of data (0xe5 at byte offset 2)", "cut inside"),
    ],
)
def test_what_is_not_utf8(
    tmp_path: Path, content: bytes, place: int, what: str, fix: str, size: int
) -> None:
    file = written(tmp_path / "a.txt", content)
    with pytest.raises(MiaoError) as caught:
        list(read_text(file, size))
    assert caught.value.where == f"{file}:{place}"
    assert what in caught.value.what
    if size > len(content):  # the guess needs to see some of the text
        assert fix in str(caught.value.fix)


NOVEL = "第一章　风雪惊变\r\n　　钱塘江浩浩江水 ab\n" * 20


@pytest.mark.parametrize(
    ("encoding", "how"),
    [
        ("gbk", "read as GB18030"),
        ("gb18030", "read as GB18030"),
        ("utf-16", "read as UTF-16"),
        ("utf-16-le", "read as UTF-16"),
        ("utf-16-be", "read as UTF-16"),
        ("utf-32", "read as UTF-32"),
    ],
)
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_other_encodings_are_recognised_and_said(
    tmp_path: Path, encoding: str, how: str, size: int
) -> None:
    file = written(tmp_path / "novel.txt", ("Title\n" + NOVEL).encode(encoding))
    said: list[str] = []
    text = "".join(read_text(file, size, lambda path, what: said.append(what)))
    assert (text, said) == ("Title\n" + NOVEL, [how])


def test_a_cut_utf16_file_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", NOVEL.encode("utf-16")[:-1])
    with pytest.raises(DamagedFile, match="not valid UTF-16"):
        list(read_text(file))


@pytest.mark.parametrize(
    ("line", "text", "how"),
    [
        ("好".encode(), "好", None),
        (b"\0\0" + "好".encode() + b"\0", "好", "NUL bytes around lines removed"),
        ("今天天气很好".encode("gbk"), "今天天气很好", "lines read as GB18030"),
    ],
)
def test_lines_are_decoded_alone(line: bytes, text: str, how: str | None) -> None:
    assert decode_line(line) == (text, how)


@pytest.mark.parametrize(
    "line", [b"a\0b", b"\0\0", "café".encode("latin-1"), "好".encode()[:2], b"\xff\xfe\xfd"]
)
def test_lines_that_are_no_text(line: bytes) -> None:
    with pytest.raises(MiaoError) as caught:
        decode_line(line)
    assert caught.value.fix and caught.value.where is None


def test_zip_with_one_file_is_read_and_others_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "a.txt.zip", tmp_path / "b.txt.zip"
    for path, names in ((one, ["x/a.txt", "__MACOSX/._a"]), (two, ["a.txt", "b.txt"])):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, TEXT)
    assert "".join(read_text(one)) == TEXT
    with pytest.raises(DamagedFile, match="an archive of 2 files"):
        list(read_text(two))
    written(one, one.read_bytes()[:-40])
    with pytest.raises(DamagedFile, match="damaged"):
        list(read_text(one))


def test_json_values_across_any_chunk_border(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ' [12345, {"键": "a\\u4f60\\n", "b": [true, null]},-1.5e3 ] '
    file = written(tmp_path / "a.json", text.encode())
    for size in range(1, len(text.encode()) + 1):
        chunks = list(read_text(file, size))
        monkeypatch.setattr(
            "miao.corpus.read.streams.read_text", lambda path, on_repair, it=chunks: iter(it)
        )
        stream = JsonStream(file)
        assert stream.peek() == "["
        assert list(stream.items()) == [12345, {"键": "a你\n", "b": [True, None]}, -1500.0]
        assert stream.peek() == ""


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst", ".zip"])
def test_a_name_that_says_another_compression(tmp_path: Path, ending: str) -> None:
    packed = lzma.compress if ending != ".xz" else gzip.compress
    is_really = ".xz" if ending != ".xz" else ".gz"
    for content, words in (
        (packed(b"text"), f"it is {is_really}"),
        (b"plain text", f"take {ending} off its name"),
        (b"", "empty \\(0 bytes\\)"),
    ):
        with pytest.raises(DamagedFile, match=words):
            list(read_text(written(tmp_path / f"a.txt{ending}", content)))


TAIWAN = "臺灣位於東亞，是一個島嶼國家，首都為臺北市。這裡的人們說中文，並且喜歡吃夜市小吃。\n"


def test_big5_is_told_and_any_encoding_can_be_named(tmp_path: Path) -> None:
    repairs: list[str] = []
    told = written(tmp_path / "a.txt", (TAIWAN * 30).encode("big5"))
    assert "".join(read_text(told, 64, lambda _, how: repairs.append(how))) == TAIWAN * 30
    assert repairs == ["read as Big5"]
    assert decode_line(TAIWAN.encode("big5")) == (TAIWAN, "lines read as Big5")
    traditional = written(tmp_path / "gbk.txt", TAIWAN.encode("gbk"))
    assert "".join(read_text(traditional)) == TAIWAN
    named = written(tmp_path / "b.txt", "Größe, naïve".encode("cp1252"))
    with pytest.raises(DamagedFile, match="--encoding"):
        list(read_text(named))
    assert "".join(read_text(named, encoding="cp1252")) == "Größe, naïve"
    marked = written(tmp_path / "c.txt", "\ufeff你好".encode())
    assert "".join(read_text(marked, encoding="cp1252")) == "你好"
