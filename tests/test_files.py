"""Files that matter are written whole or not at all, whatever breaks and wherever."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from miao import files
from miao.corpus.read.formats import read_records
from miao.errors import MiaoError
from miao.files import (
    append_jsonl,
    atomic_directory,
    atomic_open,
    cache_directory,
    fingerprint,
    nobody_else_writes,
    private_directory,
    read_json,
    read_jsonl,
    sha256_of,
    write_json,
    write_jsonl,
    write_text,
)

Break = Callable[[str, int], None]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Makes a function of `os` fail with an error number."""

    def make(name: str, number: int) -> None:
        def fail(*args: object, **named: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files.os, name, fail)

    return make


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "苗\n")
    assert path.read_bytes() == "苗\n".encode()
    with atomic_open(path, "wb") as file:
        file.write(b"\x00\x01")
        assert path.read_bytes() == "苗\n".encode(), "the old one stays until the end"
    assert path.read_bytes() == b"\x00\x01"
    assert names_in(path.parent) == ["file.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
        with atomic_directory(tmp_path / "directory"):
            pass
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.EIO, "io")]
)
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(type(error)), atomic_open(path) as file:
        file.write("half of the new")
        raise error
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file.txt"]


def test_an_error_leaves_the_old_directory_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    with atomic_directory(path) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(path) as temporary:
        (temporary / "b").write_text("half of the new")
        assert names_in(path) == ["a"]
        raise RuntimeError
    assert names_in(path) == ["a"] and names_in(tmp_path) == ["directory"]


def test_a_directory_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    for name in ("a", "b"):
        with atomic_directory(path) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / name).write_text(name)
    assert names_in(path / "sub") == ["b"]
    assert names_in(tmp_path) == ["directory"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("old", [True, False])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    tmp_path: Path, breaking: Break, number: int, old: bool
) -> None:
    file, directory = tmp_path / "file.txt", tmp_path / "directory"
    if old:
        write_text(file, "old")
        with atomic_directory(directory) as temporary:
            (temporary / "a").write_text("old")
    before = names_in(tmp_path)
    breaking("fsync", number)
    with pytest.raises(MiaoError, match="the disk is full") as caught:
        write_text(file, "new")
    assert str(file) in str(caught.value) and "MiB left" in str(caught.value)
    with (
        pytest.raises(MiaoError, match="the disk is full"),
        atomic_directory(directory) as temporary,
    ):
        (temporary / "b").write_text("new")
    assert names_in(tmp_path) == before
    if old:
        assert file.read_text() == "old" and names_in(directory) == ["a"]


def test_a_disk_that_fills_while_writing_is_said_too(tmp_path: Path) -> None:
    """What the body of the `with` raises, as a library that writes into the file would."""
    with pytest.raises(MiaoError, match="the disk is full"), atomic_open(tmp_path / "x") as file:
        file.write("begun")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_really_full_device_when_appending(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(MiaoError, match="the disk is full"):
        append_jsonl(path, {"a": 1})


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, breaking: Break, number: int
) -> None:
    breaking("replace", number)
    with pytest.raises(MiaoError, match="cannot write here") as caught:
        write_text(tmp_path / "file.txt", "x")
    assert str(tmp_path / "file.txt") in str(caught.value)
    assert "--out_dir" in str(caught.value)
    assert names_in(tmp_path) == []


def test_a_file_where_a_directory_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(MiaoError, match="cannot write here"):
        write_text(tmp_path / "runs" / "x" / "file.txt", "x")
    with pytest.raises(MiaoError, match="cannot write here"):
        write_text(tmp_path / "runs" / "file.txt", "x")


def test_other_errors_pass_unchanged(tmp_path: Path, breaking: Break) -> None:
    breaking("fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output") as caught:
        write_text(tmp_path / "file.txt", "x")
    assert not isinstance(caught.value, MiaoError)
    assert names_in(tmp_path) == []


