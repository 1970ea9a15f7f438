"""Extension: old ids and old cuts stay, the new kind of text becomes shorter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from miao.errors import MiaoError
from miao.tokenizer import Tokenizer
from miao.tokenizer.bulk import BulkEncoder
from miao.tokenizer.extend import extend_tokenizer

OLD = [
    "清晨的露水落在小小的苗上。",
    "The rain was kind to it, 24 hours a day.",
    "def f(x):\n  pass",
]
NEW = [
    "患者血压偏高，建议复查心电图。",
    "心电图提示窦性心律。患者无不适。",
    "myocardial infarction",
] * 4


def test_old_ids_and_cuts_stay(tokenizer: Tokenizer) -> None:
    extended = extend_tokenizer(tokenizer, NEW, 20, ["<|note|>"])
    new = extended.tokenizer
    assert new.vocab_size == tokenizer.vocab_size + 21
    for id in range(tokenizer.vocab_size):
        assert new.id_to_token(id) == tokenizer.id_to_token(id)
        assert new.token_bytes(id) == tokenizer.token_bytes(id)
    for text in OLD:
        assert new.encode(text) == tokenizer.encode(text)
    assert new.control_ids["<|note|>"] == 620
    assert {**tokenizer.control_ids, "<|note|>": 620} == new.control_ids


def test_new_tokens_join_old_ones(tokenizer: Tokenizer) -> None:
    extended = extend_tokenizer(tokenizer, NEW, 20)
    new = extended.tokenizer
    for text in [*NEW, *OLD]:
        ids = new.encode(text)
        assert new.decode(ids) == text
        spelt = [old for id in ids for old in extended.made_of.get(id, [id])]
        assert spelt == tokenizer.encode(text)  # every new token stands for a run of old ones
    before, after = (sum(map(len, t.encode_batch(NEW))) for t in (tokenizer, new))
    assert after < 0.8 * before
    assert all(len(new.token_bytes(id)) <= 24 for id in extended.made_of)
    for id, parts in extended.made_of.items():
        assert b"".join(map(tokenizer.token_bytes, parts)) == new.token_bytes(id)


def test_extended_saved_and_read_by_others(tokenizer: Tokenizer, tmp_path: Path) -> None:
    new = extend_tokenizer(tokenizer, NEW, 10, ["<|note|>"]).tokenizer
    new.save(tmp_path)
    loaded = Tokenizer.from_directory(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    fast = BulkEncoder(loaded)
    for text in [*NEW, *OLD]:
        assert theirs.encode(text).ids == loaded.encode(text) == new.encode(text)
        assert fast.encode_batch([text])[0] == new.encode(text)
    twice = extend_tokenizer(loaded, ["窦性心动过速，窦性心动过缓"] * 5, 3).tokenizer
    assert twice.vocab_size == new.vocab_size + 3
    assert twice.encode(OLD[0]) == tokenizer.encode(OLD[0])


def test_added_tokens_after_the_vocabulary_keep_their_ids(tokenizer: Tokenizer) -> None:
    """Qwen and others keep their control tokens behind the merges, outside the BPE vocabulary."""
    spec = tokenizer.spec()
    controls = [token["content"] for token in spec["added_tokens"]]
    spec["model"]["vocab"] = {
        token: id - 16 for token, id in spec["model"]["vocab"].items() if token not in controls
    }
    for number, token in enumerate(spec["added_tokens"]):
        token["id"] = 584 + number
    foreign = tokenizer.with_spec(spec)
    assert foreign.control_ids["<|im_start|>"] == 585 and foreign.vocab_size == 600
    new = extend_tokenizer(foreign, NEW, 10).tokenizer
    assert new.control_ids == foreign.control_ids and new.vocab_size == 610
    assert new.encode("<|im_start|>水", allow_special=True) == foreign.encode(
        "<|im_start|>水", allow_special=True
    )
    assert new.special_ids == foreign.special_ids


def test_what_cannot_be_added(tokenizer: Tokenizer) -> None:
    with pytest.raises(MiaoError, match="yields only"):
        extend_tokenizer(tokenizer, ["a b"], 50)
    with pytest.raises(MiaoError, match="already"):
        extend_tokenizer(tokenizer, control_tokens=["<think>"])
    with pytest.raises(MiaoError, match="no control token"):
        extend_tokenizer(tokenizer, control_tokens=["note"])
    with pytest.raises(MiaoError, match="-5 new tokens"):
        extend_tokenizer(tokenizer, ["a b a b"], -5)


def test_merges_written_as_text(tokenizer: Tokenizer) -> None:
    """Older tokenizer.json files have "a b" for a merge instead of ["a", "b"]."""
    spec = tokenizer.spec()
    spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    old = tokenizer.with_spec(json.loads(json.dumps(spec)))
    assert extend_tokenizer(old, NEW, 5).tokenizer.encode(NEW[0]) == (
        extend_tokenizer(tokenizer, NEW, 5).tokenizer.encode(NEW[0])
    )
