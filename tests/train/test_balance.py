"""An unbalanced router becomes balanced, by the loss and by the bias; and what is reported."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from miao.model import Decoder
from miao.train.balance import ExpertBalance
from miao.train.optim import MuonAdamW
from tests.model.shapes import EXPERTS, SIGMOID

Make = Callable[..., Decoder]
SOFTMAX = EXPERTS | {"router_aux_loss_coef": 0.1}
BIAS = SIGMOID | {"n_group": 1, "topk_group": 1}


def entropy_while_training(model: Decoder, rate: float, steps: int = 70) -> list[float]:
    """Trains on random tokens whose routers all begin by choosing the first two experts."""
    generator = torch.Generator().manual_seed(0)
    for mixture in model.mixtures().values():
        for bias in mixture.gate.buffers():
            bias.zero_()
            bias[:2] = 0.5
        if mixture.has_balance_loss:
            # The norm before the router has an offset along this direction.
            mixture.gate.weight.data[:2] += 0.3
    for block in model.model.layers:
        block.post_attention_layernorm.weight.data.fill_(1.0)
    model.model.embed_tokens.weight.data.add_(0.1)
    optimizer = MuonAdamW(list(model.named_parameters()), lr=2e-3, muon_lr=0.0)
    balance, entropies = ExpertBalance(model.train(), rate), []
    for _ in range(steps):
        ids = torch.randint(97, (16, 17), generator=generator)
        loss = model(ids[:, :-1], labels_bt=ids[:, 1:], output="loss") / 256
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        balance.after_step()
        entropies.append(balance.read()["expert_entropy"])
    return entropies


def mean_of_last(entropies: list[float]) -> float:
    return sum(entropies[-20:]) / 20


def test_the_loss_balances_softmax_routing(make_model: Make) -> None:
    without = entropy_while_training(make_model(**SOFTMAX | {"router_aux_loss_coef": 0.0}), 0.0)
    balanced = entropy_while_training(make_model(**SOFTMAX), 0.0)
    assert balanced[0] < 0.9
    assert mean_of_last(balanced) > 0.93
    assert mean_of_last(without) < 0.75


def test_the_bias_balances_sigmoid_routing(make_model: Make) -> None:
    without = entropy_while_training(make_model(**BIAS), rate=0.0)
    balanced = entropy_while_training(make_model(**BIAS), rate=0.02)
    assert balanced[0] < 0.9
    assert mean_of_last(balanced) > 0.87
    assert mean_of_last(without) < 0.7


def test_the_bias_moves_against_the_load_and_gets_no_gradient(make_model: Make) -> None:
    model = make_model(**BIAS).train()
    mixture = next(iter(model.mixtures().values()))
    before = mixture.gate.e_score_correction_bias.clone()
    mixture.nudge_bias(torch.tensor([9.0, 1, 5, 5, 5, 5]), 0.01)
    moved = mixture.gate.e_score_correction_bias - before
    torch.testing.assert_close(moved, torch.tensor([-0.01, 0.01, 0, 0, 0, 0]))
    assert not mixture.gate.e_score_correction_bias.requires_grad


def test_what_is_reported(make_model: Make) -> None:
    model = make_model(**BIAS).train()
    ids = torch.randint(97, (2, 8), generator=torch.Generator().manual_seed(1))
    segments = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    model(ids, None, segments, output="hidden")
    balance = ExpertBalance(model, 0.0)
    balance.after_step()
    counts = {number: load.sum() for number, load in balance.loads.items()}
    assert counts == {1: 13 * 2, 2: 13 * 2}  # 13 real tokens, two experts each
    report = balance.read()
    assert [len(row) for row in report["expert_load"]] == [6, 6]
    assert [sum(row) for row in report["expert_load"]] == pytest.approx([6, 6], abs=0.01)
    shares = [[x / 6 for x in row] for row in report["expert_load"]]
    entropy = -sum(x * math.log(x) for row in shares for x in row if x) / 2 / math.log(6)
    assert report["expert_entropy"] == pytest.approx(entropy, abs=1e-3)
    assert report["dropped_tokens"] == 0
    assert balance.read() == {}


def test_a_dense_model_reports_nothing(make_model: Make) -> None:
    balance = ExpertBalance(make_model(), 0.1)
    balance.after_step()
    assert balance.read() == {}


def test_evaluation_is_not_counted(make_model: Make) -> None:
    model = make_model(**BIAS)
    model(torch.zeros(1, 4, dtype=torch.int64))
    assert all(not mixture.load.any() for mixture in model.mixtures().values())
