"""Continuous batching: whatever joins, leaves, shares or is taken back, answers stay the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from miao.engine import Request, Runner, SamplingOptions, Scheduler
from miao.engine.backend import make_runner
from miao.errors import MiaoError
from miao.model import Decoder

Make = Callable[..., Decoder]
NO_STOP: frozenset[int] = frozenset()
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
}
KINDS = pytest.mark.parametrize("shape", [{}, LATENT], ids=["gqa", "latent"])


def scheduler_of(model: Decoder, rows: int = 4, stop: frozenset[int] = NO_STOP, **options: Any):
    return Scheduler(Runner(model, rows, 64), stop, **options)


def finish(scheduler: Scheduler, requests: list[Request]) -> list[list[int]]:
    while scheduler.has_work:
        scheduler.step()
    return [request.answer for request in requests]


def by_full_forward(model: Decoder, prompt: list[int], count: int) -> list[int]:
    """The truth: the whole sequence is read anew for every token, without a cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def random_prompts(seed: int, lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(97, (n,), generator=generator).tolist() for n in lengths]


@KINDS
@pytest.mark.parametrize("prefill_tokens", [1, 5, 16, 1000])
def test_greedy_equals_full_forwards_however_prompts_are_cut(
    make_model: Make, shape: dict[str, Any], prefill_tokens: int
) -> None:
    model = make_model(**shape)
    prompts = random_prompts(1, [3, 30, 11, 1, 17, 6, 40])
    expected = [by_full_forward(model, prompt, 8) for prompt in prompts]
    scheduler = scheduler_of(model, rows=3, prefill_tokens=prefill_tokens)
    requests = [Request(prompt, SamplingOptions(max_new_tokens=8)) for prompt in prompts]
    for request in requests:
        scheduler.submit(request)
    assert finish(scheduler, requests) == expected
    assert {request.finish for request in requests} == {"length"}


def test_running_sequences_grow_while_a_long_prompt_is_read(make_model: Make) -> None:
    scheduler = scheduler_of(make_model(), prefill_tokens=4)
    first = Request([1, 2, 3], SamplingOptions(max_new_tokens=40))
    scheduler.submit(first)
    scheduler.step()
    late = Request(random_prompts(2, [20])[0], SamplingOptions(max_new_tokens=4))
    scheduler.submit(late)
    for step in range(1, 5):
        scheduler.step()
        assert len(first.answer) == 1 + step and late.answer == [] and late.computed == 4 * step
    scheduler.step()
    assert len(late.answer) == 1


@KINDS
def test_random_traffic(make_model: Make, shape: dict[str, Any]) -> None:
    """Joins, cancellations, stop tokens and shared beginnings at random: every answer is what it
    would be alone."""
    model, dice = make_model(**shape), random.Random(3)
    beginnings = random_prompts(4, [12, 25, 9])
    scheduler = scheduler_of(model, rows=4, stop=frozenset({5, 17, 60}), prefill_tokens=8)
    requests, cancelled = [], []
    for _ in range(120):
        if dice.random() < 0.35 and len(requests) < 40:
            start = dice.choice(beginnings)[: dice.randrange(1, 26)]
            prompt = start + [dice.randrange(97) for _ in range(dice.randrange(1, 12))]
            options = SamplingOptions(max_new_tokens=dice.randrange(1, 20))
            requests.append(Request(prompt, options))
            scheduler.submit(requests[-1])
        if dice.random() < 0.1 and (running := [*scheduler.running, *scheduler.waiting]):
            victim = dice.choice(running)
            scheduler.cancel(victim)
            cancelled.append(victim)
        scheduler.step()
        assert [r.row for r in scheduler.running] == list(range(len(scheduler.running)))
    finish(scheduler, requests)
    assert len(requests) > 20 and len(cancelled) > 3
    assert any(request.reused for request in requests)
    for request in requests:
        whole = by_full_forward(model, list(request.prompt), request.options.max_new_tokens)
        end = next((i for i, token in enumerate(whole) if token in (5, 17, 60)), None)
        if request.finish == "cancelled":
            assert request.answer == whole[: len(request.answer)]
        else:
            assert request.answer == whole[:end]
            assert request.finish == ("length" if end is None else "stop")


