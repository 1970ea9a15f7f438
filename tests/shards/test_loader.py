"""The loader: every token once per epoch, right labels, exact state, shares, full rows.

Most datasets here count upwards from one sequence to the next, so that a token tells where it
stands, and its label must be the number after it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miao.errors import MiaoError
from miao.model import Decoder
from miao.ops.head_chunks import IGNORE
from miao.shards import Batch, PackedLoader, PackedSource, TokenDataset, write
from miao.shards import source as source_room
from miao.shards.dataset import Manifest
from miao.shards.loader import Lane, merged_states
from miao.shards.source import Cursor, shuffled
from miao.shards.write import write_dataset

Make = Callable[..., TokenDataset]
SEQ_LEN = 16
LENGTHS = [2, 40, 17, 18, 3, 33, 16, 9, 5, 2, 100, 12, 7, 34, 4, 21]


def counting(lengths: Sequence[int]) -> list[list[int]]:
    starts = np.cumsum([0, *lengths])
    return [list(range(starts[i], starts[i] + length)) for i, length in enumerate(lengths)]


def loader_of(
    *datasets: TokenDataset,
    seed: int = 1,
    window_rows: int = 4,
    weights: Sequence[float | None] = (),
    seq_len: int = SEQ_LEN,
) -> PackedLoader:
    shares = weights or [None] * len(datasets)
    sources = [
        PackedSource(data.manifest.source, data, seq_len, seed, weight)
        for data, weight in zip(datasets, shares, strict=True)
    ]
    return PackedLoader(sources, seq_len, window_rows)


def segments_of(batch: Batch) -> list[dict[str, Any]]:
    """Every sequence piece of a batch: its name and the slots' content."""
    found = []
    for b, names in enumerate(batch.sequences):
        assert int(batch.segments_bt[b].max()) == len(names)
        for number, (source, sequence) in enumerate(names, 1):
            slots = (batch.segments_bt[b] == number).nonzero()[:, 0]
            assert slots.diff().eq(1).all(), "a segment lies in one stretch"
            found.append(
                {
                    "row": b,
                    "source": source,
                    "sequence": sequence,
                    "ids": batch.ids_bt[b, slots].tolist(),
                    "labels": batch.labels_bt[b, slots].tolist(),
                    "positions": batch.positions_bt[b, slots].tolist(),
                }
            )
    return found


def units_of(source: PackedSource) -> list[int]:
    return source.pieces(np.arange(len(source)))[0].tolist()


def assert_equal(ours: Batch, other: Batch) -> None:
    assert ours.sequences == other.sequences
    for name in ("ids_bt", "labels_bt", "positions_bt", "segments_bt"):
        assert torch.equal(getattr(ours, name), getattr(other, name)), name


def test_one_pass_predicts_every_token_of_every_document_once(make_dataset: Make) -> None:
    data = make_dataset(counting(LENGTHS))
    loader = loader_of(data)
    predicted: Counter[int] = Counter()
    for batch in loader.one_pass(rows=3):
        assert batch.ids_bt.shape[0] <= 3 and batch.ids_bt.shape[1] == SEQ_LEN
        for piece in segments_of(batch):
            assert piece["labels"] == [token + 1 for token in piece["ids"]]
            assert piece["positions"] == list(range(len(piece["ids"])))
            whole = data.tokens(piece["sequence"]).tolist()
            assert set(piece["ids"]) | set(piece["labels"]) <= set(whole)
            predicted.update(piece["labels"])
        padding = batch.segments_bt == 0
        assert bool((batch.labels_bt[padding] == IGNORE).all())
        assert batch.real_tokens == batch.trained_tokens == int((~padding).sum())
    firsts = {ids[0] for ids in counting(LENGTHS)}
    assert predicted == Counter(token for token in range(sum(LENGTHS)) if token not in firsts)
    assert loader.epoch_tokens == sum(LENGTHS) - len(LENGTHS)