def test_the_old_directory_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "directory"
    with atomic_directory(path) as temporary:
        (temporary / "a").write_text("old")
    real, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", second_fails)
    with pytest.raises(OSError, match="Input/output"), atomic_directory(path) as temporary:
        (temporary / "b").write_text("new")
    assert names_in(path) == ["a"] and names_in(tmp_path) == ["directory"]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    value = {"b": [1, 2.5, None], "苗": "\u2028 '\""}
    write_json(path, value)
    assert read_json(path) == value
    assert "苗" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}x', b"\xff\xfe{}"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(MiaoError, match="damaged") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match=r"x\.json: the file is missing"):
        read_json(tmp_path / "x.json")


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_jsonl(path) == []
    records = [{"a": 1}, {"text": "两行\n\u2028\u0085 end"}, {"c": None}]
    write_jsonl(path, records[:2])
    append_jsonl(path, records[2])
    assert read_jsonl(path) == records
    assert len(path.read_bytes().split(b"\n")) == 4


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log.jsonl"
    write_jsonl(path, [{"a": 1}, {"text": "苗"}])
    path.write_bytes(path.read_bytes()[: -1 - cut])
    assert read_jsonl(path) == [{"a": 1}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(MiaoError, match=r"log\.jsonl:2: not a JSON line"):
        read_jsonl(path)


def test_lines_appended_at_the_same_time_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def write(writer: int) -> None:
        for number in range(50):
            append_jsonl(path, {"writer": writer, "number": number, "text": "x" * 500})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = read_jsonl(path)
    assert len(records) == 200
    for writer in range(4):
        assert [r["number"] for r in records if r["writer"] == writer] == list(range(50))


def test_fingerprints() -> None:
    assert fingerprint({"a": 1, "b": [2, "苗"]}) == fingerprint({"b": [2, "苗"], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5}) != fingerprint({"a": "1"})
    assert fingerprint({"a": Path("x")}) == fingerprint({"a": "x"})
    assert fingerprint({}) == "44136fa355b3678a"  # golden: it must not change between versions


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == expected
    assert json.loads(json.dumps(expected)) == expected


def test_an_unwritable_cache_falls_back_to_a_directory_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MIAO_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = cache_directory()
    assert found.parent == tmp_path and cache_directory() == found
    assert capsys.readouterr().err.count(f"the cache is {found}") == 1, "said once"
    if os.name != "nt":
        assert found.stat().st_mode & 0o077 == 0
        found.chmod(0o777)  # what others may write is not taken: code is loaded from there
        monkeypatch.setenv("MIAO_CACHE", str(tmp_path / "file" / "other"))
        assert cache_directory() != found


@pytest.mark.skipif(os.name == "nt", reason="no HOME, no owners")
def test_no_home_at_all_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(number: int) -> None:
        raise KeyError(f"uid not found: {number}")

    for name in ("HOME", "MIAO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files._writable_cache.cache_clear()
    assert cache_directory().parent == tmp_path
    assert "this user has no home" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="no owners")
def test_what_is_run_is_kept_where_nobody_else_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIAO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = private_directory("native")
    assert found == tmp_path / "cache" / "native" and found.stat().st_mode & 0o777 == 0o700
    (found / "mine.so").write_text("")
    assert private_directory("native") == found and (found / "mine.so").exists()
    found.chmod(0o777)
    (found / "planted.so").write_text("")
    assert private_directory("native") == found and not list(found.iterdir())
    assert found.stat().st_mode & 0o777 == 0o700
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)  # it is another user's
    if me:  # root may do everything
        assert private_directory("native").parent.parent == tmp_path
    assert nobody_else_writes(found) == (me == 0)
    found.rmdir()
    found.symlink_to(tmp_path)
    assert not nobody_else_writes(found)


@pytest.mark.parametrize("name", ["x.json", "x.txt", "x.jsonl", "x.csv", "x.parquet", "x.txt.gz"])
def test_a_git_lfs_pointer_is_named_as_such(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "utf-8"
    )
    with pytest.raises(MiaoError, match="a Git LFS pointer") as caught:
        if name.endswith(".json"):
            read_json(path)
        else:
            list(read_records([path], "document"))
    assert str(path) in str(caught.value) and "git lfs pull" in str(caught.value)
