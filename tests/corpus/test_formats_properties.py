"""Whatever is read: it becomes a record that reads back the same, or it is refused and counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.read.convert import (
    KNOWN_KEYS,
    shape_of,
    to_conversation,
    to_document,
    to_preference,
)
from miao.corpus.read.formats import RecordCounts, read_records
from miao.corpus.read.problems import Problem
from miao.corpus.records import Kind, Record
from miao.errors import MiaoError

CONVERT: dict[Kind, Callable[[Any], Record]] = {
    "document": to_document,
    "conversation": to_conversation,
    "preference": to_preference,
}
CALL = {"name": "f", "arguments": {"x": [1, None]}}
QUESTION: dict[str, Any] = {"role": "user", "content": "问"}
ANSWER: dict[str, Any] = {"from": "gpt", "value": "答"}
OTHER: dict[str, Any] = {
    "role": "assistant",
    "content": "哦",
    "reasoning_content": "想",
    "tool_calls": [CALL],
}
VALID: dict[Kind, list[Any]] = {
    "document": [{"text": "好", "source": "s"}, {"content": "a\nb"}],
    "conversation": [
        [QUESTION, ANSWER],
        {"messages": [QUESTION, OTHER, QUESTION, ANSWER], "system": "S", "tools": [CALL]},
        {"instruction": "a", "input": "b", "output": "c", "history": [["q", "a"]]},
        {"question": "a", "answer": "b", "reasoning": "c"},
    ],
    "preference": [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, OTHER]},
        {"messages": [QUESTION, ANSWER, QUESTION], "chosen": ANSWER, "rejected": OTHER},
    ],
}
KEYS = [*KNOWN_KEYS["document"], "chosen", "rejected", "reasoning", "tools", "source"]

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
STRINGS = st.sampled_from(["a", "答", "", " ", "\ud800", json.dumps(CALL)])
TURNS = st.sampled_from([QUESTION, ANSWER, OTHER, {}]).flatmap(
    lambda turn: st.dictionaries(
        st.sampled_from(["role", "content", "reasoning", "tool_calls"]),
        STRINGS | JSON_VALUES,
        max_size=1,
    ).map(lambda change: {**turn, **change})
)
PARTS = STRINGS | JSON_VALUES | TURNS | st.lists(TURNS, max_size=4)


@st.composite
def raw_objects(draw: st.DrawFn) -> Any:
    """Valid objects, those with up to two of their fields changed, and arbitrary values."""
    value = draw(st.sampled_from([seed for seeds in VALID.values() for seed in seeds]))
    if isinstance(value, list) or draw(st.integers(0, 9)) == 0:
        return draw(st.just(value) | PARTS)
    keys = draw(st.lists(st.sampled_from([*value, *KEYS]), max_size=2))
    return {**value, **{key: draw(PARTS) for key in keys}}


def test_the_seeds_are_valid() -> None:
    for kind, seeds in VALID.items():
        for seed in seeds:
            assert shape_of(seed, kind) and CONVERT[kind](seed)


@settings(max_examples=200, deadline=None)
@given(raw_objects())
def test_a_value_becomes_a_record_that_reads_back_or_is_refused(value: Any) -> None:
    for convert in CONVERT.values():
        try:
            record = convert(value)
        except MiaoError as error:
            assert error.what and error.fix and error.where is None
            str(error).encode()
            continue
        written = json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False).encode()
        assert convert(json.loads(written)) == record


@settings(max_examples=40, deadline=None)
@given(values=st.lists(raw_objects(), min_size=1, max_size=6), kind=st.sampled_from(list(VALID)))
def test_records_and_problems_add_up(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], kind: Kind
) -> None:
    file = Path(tmp_path_factory.getbasetemp(), "any.jsonl")
    file.write_text("\n".join(json.dumps(value) for value in values), "utf-8")
    problems: list[Problem] = []
    counts = RecordCounts()
    try:
        records = list[Record](read_records([file], kind, problems.append, counts))
    except MiaoError as error:
        assert f"no {kind}s found" in error.what
        records = []
    assert len(records) + len(problems) == len(values)
    assert len(problems) == counts.problems
    assert sum(counts.by_file.values()) == sum(counts.by_shape.values()) == len(records)
