"""Every entry of the catalogue on records of its exact columns, written by us."""

from typing import Any

import pytest

from miao.commands.corpus_catalog import main
from miao.corpus.catalog import USES, Entry, entries, find_entry
from miao.corpus.read.convert import kind_of, to_conversation, to_document, to_preference
from miao.corpus.records import Conversation, Document, Preference
from miao.errors import MiaoError
from miao.hubs.datasets import parse_dataset_name

USER, ASSISTANT = {"role": "user", "content": "问"}, {"role": "assistant", "content": "好"}
WORSE = {"role": "assistant", "content": "坏"}
PAIR = [{"from": "human", "value": "问"}, {"from": "gpt", "value": "好"}]
WIKI = {"id": "1", "url": "u", "title": "苗", "text": "好"}
ALPACA = {"instruction": "问", "input": "", "output": "好"}
CHOICE = {"A": "好", "B": "坏", "C": "丙", "D": "丁"}
ULTRA_FINEWEB = {"content": "好", "score": 0.9, "source": "web"}
FIXTURES: dict[str, dict[str, Any]] = {
    "chinese-fineweb-edu-v2": {"text": "好", "score": 0.8, "source": "web"},
    "ultra-fineweb-zh": ULTRA_FINEWEB,
    "ultra-fineweb-en": ULTRA_FINEWEB,
    "skypile": {"text": "好"},
    "firefly-pretrain": {"text": "好"},
    "wikipedia-zh": WIKI,
    "wikipedia-en": WIKI,
    "fineweb-edu": {
        **{"text": "好", "id": "<urn:1>", "dump": "CC", "url": "u", "file_path": "s3://x"},
        **{"language": "en", "language_score": 0.9, "token_count": 1, "score": 3.1, "int_score": 3},
    },
    "minimind-pretrain": {"text": "好"},
    "chinese-instruct": {"id": "1", "prompt": "问", "response": "好"},
    "chinese-instruct-lite": {"id": "1", "prompt": "问", "response": "好"},
    "belle-0.5m": ALPACA,
    "belle-3.5m": {"id": "1", "conversations": PAIR},
    "moss-003": {
        **{"conversation_id": "1", "meta_instruction": "You are", "num_turns": 1},
        "chat": {"turn_1": {"Human": "<|Human|>: 问<eoh>\n", "MOSS": "<|MOSS|>: 好<eom>\n"}},
        "category": "Brainstorming",
    },
    "sharegpt-zh-en-90k": {
        **{"conversation_id": "1", "category": "other"},
        "conversation": [{"human": "问", "assistant": "好"}],
    },
    "alpaca": {**ALPACA, "text": "Below is an instruction"},
    "alpaca-gpt4-zh": ALPACA,
    "firefly": {"kind": "ClassicalChinese", "input": "问", "target": "好"},
    "minimind-sft": {"conversations": [USER, ASSISTANT]},
    "deepctrl-sft": {"id": "1", **ALPACA, "history": []},
    "fusechat-3.0-dpo": {"prompt": "问", "chosen": "好", "rejected": "坏"},
    "ultrafeedback": {
        **{"prompt": "问", "prompt_id": "1"},
        **{"chosen": [USER, ASSISTANT], "rejected": [USER, WORSE], "messages": [USER, ASSISTANT]},
        **{"score_chosen": 8.0, "score_rejected": 2.0},
    },
    "hc3-chinese": {"question": "问", "human_answers": ["坏"], "chatgpt_answers": ["好"]},
    "dpo-en-zh-20k": {
        "conversations": PAIR[:1],
        "chosen": {"from": "gpt", "value": "好"},
        "rejected": {"from": "gpt", "value": "坏"},
    },
    "ceval": {"id": 0, "question": "问", **CHOICE, "answer": "A", "explanation": ""},
    "cmmlu": {"Question": "问", **CHOICE, "Answer": "A"},
    "mmlu": {"question": "问", "subject": "x", "choices": list(CHOICE.values()), "answer": 0},
    "gsm8k": {"question": "问", "answer": "好"},
    "cmath": {"grade": 1, "question": "问", "golden": "好", "reasoning_step": 1, "num_digits": 1},
    "math401": {"query": "问", "response": "好"},
}
OPTIONS = "问\nA. 好\nB. 坏\nC. 丙\nD. 丁"


def test_every_entry_has_a_fixture() -> None:
    assert set(FIXTURES) == set(entries()) and len(entries()) == 30
    assert {entry.use for entry in entries().values()} == set(USES)


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.name)
def test_an_entry_becomes_records(entry: Entry) -> None:
    record = FIXTURES[entry.name]
    assert list(record) == entry.columns
    name = parse_dataset_name(entry.address({})) if entry.hf or entry.modelscope else None
    if name and name.columns:
        record = {here: record[there] for there, here in name.columns.items()}
    assert kind_of(record) == entry.kind
    if entry.kind == "document":
        text = "苗\n\n好" if "title" in record else "好"
        assert to_document(record, entry.name) == Document(text, record.get("source", entry.name))
    elif entry.kind == "preference":
        one = to_preference(record)
        assert isinstance(one, Preference)
        sides = [one.prompt[0].content, one.chosen[0].content, one.rejected[0].content]
        assert sides == ["问", "好", "坏"]
    else:
        talk = to_conversation(record)
        assert isinstance(talk, Conversation)
        is_choice = entry.name in ("ceval", "cmmlu", "mmlu")
        said = [message.content for message in talk.messages]
        system = [record["meta_instruction"]] if "meta_instruction" in record else []
        assert said == ([OPTIONS, "A. 好"] if is_choice else [*system, "问", "好"])


def test_addresses() -> None:
    entry, options = find_entry("catalog:fineweb-edu?limit=10&hub=modelscope")
    assert entry.address(options) == (
        "modelscope:AI-ModelScope/fineweb-edu?subset=sample-10BT&limit=10"
    )
    assert find_entry("catalog:deepctrl-sft")[0].address({}).startswith("modelscope:")
    wiki = find_entry("wikipedia-zh")[0]
    assert wiki.address({"files": "x/*"}) == "hf:wikimedia/wikipedia?files=x/*"
    with pytest.raises(MiaoError, match="download it and give its path"):
        find_entry("math401")[0].address({})


def test_only_known_fields_are_called_unverified() -> None:
    for entry in entries().values():
        assert set(entry.unverified) <= set(vars(entry)), entry.name
        for hub in (entry.hf, entry.modelscope):
            assert hub is None or hub.count("/") == 1


def test_the_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in entries())
    assert main(["ceval"]) == 0
    assert "do not train on it" in capsys.readouterr().out
    assert main(["firefly", "--json"]) == 0
    assert '"columns": [' in capsys.readouterr().out
    with pytest.raises(MiaoError, match="did you mean 'firefly'"):
        main(["fierfly"])