def test_a_chat_reads_only_what_is_new(make_model: Make) -> None:
    model = make_model()
    scheduler = scheduler_of(model)
    history = random_prompts(5, [20])[0]
    for turn in range(3):
        request = Request(list(history), SamplingOptions(max_new_tokens=5))
        scheduler.submit(request)
        (answer,) = finish(scheduler, [request])
        assert answer == by_full_forward(model, history, 5)
        # Everything but the newest token of the last turn stands in the cache.
        assert request.reused == (0 if turn == 0 else len(history) - 4)
        history += [*answer, 1, 2, 3]


def test_a_shared_beginning_is_copied_from_a_running_sequence(make_model: Make) -> None:
    model = make_model()
    scheduler = scheduler_of(model)
    shared = random_prompts(6, [18])[0]
    requests = []
    for ending in ([1, 2], [3], [4, 5, 6]):
        requests.append(Request([*shared, *ending], SamplingOptions(max_new_tokens=6)))
        scheduler.submit(requests[-1])
        scheduler.step()
    answers = finish(scheduler, requests)
    assert [request.reused for request in requests] == [0, 18, 18]
    assert answers == [by_full_forward(model, list(r.prompt), 6) for r in requests]


def test_the_whole_prompt_again_still_yields_logits(make_model: Make) -> None:
    model = make_model()
    scheduler = scheduler_of(model)
    prompt = random_prompts(7, [15])[0]
    for expected_reuse in (0, 14, 14):
        request = Request(prompt, SamplingOptions(max_new_tokens=3))
        scheduler.submit(request)
        assert finish(scheduler, [request]) == [by_full_forward(model, prompt, 3)]
        assert request.reused == expected_reuse


def test_prefixes_are_forgotten_where_weights_may_change(make_model: Make) -> None:
    model = make_model()
    scheduler = scheduler_of(model, reuse_prefixes=False)
    prompt = random_prompts(8, [15])[0]
    for seed in (0, 1):
        model.load_state_dict(make_model(seed).state_dict())
        request = Request(prompt, SamplingOptions(max_new_tokens=6))
        scheduler.submit(request)
        assert finish(scheduler, [request]) == [by_full_forward(model, prompt, 6)]
        assert request.reused == 0


def test_cancelling_frees_the_row_for_who_waits(make_model: Make) -> None:
    model = make_model()
    scheduler = scheduler_of(model, rows=1)
    first, second = (Request([n, 2, 3], SamplingOptions(max_new_tokens=9)) for n in (1, 7))
    scheduler.submit(first)
    scheduler.submit(second)
    scheduler.step()
    scheduler.step()
    assert second.row == -1
    scheduler.cancel(first)
    scheduler.cancel(first)
    assert finish(scheduler, [second]) == [by_full_forward(model, [7, 2, 3], 9)]
    assert (first.finish, len(first.answer)) == ("cancelled", 2)
    third = Request([9], SamplingOptions())
    scheduler.submit(third)
    scheduler.cancel(third)
    assert third.finish == "cancelled" and not scheduler.has_work


def test_dynamic_scaling_reads_prompts_in_one_pass(make_model: Make) -> None:
    scaling = {"rope_type": "dynamic", "factor": 4.0}
    model = make_model(rope_scaling=scaling, max_position_embeddings=16)
    prompts = random_prompts(9, [30, 12, 30])
    scheduler = scheduler_of(model, prefill_tokens=4)
    requests = [Request(prompt, SamplingOptions(max_new_tokens=1)) for prompt in prompts]
    for request in requests:
        scheduler.submit(request)
    assert finish(scheduler, requests) == [by_full_forward(model, p, 1) for p in prompts]


