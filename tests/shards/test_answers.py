"""Preferences answer by answer: the view that KTO reads, single answers on disk, and repacking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.records import Message, Preference
from miao.errors import MiaoError
from miao.shards import PackedLoader, PackedSource, TokenDataset, build_dataset
from miao.shards.answers import LabelledAnswers, _partners
from miao.shards.export import TensorOptions, export_tensors, read_tensors
from miao.shards.loader import Batch
from miao.shards.stats import dataset_stats
from miao.tokenizer import Tokenizer

PROMPTS = {1: [1, 2], 5: [5, 6, 7], 8: [8, 9]}
SEQUENCES = [
    [1, 2, 30, 31],  # desirable
    [],
    [5, 6, 7, 40],  # a pair
    [5, 6, 7, 50, 51, 52],
    [],
    [8, 9, 60, 61, 62],  # undesirable
]
FOUND = [SEQUENCES[n] for n in (0, 2, 3, 5)]


def answers_of(make_dataset: Callable[..., TokenDataset]) -> TokenDataset:
    masks = [
        [at >= len(PROMPTS[ids[0]]) for at in range(len(ids))] if ids else [] for ids in SEQUENCES
    ]
    return make_dataset(SEQUENCES, "preference", masks, vocab_size=97)


def test_every_answer_beside_its_prompt_with_the_answer_to_another(
    make_dataset: Callable[..., TokenDataset],
) -> None:
    view = LabelledAnswers(answers_of(make_dataset), seed=3)
    assert len(view) == 8 and view.desirable.tolist() == [True, True, False, False]
    assert [view.tokens(2 * n).tolist() for n in range(4)] == FOUND
    tails = {tuple(ids[len(PROMPTS[ids[0]]) :]): ids[0] for ids in FOUND}
    flat = np.concatenate([view.tokens(n) for n in range(8)])
    for n in range(8):
        ids, mask = view.tokens(n).tolist(), view.mask(n)
        assert mask is not None and len(ids) == len(mask) == view.lengths[n]
        begin = len(PROMPTS[ids[0]])
        assert mask.tolist() == [False] * begin + [True] * (len(ids) - begin)
        assert ids[:begin] == PROMPTS[FOUND[n // 2][0]], "the prompt is the answer's own"
        assert (tails[tuple(ids[begin:])] == ids[0]) == (n % 2 == 0)
        assert view.tokens(n, 1, 4).tolist() == ids[1:4]
        assert view.mask(n, 1, 4).tolist() == mask.tolist()[1:4]  # type: ignore[union-attr]
        at = view.flat_offset(n)
        assert flat[at : at + len(ids)].tolist() == ids


@settings(deadline=None)
@given(st.lists(st.binary(max_size=1), min_size=2), st.integers(0, 5))
def test_a_partner_has_another_prompt(prompts: list[bytes], seed: int) -> None:
    if len(set(prompts)) > 1:
        partners = _partners(prompts, seed)
        assert all(
            prompts[other] != prompt for prompt, other in zip(prompts, partners, strict=True)
        )
        if len(set(prompts)) == len(prompts):
            assert sorted(partners) == list(range(len(prompts)))


def test_one_prompt_is_too_few(make_dataset: Callable[..., TokenDataset]) -> None:
    dataset = make_dataset([[1, 2, 3], [1, 2, 4]], "preference", [[False, False, True]] * 2)
    with pytest.raises(MiaoError, match="different prompts"):
        LabelledAnswers(dataset, 0)


def test_pairs_are_read_past_single_answers(make_dataset: Callable[..., TokenDataset]) -> None:
    dataset = answers_of(make_dataset)
    source = PackedSource("a", dataset, 16, 0)
    assert (source.single, source.left_out, len(source)) == (2, 0, 1)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    assert batch.sequences == [[("a", 2), ("a", 3)]]
    assert dataset_stats(dataset.directory).shortest == 4
    with pytest.raises(MiaoError, match="no pairs, only 2 single answers") as error:
        singles = [SEQUENCES[0], [], [], SEQUENCES[5]]
        masks = [[at > 1 for at in range(len(ids))] for ids in singles]
        PackedSource("b", make_dataset(singles, "preference", masks, "b"), 16, 0)
    assert "--dpo.loss kto" in str(error.value.fix)


def test_too_long_beside_another_is_counted(make_dataset: Callable[..., TokenDataset]) -> None:
    view = LabelledAnswers(answers_of(make_dataset), seed=3)
    whole = PackedSource("a", view, 32, 0)
    short = PackedSource("a", view, int(whole.pieces(np.arange(len(whole)))[2].max()) - 1, 0)
    assert whole.left_out == whole.single == 0 and len(whole) == 4
    assert short.left_out == 4 - len(short) > 0


def test_single_answers_are_written_without_the_other_side(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    prompt, answer = [Message("user", "一加一？")], [Message("assistant", "二")]
    records = [
        Preference(prompt, answer, [], "s"),
        Preference(prompt, answer, [Message("assistant", "三")], "s"),
        Preference([Message("user", "二？")], [], answer, "s"),
    ]
    build_dataset(records, "preference", "s", tokenizer, tmp_path / "d")
    dataset = TokenDataset(tmp_path / "d", verify=True)
    assert (dataset.lengths > 0).tolist() == [True, False, True, True, False, True]
    assert dataset.tokens(0).tolist() == dataset.tokens(2).tolist()
    assert dataset.manifest.trained_tokens == sum(
        int(dataset.mask(n)[1:].sum())
        for n in (0, 2, 3, 5)  # type: ignore[index]
    )
    whole = [dataset.tokens(n).tolist() for n in range(6)]
    assert LabelledAnswers(dataset, 0).tokens(0).tolist() == whole[0]


def test_single_answers_as_tensors(
    make_dataset: Callable[..., TokenDataset], tmp_path: Path
) -> None:
    dataset = answers_of(make_dataset)
    manifest = export_tensors(dataset, tmp_path / "out", TensorOptions(max_length=8))
    assert [ids for ids, _ in read_tensors(tmp_path / "out")] == SEQUENCES
    assert (manifest.examples, manifest.nothing_learned, manifest.truncated) == (3, 0, 0)


def test_segments_packed_anew_are_the_same(make_dataset: Callable[..., TokenDataset]) -> None:
    source = PackedSource("a", LabelledAnswers(answers_of(make_dataset), 3), 16, 0)
    (batch,) = PackedLoader([source], 16).one_pass(9)
    batch.reference_bt = torch.rand(batch.ids_bt.shape)
    everything = [(b, n + 1) for b, row in enumerate(batch.sequences) for n in range(len(row))]
    odd = [(b, n) for b, n in everything if batch.sequences[b][n - 1][1] % 2]
    part = batch.only(odd)
    assert part.ids_bt.shape[1] == 16 and len(part.ids_bt) < len(batch.ids_bt)

    def contents(batch: Batch) -> dict[int, list[list[float]]]:
        found = {}
        for b, row in enumerate(batch.sequences):
            for n, (_, sequence) in enumerate(row, start=1):
                here = batch.segments_bt[b] == n
                columns = (batch.ids_bt, batch.labels_bt, batch.positions_bt, batch.reference_bt)
                found[sequence] = [c[b][here].tolist() for c in columns if c is not None]
        return found

    before, after = contents(batch), contents(part)
    assert after == {n: values for n, values in before.items() if n % 2}
    assert part.trained_tokens == sum(len([x for x in v[1] if x >= 0]) for v in after.values())
    assert len(batch.only([]).ids_bt) == 0
