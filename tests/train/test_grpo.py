"""GRPO's loss against TRL's, its rollouts against the plain model, and training whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from miao.files import read_json, read_jsonl
from miao.model import Decoder, load_model
from miao.rewards.answers import Answer
from miao.tokenizer import Tokenizer
from miao.train.distributed.world import World
from miao.train.feed.rollouts import Pool, Rollouts
from miao.train.objectives import GrpoObjective
from miao.train.objectives.grpo import group_advantages, grpo_losses, policy_logprobs
from tests.train import grpo_cases as cases
from tests.train.pair import Pair
from tests.train.tiny import TIMES, assert_same_bits

# Four answers of 3, 2, 3 and 1 tokens; the losses are those of TRL 1.16's own function on them.
POLICY = [[-0.9, -1.6, -0.2], [-2.0, -0.4], [-0.3, -0.8, -0.5], [-1.2]]
OLD = [[-1.2, -1.4, -0.25], [-1.5, -0.7], [-0.9, -0.8, -0.4], [-1.0]]
REFERENCE = [[-1.0, -1.5, -0.3], [-1.8, -0.5], [-0.6, -0.9, -0.5], [-1.1]]
REWARDS = [1.0, 0.0, 0.5, 0.0]
ADVANTAGES = [1.305309772491455, -0.7831858992576599, 0.26106196641921997, -0.7831858992576599]


class Said(torch.nn.Module):
    """A model that gives every answer's tokens the log-probabilities named above."""

    def __init__(self, answers: list[Answer]):
        super().__init__()
        self.by_ids = {tuple(a.ids): row for a, row in zip(answers, POLICY, strict=True)}

    def forward(self, ids_bt: Tensor, *_: Any, labels_bt: Tensor, **__: Any) -> Tensor:
        found = torch.zeros(ids_bt.shape)
        for ids, row in self.by_ids.items():
            for b, line in enumerate(ids_bt.tolist()):
                for start in range(len(line) - len(ids) + 2):
                    if tuple(line[start : start + len(ids) - 1]) == ids[:-1]:
                        found[b, start + 1 : start + 1 + len(row)] = torch.tensor(row)
        return found


def answers_of(rewards: list[float], divide: bool = True) -> list[Answer]:
    """Prompts of two tokens, and what was said after them."""
    advantages = group_advantages(rewards, divide)
    answers = []
    for number, (old, advantage) in enumerate(zip(OLD, advantages, strict=True)):
        ids = [10 * number + k for k in range(2 + len(old))]
        answer = Answer(number, ids, [False, False] + [True] * len(old), advantage=advantage)
        answer.old = [0.0, *old]
        answer.reference = [0.0, *REFERENCE[number]]
        answers.append(answer)
    return answers


def bare(**changes: Any) -> Rollouts:
    """Rollouts that only pack and weigh."""
    rollouts = Rollouts.__new__(Rollouts)
    rollouts.options = cases.grpo_options(seq_len=16, max_new_tokens=8, **changes)
    rollouts.examiner = cases.Examiner.__new__(cases.Examiner)
    rollouts.examiner.environment = None
    rollouts.seed = rollouts.number = 0
    rollouts.rows_per_step = 64
    return rollouts


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss": "grpo"}, -0.030716225504875183),
        ({"loss": "grpo", "clip_high": 0.3, "kl_coef": 0.05}, -0.04328860342502594),
        ({"loss": "dapo", "clip_high": 0.28}, -0.2909122705459595),
        ({"loss": "dr_grpo"}, -0.037301089614629745),
        # TRL names the bound itself, 1.3.
        ({"loss": "cispo", "clip_high": 0.3}, 0.2015085220336914),
        ({"loss": "cispo", "clip_high": 0.3, "kl_coef": 0.1}, 0.20252978801727295),
    ],
)
def test_losses_equal_trls(changes: dict[str, Any], expected: float) -> None:
    rollouts = bare(**changes)
    answers = answers_of(REWARDS, divide=changes["loss"] != "dr_grpo")
    if "kl_coef" not in changes:
        for answer in answers:
            answer.reference = None
    pool = Pool(answers, count=4, said=9, tokens=13)
    plan = rollouts._plan(pool)
    assert [sum(map(len, rows)) for rows in plan] == [4]
    batch = rollouts._batch(plan[0], rollouts._scale(plan[0], plan, pool))
    model = Said(answers)
    objective = GrpoObjective(rollouts.options, model, {"reward": 0.375})  # type: ignore[arg-type]
    loss, metrics = objective.loss(model, batch)
    assert float(loss) / objective.weight(batch) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["reward"]) / 4 == pytest.approx(0.375)
    if "kl_coef" in changes:  # TRL's is the mean over all tokens, this one that of the answers
        means = [
            sum(math.exp(r - p) - (r - p) - 1 for p, r in zip(*row, strict=True)) / len(row[0])
            for row in zip(POLICY, REFERENCE, strict=True)
        ]
        assert float(metrics["kl"]) == pytest.approx(sum(means), rel=1e-4)


