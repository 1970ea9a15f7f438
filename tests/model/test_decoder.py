"""What must hold of the decoder by itself: causality, the cache, packing, its four outputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from miao.model import Decoder, KVCache, ModelConfig
from miao.ops.head_chunks import IGNORE
from miao.ops.varlen import document_starts
from tests.model.shapes import KINDS

Make = Callable[..., Decoder]
EVERY_KIND = pytest.mark.parametrize("kind", list(KINDS))


def random_ids(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(97, (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_equal(found: Tensor, expected: Tensor, kind: str) -> None:
    """To the bit; but an expert's products are rounded by how many tokens visit it."""
    tolerance = 1e-5 if "experts" in kind else 0.0
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@EVERY_KIND
@torch.inference_mode()
def test_a_later_token_changes_no_earlier_logit(make_model: Make, kind: str) -> None:
    model, ids = make_model(**KINDS[kind]), random_ids(2, 12)
    before = model(ids)
    for place in range(12):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 1) % 97
        after = model(changed)
        assert_equal(after[:, :place], before[:, :place], kind)
        assert bool((after[:, place:] != before[:, place:]).any(dim=-1).all())


@EVERY_KIND
@torch.inference_mode()
def test_a_packed_neighbour_changes_nothing(make_model: Make, kind: str) -> None:
    model, ids = make_model(**KINDS[kind]), random_ids(1, 10)
    segments = torch.tensor([[1] * 4 + [2] * 4 + [0] * 2])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 0, 0]])
    before = model(ids, positions, segments)
    changed = ids.clone()
    changed[:, 1] = (changed[:, 1] + 1) % 97
    after = model(changed, positions, segments)
    assert_equal(after[:, 4:], before[:, 4:], kind)
    assert bool((after[:, 1:4] != before[:, 1:4]).any())


@EVERY_KIND
def test_packed_rows_by_document_starts_equal_masked_ones(make_model: Make, kind: str) -> None:
    """On a CPU; the kernel of NVIDIA cards is called in tests/ops."""
    model, ids = make_model(**KINDS[kind]).train(), random_ids(2, 12)
    segments = torch.tensor([[1] * 5 + [2] * 7, [1] * 3 + [2] * 8 + [0]])
    positions = torch.tensor([[*range(5), *range(7)], [*range(3), *range(8), 0]])
    labels = torch.where(segments > 0, ids.roll(-1, 1), IGNORE)
    results = []
    for starts in (None, document_starts(segments, segments.numel())):
        model.zero_grad()
        loss = model(ids, positions, segments, labels_bt=labels, starts_n=starts, output="loss")
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([loss.detach(), *gradients])
    torch.testing.assert_close(results[0], results[1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("pieces", [[1] * 16, [7, 1, 1, 5, 2], [16]])
@EVERY_KIND
@torch.inference_mode()
def test_cached_decoding_equals_the_full_forward(
    make_model: Make, kind: str, pieces: list[int]
) -> None:
    model, ids = make_model(**KINDS[kind]), random_ids(3, 16)
    full = model(ids)
    cache = KVCache(model.config, 5, 20, torch.float32, torch.device("cpu"))
    cache.keys.fill_(1e4)  # a former owner's keys and values, which must not be seen
    cache.values.fill_(1e4)
    rows, start, found = torch.tensor([4, 0, 2]), 0, []
    for size in pieces:
        part = slice(start, start + size)
        cache.select(rows, start + size)
        positions = torch.arange(start, start + size).expand(3, size)
        found.append(model(ids[:, part], positions, cache=cache))
        start += size
    torch.testing.assert_close(torch.cat(found, dim=1), full, atol=5e-5, rtol=1e-5)


@EVERY_KIND
@torch.inference_mode()
def test_rows_of_a_cache_may_be_at_different_positions(make_model: Make, kind: str) -> None:
    model, ids = make_model(**KINDS[kind]), random_ids(2, 9)
    full = model(ids)
    cache = KVCache(model.config, 2, 9, torch.float32, torch.device("cpu"))
    for row, length in ((0, 8), (1, 3)):
        cache.select(torch.tensor([row]), length)
        model(ids[row : row + 1, :length], cache=cache)
    cache.select(None, 9)
    last = torch.stack([ids[0, 8:9], ids[1, 3:4]])
    logits = model(last, torch.tensor([[8], [3]]), cache=cache)
    torch.testing.assert_close(logits[0, 0], full[0, 8], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[1, 0], full[1, 3], atol=1e-5, rtol=1e-5)


def test_a_cache_does_not_look_further_than_it_is_long(make_model: Make) -> None:
    cache = KVCache(make_model().config, 1, 8, torch.float32, torch.device("cpu"))
    with pytest.raises(AssertionError):
        cache.select(None, 9)


@EVERY_KIND
@torch.inference_mode()
def test_the_outputs_are_of_one_piece(make_model: Make, kind: str) -> None:
    model, ids = make_model(tie_word_embeddings=False, **KINDS[kind]), random_ids(2, 9)
    labels = random_ids(2, 9, seed=2)
    labels[0, 4:] = IGNORE
    logits = model(ids)
    hidden = model(ids, output="hidden")
    torch.testing.assert_close(hidden @ model.lm_head.weight.T, logits)
    picked = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    expected = torch.where(labels == IGNORE, 0.0, picked)
    logprobs = model(ids, labels_bt=labels, output="logprobs")
    torch.testing.assert_close(logprobs, expected)
    loss = model(ids, labels_bt=labels, output="loss")
    torch.testing.assert_close(loss, -expected.sum())


def test_a_loss_needs_labels(make_model: Make) -> None:
    with pytest.raises(AssertionError):
        make_model()(random_ids(1, 3), output="loss")


def test_initial_weights(make_model: Make) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 1000, "head_dim": 64}
    model = make_model(**sizes, tie_word_embeddings=False)
    model.initialize(seed=3)
    for name, parameter in model.named_parameters():
        parameter = parameter.detach()
        if name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            assert not parameter.any(), name
        else:
            narrow = name in ("model.embed_tokens.weight", "lm_head.weight")
            expected = 0.02 if narrow else 1 / math.sqrt(parameter.shape[1])
            assert float(parameter.std()) == pytest.approx(expected, rel=0.03), name
            assert abs(float(parameter.mean())) < 0.05 * expected, name
    first = model.lm_head.weight.clone()
    model.initialize(seed=3)
    assert torch.equal(model.lm_head.weight, first)
    model.initialize(seed=4)
    assert not torch.equal(model.lm_head.weight, first)


@torch.inference_mode()
def test_a_fresh_model_is_as_unsure_as_it_can_be() -> None:
    """Blocks start as the identity, so the loss starts at about ln(vocabulary)."""
    model = Decoder(ModelConfig(500, 64, 2, 2, 1, 32, 128))
    model.initialize(seed=0)
    ids = torch.randint(500, (4, 50), generator=torch.Generator().manual_seed(0))
    loss = model(ids[:, :-1], labels_bt=ids[:, 1:], output="loss") / ids[:, 1:].numel()
    assert float(loss) == pytest.approx(math.log(500), rel=0.02)
