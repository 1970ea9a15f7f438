"""Chats with a calculator: the tool itself agrees with every call, and GRPO asks in the same ids."""

from __future__ import annotations

import json
import random
from itertools import islice

from miao.corpus.seedbed import Seedbed
from miao.corpus.seedbed.arithmetic import is_held_out
from miao.corpus.seedbed.calculator import LARGEST, conversations
from miao.recipe import SeedbedOptions
from miao.rewards.functions import exact_answer, tool_use
from miao.rewards.tools import Calculator
from miao.tokenizer import Tokenizer

CHATS = list(islice(conversations(random.Random(3)), 300))


def test_calls_results_and_answers_agree() -> None:
    languages = set()
    for chat in CHATS:
        ask, call, result, answer = chat.messages
        turn = f"<tool_call>\n{json.dumps(call.tool_calls[0])}\n</tool_call>"
        assert Calculator().respond(turn, {}) == [result.content]
        said = f"{turn}\n<tool_response>\n{result.content}\n</tool_response>\n{answer.content}"
        assert exact_answer(ask.content, said, {"answer": result.content}) == 1.0
        assert tool_use(ask.content, said, {}) == 1.0
        assert exact_answer(ask.content, said, {"answer": int(result.content) + 1}) == 0.0
        expression = call.tool_calls[0]["arguments"]["expression"]
        operation = "+" if "+" in expression else "-"
        a, b = map(int, expression.split(operation))
        assert not is_held_out(operation, a, b) and max(a, b) <= LARGEST
        assert str(a) in ask.content and str(b) in ask.content and int(result.content) >= 0
        languages.add(answer.content[-1])
    assert languages == {"。", "."}


def test_training_and_asking_read_the_same_ids(tokenizer: Tokenizer) -> None:
    for chat in CHATS[:5]:
        ids, learned = tokenizer.chat_template.encode(tokenizer, chat)
        asked = tokenizer.chat_template.encode_prompt(
            tokenizer, chat.messages[:1], Calculator().tools
        )
        assert ids[: len(asked)] == asked and learned.index(True) == len(asked)


def test_only_recipes_that_ask_for_it_have_it() -> None:
    def sources(**weights: float) -> list[str]:
        options = SeedbedOptions(conversations=200, conversation_weights=weights)
        return [record.source for record in Seedbed(options, 1).records("conversation")]

    usual = sources()
    assert "calculator" not in usual
    with_it = sources(calculator=1.0)
    assert 60 < with_it.count("calculator") < 140