def test_advantages_by_hand() -> None:
    assert group_advantages(REWARDS, True) == pytest.approx(ADVANTAGES, rel=1e-6)
    assert group_advantages(REWARDS, False) == pytest.approx([0.625, -0.375, 0.125, -0.375])
    for count in range(2, 12):  # rounding makes no signal where there is none
        assert group_advantages([0.1] * count, True) == [0.0] * count


@pytest.mark.parametrize("kind", ["grpo", "cispo"])
def test_only_cispo_keeps_the_gradient_of_what_is_clipped(kind: Any) -> None:
    policy = torch.tensor([-0.5, -1.5, -0.9], requires_grad=True)
    old = torch.tensor([-1.0, -1.0, -1.0])  # ratios 1.65, 0.61 and 1.11
    advantages = torch.tensor([2.0, -2.0, 2.0])
    loss, clipped = grpo_losses(cases.grpo_options(loss=kind), policy, old, advantages)
    loss.sum().backward()
    assert policy.grad is not None
    if kind == "grpo":
        assert clipped.tolist() == [True, True, False]
        expected = [0.0, 0.0, -2 * math.exp(0.1)]
    else:
        assert clipped.tolist() == [True, False, False]
        expected = [-2 * 1.2, 2 * math.exp(-0.5), -2 * math.exp(0.1)]
    torch.testing.assert_close(policy.grad, torch.tensor(expected))


def test_worse_tokens_that_became_likelier_and_better_ones_that_fell_are_not_cut() -> None:
    policy = torch.tensor([-0.5, -1.5])
    losses = grpo_losses(
        cases.grpo_options(), policy, torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, 1.0])
    )
    assert not losses.clipped.any()


def test_the_policy_is_the_model_at_the_temperature(tokenizer: Tokenizer) -> None:
    model = cases.tiny_model(tokenizer).eval()
    rollouts = cases.make(tokenizer, model, cases.grpo_options(temperature=0.7))
    answers = rollouts._roll_out().answers
    for answer, found in zip(answers, rollouts._logprobs(model, answers), strict=True):
        logits = model(torch.tensor([answer.ids]))[0].float() / 0.7
        truth = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(answer.ids[1:])[:, None])[:, 0]
        learned = torch.tensor(answer.learned[1:])
        torch.testing.assert_close(torch.tensor(found), truth.detach() * learned)


def test_rollouts_are_what_the_model_says_itself(tokenizer: Tokenizer) -> None:
    """Sampled tokens follow the model's own distribution: over many answers, as often as it says."""
    model = cases.tiny_model(tokenizer).eval()
    rollouts = cases.make(tokenizer, model, cases.grpo_options(max_new_tokens=1))
    problem = rollouts.problems[0]
    answers = rollouts.examiner.ask(model, [problem], [3], copies=1200, temperature=1.0)
    prompt = rollouts.examiner.prompt_ids(problem)
    assert all(
        a.ids[:-1] == prompt and a.learned == [False] * len(prompt) + [True] for a in answers
    )
    wanted = model(torch.tensor([prompt]))[0, -1].float().softmax(-1).detach()
    drawn = torch.bincount(torch.tensor([a.ids[-1] for a in answers]), minlength=len(wanted)) / 1200
    # What a sample of this size is off by on average, and a third more.
    expected = (wanted * (1 - wanted) * 2 / math.pi / 1200).sqrt().sum()
    assert float((drawn - wanted).abs().sum()) < 1.33 * float(expected)
    stops = [a for a in answers if a.ids[-1] in tokenizer.stop_ids]
    assert all(a.finished for a in stops) and not any(a.finished for a in answers if a not in stops)


