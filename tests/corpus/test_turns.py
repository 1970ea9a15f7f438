"""Turns and tool calls in all their known forms; refusals that name the turn."""

import json
from typing import Any

import pytest

from miao.corpus.read.turns import (
    ROLE_NAMES,
    blank,
    named,
    said,
    to_messages,
    to_tool_calls,
    unread_keys,
    words,
)
from miao.corpus.records import Message
from miao.errors import MiaoError

USER = {"role": "user", "content": "问"}
CALL = {"name": "weather", "arguments": {"city": "北京"}}


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([{"from": "human", "value": "问"}], [Message("user", "问")]),
        ([{"role": "Developer", "content": " S"}], [Message("system", " S")]),
        ([{"role": "system", "content": ""}, USER], [Message("user", "问")]),
        ([{"role": "gpt", "content": "答", "reasoning": " "}], [Message("assistant", "答")]),
        (
            [{"role": "assistant", "content": "答", "reasoning_content": "想", "reasoning": "x"}],
            [Message("assistant", "答", reasoning="想")],
        ),
        (
            [{"role": "assistant", "content": None, "tool_calls": [CALL]}],
            [Message("assistant", "", tool_calls=[CALL])],
        ),
        (
            [{"from": "function_call", "value": json.dumps(CALL)}],
            [Message("assistant", "", tool_calls=[CALL])],
        ),
        ([{**USER, "role": "observation", "tool_calls": None}], [Message("tool", "问")]),
    ],
)
def test_turns(turns: list[Any], expected: list[Message]) -> None:
    assert to_messages(turns, "it") == expected


@pytest.mark.parametrize(
    "value",
    [
        [CALL],
        CALL,
        json.dumps([CALL]),
        [{"id": "1", "type": "function", "function": CALL}],
        [{"function": {"name": "weather", "arguments": json.dumps(CALL["arguments"])}}],
    ],
)
def test_tool_calls(value: Any) -> None:
    assert to_tool_calls(value, "it") == [CALL]


def test_a_tool_call_without_arguments() -> None:
    calls = [{"name": "now"}, {"name": "now", "arguments": ""}]
    assert to_tool_calls(calls, "it") == [{"name": "now", "arguments": {}}] * 2


@pytest.mark.parametrize(
    ("value", "what", "fix"),
    [
        ("hi", "'x' is a string", "list of turns"),
        ([], "'x' has no turns", "drop"),
        ([USER, 1], "turn 2 of 'x' is a number", "role"),
        ([{"rol": "user"}], "turn 1 of 'x' has no role (its keys: 'rol')", "role"),
        ([{**USER, "role": "asistant"}], "unknown role 'asistant'", "did you mean 'assistant'?"),
        ([{**USER, "role": "蜜"}], "unknown role '蜜'", "known are system, developer, user"),
        ([{"role": "user", "contnet": "a"}], "no content (its keys: 'role', 'contnet')", "content"),
        ([USER, {"role": "assistant", "content": ""}], "turn 2 of 'x' is empty", "fill it in"),
        ([{**USER, "content": ["a"]}], "turn 1 of 'x' is a list", "string"),
        ([{**USER, "content": [{"type": "image_url"}]}], "of the type 'image_url'", "only text"),
        ([{**USER, "reasoning": 1}], "'reasoning' of turn 1 of 'x' is a number", "string"),
        ([{"role": "bot", "tool_calls": [{"arguments": {}}]}], "a tool call in turn 1", "name"),
        ([{"role": "bot", "tool_calls": "{"}], "the tool call in turn 1 of 'x': invalid", "mend"),
        (
            [{"role": "bot", "tool_calls": [{"name": "f", "arguments": {"x": float("nan")}}]}],
            "invalid JSON",
            "mend",
        ),
        ([{"from": "function_call", "value": "[1]"}], "no name, or arguments that", "name"),
    ],
)
def test_refused_turns(value: Any, what: str, fix: str) -> None:
    with pytest.raises(MiaoError) as caught:
        to_messages(value, "'x'")
    assert what in caught.value.what and fix in str(caught.value.fix)


