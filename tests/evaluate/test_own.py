"""What is measured with the user's own held-out text: babble, cloze items, own conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from miao.evaluate.own import babble, own_questions, write_cloze_items
from miao.files import read_jsonl, write_json, write_jsonl
from miao.rundir import RunDir
from miao.train.feed.sources import own_weights


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], None),
        (["你好！很高兴见到你。", "我是小禾。"], None),
        (["", "", "我是小禾。"], "67% are empty"),
        (["这个问题" + "亲爱的" * 12, "好的。"], "50% go in circles"),
        (["", "亲爱的" * 9], "50% are empty and 50% go in circles"),
        ([""] + ["好的。"] * 9, None),
    ],
)
def test_babble_is_told_from_answers(answers: list[str], said: str | None) -> None:
    assert babble(answers) == said


def test_own_conversations_weigh_up_to_four_times_until_they_are_half() -> None:
    few, some, many = (
        own_weights({"conversations": own, "built-in": 800}, "auto") for own in (50, 400, 3200)
    )
    assert few["conversations"] == pytest.approx(200 / 1000)
    assert some["conversations"] == pytest.approx(0.5)
    assert many["conversations"] == pytest.approx(3200 / 4000), "much text counts by its size"
    assert own_weights({"conversations": 50, "built-in": 800}, 0.3)["built-in"] == 0.7
    assert own_weights({"conversations": 50}, "auto") == {}


def test_items_come_from_the_held_out_side(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    names = ("王小明", "李大山", "陈文海", "赵长河", "孙立春")
    text = "".join(
        f"第{n}回里{name}离开了山村，乡亲们说{name}走得很远。" for n in range(9) for name in names
    )
    documents = [{"text": f"{chapter}。{text}"} for chapter in range(6)]
    write_jsonl(run.corpus / "pretrain" / "heldout" / "novel.jsonl", documents)
    run.eval_items.mkdir()
    write_cloze_items(run, 30)
    items = read_jsonl(run.eval_items / "cloze.jsonl")
    assert len(items) >= 20 and all(len(item["options"]) > 1 for item in items)

    turns = [{"role": "user", "content": "谁走了？"}, {"role": "assistant", "content": "王小明。"}]
    write_jsonl(run.corpus / "sft" / "heldout" / "conversations.jsonl", [{"messages": turns}])
    write_json(run.corpus / "manifest.json", {"origin": {"sft": "files"}})
    (asked,) = own_questions(run, 5)
    assert (asked.question, asked.reference) == ("谁走了？", "王小明。")
    write_json(run.corpus / "manifest.json", {"origin": {"sft": "seedbed"}})
    assert own_questions(run, 5) == []