def test_the_first_gradient_is_that_of_reinforce(tokenizer: Tokenizer) -> None:
    """Before the weights move, the gradient is the mean of -A grad log p, over all answers, also
    where those of groups without signal were left out."""
    options = cases.grpo_options(prompts_per_rollout=6)
    model, plain = cases.tiny_model(tokenizer), cases.tiny_model(tokenizer)
    rollouts = cases.make(tokenizer, model, options)

    def whole_or_nothing(prompt: str, completion: str, record: dict[str, Any]) -> float:
        return float(record["answer"] % 2 == 0 and len(completion) % 2 == 0)

    rollouts.examiner.rewards.functions["ascii"] = whole_or_nothing
    every: list[Answer] = []
    ask = rollouts.examiner.ask

    def remembered(*args: Any) -> list[Answer]:
        every.extend(found := ask(*args))
        return found

    rollouts.examiner.ask = remembered  # type: ignore[method-assign]
    (step, _) = next(rollouts.steps(0, 10_000))
    assert 0 < sum(map(len, step.share.sequences)) < len(every) == 24
    objective = GrpoObjective(options, model, rollouts.figures)
    loss, metrics = objective.loss(model, step.share)
    (loss / objective.weight(step.share)).backward()
    total = torch.zeros(())
    for answer in every:
        logprobs = plain(torch.tensor([answer.ids]))[0].float().log_softmax(-1)[:-1]
        said = logprobs.gather(1, torch.tensor(answer.ids[1:])[:, None])[:, 0]
        said = said[torch.tensor(answer.learned[1:])]
        total = total - answer.advantage * said.mean() / len(every)
    total.backward()
    for ours, truth in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, truth.grad, atol=1e-6, rtol=1e-4)
    assert float(metrics["clip_fraction"]) == 0
    reward = sum(answer.reward for answer in every) / 24
    assert rollouts.figures["reward"] == pytest.approx(reward)
    assert rollouts.figures["groups_without_signal"] >= 0.5


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "cispo"])
def test_steps_of_a_rollout_add_up_to_one(loss: Any, tokenizer: Tokenizer) -> None:
    """The mean of the losses of several small steps is that of one large step."""

    def gradients(batch_tokens: int) -> tuple[list[Tensor], int]:
        options = cases.grpo_options(batch_tokens=batch_tokens, loss=loss, group_size=5)
        model = cases.tiny_model(tokenizer)
        rollouts = cases.make(tokenizer, model, options)
        objective = GrpoObjective(options, model, rollouts.figures)
        parts: list[Tensor] = []
        for step, _ in rollouts.steps(0, 10**6):
            loss_sum, _ = objective.loss(model, step.share)
            parts.append(loss_sum / objective.weight(step.share))
            if rollouts.pool is None:
                break
        torch.stack(parts).mean().backward()
        return [p.grad for p in model.parameters() if p.grad is not None], len(parts)

    one, once = gradients(64 * cases.SEQ_LEN)
    many, several = gradients(3 * cases.SEQ_LEN)
    assert once == 1 and several > 2
    torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-4)