def test_every_role_name_leads_to_a_role() -> None:
    for name, role in ROLE_NAMES.items():
        if name != "function_call":
            turn = {"role": name.upper(), "content": "a"}
            assert to_messages([turn], "it") == [Message(role, "a")]


def test_what_an_assistant_said() -> None:
    expected = [Message("assistant", "答")]
    turn = {"from": "gpt", "value": "答"}
    assert said("答", "it") == said(turn, "it") == said([turn], "it") == expected


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
@pytest.mark.parametrize(
    ("value", "learned"),
    [(0, False), (False, False), ("false", False), (0.0, False), (1, True), (True, True)],
)
def test_flags_of_a_turn_say_whether_it_is_learned(key: str, value: Any, learned: bool) -> None:
    turn = {"role": "assistant", "content": "答", key: value}
    message = to_messages([USER | {key: value}, turn], "it")[1]
    assert message.learned is learned
    assert message.to_json().get("weight", 1) == learned
    again = to_messages([message.to_json()], "it")[0]
    assert again.learned is learned and again == message


def test_one_no_is_enough_and_null_says_nothing() -> None:
    turn = {"role": "assistant", "content": "答", "weight": 1, "train": None, "loss": False}
    assert not to_messages([turn], "it")[0].learned
    assert to_messages([turn | {"loss": None}], "it")[0].learned


@pytest.mark.parametrize(
    ("more", "what", "fix"),
    [
        ({"weight": 0.5}, "'weight' of turn 1 of 'x' is 0.5", "no weights between"),
        ({"loss": "low"}, "'loss' of turn 1 of 'x' is low", "0 (the turn is not learned) or 1"),
        ({"weight": [0]}, "'weight' of turn 1 of 'x' is [0]", "must be 0"),
        ({"train_detail": [{"begin_offset": 0}]}, "parts of a turn cannot be left out", "whole"),
    ],
)
def test_a_flag_that_is_none_is_refused(more: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(MiaoError) as caught:
        to_messages([{"role": "assistant", "content": "答", **more}], "'x'")
    assert what in caught.value.what and fix in str(caught.value.fix)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_every_name_of_reasoning_is_read(key: str) -> None:
    turn = {"role": "assistant", "content": "答", key: "想"}
    assert to_messages([turn], "it") == [Message("assistant", "答", reasoning="想")]
    assert not list(unread_keys({"messages": [turn]}))


def test_keys_of_a_turn_that_no_record_keeps_are_named() -> None:
    said = {"role": "assistant", "content": "答", "emotion": "joy", "id": "7", "weight": 0}
    record = {
        "messages": [USER | {"name": "李", "train": True}, said, {"role": "tool", "content": "3",
                      "name": "add", "tool_call_id": "1"}],
        "history": [["问", "答"]],
        "tools": [{"type": "function", "function": {"name": "add"}}],
        "id": 3,
    }  # fmt: skip
    found = ["'name'", "'train' of a user's turn", "'emotion'"]
    assert list(unread_keys(record)) == found
    in_a_cell = {"messages": json.dumps(record["messages"])}
    assert list(unread_keys(in_a_cell)) == found == list(unread_keys(record["messages"]))
    pair = {"prompt": "问", "chosen": said, "rejected": [said]}
    assert list(unread_keys(pair)) == ["'emotion'"] * 2
    assert not list(unread_keys("[{no JSON")) and not list(unread_keys(None))


def test_words_are_kept_as_they_are_or_refused() -> None:
    assert words(" a\n🦊", "it") == " a\n🦊"
    for value, what in ((None, "null"), (0.5, "a number"), ("\u3000", "empty"), ("\udc00", "half")):
        with pytest.raises(MiaoError, match=what):
            words(value, "it")


def test_names_of_values() -> None:
    values = [{}, [], "a", True, 1, 1.5, None, b""]
    assert [named(value) for value in values] == [
        "an object",
        "a list",
        "a string",
        "true or false",
        "a number",
        "a number",
        "null",
        "a bytes",
    ]
    assert blank("\u3000\n") and not blank(" a") and not blank(None)
