"""Export to tensors: what is in them, what is cut, and that training on them is the same training."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from miao.corpus.records import Conversation, Document, Kind, Message, Preference, Record
from miao.errors import MiaoError
from miao.files import read_json
from miao.model import Decoder
from miao.recipe import DpoOptions
from miao.shards import PackedLoader, PackedSource, TokenDataset, build_dataset
from miao.shards.export import TensorOptions, export_tensors, read_tensors
from miao.shards.stats import dataset_stats, find_datasets, token_counts
from miao.shards.write import write_dataset
from miao.tokenizer import Tokenizer
from miao.train.feed.preferences import cache_reference
from miao.train.objectives import LanguageObjective, PreferenceObjective

KINDS: list[Kind] = ["document", "conversation", "preference"]
USER, GOOD, BAD = "今天天气很好？", "我们去公园散步。", "no"


def records(kind: Kind) -> list[Record]:
    if kind == "document":
        return [Document(text) for text in ("今天天气很好。", "The rain was kind to it.", "")]
    if kind == "conversation":
        return [
            Conversation([Message("user", USER), Message("assistant", GOOD * n)]) for n in (1, 3)
        ]
    return [
        Preference(
            [Message("user", USER * n)], [Message("assistant", GOOD)], [Message("assistant", BAD)]
        )
        for n in (1, 2, 3)
    ]


@pytest.fixture
def make(tokenizer: Tokenizer, tmp_path: Path) -> Callable[[Kind], TokenDataset]:
    def build(kind: Kind) -> TokenDataset:
        build_dataset(records(kind), kind, kind, tokenizer, tmp_path / kind)
        return TokenDataset(tmp_path / kind)

    return build


def export(data: TokenDataset, out: Path, boundary: int = 0, **options: Any) -> dict[str, Any]:
    """The tensors of all files, side by side (equal lengths only)."""
    manifest = export_tensors(data, out, TensorOptions(**options), boundary)
    assert read_json(out / "manifest.json")["examples"] == manifest.examples
    return load_file(out / "part-00000.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows_per_file", [2, 100])
def test_back_to_shards(
    make: Callable[..., TokenDataset], tmp_path: Path, kind: Kind, rows_per_file: int
) -> None:
    data = make(kind)
    manifest = export_tensors(data, tmp_path / "out", TensorOptions(), rows_per_file=rows_per_file)
    examples = len(data) // data.group_size
    assert (manifest.examples, manifest.truncated, manifest.nothing_learned) == (examples, 0, 0)
    assert len(manifest.files) == -(-examples // rows_per_file)
    assert manifest.tokens == data.manifest.tokens
    assert manifest.trained_tokens == data.manifest.trained_tokens
    back = [(ids, mask, 1) for ids, mask in read_tensors(tmp_path / "out")]
    write_dataset(tmp_path / "back", replace(data.manifest, shards=[], bytes=0), back)
    again = TokenDataset(tmp_path / "back", verify=True)
    for number in range(len(data)):
        assert again.tokens(number).tolist() == data.tokens(number).tolist()
        mask = data.mask(number)
        expected = np.arange(len(data.tokens(number))) > 0 if mask is None else mask
        assert again.mask(number).tolist() == expected.tolist()  # type: ignore[union-attr]


def test_columns(make: Callable[..., TokenDataset], tokenizer: Tokenizer, tmp_path: Path) -> None:
    data = make("conversation")
    tensors = export(data, tmp_path / "out")
    assert {name: t.dtype for name, t in tensors.items()} == {
        "input_ids": torch.int32,
        "labels": torch.int64,
        "loss_mask": torch.uint8,
        "lengths": torch.int32,
    }
    length = int(tensors["lengths"][0])
    ids, labels, mask = (tensors[n][0] for n in ("input_ids", "labels", "loss_mask"))
    assert ids[:length].tolist() == data.tokens(0).tolist() and not ids[length:].any()
    assert (labels != -100).tolist() == mask.bool().tolist() and not mask[length:].any()
    assert tokenizer.decode(labels[labels != -100].tolist(), False) == f"{GOOD}<|im_end|>"
    pairs = export(make("preference"), tmp_path / "pairs")
    assert set(pairs) == {
        f"{side}_{name}"
        for side in ("chosen", "rejected")
        for name in ("input_ids", "labels", "loss_mask", "lengths")
    }
    for side, answer in (("chosen", GOOD), ("rejected", BAD)):
        labels = pairs[f"{side}_labels"][2]
        assert tokenizer.decode(labels[labels != -100].tolist(), False) == f"{answer}<|im_end|>"


def test_what_is_too_long_is_counted(make: Callable[..., TokenDataset], tmp_path: Path) -> None:
    data = make("document")
    longest = int(data.lengths.max())
    cut = export_tensors(data, tmp_path / "cut", TensorOptions(max_length=longest - 1))
    assert cut.truncated == int((data.lengths == longest).sum())
    tiny = export_tensors(data, tmp_path / "tiny", TensorOptions(max_length=2))
    assert (tiny.truncated, tiny.tokens) == (2, 6)
    split = export_tensors(data, tmp_path / "split", TensorOptions(max_length=4, split=True))
    assert split.truncated == 0 and split.tokens == data.manifest.tokens
    assert split.examples == sum(-(-int(n) // 4) for n in data.lengths)
    chats = make("conversation")
    prompt = int(np.argmax(chats.mask(0)))  # type: ignore[arg-type]
    bare = export_tensors(chats, tmp_path / "bare", TensorOptions(max_length=prompt))
    assert (bare.truncated, bare.nothing_learned) == (2, 2)


def test_boundary_tokens(
    make: Callable[..., TokenDataset], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    boundary, turn_end = tokenizer.document_boundary_id, tokenizer.end_of_turn_id
    documents, chats = make("document"), make("conversation")
    text = tokenizer.encode("今天天气很好。")

    def row(data: TokenDataset, **options: Any) -> tuple[list[int], list[bool]]:
        export_tensors(data, tmp_path / "out", TensorOptions(**options), boundary)
        return next(read_tensors(tmp_path / "out"))

    ids, mask = row(documents)
    assert ids == [boundary, *text, boundary] and mask == [False] + [True] * (len(text) + 1)
    ids, mask = row(documents, bos=False)
    assert ids == [*text, boundary] and mask == [False] + [True] * len(text)
    assert row(documents, eos=False)[0] == [boundary, *text]
    assert row(documents, bos=True, eos=True) == row(documents)  # never twice
    ids, mask = row(chats, bos=True, eos=True)
    assert (ids[0], ids[-2:], mask[0], mask[-1]) == (boundary, [turn_end, boundary], False, True)
    with pytest.raises(MiaoError, match="which token begins and ends"):
        export_tensors(documents, tmp_path / "out", TensorOptions(bos=True))
    with pytest.raises(MiaoError, match="two tokens at least"):
        export_tensors(documents, tmp_path / "out", TensorOptions(max_length=1))


def test_a_damaged_file_is_named(make: Callable[..., TokenDataset], tmp_path: Path) -> None:
    export(make("document"), tmp_path / "out")
    file = tmp_path / "out" / "part-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(MiaoError, match="missing or damaged") as caught:
        next(read_tensors(tmp_path / "out"))
    assert caught.value.where == str(file)


def stepped(model: Decoder, loss: Callable[[Decoder], torch.Tensor]) -> tuple[list[float], Decoder]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses, model


def assert_same_training(ours: tuple[list[float], Decoder], theirs: Any) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5) and ours[0][-1] < ours[0][0]
    for (name, left), right in zip(ours[1].named_parameters(), theirs[1].parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["document", "conversation"])
def test_training_on_tensors_is_training_on_shards(
    make: Callable[..., TokenDataset],
    make_model: Callable[..., Decoder],
    tokenizer: Tokenizer,
    tmp_path: Path,
    kind: Kind,
) -> None:
    data = make(kind)
    loader = PackedLoader([PackedSource(kind, data, 64, seed=0)], 64)
    (batch,) = loader.one_pass(8)
    objective = LanguageObjective()
    ours = stepped(
        make_model(vocab_size=tokenizer.vocab_size),
        lambda model: objective.loss(model, batch)[0] / objective.weight(batch),
    )
    tensors = export(data, tmp_path / "out", max_length=65)

    def padded(model: Decoder) -> torch.Tensor:
        logits = model(tensors["input_ids"].long())[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), tensors["labels"][:, 1:].flatten())

    assert_same_training(ours, stepped(make_model(vocab_size=tokenizer.vocab_size), padded))


def test_dpo_on_tensors_is_dpo_on_shards(
    make: Callable[..., TokenDataset],
    make_model: Callable[..., Decoder],
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    data = make("preference")
    reference = make_model(seed=3, vocab_size=tokenizer.vocab_size)
    source = PackedSource("pairs", data, 128, seed=0)
    loader = PackedLoader([source], 128)
    source.reference = cache_reference(reference, source, loader.one_pass(8), tmp_path / "r.f32")
    (batch,) = loader.one_pass(8)
    objective = PreferenceObjective(DpoOptions(beta=0.2))
    ours = stepped(
        make_model(vocab_size=tokenizer.vocab_size),
        lambda model: objective.loss(model, batch)[0] / objective.weight(batch),
    )
    tensors = export(data, tmp_path / "out")

    def answers(model: Decoder, side: str) -> torch.Tensor:
        labels = tensors[f"{side}_labels"][:, 1:]
        logprobs = model(tensors[f"{side}_input_ids"].long())[:, :-1].log_softmax(-1)
        chosen = logprobs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return (chosen * (labels != -100)).sum(1)

    def padded(model: Decoder) -> torch.Tensor:
        with torch.no_grad():
            before = answers(reference, "chosen") - answers(reference, "rejected")
        margin = answers(model, "chosen") - answers(model, "rejected") - before
        return -F.logsigmoid(0.2 * margin).mean()

    assert_same_training(ours, stepped(make_model(vocab_size=tokenizer.vocab_size), padded))


def test_stats(make: Callable[..., TokenDataset], tokenizer: Tokenizer, tmp_path: Path) -> None:
    data = make("document")
    stats = dataset_stats(data.directory, row_lengths=(8, 100), verify=True)
    lengths = sorted(data.lengths.tolist())
    assert (stats.shortest, stats.median, stats.longest) == (lengths[0], lengths[1], lengths[2])
    assert stats.longer_than == {8: sum(n - 1 > 8 for n in lengths), 100: 0}
    assert (stats.sequences, stats.tokens, stats.shards) == (3, sum(lengths), 1)
    assert stats.bytes_per_token == data.manifest.bytes / sum(lengths)
    counts, fingerprint = token_counts(data.directory)
    every = [id for n in range(3) for id in data.tokens(n).tolist()]
    assert counts.tolist() == np.bincount(every, minlength=tokenizer.vocab_size).tolist()
    assert stats.used_ids == len(set(every)) and fingerprint == tokenizer.fingerprint()
    (tmp_path / ".document.parts").mkdir()
    (tmp_path / ".document.parts" / "manifest.json").write_text("{}")
    make("conversation")
    assert [p.name for p in find_datasets(tmp_path)] == ["conversation", "document"]
    assert find_datasets(data.directory) == [data.directory]
    with pytest.raises(MiaoError, match="no shards here"):
        find_datasets(tmp_path / "nowhere")


def test_nothing_but_an_earlier_export_is_replaced(
    make: Callable[..., TokenDataset], tmp_path: Path
) -> None:
    data, mine = make("document"), tmp_path / "mine"
    mine.mkdir()
    export(data, mine)
    export(data, mine, max_length=4)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "novel.txt").write_text("precious", encoding="utf-8")
    for foreign in (tmp_path / "texts", data.directory, tmp_path / "texts" / "novel.txt"):
        with pytest.raises(MiaoError, match=r"something else|is a file"):
            export(data, foreign)
    assert (tmp_path / "texts" / "novel.txt").read_text("utf-8") == "precious"
    assert len(TokenDataset(data.directory, verify=True)) == len(data)


def test_a_full_disk_is_said_and_leaves_nothing(
    make: Callable[..., TokenDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data = make("document")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MiaoError, match="the disk is full"):
        export(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
