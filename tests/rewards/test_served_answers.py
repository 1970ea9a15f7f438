"""Answers of a vLLM server: what is asked of it, what is learned from, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.errors import MiaoError
from miao.model import Decoder, load_model
from miao.recipe import GrpoOptions
from miao.rewards import served
from miao.rewards.answers import Examiner
from miao.rewards.functions import load_rewards
from miao.rewards.served import VllmServer
from miao.rewards.tools import Calculator
from miao.tokenizer import Tokenizer
from miao.train.distributed.world import World
from miao.train.feed.rollouts import make_rollouts
from tests.json_server import JsonServer, Reply
from tests.rewards.test_reward_answers import CALL, PROBLEM
from tests.train.grpo_cases import SEQ_LEN, grpo_options, make, tiny_model


class Vllm:
    """vLLM's routes as a rollout uses them, over a real model that is read from the directory that
    it is told. `replies` change a route's answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.loaded: list[Decoder] = []
        self.replies: dict[str, Callable[[Any], Reply]] = {}
        self.server = JsonServer(self.hear)
        self.url = self.server.url.removeprefix("http://")

    def hear(self, path: str, _: object, body: Any) -> Reply:
        self.calls.append((path, body))
        return (self.replies.get(path) or getattr(self, path.rpartition("/")[2]))(body)

    def models(self, _: Any) -> Reply:
        return 200, {"object": "list", "data": [{"id": "policy", "max_model_len": 1024}]}

    def collective_rpc(self, body: Any) -> Reply:
        assert body["method"] == "reload_weights"
        self.loaded.append(load_model(Path(body["kwargs"]["weights_path"])))
        return 200, {"results": [None]}

    def reset_prefix_cache(self, _: Any) -> Reply:
        return 200, {"success": True}

    @torch.no_grad()
    def completions(self, body: Any) -> Reply:
        """As vLLM draws: biases, temperature; log-probabilities are those before both."""
        ids, numbers, model = list(body["prompt"]), [], self.loaded[-1]
        generator = torch.Generator().manual_seed(body["seed"])
        for _ in range(body["max_tokens"]):
            logits = model(torch.tensor([ids]))[0, -1].float()
            raw = logits.log_softmax(-1)
            for id, bias in body["logit_bias"].items():
                logits[int(id)] += bias
            chances = (logits / body["temperature"]).softmax(-1)
            ids.append(int(torch.multinomial(chances, 1, generator=generator)))
            numbers.append(float(raw[ids[-1]]))
            if ids[-1] in body["stop_token_ids"]:
                break
        return 200, completion(ids[len(body["prompt"]) :], numbers)

    def bodies(self) -> list[dict[str, Any]]:
        return [body for path, body in self.calls if path == "/v1/completions"]


def completion(ids: list[int], numbers: list[float]) -> dict[str, Any]:
    choice = {"index": 0, "text": "", "token_ids": ids, "logprobs": {"token_logprobs": numbers}}
    return {"object": "text_completion", "choices": [choice]}


@pytest.fixture
def vllm() -> Iterator[Vllm]:
    stand_in = Vllm()
    yield stand_in
    stand_in.server.stop()


def rollouts(vllm: Vllm, tokenizer: Tokenizer, model: Decoder, **changes: Any) -> Any:
    options = grpo_options(rollouts="vllm", vllm_url=vllm.url, **changes)
    made = make(tokenizer, model, options)
    made.examiner.server = VllmServer(options, made.examiner.stop_ids, SEQ_LEN + 1)
    return made