def test_long_documents_are_split_and_counted(make_dataset: Make) -> None:
    (source,) = loader_of(make_dataset(counting([17, 18, 40, 5]))).sources
    # 17 tokens are 16 predictions: one row. 18 and 40 tokens need 2 and 3 pieces.
    unit, start, size = source.pieces(np.arange(len(source)))
    assert unit.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert start.tolist() == [0, 0, 16, 0, 16, 32, 0]
    assert size.tolist() == [16, 16, 1, 16, 16, 7, 4]
    assert source.split_tokens == 17 + 39
    assert (source.truncated, source.left_out) == (0, 0)


def test_over_the_epochs_no_piece_is_ahead_of_another_by_more_than_one(make_dataset: Make) -> None:
    loader = loader_of(make_dataset(counting(LENGTHS)))
    (source,) = loader.sources
    drawn: Counter[int] = Counter()
    for _ in range(40):
        drawn.update(piece for row in loader.next_rows(1) for _, piece in row)
        lane = loader.lane(0)
        rest = [piece for row in lane.rows[lane.row :] for _, piece in row]
        so_far = drawn + Counter(rest)  # what the window still holds was drawn from the epoch too
        counts = {so_far[piece] for piece in range(len(source))}
        assert max(counts) - min(counts) <= 1
    assert loader.lane(0).cursors[0].epoch >= 2


def test_a_conversation_learns_by_its_mask_and_keeps_its_beginning(make_dataset: Make) -> None:
    lengths = [10, 30, 17]
    rng = np.random.default_rng(0)
    masks = [rng.random(length) < 0.5 for length in lengths]
    loader = loader_of(make_dataset(counting(lengths), "conversation", masks))
    pieces = [p for batch in loader.one_pass(2) for p in segments_of(batch)]
    assert sorted(p["sequence"] for p in pieces) == [0, 1, 2]
    for piece in pieces:
        ids = counting(lengths)[piece["sequence"]][: SEQ_LEN + 1]
        mask = masks[piece["sequence"]][: SEQ_LEN + 1]
        assert piece["ids"] == ids[:-1]
        expected = [i if on else IGNORE for i, on in zip(ids[1:], mask[1:], strict=True)]
        assert piece["labels"] == expected
        assert IGNORE in expected and set(expected) != {IGNORE}
    assert loader.sources[0].truncated == 1


def test_preferences_stand_side_by_side_and_long_ones_are_counted(make_dataset: Make) -> None:
    lengths = [5, 6, 9, 9, 9, 10, 3, 3, 40, 2]  # pairs of 9, 16, 17 (too long), 4 and 40 slots
    masks = [[False] * 2 + [True] * (length - 2) for length in lengths]
    loader = loader_of(make_dataset(counting(lengths), "preference", masks))
    assert loader.sources[0].left_out == 2
    assert loader.epoch_tokens == 9 + 16 + 4
    seen = []
    for batch in loader.one_pass(rows=2):
        pieces = segments_of(batch)
        for chosen, rejected in zip(pieces[::2], pieces[1::2], strict=True):
            assert chosen["row"] == rejected["row"]
            assert chosen["sequence"] % 2 == 0
            assert rejected["sequence"] == chosen["sequence"] + 1
            assert chosen["labels"][0] == rejected["labels"][0] == IGNORE
            seen.append(chosen["sequence"])
    assert sorted(seen) == [0, 2, 6]


def test_what_teaches_nothing_within_a_row_is_left_out_and_counted(make_dataset: Make) -> None:
    lengths = [SEQ_LEN + 1, SEQ_LEN + 2, 30, 5, 40]
    masks = [[False] * (n - 1) + [True] for n in lengths]  # learned is the last token alone
    masks[3] = [True] + [False] * 4  # the first token is nobody's prediction
    masks[4][SEQ_LEN] = True
    loader = loader_of(make_dataset(counting(lengths), "conversation", masks))
    (source,) = loader.sources
    assert units_of(source) == [0, 4] and loader.epoch_tokens == 2 * SEQ_LEN
    assert (source.unlearned, source.truncated) == (3, 1)
    for batch in loader.one_pass(rows=1):
        assert batch.trained_tokens == 1
    late = [[False] * 39 + [True]] * 2
    with pytest.raises(MiaoError, match="'x' has 2 sequences, and of none anything is") as caught:
        loader_of(make_dataset(counting([40, 40]), "conversation", late, "x"))
    assert "raise seq_len" in str(caught.value.fix)


