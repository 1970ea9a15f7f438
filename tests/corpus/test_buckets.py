"""Rows on disk, against numpy in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from miao.corpus.dedup import buckets
from miao.corpus.dedup.buckets import Buckets, RowFile


def test_rows_are_read_by_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**32, (50, 7), dtype=np.uint32)
    file = RowFile(tmp_path / "rows", "<u4", 7)
    for _ in range(2):  # the second time over the first
        file.clear()
        for part in np.split(rows, [3, 3, 20]):
            file.append(part)
    numbers = rng.integers(0, 50, 200)
    assert (file.take(numbers) == rows[numbers]).all()
    assert file.take(numbers[:0]).shape == (0, 7)


@pytest.mark.parametrize("size", [24, 500, 10**6])
def test_equal_keys_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(buckets, "BUCKET_BYTES", size)
    rng = np.random.default_rng(1)
    keys = rng.choice(rng.integers(0, 2**64, 40, dtype=np.uint64), 300)
    checks = rng.integers(0, 2, 300).astype(np.uint64)
    made = Buckets(tmp_path / "b", 300)
    for _ in range(2):
        made.clear()
        made.add(keys[:90], checks[:90], np.arange(90))
        made.add(keys[90:], checks[90:], np.arange(90, 300))
    seen = {}
    for rows, group in made.groups():
        for at, first in enumerate(group.tolist()):
            seen[int(rows["record"][at])] = int(rows["record"][first])
    pairs = list(zip(keys.tolist(), checks.tolist(), strict=True))
    assert seen == {number: pairs.index(pair) for number, pair in enumerate(pairs)}