def test_every_rollout_is_drawn_by_the_server_with_the_weights_of_now(
    vllm: Vllm, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model(tokenizer)
    made = rollouts(
        vllm, tokenizer, model, vllm_weights=str(tmp_path), batch_tokens=SEQ_LEN, temperature=0.8
    )
    steps, pools = made.steps(0, 1e9), []
    for number in range(2):
        batch = next(steps)[0]
        pools.append(made.pool)
        loaded = dict(vllm.loaded[number].named_parameters())
        for name, parameter in model.named_parameters():
            assert torch.equal(loaded[name], parameter), name
        for answer in made.pool.answers:
            said = [i for i, own in zip(answer.ids, answer.learned, strict=True) if own]
            assert 1 <= len(said) == answer.said <= 8
            assert answer.finished == (said[-1] in made.examiner.stop_ids)
            assert len(answer.old) == len(answer.ids) - 1  # recomputed by our own pass
        assert batch is not None
        while made.pool is not None:
            next(steps)
        model.lm_head.weight.data.mul_(0.9)
        model.model.norm.weight.data.add_(0.1)
    paths = [path for path, _ in vllm.calls if "completions" not in path]
    assert paths == ["/v1/models", *["/collective_rpc", "/reset_prefix_cache"] * 2]
    bodies = vllm.bodies()
    assert len({body["seed"] for body in bodies}) == len(bodies) == 2 * 16
    one = bodies[0]
    assert (one["model"], one["temperature"], one["max_tokens"]) == ("policy", 0.8, 8)
    assert set(one["stop_token_ids"]) == made.examiner.stop_ids and one["return_token_ids"]


def test_a_rollout_is_drawn_again_as_it_was(vllm: Vllm, tokenizer: Tokenizer) -> None:
    model = tiny_model(tokenizer)
    drawn = [rollouts(vllm, tokenizer, model)._roll_out() for _ in range(2)]
    assert [a.ids for a in drawn[0].answers] == [a.ids for a in drawn[1].answers]


def test_greedy_answers_are_the_engines(vllm: Vllm, tokenizer: Tokenizer) -> None:
    rollouts(vllm, tokenizer, model := tiny_model(tokenizer)).heldout(model)
    assert [path for path, _ in vllm.calls] == ["/v1/models"]


def test_rows_that_are_no_tokens_are_not_drawn(vllm: Vllm, tokenizer: Tokenizer) -> None:
    model = tiny_model(tokenizer)
    tokens = model.config.vocab_size - 3
    made = rollouts(vllm, tokenizer, model)
    made.examiner.server.load(model)
    object.__setattr__(model.config, "num_tokens", tokens)
    made._roll_out()
    assert vllm.bodies()[0]["logit_bias"] == {str(tokens + i): -100.0 for i in range(3)}


def test_tools_answer_between_the_servers_turns(
    vllm: Vllm, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [
        [*tokenizer.encode(t, allow_special=True), tokenizer.end_of_turn_id] for t in (CALL, "36")
    ]

    def say(body: Any) -> Reply:
        turn = turns[len(vllm.bodies()) - 1]
        return 200, completion(turn, [-1.0] * len(turn))

    vllm.replies["/v1/completions"] = say
    monkeypatch.setattr(served, "FARTHEST", float("inf"))
    model = tiny_model(tokenizer)
    options = GrpoOptions(max_new_tokens=200, seq_len=1000, vllm_url=vllm.url)
    examiner = Examiner(tokenizer, load_rewards({"exact_answer": 1}), Calculator(), options, 1000)
    examiner.server = VllmServer(options, examiner.stop_ids, 1000)
    [answer] = examiner.ask(model, [PROBLEM], [1], temperature=1.0)
    assert answer.turns == 2 and answer.reward == 1 and answer.finished
    assert answer.said == sum(map(len, turns))
    assert vllm.bodies()[1]["prompt"] == answer.ids[: -len(turns[1])]


@pytest.mark.parametrize(
    ("route", "reply", "says"),
    [
        ("/v1/models", (404, None), "no vLLM server answers"),
        ("/v1/models", (200, {"data": []}), "no vLLM server answers"),
        ("/v1/models", (200, {"data": [{"id": "m", "max_model_len": 9}]}), "--max-model-len 65"),
        ("/collective_rpc", (404, None), "VLLM_SERVER_DEV_MODE=1"),
        ("/collective_rpc", (500, {"error": {"message": "shape"}}), "not take the weights.*shape"),
        ("/reset_prefix_cache", (200, {"success": False}), "still holds prefixes"),
        ("/v1/completions", (500, None), "vLLM gives no answer"),
        ("/v1/completions", (200, {"choices": [{"text": "x"}]}), "no token ids"),
        ("/v1/completions", (200, completion([10**6], [-1.0])), "no tokens of this model"),
        ("/v1/completions", (200, completion([5, 6], [-40.0, -40.0])), "other weights"),
    ],
)
def test_what_the_server_cannot_do_is_said_once(
    vllm: Vllm, tokenizer: Tokenizer, route: str, reply: Reply, says: str
) -> None:
    vllm.replies[route] = lambda _: reply
    with pytest.raises(MiaoError, match=says) as error:
        rollouts(vllm, tokenizer, tiny_model(tokenizer))._roll_out()
    assert vllm.url in str(error.value)


def test_a_server_that_is_gone_is_named(tokenizer: Tokenizer) -> None:
    gone = Vllm()
    made = rollouts(gone, tokenizer, tiny_model(tokenizer))
    gone.server.stop()
    with pytest.raises(MiaoError, match="cannot be reached") as error:
        made._roll_out()
    assert gone.url in str(error.value)


def test_a_tied_head_is_refused(vllm: Vllm, tokenizer: Tokenizer) -> None:
    options = GrpoOptions(rollouts="vllm", vllm_url=vllm.url, seq_len=128)
    with pytest.raises(MiaoError, match="tied"):
        make_rollouts(options, tiny_model(tokenizer), tokenizer, 1, World())


def test_several_processes_are_refused(vllm: Vllm, tokenizer: Tokenizer) -> None:
    world, options = World(), GrpoOptions(rollouts="vllm", vllm_url=vllm.url, seq_len=128)
    world.size = 2
    with pytest.raises(MiaoError, match="one process"):
        make_rollouts(options, tiny_model(tokenizer), tokenizer, 1, world)