def test_a_pair_with_a_side_that_teaches_nothing_is_left_out(make_dataset: Make) -> None:
    masks = [[False, True, True], [False] * 3, [False, True, True], [False, False, True]]
    loader = loader_of(make_dataset(counting([3] * 4), "preference", masks))
    (source,) = loader.sources
    assert units_of(source) == [1] and (source.unlearned, source.left_out) == (1, 0)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_which_sequences_teach_equals_looking_at_each(data: st.DataObject) -> None:
    mask = st.lists(st.booleans(), min_size=2, max_size=9).map(lambda m: [False, *m[1:]])
    masks = data.draw(st.lists(st.one_of(mask, st.just([])), min_size=1, max_size=12).filter(any))
    slots = data.draw(st.sampled_from([None, 1, 2, 5]))
    with TemporaryDirectory() as directory:
        rows = [([7] * len(mask), mask, 1) for mask in masks]
        write_dataset(Path(directory) / "d", Manifest("preference", "d", "", 9, "uint16"), rows)
        dataset = TokenDataset(Path(directory) / "d")
        naive = [any(mask[1 : None if slots is None else slots + 1]) for mask in masks]
        assert dataset.learns(slots).tolist() == naive


def test_documents_and_conversations_may_share_a_row(make_dataset: Make) -> None:
    """Each by its own rule: all of the one is learned, of the other what its mask says."""
    texts = make_dataset(counting([5, 3, 6, 4]), name="texts")
    masks = [[False, False, True, False], [False, True, True], [False, True]]
    talks = make_dataset(counting([4, 3, 2]), "conversation", masks, name="talks")
    (batch,) = loader_of(texts, talks).one_pass(9)
    rows = [{name for name, _ in row} for row in batch.sequences]
    assert {"texts", "talks"} in rows
    for piece in segments_of(batch):
        following = [token + 1 for token in piece["ids"]]
        if piece["source"] == "talks":
            learned = masks[piece["sequence"]][1:]
            following = [t if on else IGNORE for t, on in zip(following, learned, strict=True)]
        assert piece["labels"] == following


def test_the_reference_column_goes_with_the_labels(make_dataset: Make) -> None:
    lengths = [5, 6, 9, 8]
    masks = [[True] * length for length in lengths]
    data = make_dataset(counting(lengths), "preference", masks)
    column = 0.5 + np.arange(sum(lengths), dtype=np.float32)  # by token, as the ids count
    source = PackedSource("pairs", data, SEQ_LEN, 1, reference=column)
    for batch in PackedLoader([source], SEQ_LEN).one_pass(4):
        assert batch.reference_bt is not None
        real = batch.segments_bt > 0
        assert torch.equal(batch.reference_bt[real], batch.labels_bt[real] + 0.5)
        assert not batch.reference_bt[~real].any()
    assert next(loader_of(data).one_pass(4)).reference_bt is None


def test_the_order_does_not_depend_on_how_many_rows_are_taken(make_dataset: Make) -> None:
    data = make_dataset(counting(LENGTHS))
    whole = loader_of(data).next_rows(60)
    for sizes in ([1] * 60, [7, 1, 30, 22], [59, 1]):
        loader = loader_of(data)
        assert [row for size in sizes for row in loader.next_rows(size)] == whole


def test_ranks_that_share_a_batch_read_what_one_would(make_dataset: Make) -> None:
    data = make_dataset(counting(LENGTHS))
    one, other = loader_of(data), loader_of(data)
    whole = one.batch(one.next_rows(8))
    rows = other.next_rows(8)
    parts = [other.batch(rows[rank * 4 : rank * 4 + 4]) for rank in range(2)]
    for part, expected in zip(parts, whole.split(4), strict=True):
        assert_equal(part, expected)


