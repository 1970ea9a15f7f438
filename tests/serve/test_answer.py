"""Taking answers apart: the same result however the text is cut into pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.serve.answer import AnswerParser, Piece

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
CASES = [
    # text, in thought, has tools; reasoning, content, names of calls
    ("Hello.", False, False, "", "Hello.", []),
    ("<think>\nHm.\n\nYes.\n</think>\n\nHello.", False, False, "Hm.\n\nYes.", "Hello.", []),
    ("Hm.\n</think>\n\nHello.", True, False, "Hm.", "Hello.", []),
    ("<think>\n\n</think>\n\nHello.", False, True, "", "Hello.", []),
    ("<think>never ends", False, False, "never ends", "", []),
    ("a <think> b", False, False, "", "a <think> b", []),
    ("<thing>", False, False, "", "<thing>", []),
    (CALL, False, True, "", "", ["add"]),
    (f"I add.\n{CALL}", False, True, "", "I add.", ["add"]),
    (f"{CALL}\n{CALL}", False, True, "", "", ["add", "add"]),
    (CALL, False, False, "", CALL, []),
    (
        "<tool_call>\n{broken\n</tool_call>",
        False,
        True,
        "",
        "<tool_call>\n{broken\n</tool_call>",
        [],
    ),
    ('<tool_call>\n{"name": "a"', False, True, "", '<tool_call>\n{"name": "a"', []),
    ("1 < 2 <t", False, True, "", "1 < 2 <t", []),
    ("<think>x</think>" + CALL, False, True, "x", "", ["add"]),
    ("", False, True, "", "", []),
]


def parse(pieces: list[str], in_thought: bool, has_tools: bool) -> Piece:
    parser, whole = AnswerParser(in_thought, has_tools), Piece()
    for part in [parser.feed(piece) for piece in pieces] + [parser.finish()]:
        whole.reasoning += part.reasoning
        whole.content += part.content
        whole.calls += part.calls
    return whole


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0][:20])
@settings(max_examples=40)
@given(data=st.data())
def test_every_way_to_cut(case: tuple, data: st.DataObject) -> None:
    text, in_thought, has_tools, reasoning, content, names = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = parse(pieces, in_thought, has_tools)
    assert (found.reasoning, found.content) == (reasoning, content)
    assert [call["function"]["name"] for call in found.calls] == names
    assert [call["index"] for call in found.calls] == list(range(len(names)))
    for call in found.calls:
        assert json.loads(call["function"]["arguments"]) == {"a": 1}


def test_thoughts_stream_as_they_come() -> None:
    parser = AnswerParser()
    assert parser.feed("<think>\nOne").reasoning == "One"
    assert parser.feed(" two").reasoning == " two"
    assert parser.feed("\n</think>\n\nSaid").content == "Said"
