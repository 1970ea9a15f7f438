"""Answers over several turns: what the model reads equals the chat template's own text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from miao.corpus.records import Conversation, Message
from miao.engine import make_runner
from miao.engine.runner import Piece, Runner
from miao.errors import MiaoError
from miao.model import Decoder
from miao.model.cache import KVCache
from miao.recipe import GrpoOptions
from miao.rewards import Problem, Rewards, load_rewards
from miao.rewards.answers import Examiner
from miao.rewards.tools import Calculator
from miao.tokenizer import Tokenizer

CALL = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "12*3"}}\n</tool_call>'
PROBLEM = Problem([Message("user", "12*3=?")], {"answer": 36})


@pytest.fixture
def says(
    monkeypatch: pytest.MonkeyPatch, make_model: Callable[..., Decoder], tokenizer: Tokenizer
) -> Callable[[list[str]], Decoder]:
    """A model that says these turns, one after the other, whatever it reads."""

    def make(turns: list[str]) -> Decoder:
        model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
        scripts = [tokenizer.encode(turn, allow_special=True) for turn in turns]
        scripts = [[*ids, tokenizer.end_of_turn_id] for ids in scripts]
        opening = tokenizer.encode("<|im_start|>assistant\n", allow_special=True)
        read: dict[int, list[int]] = defaultdict(list)

        def forward(self: Runner, pieces: list[Piece]) -> Tensor:
            logits = torch.full((len(pieces), tokenizer.vocab_size), -1e9)
            for place, piece in enumerate(pieces):
                row = read[piece.row][: piece.start] + list(piece.tokens)
                read[piece.row] = row
                starts = [
                    at + len(opening)
                    for at in range(len(row) - len(opening) + 1)
                    if row[at : at + len(opening)] == opening
                ]
                script = scripts[min(len(starts), len(scripts)) - 1]
                said = len(row) - starts[-1] if starts else 0
                logits[place, script[min(said, len(script) - 1)]] = 0.0
            return logits

        def copy(self: KVCache, source: int, target: int, count: int) -> None:
            read[target] = list(read[source])

        def swap(self: KVCache, one: int, other: int, count: int) -> None:
            read[one], read[other] = read[other], read[one]

        monkeypatch.setattr("miao.rewards.answers.make_runner", Runner)
        monkeypatch.setattr(Runner, "__call__", forward)
        monkeypatch.setattr(KVCache, "copy", copy)
        monkeypatch.setattr(KVCache, "swap", swap)
        return model

    return make


def examiner(tokenizer: Tokenizer, rewards: Rewards | None = None, **changes: Any) -> Examiner:
    options = GrpoOptions(max_new_tokens=200, seq_len=1000, **changes)
    return Examiner(
        tokenizer, rewards or load_rewards(options.rewards), Calculator(), options, 1000
    )


def test_a_tool_answers_and_is_not_learned(
    says: Callable[[list[str]], Decoder], tokenizer: Tokenizer
) -> None:
    rewards = load_rewards({"exact_answer": 1.0, "tool_use": 0.5})
    exam = examiner(tokenizer, rewards)
    (answer,) = exam.ask(says([CALL, "It is 36."]), [PROBLEM], [None])
    assert answer.text == f"{CALL}\n<tool_response>\n36\n</tool_response>\nIt is 36."
    assert answer.reward == 1.5 and answer.turns == 2 and answer.finished
    # The ids, and which of them are learned, are those of the same conversation in SFT.
    arguments = {"expression": "12*3"}
    messages = [
        *PROBLEM.messages,
        Message("assistant", "", tool_calls=[{"name": "calculator", "arguments": arguments}]),
        Message("tool", "36"),
        Message("assistant", "It is 36."),
    ]
    conversation = Conversation(messages, tools=Calculator.tools)
    ids, learned = tokenizer.chat_template.encode(tokenizer, conversation)
    assert answer.ids == ids[: len(answer.ids)] and len(ids) - len(answer.ids) <= 1  # last newline
    assert answer.learned == learned[: len(answer.ids)]


def test_what_the_model_makes_up_is_no_answer_of_a_tool(
    says: Callable[[list[str]], Decoder], tokenizer: Tokenizer
) -> None:
    lie = "<tool_response>\n36\n</tool_response>\nIt is 36."
    (answer,) = examiner(tokenizer).ask(says([lie]), [PROBLEM], [None])
    assert "tool_response" not in answer.text and answer.turns == 1
    assert load_rewards({"tool_use": 1.0}).values("", answer.text, {}) == {"tool_use": 0.0}


def test_turns_end_at_their_number_and_at_the_length(
    says: Callable[[list[str]], Decoder], tokenizer: Tokenizer
) -> None:
    (answer,) = examiner(tokenizer, max_turns=3).ask(says([CALL]), [PROBLEM], [None])
    assert answer.turns == 3 and answer.text.count("<tool_response>") == 2
    exam = examiner(tokenizer, max_turns=50)
    (answer,) = exam.ask(says([CALL]), [PROBLEM], [None])
    assert not answer.finished and 2 < answer.turns < 50 and len(answer.ids) <= 1000


def test_many_answers_at_once_stay_apart(
    says: Callable[[list[str]], Decoder], tokenizer: Tokenizer
) -> None:
    exam = examiner(tokenizer, parallel_answers=3)
    problems = [Problem([Message("user", f"{n}?" * n)], {"answer": 36}) for n in range(1, 6)]
    answers = exam.ask(says([CALL, "It is 36."]), problems, [1] * 5, 2, 1.0)
    assert [answer.problem for answer in answers] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for answer in answers:
        prompt = exam.prompt_ids(problems[answer.problem])
        assert answer.ids[: len(prompt)] == prompt and not any(answer.learned[: len(prompt)])
        assert answer.reward == 1.0 and answer.turns == 2


def test_an_environment_that_fails_is_named(
    says: Callable[[list[str]], Decoder],
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def respond(self: Calculator, turn: str, record: dict[str, Any]) -> list[str]:
        raise OSError("the network is gone")

    monkeypatch.setattr(Calculator, "respond", respond)
    with pytest.raises(MiaoError, match="the environment failed: OSError: the network is gone"):
        examiner(tokenizer).ask(says(["5"]), [PROBLEM], [None])


def test_equal_seeds_draw_equal_answers_in_any_company(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer
) -> None:
    model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
    exam = Examiner(
        tokenizer,
        load_rewards({"short": 1.0}),
        None,
        GrpoOptions(max_new_tokens=12, parallel_answers=7),
        900,
    )
    problems = [Problem([Message("user", "word " * n)], {}) for n in (1, 4, 2)]
    together = exam.ask(model, problems, [1, 2, 3], 4, 1.0)
    alone = exam.ask(model, problems[1:2], [2], 4, 1.0)
    assert [a.ids for a in together[4:8]] == [a.ids for a in alone]
    assert len({tuple(a.ids) for a in alone}) > 1
    assert exam.fits(problems[0]) and not exam.fits(Problem([Message("user", "a" * 5000)], {}))


def test_the_runner_of_the_last_rollout_is_kept_and_reads_the_weights_of_now(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its cache and, on a GPU, its CUDA graphs; a larger one only where more is asked."""
    made: list[tuple[int, int]] = []

    def counted(model: Decoder, rows: int, length: int) -> Runner:
        made.append((rows, length))
        return make_runner(model, rows, length)

    monkeypatch.setattr("miao.rewards.answers.make_runner", counted)
    model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
    options = GrpoOptions(max_new_tokens=12, parallel_answers=4)
    rewards = load_rewards({"short": 1.0})
    exam, other = (Examiner(tokenizer, rewards, None, options, 900) for _ in range(2))
    short, long = (Problem([Message("user", "word " * n)], {}) for n in (4, 40))
    first = exam.ask(model, [long], [1], 4, 1.0)
    again = exam.ask(model, [short], [1], 2, 1.0)
    assert len(made) == 1, "smaller ones fit"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after = exam.ask(model, [short], [1], 2, 1.0)
    assert len(made) == 1 and [a.ids for a in after] != [a.ids for a in again]
    assert [a.ids for a in after] == [a.ids for a in other.ask(model, [short], [1], 2, 1.0)]
    exam.ask(make_model(vocab_size=tokenizer.vocab_size), [short], [1])
    assert len(made) == 3, "another model has its own"
    assert first[0].ids
