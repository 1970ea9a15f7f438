"""Every known shape against records written by hand; every refusal with its place and remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.read.convert import shape_of, to_conversation, to_document, to_preference
from miao.corpus.read.formats import RecordCounts, read_records
from miao.corpus.read.problems import Problem
from miao.corpus.records import Conversation, Document, Kind, Message, Preference
from miao.errors import MiaoError

CONVERT: dict[Kind, Callable[[Any], Document | Conversation | Preference]] = {
    "document": to_document,
    "conversation": to_conversation,
    "preference": to_preference,
}


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, **more: Any) -> Message:
    return Message("assistant", text, **more)


QA = [user("问"), assistant("答")]
Q, A = ({"role": "user", "content": "问"}, {"role": "assistant", "content": "答"})
TURNS = [Q, A]
CALL = {"name": "weather", "arguments": {"city": "北京"}}
TOOL = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": "好", "source": "wiki", "id": 1}, Document("好", "wiki")),
        ({"content": "好", "text": None, "source": None}, Document("好")),
        ({"messages": [{"role": "system", "content": "S"}, *TURNS]}, Document("S\n问\n答")),
        (
            {"instruction": "问", "input": "", "output": "答", "source": "a"},
            Document("问\n答", "a"),
        ),
    ],
)
def test_documents(value: Any, expected: Document) -> None:
    assert to_document(value) == expected


@pytest.mark.parametrize(
    ("shape", "value", "messages"),
    [
        ("messages", {"messages": TURNS, "prompt": "unused"}, QA),
        ("messages", TURNS, QA),
        ("conversations", {"conversations": TURNS, "system": "S"}, [system("S"), *QA]),
        (
            "conversations",
            {
                "conversations": [
                    {"from": "system", "value": "S"},
                    {"from": "human", "value": "问"},
                    {"from": "function_call", "value": json.dumps(CALL)},
                    {"from": "observation", "value": "晴"},
                    {"from": "gpt", "value": "答"},
                ],
                "system": "not needed",
            },
            [
                system("S"),
                user("问"),
                assistant("", tool_calls=[CALL]),
                Message("tool", "晴"),
                assistant("答"),
            ],
        ),
        (
            "instruction/output",
            {"instruction": "译", "input": "cat", "output": "猫", "history": [["问", "答"]]},
            [*QA, user("译\ncat"), assistant("猫")],
        ),
        (
            "instruction/output",
            {"instruction": "问", "input": "", "output": "答", "system": "S", "history": []},
            [system("S"), *QA],
        ),
        (
            "instruction/response",
            {"instruction": "问", "context": "文", "response": "答"},
            [user("问\n文"), assistant("答")],
        ),
        ("input/output", {"instruction": None, "input": "问", "output": "答"}, QA),
        ("question/answer", {"question": "问", "answer": "答"}, QA),
        ("prompt/response", {"prompt": "问", "response": "答"}, QA),
        ("prompt/completion", {"prompt": [Q], "completion": [A]}, QA),
        (
            "prompt/completion",
            {"prompt": "问", "reasoning": "想", "completion": [A]},
            [user("问"), assistant("答", reasoning="想")],
        ),
        (
            "prompt/completion",
            {"prompt": "问", "reasoning": "x", "completion": [{**A, "reasoning": "想"}]},
            [user("问"), assistant("答", reasoning="想")],
        ),
        ("prompt/response", {"prompt": "问", "reasoning": "x", "response": TURNS}, [QA[0], *QA]),
        ("prompt/output", {"prompt": "问", "output": "答"}, QA),
        ("query/response", {"query": "问", "response": "答", "system_prompt": ""}, QA),
        (
            "question/answer",
            {"question": "问", "reasoning_content": "想", "answer": "答"},
            [user("问"), assistant("答", reasoning="想")],
        ),
    ],
)
def test_conversations(shape: str, value: Any, messages: list[Message]) -> None:
    assert to_conversation(value) == Conversation(messages)
    assert shape_of(value, "conversation") == shape


@pytest.mark.parametrize(
    "value",
    [
        {"messages": TURNS, "tools": [TOOL]},
        {"messages": TURNS, "tools": json.dumps([TOOL])},
        {"messages": [{"role": "system", "content": "", "tools": json.dumps([TOOL])}, *TURNS]},
    ],
)
def test_tools_of_a_conversation(value: Any) -> None:
    assert to_conversation(value) == Conversation(QA, tools=[TOOL])


AGAIN = {"role": "user", "content": "再"}
GOOD, BAD = {"role": "assistant", "content": "好"}, {"role": "assistant", "content": "坏"}


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        ({"prompt": "问", "chosen": "好", "rejected": "坏"}, [user("问")]),
        (
            {"instruction": "译", "input": "cat", "chosen": "好", "rejected": "坏"},
            [user("译\ncat")],
        ),
        (
            {"question": "问", "system": "S", "chosen": "好", "rejected": "坏"},
            [system("S"), user("问")],
        ),
        ({"prompt": [*TURNS, Q], "chosen": [GOOD], "rejected": [BAD]}, [*QA, user("问")]),
        ({"chosen": [Q, GOOD], "rejected": [Q, BAD]}, [user("问")]),
        (
            {"chosen": [*TURNS, Q, GOOD], "rejected": [*TURNS, Q, BAD]},
            [*QA, user("问")],
        ),
        ({"prompt": "问", "messages": TURNS, "chosen": "好", "rejected": "坏"}, [user("问")]),
        # The same prompt twice, with or without the system turn on either side.
        (
            {"prompt": "问", "chosen": [Q, GOOD], "rejected": [Q, BAD]},
            [user("问")],
        ),
        (
            {
                "prompt": "问",
                "chosen": [{"from": "system", "value": "S"}, Q, GOOD],
                "rejected": [{"from": "system", "value": "S"}, Q, BAD],
            },
            [system("S"), user("问")],
        ),
        (
            {
                "prompt": "问",
                "system": "S",
                "chosen": [Q, GOOD],
                "rejected": [Q, BAD],
            },
            [system("S"), user("问")],
        ),
        # The prompt holds what came before.
        (
            {
                "prompt": TURNS,
                "chosen": [AGAIN, GOOD],
                "rejected": [AGAIN, BAD],
            },
            [*QA, user("再")],
        ),
        # `messages` repeats a side, or is the prompt of single answers.
        (
            {
                "messages": [Q, GOOD],
                "chosen": [Q, GOOD],
                "rejected": [Q, BAD],
            },
            [user("问")],
        ),
        (
            {
                "conversations": [Q],
                "chosen": GOOD,
                "rejected": {"from": "gpt", "value": "坏"},
            },
            [user("问")],
        ),
    ],
)
def test_preferences(value: Any, prompt: list[Message]) -> None:
    assert to_preference(value) == Preference(prompt, [assistant("好")], [assistant("坏")])


@pytest.mark.parametrize(
    ("kind", "value", "what", "fix"),
    [
        (
            "document",
            {"txet": "a", "id": 1},
            "no document in these keys: 'txet', 'id'",
            "did you mean 'text'?",
        ),
        ("document", {}, "no document in these keys: none", '{"text": "..."}'),
        ("document", {"text": None}, "'text' (null)", '{"text": "..."}'),
        ("document", {"text": 3}, "'text' is a number", "must be a string"),
        ("document", {"text": " \n"}, "'text' is empty", "drop the record"),
        ("document", {"text": "a\ud83d"}, r"half a character (\ud83d)", "emoji"),
        ("document", {"text": "a", "source": 3}, "'source' is a number", "string"),
        ("document", [{**A, "content": "", "tool_calls": [CALL]}], "turns' text is empty", "drop"),
        ("document", 5, "a number is no document", '{"text": "..."}'),
        (
            "document",
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "no document in these keys",
            "it is a preference: name it under corpus.preferences",
        ),
        (
            "preference",
            {"question": "a", "answer": "b"},
            "no preference in these keys: 'question', 'answer'",
            "it is a conversation: name it under corpus.conversations",
        ),
        (
            "conversation",
            {"text": "a"},
            "no conversation in these keys: 'text'",
            "it is a document: name it under corpus.paths",
        ),
        (
            "conversation",
            {"instrution": "a", "output": "b"},
            "'instrution', 'output'",
            "did you mean 'instruction'?",
        ),
        ("conversation", {"messages": []}, "'messages' has no turns", "drop"),
        ("conversation", {"messages": "hi"}, "'messages' is a string", "list of turns"),
        ("conversation", {"messages": [Q]}, "no assistant turn", "answer"),
        (
            "conversation",
            {"question": "a", "answer": True},
            "'answer' is true or false",
            "list of turns",
        ),
        (
            "conversation",
            {"instruction": "", "input": "", "output": "b"},
            "'instruction' is empty",
            "",
        ),
        (
            "conversation",
            {"instruction": "a", "output": "b", "history": [["q"]]},
            "round 1 of 'history'",
            "[question, answer]",
        ),
        ("conversation", {"messages": TURNS, "tools": "{"}, "'tools': invalid JSON", "mend"),
        ("conversation", {"messages": TURNS, "tools": [1]}, "'tools' is a list", "schemas"),
        (
            "preference",
            {"prompt": "a", "chosen": "b"},
            "no preference in these keys: 'prompt', 'chosen'",
            '"rejected"',
        ),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "the same", "drop"),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": ""}, "'rejected' is empty", ""),
        ("preference", {"chosen": "b", "rejected": "c"}, "no prompt", "'prompt'"),
        ("preference", {"system": "a", "chosen": "b", "rejected": "c"}, "no prompt", "'prompt'"),
        (
            "preference",
            {"chosen": [*TURNS, *TURNS], "rejected": TURNS},
            "only the beginning",
            "drop",
        ),
        (
            "preference",
            {
                "chosen": [*TURNS, AGAIN, GOOD],
                "rejected": [*TURNS, Q, BAD],
            },
            "do not answer the same turn",
            "assistant",
        ),
        (
            "preference",
            {"messages": TURNS, "chosen": [Q, GOOD], "rejected": [Q, BAD]},
            "the prompt is not the one",
            "equal",
        ),
        (
            "preference",
            {"prompt": "别的", "chosen": [Q, GOOD], "rejected": [Q, BAD]},
            "the prompt is not the one",
            "equal",
        ),
    ],
)
def test_refusals(kind: Kind, value: Any, what: str, fix: str) -> None:
    with pytest.raises(MiaoError) as caught:
        CONVERT[kind](value)
    assert what in caught.value.what and fix in str(caught.value.fix)


def lines(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(v if isinstance(v, str) else json.dumps(v) for v in values), "utf-8")
    return path


def test_the_first_bad_record_stops_with_its_place(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": "a"}, "", {"txet": "b"}, {"text": "c"})
    reader = read_records([str(file)], "document")
    assert next(reader) == Document("a", "a")
    with pytest.raises(MiaoError) as caught:
        next(reader)
    assert str(caught.value).startswith(
        f"{file}:3: no document in these keys: 'txet'\n  -> 'txet': did you mean 'text'?"
    )
    listed = lines(tmp_path / "b.json", [{"text": "a"}, {"text": 1}])
    with pytest.raises(MiaoError) as caught:
        list(read_records([listed], "document"))
    assert caught.value.where == f"{listed} (record 2)"


def test_problems_are_reported_and_counted(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", {"text": "一"}, "{", {"text": ""}, {"question": "q", "answer": "a"})
    lines(tmp_path / "b.txt", "二")
    lines(tmp_path / "c.log", "三")
    problems: list[Problem] = []
    counts = RecordCounts()
    records = list(read_records([str(tmp_path)], "document", problems.append, counts))
    assert records == [Document(text, tmp_path.name) for text in ("一", "q\na", "二")]
    assert [(problem.path.name, problem.line) for problem in problems] == [
        ("a.jsonl", 2),
        ("a.jsonl", 3),
    ]
    assert counts.problems == 2
    assert counts.by_file == {str(tmp_path / "a.jsonl"): 2, str(tmp_path / "b.txt"): 1}
    assert counts.by_shape == {"text": 2, "question/answer": 1}
    assert counts.skipped_files == [(tmp_path / "c.log", "unknown extension")]


def test_no_records_at_all(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="no such file"):
        read_records([str(tmp_path / "none")], "document")  # at once, not at the first record
    empty = lines(tmp_path / "a.jsonl")
    with pytest.raises(MiaoError, match="no preferences found\n") as caught:
        list(read_records([empty], "preference"))
    assert caught.value.where == str(empty)
    bad = lines(tmp_path / "b.jsonl", {"x": 1}, {"x": 2})
    with pytest.raises(MiaoError) as caught:
        list(read_records([bad], "document", lambda problem: None))
    assert caught.value.what == (
        f"no documents found; the first of 2 problems: {bad}:1: no document in these keys: 'x'"
    )


def test_csv_and_text_files_become_records(tmp_path: Path) -> None:
    table = tmp_path / "qa.csv"
    table.write_text('question,answer\n问,"答\n二"\n', "utf-8")
    assert list(read_records([table], "conversation")) == [
        Conversation([user("问"), assistant("答\n二")], "qa")
    ]
    (tmp_path / "novel.txt").write_text("从前", "utf-8")
    assert list(read_records([tmp_path / "novel.txt"], "document")) == [Document("从前", "novel")]