def test_every_answer_is_learned_once_per_pass(tokenizer: Tokenizer) -> None:
    options = cases.grpo_options(batch_tokens=3 * cases.SEQ_LEN, passes=3)
    rollouts = cases.make(tokenizer, cases.tiny_model(tokenizer), options)
    pool = rollouts._roll_out()
    plan = rollouts._plan(pool)
    for turn in range(3):
        steps = plan[turn * len(plan) // 3 : (turn + 1) * len(plan) // 3]
        seen = [id(answer) for rows in steps for row in rows for answer in row]
        assert sorted(seen) == sorted(map(id, pool.answers))
    assert all(answer.old is not None for answer in pool.answers)


def test_problems_come_in_another_order_every_time_round(tokenizer: Tokenizer) -> None:
    rollouts = cases.make(tokenizer, cases.tiny_model(tokenizer), cases.grpo_options())
    asked = []
    for number in range(5):  # 5 rollouts of 4 problems: the 10 problems twice
        rollouts.number = number
        asked += [problem.prompt for problem in rollouts._next_problems()]
    assert sorted(asked[:10]) == sorted(asked[10:]) and asked[:10] != asked[10:]
    assert len(set(asked[:10])) == 10


def run(directory: Path, tokenizer: Tokenizer, stop: int | None = None, **changes: Any) -> Any:
    return cases.train(World(), tokenizer, directory, changes, stop)


def curve(directory: Path) -> list[dict[str, Any]]:
    clocks = TIMES | {"rollout_tokens_per_second"}
    lines = read_jsonl(directory / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo", "cispo"])
def test_it_learns(loss: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    faster = {"learning_rate": 2e-2, "prompts_per_rollout": 2, "group_size": 8}
    run(tmp_path, tokenizer, loss=loss, tokens=6_000, kl_coef=0.01 * (loss == "grpo"), **faster)
    lines = curve(tmp_path)
    rewards = [line["reward"] for line in lines]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert all(line["clip_fraction"] == 0 for line in lines)  # one step per rollout
    assert all(line["entropy"] > 0 and 0 <= line["groups_without_signal"] <= 1 for line in lines)
    if loss == "grpo":
        assert lines[0]["kl"] == pytest.approx(0, abs=1e-6) and lines[-1]["kl"] > 1e-3


@pytest.mark.parametrize("stop", [2, 5])
def test_killed_and_resumed_is_never_killed(
    stop: int, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Also in the middle of a rollout, whose answers the weights of now would not give."""
    changes = {"batch_tokens": 4 * cases.SEQ_LEN, "passes": 2, "tokens": 2500, "kl_coef": 0.02}
    whole = run(tmp_path / "whole", tokenizer, **changes)
    assert whole["steps"] > 3 * whole["rollouts"]
    assert run(tmp_path / "torn", tokenizer, stop, **changes)["stopped"]
    state = read_json(tmp_path / "torn" / "checkpoints" / f"step-{stop:08d}" / "state.json")
    assert state["loader"]["pool"] is not None
    again = run(tmp_path / "torn", tokenizer, **changes)
    assert again == whole
    left, right = (load_model(tmp_path / name / "model") for name in ("whole", "torn"))
    assert_same_bits(left, right)
    assert curve(tmp_path / "whole") == curve(tmp_path / "torn")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    two = Pair()
    yield two
    two.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 1500, "loss": "dapo"},
        {"tokens": 1500, "prompts_per_rollout": 3, "passes": 2, "kl_coef": 0.05},
        {"tokens": 600, "prompts_per_rollout": 1, "batch_tokens": 2 * cases.SEQ_LEN},
    ],
    ids=["one step", "two passes", "a process without problems"],
)
def test_two_processes_equal_one(
    changes: dict[str, Any], pair: Pair, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    alone = run(tmp_path / "one", tokenizer, **changes)
    both = pair.run(cases.train, tokenizer, tmp_path / "two", changes)
    assert both == [alone, alone]
    one, two = (load_model(tmp_path / name / "model") for name in ("one", "two"))
    start = cases.tiny_model(tokenizer)
    moved = 0.0
    for a, b, c in zip(one.parameters(), two.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
        moved = max(moved, float((a - c).abs().max().detach()))
    assert moved > 1e-2
    for a, b in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert a["reward"] == pytest.approx(b["reward"], abs=1e-6)
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)


def test_it_ends_when_there_is_nothing_left_to_learn(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = cases.grpo_options()
    rollouts = cases.make(tokenizer, cases.tiny_model(tokenizer), options)
    rollouts.examiner.rewards.functions["ascii"] = lambda prompt, completion, record: 1.0
    steps = list(rollouts.steps(0, 10**9))
    assert len(steps) == 20
    assert all(bool((step.share.advantages_bt == 0).all()) for step, _ in steps)  # type: ignore[attr-defined]
    assert "nothing is left to learn" in " ".join(capsys.readouterr().out.split())


def test_the_model_is_put_back_into_training(tokenizer: Tokenizer) -> None:
    model: Decoder = cases.tiny_model(tokenizer).train()
    rollouts = cases.make(tokenizer, model, cases.grpo_options(passes=2))
    next(rollouts.steps(0, 100))
    assert model.training
    objective = GrpoObjective(rollouts.options, model, {})
    batch = rollouts._batch([[a] for a in rollouts.pool.answers[:3]], 1.0)  # type: ignore[union-attr]
    logprobs = policy_logprobs(model, model, batch, 1.0)
    torch.testing.assert_close(logprobs.detach(), batch.old_bt)
    assert objective.weight(batch) == 3
