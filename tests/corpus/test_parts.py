"""Parts of a file: every line in exactly one of them, whatever the sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miao.corpus.read.formats import read_records
from miao.corpus.read.parts import PARTS_PER_FILE, part_key, read_part, split_file
from miao.errors import MiaoError


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1),
    size=st.integers(1, 400),
    end=st.sampled_from(["", "\n", "\n\n", "\r\n"]),
)
def test_every_line_is_read_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], size: int, end: str
) -> None:
    texts = [text for text in texts if text.strip()] or ["x"]
    path = tmp_path_factory.mktemp("parts") / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_bytes(("\n".join(lines) + end).encode())
    parts = split_file(path, "document", size)
    assert sum(part.size for part in parts) == path.stat().st_size
    assert [doc.text for part in parts for doc in read_part(part)] == texts
    assert len(parts) <= 2 * PARTS_PER_FILE


def test_a_key_is_of_the_content_and_the_settings(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    line = '{"text": "a"}\n'
    one.write_text(line * 9)
    two.write_text(line * 8 + '{"text": "b"}\n')

    def keys(path: Path, settings: str = "s") -> list[str]:
        return [part_key(part, [settings]) for part in split_file(path, "document", len(line) * 3)]

    assert keys(one)[0] == keys(one)[1] == keys(two)[0] != keys(two)[2]
    assert keys(one)[0] != keys(one, "t")[0]


@pytest.mark.parametrize("bad", ["{", "[1, 2]", '{"words": "a"}', "\xff"])
def test_a_bad_line_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"text": "a"}\n'
    path.write_bytes(good * 5 + bad.encode("latin-1") + b"\n" + good)
    with pytest.raises(MiaoError, match=rf"{path}:6: "):
        for part in split_file(path, "document", 20):
            list(read_part(part))


def test_labelled_answers_to_a_prompt_become_pairs(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.jsonl"
    good = {"prompt": "问", "completion": "好", "label": True}
    bad = {"prompt": "问", "completion": "坏", "label": False}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n", encoding="utf-8")
    parts = split_file(path, "preference", 10)
    (pair,) = [record for part in parts for record in read_part(part)]
    assert pair == next(read_records([path], "preference"))
    assert pair.is_pair