def test_a_batch_splits_into_its_rows(make_dataset: Make) -> None:
    loader = loader_of(make_dataset(counting(LENGTHS)))
    batch = loader.batch(loader.next_rows(7))
    parts = list(batch.split(3))
    assert [len(part.ids_bt) for part in parts] == [3, 3, 1]
    assert [name for part in parts for name in part.sequences] == batch.sequences
    assert torch.equal(torch.cat([part.labels_bt for part in parts]), batch.labels_bt)
    assert sum(part.real_tokens for part in parts) == batch.real_tokens
    assert batch.to(torch.device("cpu")) is batch


def test_a_batch_padded_with_empty_rows_learns_nothing_more(
    make_dataset: Make, make_model: Callable[..., Decoder]
) -> None:
    loader = loader_of(make_dataset(counting([9, 4, 20, 7, 30]), vocab_size=97))
    batch = loader.batch(loader.next_rows(3))
    padded = batch.padded(5)
    assert padded.ids_bt.shape == padded.labels_bt.shape == (5, SEQ_LEN)
    assert_equal(next(padded.split(3)), batch)
    assert (padded.real_tokens, padded.trained_tokens) == (batch.real_tokens, batch.trained_tokens)
    assert padded.sequences[3:] == [[], []]
    assert batch.padded(3) is batch and batch.padded(2) is batch
    model = make_model()
    losses = [
        model(b.ids_bt, b.positions_bt, b.segments_bt, labels_bt=b.labels_bt, output="loss").item()
        for b in (batch, padded)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.integers(1, 9), max_size=12),
    after=st.integers(1, 30),
    window_rows=st.integers(1, 9),
    lengths=st.lists(st.integers(2, 50), min_size=1, max_size=12),
)
def test_a_restored_loader_goes_on_as_if_nothing_had_happened(
    make_dataset: Make, before: list[int], after: int, window_rows: int, lengths: list[int]
) -> None:
    """At any row, within and between windows and epochs, through JSON as a checkpoint does."""
    name = "-".join(map(str, lengths))
    data = [make_dataset(counting(lengths), name=name), make_dataset(counting([9, 4]), name="b")]
    loader = loader_of(*data, window_rows=window_rows)
    for size in before:
        loader.next_rows(size)
    state = json.loads(json.dumps(loader.state()))
    expected = loader.batch(loader.next_rows(after))
    again = loader_of(*data, window_rows=window_rows)
    again.next_rows(3)  # wherever it was before
    again.restore(state)
    assert_equal(again.batch(again.next_rows(after)), expected)
    assert again.state() == loader.state()


def test_the_state_is_a_few_integers(make_dataset: Make) -> None:
    loader = loader_of(make_dataset(counting(LENGTHS)))
    assert loader.state() == {
        "sources": {"tiny": {"epoch": 0, "position": 0, "drawn": 0}},
        "row": 0,
    }
    loader.next_rows(30)
    state = loader.state()
    assert set(state["sources"]["tiny"]) == {"epoch", "position", "drawn"}
    assert len(json.dumps(state)) < 200


def test_a_state_of_other_sources_is_refused(make_dataset: Make) -> None:
    one, two = (loader_of(make_dataset(counting([9, 4]), name=name)) for name in ("one", "two"))
    with pytest.raises(MiaoError, match="one") as caught:
        two.restore(one.state())
    assert "two" in str(caught.value)


def test_the_seed_alone_decides(make_dataset: Make) -> None:
    data = make_dataset(counting(LENGTHS))
    orders = [loader_of(data, seed=seed).next_rows(20) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_epochs_differ_in_their_order(make_dataset: Make) -> None:
    cursor = Cursor(*loader_of(make_dataset(counting([5] * 50))).sources)
    first, second = ([cursor.next_piece()[0] for _ in range(50)] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second and first != sorted(first)


def test_sources_of_the_same_size_are_shuffled_differently(make_dataset: Make) -> None:
    data = [make_dataset(counting([5] * 50), name=name) for name in ("a", "b")]
    cursors = [Cursor(source) for source in loader_of(*data).sources]
    orders = [[cursor.next_piece() for _ in range(50)] for cursor in cursors]
    assert orders[0] != orders[1]


def drawn_shares(loader: PackedLoader, rows: int) -> dict[str, float]:
    tokens: Counter[str] = Counter()
    for piece in segments_of(loader.batch(loader.next_rows(rows))):
        tokens[piece["source"]] += len(piece["ids"])
    return {name: count / sum(tokens.values()) for name, count in tokens.items()}


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (3.0, 3.0, 3.0), (0.0, 1.0, 9.0)])
def test_weights_are_respected_within_one_percent(
    make_dataset: Make, weights: tuple[float, ...]
) -> None:
    """Whatever the sizes, and through many epochs of the small one."""
    rng = np.random.default_rng(2)
    data = [
        make_dataset(counting(rng.integers(2, 40, count).tolist()), name=name)
        for name, count in (("small", 7), ("middle", 150), ("large", 600))
    ]
    shares = drawn_shares(loader_of(*data, weights=weights, window_rows=64), 640)
    for name, weight in zip(("small", "middle", "large"), weights, strict=True):
        assert shares.get(name, 0.0) == pytest.approx(weight / sum(weights), abs=0.01)
        assert (name in shares) == (weight > 0)


