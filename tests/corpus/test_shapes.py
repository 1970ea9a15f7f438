"""The particular shapes of known data sets; KTO's labelled answers made pairs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.corpus.read import kto
from miao.corpus.read.convert import kind_of, shape_of, to_conversation, to_document, to_preference
from miao.corpus.read.formats import RecordCounts, read_records
from miao.corpus.read.problems import Problem
from miao.corpus.records import Conversation, Kind, Message, Preference
from miao.errors import MiaoError


def turns(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(roles[number % 2], text) for number, text in enumerate(contents)]  # type: ignore[arg-type]


CHOICE = "首都是？\nA. 上海\nB. 北京"


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ({"question": "首都是？", "A": "上海", "B": "北京", "C": None, "answer": "B"}, "B. 北京"),
        (
            {"question": "首都是？", "A": "上海", "B": "北京", "answer": "B", "explanation": "对"},
            "B. 北京\n对",
        ),
        ({"Question": "首都是？", "A": "上海", "B": "北京", "Answer": "B"}, "B. 北京"),
        ({"question": "首都是？", "choices": ["上海", "北京"], "answer": 1}, "B. 北京"),
        ({"question": "首都是？", "options": ["上海", "北京"], "answer": "北京"}, "B. 北京"),
        ({"question": "首都是？", "options": {"A": "上海", "B": "北京"}, "label": "1"}, "B. 北京"),
        (
            {
                "question_stem": "首都是？",
                "choices": {"text": ["上海", "北京"], "label": ["A", "B"]},
                "answerKey": "B",
            },
            "B. 北京",
        ),
        ({"问题": "首都是？", "A": "上海", "B": "北京", "答案": "AB"}, "A. 上海\nB. 北京"),
    ],
)
def test_multiple_choice(value: Any, answer: str) -> None:
    assert to_conversation(value) == Conversation(turns(CHOICE, answer))
    assert shape_of(value, "conversation") == "multiple choice"
    assert to_document(value).text == f"{CHOICE}\n{answer}"


@pytest.mark.parametrize("answer", ["C", 2, -1, True, "", None, ["A"], "Z9"])
def test_a_right_option_that_is_none(answer: Any) -> None:
    value = {"question": "q", "A": "1a", "B": "2b", "answer": answer}
    with pytest.raises(MiaoError) as caught:
        to_conversation(value)
    assert "none of the options" in caught.value.what or answer is None


MOSS = {
    "conversation_id": "1",
    "chat": {
        "turn_2": {"Human": "<|Human|>: 再问<eoh>\n", "MOSS": "<|MOSS|>: 再答<eom>\n"},
        "turn_1": {
            "Human": "<|Human|>: 问<eoh>\n",
            "Inner Thoughts": "<|Inner Thoughts|>: 想<eot>\n",
            "Commands": '<|Commands|>: Search("天气")<eoc>\n',
            "Tool Responses": "<|Results|>:\n晴<eor>\n",
            "MOSS": "<|MOSS|>: 答<eom>\n",
        },
    },
}


def test_moss() -> None:
    call = {"name": "Search", "arguments": {"query": "天气"}}
    assert to_conversation(MOSS).messages == [
        Message("user", "问"),
        Message("assistant", "", reasoning="想", tool_calls=[call]),
        Message("tool", "晴"),
        Message("assistant", "答"),
        *turns("再问", "再答"),
    ]
    plain = {"Commands": "<|Commands|>: None<eoc>", "Human": "a", "MOSS": "b"}
    assert to_conversation({"chat": {"turn_1": plain}}).messages == turns("a", "b")
    with pytest.raises(MiaoError, match="'turn_1' of 'chat' holds a number"):
        to_conversation({"chat": {"turn_1": {"Human": 1}}})


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ({"conversation": [{"human": "问", "assistant": "答"}] * 2}, turns("问", "答", "问", "答")),
        ({"kind": "诗", "input": "问", "target": "答"}, turns("问", "答")),
        ({"指令": "问", "输出": "答"}, turns("问", "答")),
        ({"question": "问", "human_answers": ["人"], "chatgpt_answers": ["答"]}, turns("问", "答")),
        ({"prompt": "问", "completion": "答", "label": True}, turns("问", "答")),
        (
            {"instruction": "问", "output": "答", "history": '[["前", "后"]]'},
            turns("前", "后", "问", "答"),
        ),
        (
            {
                "input": "问",
                "output": "答",
                "history": [{"role": "user", "content": "前"}, {"from": "gpt", "value": "后"}],
            },
            turns("前", "后", "问", "答"),
        ),
        (
            {"conversations": '[{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]'},
            turns("问", "答"),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "问"}]},
                          {"role": "assistant", "content": "答"}]},
            turns("问", "答"),
        ),
        (
            {"prompt": "问", "response": "<think>\n想\n</think>\n\n答"},
            [Message("user", "问"), Message("assistant", "答", reasoning="想")],
        ),
        ({"prompt": "问", "response": "<think>\n\n</think>\n\n答"}, turns("问", "答")),
        ({"prompt": "问", "response": "<think>半"}, turns("问", "<think>半")),
    ],
)  # fmt: skip
def test_other_conversations(value: Any, messages: list[Message]) -> None:
    assert to_conversation(value).messages == messages


def test_other_preferences() -> None:
    expected = Preference(turns("问"), [Message("assistant", "好")], [Message("assistant", "坏")])
    texts = {side: f"\n\nHuman: 问\n\nAssistant: {word}" for side, word in
             (("chosen", "好"), ("rejected", "坏"))}  # fmt: skip
    assert to_preference(texts) == expected
    hc3 = {"question": "问", "human_answers": ["", "坏"], "chatgpt_answers": ["好"]}
    assert to_preference(hc3) == expected
    with pytest.raises(MiaoError, match="labelled as undesirable"):
        to_conversation({"prompt": "a", "completion": "b", "label": False})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"text": "a"}, "document"),
        ({"instruction": "a", "output": "b", "text": "c"}, "conversation"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"prompt": "a", "completion": "b", "label": False}, "preference"),
        ({"question": "q", "A": "1", "B": "2", "answer": "X"}, "conversation"),
        ({"question": "q", "choices": ["1", "2"], "label": 1}, "conversation"),
        ({"id": 1}, None),
        (3, None),
    ],
)
def test_the_kind_that_an_object_is_best_used_as(value: Any, kind: Kind | None) -> None:
    assert kind_of(value) == kind


def labelled(prompt: str, answer: str, label: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": answer, "label": label}


def read_kto(path: Path, *values: Any) -> tuple[list[Preference], list[Problem], RecordCounts]:
    path.write_text("\n".join(json.dumps(value) for value in values), "utf-8")
    problems: list[Problem] = []
    counts = RecordCounts()
    try:
        pairs = list(read_records([path], "preference", problems.append, counts))
    except MiaoError as error:
        assert "no preferences found" in error.what
        pairs = []
    return pairs, problems, counts


def test_kto_answers_become_pairs(tmp_path: Path) -> None:
    pairs, problems, counts = read_kto(
        tmp_path / "kto.jsonl",
        labelled("一", "坏", False),
        labelled("二", "好", "True"),
        labelled("三", "坏", False),
        labelled("一", "好", True),
        {"prompt": "四", "chosen": "好", "rejected": "坏"},
        {"messages": [{"role": "user", "content": "二"}, {"role": "assistant", "content": "坏"}],
         "kto_tag": False},
    )  # fmt: skip
    assert [pair.prompt[0].content for pair in pairs] == ["一", "四", "二", "三"]
    sides = [[m.content for m in side] for p in pairs for side in (p.chosen, p.rejected)]
    assert sides == [["好"], ["坏"]] * 3 + [[], ["坏"]]
    assert not problems and [pair.is_pair for pair in pairs] == [True, True, True, False]
    assert counts.merged == 2
    assert counts.by_shape == {"kto": 2, "chosen/rejected": 1, "kto, single": 1}


def test_single_answers_are_read_again_as_they_were_written(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "一"}
    given = [
        {"prompt": [turn], "completion": [{"role": "assistant", "content": "好"}], "label": True},
        {"messages": [turn, {"role": "assistant", "content": "坏"}], "label": False},
        {"instruction": "二", "output": "坏", "system": "S", "kto_tag": False, "source": "s"},
    ]
    for value in given:
        one = to_preference(value, "file")
        assert to_preference(json.loads(json.dumps(one.to_json()))) == one
        assert bool(one.chosen) == (value is given[0]) and bool(one.rejected) != bool(one.chosen)
    assert [m.role for m in one.prompt] == ["system", "user"] and one.source == "s"


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": [], "chosen": [], "rejected": []},
        {"prompt": "问", "chosen": [], "rejected": []},
        {"prompt": "问", "chosen": "", "rejected": []},
        {"chosen": "好", "rejected": []},
        {"prompt": "问", "completion": "", "label": True},
        {"completion": "好", "label": True},
        {"messages": [{"role": "assistant", "content": "好"}], "label": True},
        {"messages": [{"role": "user", "content": "问"}], "label": False},
        {"text": "好", "label": True},
    ],
)
def test_what_is_no_labelled_answer(value: dict[str, Any]) -> None:
    with pytest.raises(MiaoError):
        to_preference(value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), min_size=1)
)
def test_no_labelled_answer_is_lost(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[str, str, bool]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_kto.jsonl"
    pairs, problems, counts = read_kto(path, *(labelled(*answer) for answer in answers))
    assert not problems
    given = Counter((prompt, answer, label) for prompt, answer, label in answers)
    found = Counter(
        (one.prompt[0].content, message.content, label)
        for one in pairs
        for label, side in ((True, one.chosen), (False, one.rejected))
        for message in side
    )
    assert found == given
    assert sum(pair.is_pair for pair in pairs) == counts.merged == len(answers) - len(pairs)


def test_waiting_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kto, "WAITING", 3)
    values = [labelled(str(number), "好", True) for number in range(10)]
    pairs, problems, _ = read_kto(tmp_path / "a.jsonl", *values, labelled("9", "坏", False))
    assert not problems and [p.is_pair for p in pairs] == [False] * 7 + [True] + [False] * 2
    assert [p.prompt[0].content for p in pairs] == [*"0123456", "9", *"78"]