def test_logprobs_equal_a_full_forward(make_model: Make) -> None:
    model = make_model()
    scheduler = scheduler_of(model)
    plain = Request([4, 5], SamplingOptions(max_new_tokens=6))
    wanted = Request(
        [1, 2, 3], SamplingOptions(temperature=1.0, seed=1, max_new_tokens=6, logprobs=2)
    )
    for request in (plain, wanted):
        scheduler.submit(request)
    finish(scheduler, [])
    assert plain.logprobs == [] and len(wanted.logprobs) == 6
    with torch.inference_mode():
        logprobs = model(torch.tensor([wanted.tokens[:-1]]))[0].log_softmax(-1)[2:]
    for row, token, found in zip(logprobs, wanted.answer, wanted.logprobs, strict=True):
        assert found.chosen == pytest.approx(float(row[token]), abs=1e-5)
        top = row.topk(2)
        assert [i for i, _ in found.top] == top.indices.tolist()
        assert [v for _, v in found.top] == pytest.approx(top.values.tolist(), abs=1e-5)


def test_a_seed_draws_the_same_in_any_company(make_model: Make) -> None:
    model = make_model()
    options = SamplingOptions(temperature=1.0, top_p=0.95, seed=11, max_new_tokens=12)
    answers = []
    for company in (0, 3):
        scheduler = scheduler_of(model)
        for prompt in random_prompts(10, [5, 9, 2][:company]):
            scheduler.submit(Request(prompt, SamplingOptions(temperature=1.3, max_new_tokens=20)))
        request = Request([1, 2, 3], options)
        scheduler.submit(request)
        answers += finish(scheduler, [request])
    assert answers[0] == answers[1]


def test_impossible_requests_are_refused(make_model: Make) -> None:
    scheduler = scheduler_of(make_model())
    for prompt, message in (([], "empty"), ([1] * 70, "at least 7 too many"), ([97], "vocabulary")):
        with pytest.raises(MiaoError, match=message):
            scheduler.submit(Request(prompt, SamplingOptions()))
    with pytest.raises(MiaoError, match="logit_bias names token 97"):
        scheduler.submit(Request([1], SamplingOptions(logit_bias={97: 1.0})))
    assert not scheduler.has_work


@KINDS
@pytest.mark.parametrize("prefill_tokens", [5, 1000])
@pytest.mark.parametrize("compiled", [False, True])
def test_prompts_are_scored_as_by_a_full_forward(
    make_model: Make, shape: dict[str, Any], prefill_tokens: int, compiled: bool
) -> None:
    model = make_model(**shape)
    runner = make_runner(model, 3, 64) if compiled else Runner(model, 3, 64)
    scheduler = Scheduler(runner, NO_STOP, prefill_tokens)
    prompts = random_prompts(3, [30, 1, 12, 30, 2])
    prompts[3][:29] = prompts[0][:29]  # what the cache holds has no logits
    options = SamplingOptions(max_new_tokens=3, logprobs=2)
    requests = [Request(p, options, scores_prompt=i != 2) for i, p in enumerate(prompts)]
    for request in requests:
        scheduler.submit(request)
    answers = finish(scheduler, requests)
    for number, (prompt, request) in enumerate(zip(prompts, requests, strict=True)):
        assert answers[number] == by_full_forward(model, prompt, 3)
        if number == 2:
            assert request.prompt_logprobs == []
            continue
        with torch.inference_mode():
            logprobs = model(torch.tensor([prompt]))[0].float().log_softmax(-1)
        assert len(request.prompt_logprobs) == len(prompt) - 1
        for place, found in enumerate(request.prompt_logprobs):
            assert found.chosen == pytest.approx(
                float(logprobs[place, prompt[place + 1]]), abs=1e-4
            )
            values, ids = logprobs[place].topk(2)
            assert [token for token, _ in found.top] == ids.tolist()
            assert [value for _, value in found.top] == pytest.approx(values.tolist(), abs=1e-4)