def test_without_weights_the_sizes_decide(make_dataset: Make) -> None:
    data = [
        make_dataset(counting([9] * count), name=name) for name, count in (("a", 300), ("b", 900))
    ]
    shares = drawn_shares(loader_of(*data, window_rows=64), 256)
    assert shares["a"] == pytest.approx(0.25, abs=0.01)


def test_rows_are_full(make_dataset: Make) -> None:
    """Lengths as of short documents and dialogues: log-normal, a few longer than a row."""
    rng = np.random.default_rng(5)
    lengths = np.clip(rng.lognormal(4.6, 0.9, 12_000), 2, 4000).astype(int)
    assert float((lengths > 257).mean()) > 0.05
    data = make_dataset([np.zeros(length, dtype=np.int64) for length in lengths])
    loader = loader_of(data, window_rows=2048, seq_len=256)
    real = loader.real_tokens(loader.next_rows(4096))
    assert real / (4096 * 256) >= 0.99


def test_nothing_to_train_on_is_an_error(make_dataset: Make) -> None:
    with pytest.raises(MiaoError, match="no source"):
        PackedLoader([], SEQ_LEN)
    pairs = make_dataset(counting([30, 30]), "preference", [[True] * 30] * 2)
    with pytest.raises(MiaoError, match=f"'tiny' has nothing that fits a row of {SEQ_LEN}"):
        loader_of(pairs)
    with pytest.raises(MiaoError, match="weight 0"):
        loader_of(make_dataset(counting([5]), name="x"), weights=[0.0])


@settings(max_examples=40, deadline=None)
@given(size=st.integers(2, 5000), key=st.integers(0, 9))
def test_a_computed_order_has_every_place_once(size: int, key: int) -> None:
    found = shuffled(np.arange(size), size, (key,))
    assert sorted(found.tolist()) == list(range(size))
    assert shuffled(np.array([size - 1, 0]), size, (key,)).tolist() == [found[-1], found[0]]


