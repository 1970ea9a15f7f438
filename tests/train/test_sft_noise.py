"""NEFTune: the size of the noise, and where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from miao.model import Decoder
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.train.objectives import LanguageObjective
from miao.train.objectives.noise import EmbeddingNoise


def test_noise_is_uniform_by_the_length_of_each_conversation(
    make_model: Callable[..., Decoder], make_dataset: Callable[..., TokenDataset]
) -> None:
    model = make_model()
    sequences = [list(range(1, 42)), [5, 6, 7, 8, 9]]
    masks = [[True] * len(ids) for ids in sequences]
    dataset = make_dataset(sequences, "conversation", masks, vocab_size=97)
    (batch,) = PackedLoader([PackedSource("talk", dataset, 60, seed=0)], 60).one_pass(9)
    objective, quiet = LanguageObjective(EmbeddingNoise(model, 5.0)), LanguageObjective()
    seen: list[torch.Tensor] = []
    model.model.embed_tokens.register_forward_hook(lambda m, i, output: seen.append(output))
    torch.manual_seed(0)
    model.train()
    objective.loss(model, batch)
    clean = model.model.embed_tokens.weight[batch.ids_bt]
    noise = (seen[0] - clean).detach()
    for number, (_, sequence) in enumerate(batch.sequences[0], start=1):
        here = noise[batch.segments_bt == number].abs()
        bound = 5.0 / math.sqrt((len(sequences[sequence]) - 1) * 32)
        assert 0.9 * bound < float(here.max()) <= bound * 1.0001
        assert 0.4 * bound < float(here.mean()) < 0.6 * bound
    model.eval()
    loss, _ = quiet.loss(model, batch)
    plain, _ = quiet.loss(make_model(), batch)
    assert torch.equal(loss, plain)
