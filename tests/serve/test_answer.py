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
        whole.add(part)
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


def test_arguments_stream_as_they_come() -> None:
    parser = AnswerParser(has_tools=True)
    assert parser.feed('<tool_call>\n{"name": "add", "argum').calls == []
    (first, *_) = parser.feed('ents": {"a": ').calls
    assert first["function"] == {"name": "add", "arguments": ""} and first["id"]
    assert parser.feed('"}</tool_call>').calls == [
        {"index": 0, "function": {"arguments": '"}</tool_call>'}}
    ]
    assert parser.feed('\\"').calls[0]["function"]["arguments"] == '\\"'
    assert parser.feed('"}').calls[0]["function"]["arguments"] == '"}'
    assert not parser.feed("}\n</tool_c")
    assert parser.feed("all>\nDone.").content == "Done."


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"a": "x\n', '{"a": "x'),
        ('{"a": 1\n', '{"a": 1\n'),
        ('{"a": [1, 2}', '{"a": [1, 2}'),
        ('{"a": 1}, "more": 2', '{"a": 1}'),
    ],
)
def test_broken_arguments_end_with_their_call(arguments: str, given: str) -> None:
    text = f'<tool_call>\n{{"name": "add", "arguments": {arguments}}}\n</tool_call>\nSaid.'
    for step in (1, 7, 1000):
        found = parse([text[i : i + step] for i in range(0, len(text), step)], False, True)
        assert found.content == "Said."
        (call,) = found.calls
        assert call["function"]["arguments"].startswith(given[:-1])


@pytest.mark.parametrize(
    ("size", "is_forced"),
    [(size, True) for size in range(len(CALL))]
    + [(size, False) for size in range(len("<tool_call>"), len(CALL))],
)
def test_a_call_that_is_cut_leaves_no_marks_in_the_text(size: int, is_forced: bool) -> None:
    whole, parser = Piece(), AnswerParser(has_tools=True, is_forced=is_forced)
    whole.add(parser.feed(CALL[:size]))
    whole.add(parser.finish(is_cut=not is_forced))
    assert whole.content == whole.reasoning == ""
    begins = len('<tool_call>\n{"name": "add"')
    assert [call["function"]["name"] for call in whole.calls] == ["add"] * (size >= begins)
