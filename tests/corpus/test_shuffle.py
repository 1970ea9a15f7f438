"""Rows from task to task, against a dictionary in memory; folders here and elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from miao.corpus.dedup import shuffle
from miao.corpus.dedup.shuffle import (
    MOST_PARTS,
    RowWriter,
    all_rows_for,
    groups_of,
    part_of,
    parts_for,
    sorted_rows,
)
from miao.corpus.folder import Folder, files_at


@pytest.mark.parametrize(("run", "parts"), [(1, 7), (500, 3), (10**6, 1)])
@pytest.mark.parametrize("url", [False, True])
def test_equal_keys_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: int, parts: int, url: bool
) -> None:
    if url:
        pytest.importorskip("fsspec")
    monkeypatch.setattr(shuffle, "RUN_BYTES", run)
    rng = np.random.default_rng(1)
    keys = rng.choice(rng.integers(0, 2**64, 40, dtype=np.uint64), 300)
    rows = np.stack([keys, rng.integers(0, 2, 300), np.arange(300)], axis=1).astype(np.uint64)
    folder = Folder(f"file://{tmp_path}/b" if url else str(tmp_path / "b"))
    for _ in range(2):  # the second time over the first
        for task, mine in enumerate(np.split(rows, [90, 90, 200])):
            writer = RowWriter(folder, task, parts, 3)
            for some in np.split(mine, [5, 17]):
                writer.add(some, part_of(some[:, 0], parts))
            writer.close()
    seen = {}
    for part in range(parts):
        found = sorted_rows(all_rows_for(folder, part, parts, 3, 4))
        for at, first in enumerate(groups_of(found, 2).tolist()):
            seen[int(found[at, 2])] = int(found[first, 2])
    pairs = [tuple(row) for row in rows[:, :2].tolist()]
    assert seen == {number: pairs.index(pair) for number, pair in enumerate(pairs)}


def test_work_is_linear_until_parts_are_many() -> None:
    assert [parts_for(size, 10) for size in (0, 10, 11, 10 * MOST_PARTS)] == [1, 1, 2, MOST_PARTS]
    for factor in (4, 100):
        assert parts_for(10 * MOST_PARTS * factor, 10) == MOST_PARTS * factor**0.5
    keys = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    assert np.bincount(part_of(keys, 10), minlength=10).min() > 850


def test_a_file_of_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    for folder in (Folder(str(tmp_path / "a")), Folder(f"file://{tmp_path}/b")):
        with pytest.raises(KeyError), folder.write("x/y.json") as file:
            file.write(b"{}")
            raise KeyError
        assert folder.read_json("x/y.json") is None
        folder.write_json("x/y.json", ["文"])
        assert folder.read_json("x/y.json") == ["文"] and folder.read("x/y.json", 1, 2) == b'"'
        folder.remove("x")
        assert folder.read_json("x/y.json") is None
        folder.remove("x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("0123", encoding="utf-8")
    (file,) = files_at(f"file://{tmp_path}/in")
    with file.open() as opened:
        assert (opened.read(), file.name, file.size) == (b"0123", "a.jsonl", 4)
