"""Token shards: what is written is read back, and what is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miao.errors import MiaoError
from miao.shards import TokenDataset, dataset, write
from miao.shards.dataset import Manifest
from miao.shards.write import write_dataset

Make = Callable[..., TokenDataset]
SEQUENCES = [[5, 6], [7, 8, 9, 10, 11], [1, 2, 3], [65_000, 12]]
MASKS = [[False, True], [False, False, True, True, False], [False, True, False], [False, True]]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
@pytest.mark.parametrize("masked", [False, True])
def test_round_trip(make_dataset: Make, vocab_size: int, dtype: str, masked: bool) -> None:
    sequences = [*SEQUENCES, [vocab_size - 1, 0]]
    masks = [*MASKS, [False, False]] if masked else None
    data = make_dataset(sequences, masks=masks, vocab_size=vocab_size)
    assert data.manifest.dtype == dtype
    assert len(data) == 5
    assert data.lengths.tolist() == [2, 5, 3, 2, 2]
    for number, ids in enumerate(sequences):
        assert data.tokens(number).tolist() == ids
        assert data.tokens(number).dtype == np.int64
        mask = data.mask(number)
        assert (
            mask is None if masks is None else mask is not None and mask.tolist() == masks[number]
        )
    assert (data.manifest.sequences, data.manifest.tokens, data.manifest.bytes) == (5, 14, 5)
    # Without a mask every token but the first of a sequence is learned.
    assert data.manifest.trained_tokens == (5 if masked else 14 - 5)


def test_slices_stay_within_their_sequence(make_dataset: Make) -> None:
    data = make_dataset(SEQUENCES, masks=MASKS)
    assert data.tokens(1, 1, 3).tolist() == [8, 9]
    assert data.tokens(1, 2).tolist() == [9, 10, 11]
    assert data.tokens(1, 3, 100).tolist() == [10, 11]
    found = data.mask(1, 2, 100)
    assert found is not None and found.tolist() == [True, True, False]


@pytest.mark.parametrize("limit", [1, 4, 7, 1000])
def test_shards_are_read_as_one(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(write, "SHARD_TOKENS", limit)
    data = make_dataset(SEQUENCES, masks=MASKS)
    assert len(data.manifest.shards) == {1: 4, 4: 2, 7: 2, 1000: 1}[limit]
    assert [data.tokens(i).tolist() for i in range(4)] == SEQUENCES
    assert [data.mask(i).tolist() for i in range(4)] == MASKS  # type: ignore[union-attr]
    assert [data.flat_offset(i) for i in range(4)] == [0, 2, 7, 10]


def test_pairs_belong_together(make_dataset: Make) -> None:
    assert make_dataset(SEQUENCES, "preference", MASKS, "a").group_size == 2
    assert make_dataset(SEQUENCES, "conversation", MASKS, "b").group_size == 1


def test_an_empty_dataset_can_be_opened(make_dataset: Make) -> None:
    assert len(make_dataset([])) == 0


@pytest.mark.parametrize("name", ["tokens-00000.bin", "offsets-00000.bin", "mask-00000.bin"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "longer"])
def test_a_damaged_file_is_named(make_dataset: Make, name: str, damage: str) -> None:
    path = make_dataset(SEQUENCES, masks=MASKS).directory / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "shorter" else content + b"x")
    with pytest.raises(MiaoError) as caught:
        TokenDataset(path.parent)
    message = str(caught.value)
    assert str(path) in message
    assert ("missing" if damage == "missing" else f"{len(content):,}") in message
    assert f"delete {path.parent}" in message


@pytest.mark.parametrize("name", ["tokens-00000.bin", "mask-00000.bin"])
def test_a_changed_byte_is_found_by_the_checksum_alone(make_dataset: Make, name: str) -> None:
    path = make_dataset(SEQUENCES, masks=MASKS).directory / name
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    TokenDataset(path.parent)
    with pytest.raises(MiaoError, match="damaged") as caught:
        TokenDataset(path.parent, verify=True)
    assert str(path) in str(caught.value)


def change_manifest(directory: Path, **changes: Any) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes", [{"version": 99}, {"shards": [{"tokens": 3}]}, {"shards": 3}, {"surprise": 1}]
)
def test_a_manifest_that_does_not_fit_is_named(make_dataset: Make, changes: dict[str, Any]) -> None:
    directory = make_dataset(SEQUENCES).directory
    change_manifest(directory, **changes)
    with pytest.raises(MiaoError, match=r"manifest\.json"):
        TokenDataset(directory)


@pytest.mark.parametrize("content", [None, "", "[]", '{"kind": '])
def test_a_missing_or_broken_manifest_is_named(make_dataset: Make, content: str | None) -> None:
    path = make_dataset(SEQUENCES).directory / "manifest.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(MiaoError, match=r"manifest\.json"):
        TokenDataset(path.parent)


def test_what_breaks_off_leaves_nothing_new_and_the_old_as_it_was(
    make_dataset: Make, tmp_path: Path
) -> None:
    directory = make_dataset(SEQUENCES).directory

    def broken() -> Iterator[tuple[list[int], None, int]]:
        yield [1, 2, 3], None, 1
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_dataset(directory, Manifest("document", "x", "none", 10, "uint16"), broken())
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]
    assert TokenDataset(directory, verify=True).tokens(1).tolist() == SEQUENCES[1]


@pytest.mark.parametrize("ids", [[1], [-1, 2], [1, 65_536]])
def test_impossible_sequences_are_our_own_mistakes(make_dataset: Make, ids: list[int]) -> None:
    with pytest.raises(AssertionError):
        make_dataset([ids])


def test_what_was_compared_once_is_not_read_again_until_it_changes(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_dataset(SEQUENCES, masks=MASKS).directory
    read: list[str] = []
    hashed = dataset.sha256_of
    monkeypatch.setattr(dataset, "sha256_of", lambda path: read.append(path.name) or hashed(path))
    for _ in range(2):
        TokenDataset(directory, verify="once")
        assert len(read) == 3
    path = directory / "tokens-00000.bin"
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    for _ in range(2):
        with pytest.raises(MiaoError, match="damaged"):
            TokenDataset(directory, verify="once")
    (directory / dataset.COMPARED).write_text("[")
    path.write_bytes(content)
    assert len(TokenDataset(directory, verify="once")) == len(SEQUENCES)