def test_a_computed_order_is_random() -> None:
    """Where a place leads, and how far neighbours end up from each other, is spread evenly."""
    size = 3 * 2**12 + 1
    found = shuffled(np.arange(size), size, (1, 2))
    for values, chance in ((found, 1 / 16), ((found[1:] - found[:-1]) % size, 1 / 16)):
        counts = np.bincount(values * 16 // size, minlength=16)
        assert (counts / len(values)) == pytest.approx(np.full(16, chance), abs=0.01)
    other = shuffled(np.arange(size), size, (1, 3))
    assert (other == found).mean() < 0.01


def test_a_large_source_is_looked_up_by_blocks_over_its_shards(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an order that is not stored, blocks that end within shards, and long documents."""
    monkeypatch.setattr(source_room, "STORED", 0)
    monkeypatch.setattr(source_room, "BLOCK", 3)
    monkeypatch.setattr(write, "SHARD_TOKENS", 60)
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 40, 50).tolist()
    data = make_dataset(counting(lengths))
    assert len(data.manifest.shards) > 4
    loader = loader_of(data)
    (one,) = loader.sources
    assert len(one) == sum(-(-(length - 1) // SEQ_LEN) for length in lengths)
    cursor = Cursor(one)
    drawn = [cursor.next_piece() for _ in range(len(one))]
    assert sorted(piece for piece, _ in drawn) == list(range(len(one)))
    assert sum(size for _, size in drawn) == loader.epoch_tokens
    labels = [t for b in loader.one_pass(5) for p in segments_of(b) for t in p["labels"]]
    firsts = {ids[0] for ids in counting(lengths)}
    assert sorted(labels) == [token for token in range(sum(lengths)) if token not in firsts]


def many(make_dataset: Make, rows_per_step: int = 12) -> PackedLoader:
    """Enough for a lane per row of a step."""
    rng = np.random.default_rng(4)
    data = [
        make_dataset(counting(rng.integers(2, 12, count).tolist()), name=name)
        for name, count in (("small", 40), ("large", 2000))
    ]
    sources = [PackedSource(d.manifest.source, d, SEQ_LEN, 1) for d in data]
    return PackedLoader(sources, SEQ_LEN, 4, rows_per_step)


@pytest.mark.parametrize("ranks", [2, 3, 5, 16])
def test_ranks_walk_their_own_lanes_and_read_what_one_would(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    """Whether the ranks divide the lanes or not, and over a step of fewer rows; the ranks' states
    together are those of one."""
    counts = [12, 12, 12, 7, 12]
    alone = many(make_dataset)
    assert alone.lanes == 12
    steps = [alone.next_rows(count) for count in counts]
    packed: list[int] = []
    pack = Lane._pack_window

    def counted(lane: Lane) -> list[Any]:
        packed.append(lane.number)
        return pack(lane)

    monkeypatch.setattr(Lane, "_pack_window", counted)
    states = []
    shares: list[list[Any]] = [[] for _ in counts]
    for rank in range(ranks):
        packed.clear()
        one = many(make_dataset)
        for share, count in zip(shares, counts, strict=True):
            share += one.next_rows(count, rank, ranks)
        states.append(json.loads(json.dumps(one.state())))
        assert len(set(packed)) <= 12 // ranks + (2 if 12 % ranks else 0)
    assert shares == steps
    merged = merged_states(states)
    assert merged == json.loads(json.dumps(alone.state()))
    again = many(make_dataset)
    again.restore(merged)
    assert again.next_rows(12) == alone.next_rows(12)


@pytest.mark.parametrize("ranks", [2, 5])
def test_ranks_that_went_on_once_go_on_again(make_dataset: Make, ranks: int) -> None:
    """What a rank was told of the others' lanes is no news of theirs."""
    alone = many(make_dataset)
    state = alone.state()
    for _ in range(3):
        loaders = [many(make_dataset) for _ in range(ranks)]
        for one in loaders:
            one.restore(state)
        for _ in range(2):
            expected = alone.next_rows(12)
            shares = [one.next_rows(12, rank, ranks) for rank, one in enumerate(loaders)]
            assert [row for share in shares for row in share] == expected
        state = merged_states([json.loads(json.dumps(one.state())) for one in loaders])
        assert state == json.loads(json.dumps(alone.state()))


def test_lanes_draw_every_piece_once_an_epoch_and_keep_the_shares(make_dataset: Make) -> None:
    loader = many(make_dataset)
    rows = loader.epoch_tokens // SEQ_LEN
    taken = [piece for _ in range(rows // 12 - 8) for row in loader.next_rows(12) for piece in row]
    assert len(set(taken)) > 0.97 * len(taken)
    shares = drawn_shares(many(make_dataset), 12 * 60)
    of = [source.total_tokens / loader.epoch_tokens for source in loader.sources]
    assert shares["small"] == pytest.approx(of[0], abs=0.01)


def test_other_lanes_begin_after_those_of_the_state(
    make_dataset: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = many(make_dataset)
    seen = {piece for _ in range(9) for row in loader.next_rows(12) for piece in row}
    other = many(make_dataset, rows_per_step=8)
    other.restore(loader.state())
    assert "drawn in 12 lanes, and now in 8" in capsys.readouterr().out
    following = {piece for _ in range(9) for row in other.next_rows(8) for piece in row}
    large = {piece for number, piece in following if number == 1}
    assert large and not large & {piece for number, piece in seen if number == 1}
