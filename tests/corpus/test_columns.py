"""Public data sets' shapes: everything that is said in an object is in its record, or is accounted
for as a column that was not read. Each thing said is marked (§1, §2, ...) to be found again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.read.accounting import Columns
from miao.corpus.read.columns import mapped
from miao.corpus.read.convert import converted, kind_of
from miao.corpus.read.formats import Reading, RecordCounts, read_records
from miao.corpus.records import Conversation, Kind, Message, Preference, Record
from miao.errors import MiaoError

IMAGINED = '{"name": "live", "description": "§2", "parameters": {"type": {"type": "str"}}}'
SHAPES: dict[str, tuple[Kind, Any, list[str]]] = {
    # name: kind, an object, "role: text" of its record's turns
    "instruction and question": (
        "conversation",
        {"instruction": "请回答§1", "question": "感冒§2", "answer": "多喝水§3"},
        ["user: 请回答§1\n感冒§2", "assistant: 多喝水§3"],
    ),
    "prompt beside query": (
        "conversation",
        {"prompt": "§1", "query": "§2", "response": "§3"},
        ["user: §1\n§2", "assistant: §3"],
    ),
    "rationale and explanation": (
        "conversation",
        {"question": "§1", "rationale": "§2", "answer": "§3", "explanation": "§4"},
        ["user: §1", "assistant: §2\n§3\n§4"],
    ),
    "system_message": (
        "conversation",
        {"system_message": "§1", "instruction": "§2", "output": "§3"},
        ["system: §1", "user: §2", "assistant: §3"],
    ),
    "upper case": (
        "conversation",
        {"QUESTION": "§1", "Complex_CoT": "§2", "Response": "§3"},
        ["user: §1", "assistant: <§2> §3"],
    ),
    "Chinese-DeepSeek-R1-Distill": (
        "conversation",
        {"input": "§1", "reasoning_content": "§2", "content": "§3", "repo_name": "a/b§4", "score": 9},
        ["user: §1", "assistant: <§2> §3"],
    ),
    "HC3": (
        "conversation",
        {"question": "§1", "human_answers": ["§2", "§3"], "chatgpt_answers": ["§4", "§5"]},
        ["user: §1", "assistant: §4"],
    ),
    "list of answers": (
        "conversation",
        {"question": "§1", "answer": ["§2", "§3"]},
        ["user: §1", "assistant: §2"],
    ),
    "MOSS with tools": (
        "conversation",
        {
            "conversation_id": "1",
            "meta_instruction": "You are MOSS §1",
            "num_turns": 1,
            "chat": {
                "turn_1": {
                    "Human": "<|Human|>: §2<eoh>\n",
                    "Inner Thoughts": "<|Inner Thoughts|>: §3<eot>\n",
                    "Commands": '<|Commands|>: Search("§4"), Calculate("(1+§5)")<eoc>\n',
                    "Tool Responses": "<|Results|>:\n§6<eor>\n",
                    "MOSS": "<|MOSS|>: §7<eom>\n",
                }
            },
        },
        [
            "system: You are MOSS §1",
            "user: §2",
            'assistant: <§3>  [Search {"query": "§4"}, Calculate {"query": "(1+§5)"}]',
            "tool: §6",
            "assistant: §7",
        ],
    ),
    "Hermes function calling": (
        "conversation",
        {
            "conversations": [
                {
                    "from": "system",
                    "value": "§1 within <tools></tools> XML tags.\n<tools>\n"
                    '[{"name": "f", "description": "§2"}]\n</tools>\nUse §3',
                },
                {"from": "human", "value": "§4"},
                {
                    "from": "gpt",
                    "value": "§5\n<tool_call>\n{'name': 'f', 'arguments': {'x': '§6'}}\n</tool_call>\n"
                    '<tool_call>{"name": "g", "arguments": {"y": "§7"}}</tool_call>',
                },
                {
                    "from": "tool",
                    "value": "<tool_response>\n§8\n</tool_response>\n<tool_response>§9</tool_response>",
                },
                {"from": "gpt", "value": "§10"},
            ],
            "tools": '[{"name": "f", "description": "§2"}]',
        },
        [
            "system: §1 within <tools></tools> XML tags.\nUse §3",
            "user: §4",
            'assistant: §5 [f {"x": "§6"}, g {"y": "§7"}]',
            "tool: §8",
            "tool: §9",
            "assistant: §10",
        ],
    ),
    "ChatML in a text": (
        "conversation",
        {"text": "<|im_start|>system\n§1<|im_end|>\n<|im_start|>user\n§2<|im_end|>\n"
                 "<|im_start|>assistant\n§3\n§4<|im_end|>\n"},
        ["system: §1", "user: §2", "assistant: §3\n§4"],
    ),
    "Llama 2 in a text": (
        "conversation",
        {"text": "<s>[INST] <<SYS>>\n§1\n<</SYS>>\n\n§2 [/INST] §3 </s><s>[INST] §4 [/INST] §5 </s>"},
        ["system: §1", "user: §2", "assistant: §3", "user: §4", "assistant: §5"],
    ),
    "Llama 3 in a text": (
        "conversation",
        {"text": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n§1<|eot_id|>"
                 "<|start_header_id|>assistant<|end_header_id|>\n\n§2<|eot_id|>"},
        ["user: §1", "assistant: §2"],
    ),
    "Guanaco": (
        "conversation",
        {"text": "### Human: §1### Assistant: §2### Human: §3### Assistant: §4"},
        ["user: §1", "assistant: §2", "user: §3", "assistant: §4"],
    ),
    "transcript": (
        "conversation",
        {"text": "Human: §1\n\nAssistant: §2\n\nHuman: §3\n\nAssistant: §4"},
        ["user: §1", "assistant: §2", "user: §3", "assistant: §4"],
    ),
    "BELLE in several turns": (
        "conversation",
        {"instruction": "Human:§1\nAssistant:§2\nHuman:§3\nAssistant:", "input": "", "output": "§4"},
        ["user: §1", "assistant: §2", "user: §3", "assistant: §4"],
    ),
    "Glaive": (
        "conversation",
        {
            "system": "SYSTEM: §1",
            "chat": "USER: §2\n\n\nASSISTANT: §3 <|endoftext|>\n\n\nUSER: §4\n\n\n"
            'ASSISTANT: <functioncall> {"name": "f", "arguments": \'{"x": "§5"}\'} <|endoftext|>\n\n\n'
            "FUNCTION RESPONSE: §6\n\n\nASSISTANT: §7 <|endoftext|>\n\n\n",
        },
        [
            *("system: §1", "user: §2", "assistant: §3", "user: §4"),
            *('assistant:  [f {"x": "§5"}]', "tool: §6", "assistant: §7"),
        ],
    ),
    "ShareGPT's bing": (
        "conversation",
        {"id": "a", "conversations": [{"from": "human", "value": "§1"}, {"from": "bing", "value": "§2"}]},
        ["user: §1", "assistant: §2"],
    ),
    "LIMA": (
        "conversation",
        {"conversations": ["§1", "§2", "§3", "§4"], "source": "wikihow"},
        ["user: §1", "assistant: §2", "user: §3", "assistant: §4"],
    ),
    "UltraChat": ("conversation", {"id": "0", "data": ["§1", "§2"]}, ["user: §1", "assistant: §2"]),
    "functions and function_call": (
        "conversation",
        {
            "functions": [{"name": "f", "description": "§1"}],
            "messages": [
                {"role": "user", "content": "§2"},
                {"role": "assistant", "content": None,
                 "function_call": {"name": "f", "arguments": '{"x": "§3"}'}},
                {"role": "function", "name": "f", "content": "§4"},
                {"role": "assistant", "content": "§5"},
            ],
        },
        ["user: §2", 'assistant:  [f {"x": "§3"}]', "tool: §4", "assistant: §5"],
    ),
    "xLAM": (
        "conversation",
        {
            "id": 0,
            "query": "§1",
            "answers": '[{"name": "live", "arguments": {"type": "§3"}}]',
            "tools": f"[{IMAGINED}]",
        },
        ["user: §1", 'assistant:  [live {"type": "§3"}]'],
    ),
    "problem and solution": (
        "conversation",
        {"problem": "§1", "level": "Level 5", "type": "Algebra", "solution": "so 26§2", "answer": "26"},
        ["user: §1", "assistant: so 26§2"],
    ),
    "content in parts": (
        "conversation",
        {"messages": [{"role": "user", "content": [{"type": "text", "value": "§1"}]},
                      {"role": "assistant", "content": [{"type": "text", "text": "§2"}]}]},
        ["user: §1", "assistant: §2"],
    ),
    "SQuAD": (
        "conversation",
        {"id": "1", "title": "t", "context": "§1", "question": "§2",
         "answers": {"text": ["§3", "§4"], "answer_start": [1, 2]}},
        ["user: §2\n§1", "assistant: §3"],
    ),
    "Baike": (
        "conversation",
        {"qid": "1", "category": "教育", "title": "§1", "desc": "§2", "answer": "§3"},
        ["user: §1\n§2", "assistant: §3"],
    ),
    "MNBVC's questions": (
        "conversation",
        {"id": "1", "问": "§1", "答": "§2", "来源": "知乎", "元数据": {"k": "v"}, "时间": "2023"},
        ["user: §1", "assistant: §2"],
    ),
    "MNBVC": (
        "document",
        {"文件名": "a.txt", "是否待查文件": False, "段落": [
            {"行号": 1, "是否重复": False, "md5": "0", "内容": "§1"},
            {"行号": 2, "是否重复": False, "md5": "1", "内容": "§2"}]},
        ["§1\n§2"],
    ),
    "MNBVC's parallel text": (
        "document",
        {"文件名": "a", "段落": [{"行号": 1, "zh_text": "§1", "en_text": "§2", "fr_text": ""}]},
        ["§1\n§2"],
    ),
    "RedPajama": ("document", {"raw_content": "§1", "url": "u", "digest": "d"}, ["§1"]),
    "Wikipedia": ("document", {"id": "1", "url": "u", "title": "§1", "text": "§2"}, ["§1\n\n§2"]),
    "title in the text": ("document", {"title": "§1", "text": "§1\n§2"}, ["§1\n§2"]),
    "UltraFeedback": (
        "preference",
        {
            "source": "s",
            "instruction": "§1",
            "models": ["a", "b", "c"],
            "completions": [
                {"response": "§2", "overall_score": 3.0, "critique": "§5"},
                {"response": "§3", "overall_score": 8.0, "custom_system_prompt": "§6"},
                {"response": "§4", "overall_score": 5.0},
            ],
            "correct_answers": ["None"],
        },
        ["user: §1", "assistant: §3", "assistant: §2"],
    ),
    "PKU-SafeRLHF": (
        "preference",
        {"prompt": "§1", "response_0": "§2", "response_1": "§3", "is_response_0_safe": True,
         "better_response_id": 1, "safer_response_id": 0},
        ["user: §1", "assistant: §3", "assistant: §2"],
    ),
    "an arena": (
        "preference",
        {"winner": "model_b", "conversation_a": [{"role": "user", "content": "§1"},
                                                 {"role": "assistant", "content": "§2"}],
         "conversation_b": [{"role": "user", "content": "§1"}, {"role": "assistant", "content": "§3"}]},
        ["user: §1", "assistant: §3", "assistant: §2"],
    ),
    "SHP": (
        "preference",
        {"history": "§1", "human_ref_A": "§2", "human_ref_B": "§3", "labels": 0, "score_A": 4},
        ["user: §1", "assistant: §3", "assistant: §2"],
    ),
    "chosen_messages": (
        "preference",
        {"prompt": "§1", "chosen_messages": [{"role": "assistant", "content": "§2"}],
         "rejected_messages": [{"role": "assistant", "content": "§3"}]},
        ["user: §1", "assistant: §2", "assistant: §3"],
    ),
    "ms-swift's rejected_response": (
        "preference",
        {"messages": [{"role": "user", "content": "§1"}, {"role": "assistant", "content": "§2"}],
         "rejected_response": "§3", "tools": [{"name": "f", "description": "§4"}]},
        ["user: §1", "assistant: §2", "assistant: §3"],
    ),
    "query, response, rejected_response": (
        "preference",
        {"system": "§1", "query": "§2", "response": "§3", "rejected_response": "§4", "history": []},
        ["system: §1", "user: §2", "assistant: §3", "assistant: §4"],
    ),
    "HH-RLHF": (
        "preference",
        {"chosen": "\n\nHuman: §1\n\nAssistant: §2", "rejected": "\n\nHuman: §1\n\nAssistant: §3"},
        ["user: §1", "assistant: §2", "assistant: §3"],
    ),
    "what nobody knows": (
        "conversation",
        {"question": "§1", "answer": "§2", "notes": {"a": ["§3"], "b": "§4"}, "url": "§5"},
        ["user: §1", "assistant: §2"],
    ),
}  # fmt: skip


def told(record: Record) -> list[str]:
    if isinstance(record, Conversation | Preference):
        messages = (
            record.messages
            if isinstance(record, Conversation)
            else [*record.prompt, *record.chosen, *record.rejected]
        )
        return [turn_told(message) for message in messages]
    return [record.text]


def turn_told(message: Message) -> str:
    calls = ", ".join(
        f"{call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}"
        for call in message.tool_calls
    )
    thought = f"<{message.reasoning}> " if message.reasoning else ""
    return f"{message.role}: {thought}{message.content}" + (f" [{calls}]" if calls else "")


@pytest.mark.parametrize("name", SHAPES)
def test_a_public_shape_is_read_whole(name: str) -> None:
    kind, value, expected = SHAPES[name]
    assert kind_of(value) == ("preference" if name == "HC3" else kind)
    record, _, _ = converted(value, kind, "")
    assert told(record) == expected


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["document", "conversation", "preference"])
def test_nothing_said_vanishes_uncounted(name: str, kind: Kind) -> None:
    value = SHAPES[name][1]
    before = json.dumps(value)
    try:
        record, shape, row = converted(value, kind, "")
    except MiaoError:
        return
    assert json.dumps(value) == before
    columns = Columns()
    columns.add(shape, row, {}, record)
    rest = json.dumps([*row.unread(), *row.origin.aside.items()], ensure_ascii=False)
    kept = json.dumps(record.to_json(), ensure_ascii=False) + rest
    given = set(re.findall(r"§\d+", json.dumps(value, ensure_ascii=False)))
    assert given and given <= set(re.findall(r"§\d+", kept))
    counted = sum(column.characters for column in columns.unread.get(shape, {}).values())
    assert counted >= sum(map(len, re.findall(r"§\d+", rest)))


def lines(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(json.dumps(value, ensure_ascii=False) for value in values), "utf-8")
    return path


NOTES = [
    {
        "question": f"第{n}问是什么？",
        "answer": f"第{n}答。",
        "notes": f"第{n}条说明很长，没有人读它。",
    }
    for n in range(30)
]


def test_much_unread_text_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", *NOTES)
    with pytest.raises(MiaoError, match=r"not read as question/answer.*'notes' \(5") as caught:
        list(read_records([file], "conversation"))
    assert caught.value.where == str(file)
    assert "--columns unused=notes" in str(caught.value.fix)
    counts = RecordCounts()
    reading = Reading({"unused": "notes"})
    found = list(read_records([file], "conversation", counts=counts, reading=reading))
    assert [turn.content for turn in found[0].messages] == ["第0问是什么？", "第0答。"]
    assert counts.columns.to_json() == {
        "question/answer": {
            "records": 30,
            "characters": sum(len(v["question"]) + len(v["answer"]) + 1 for v in NOTES),
            "unread": {"notes": {"records": 30, "characters": sum(len(v["notes"]) for v in NOTES)}},
        }
    }
    [line] = counts.lines()
    assert line.startswith("columns not read of 30 records (question/answer)") and "notes" in line


@pytest.mark.parametrize(
    "column",
    [
        {"url": "https://a.b/this is a long address of a page that nobody needs to read"},
        {"prompt_id": "a b c d e f g"},
        {"digest": "0123456789abcdef" * 9},
        {"kind_of_text": "one of few kinds of text, over and over"},
        {
            "text": "Below is a task.\n### Instruction:\n这是一个足够长的问题，说的是什么呢？它有二十个字。"
        },
        {"first": "这是一个足够长的问题，说的是什么呢？它有二十个字。"},
    ],
)
def test_metadata_categories_and_repeats_are_counted_and_not_refused(
    tmp_path: Path, column: dict[str, str]
) -> None:
    asked = {"instruction": "这是一个足够长的问题，说的是什么呢？它有二十个字。", "output": "答"}
    counts = RecordCounts()
    file = lines(tmp_path / "a.jsonl", *[asked | column] * 40)
    assert len(list(read_records([file], "conversation", counts=counts))) == 40
    [name] = column
    assert counts.columns.unread["instruction/output"][name].records == 40


def test_columns_are_mapped_as_the_user_says(tmp_path: Path) -> None:
    value = {"q": "问", "body": "文", "data": {"a": "答", "b": "余"}, "response": "别的", "id": 1}
    columns = {"question": "q+body", "answer": "data.a", "unused": "id"}
    fields, aside = mapped(value, columns)
    assert fields == {"question": "问\n文", "output": "答", "data": {"b": "余"}}
    assert aside == {"response": "别的", "id": 1}
    assert mapped({"text": "a"}, columns) == ({"text": "a"}, {})
    file = lines(tmp_path / "a.jsonl", value)
    [found] = read_records([file], "conversation", reading=Reading(columns))
    assert [turn.content for turn in found.messages] == ["问\n文", "答"]
    with pytest.raises(MiaoError, match=r"no column can be 'anwser'.*\n  -> did you mean 'answer'"):
        Reading({"anwser": "a"})
    with pytest.raises(MiaoError, match="no encoding is called 'utf-88'"):
        Reading(encoding="utf-88")


def test_images_are_not_dropped_silently(tmp_path: Path) -> None:
    value = {"question": "看图<image>", "answer": "是猫", "images": ["cat.png"]}
    file = lines(tmp_path / "a.jsonl", value)
    with pytest.raises(
        MiaoError, match=r"the record has 'images'.*\n  -> .*--columns unused=images"
    ):
        list(read_records([file], "conversation"))
    assert list(read_records([file], "conversation", reading=Reading({"unused": "images"})))
    assert list(read_records([lines(tmp_path / "b.jsonl", value | {"images": []})], "conversation"))


def test_moss_commands_that_are_none() -> None:
    turn = {"Human": "a", "Commands": "<|Commands|>: Search(a)<eoc>", "MOSS": "b"}
    with pytest.raises(MiaoError, match="the commands of 'turn_1' are no calls"):
        converted({"chat": {"turn_1": turn}}, "conversation", "")


@pytest.mark.parametrize(
    "text",
    [
        "Human: a" + "\n" * 300_000 + "b\nAssistant: c",
        "<|im_start|>user\na" + " " * 300_000 + "b<|im_end|>\n<|im_start|>assistant\nc",
        "USER: a" + " " * 300_000 + "b\nASSISTANT: c",
    ],
)
def test_long_blanks_in_written_turns_take_no_longer_than_words(text: str) -> None:
    record, _, _ = converted({"text": text}, "conversation", "")
    assert [turn[-1:] for turn in told(record)] == ["b", "c"]
    blank = {"role": "system", "content": "a" + " " * 300_000 + "b <tools>"}
    answer = {"role": "assistant", "content": "c" + " " * 300_000 + "call> <tool_call>"}
    record, _, _ = converted([blank, answer], "conversation", "")
    assert told(record)[1].endswith("<tool_call>")
