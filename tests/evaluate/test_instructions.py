"""Verifiable instructions: the verdicts of lm-evaluation-harness, item by item, and our own kinds."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from miao.errors import MiaoError
from miao.evaluate.tasks.instructions import CHECKS, Instructed, is_chinese, read_instructed, verify

VERDICTS = Path(__file__).parent / "data" / "ifeval_verdicts.jsonl"
OURS = {"length_constraints:number_characters", "startend:start_checker"}
NLTK = {"length_constraints:number_sentences"}


def verdict(name: str, text: str, **settings: object) -> bool:
    return verify(Instructed("0", "?", (name,), (settings,)), text).strict[0]


def test_verdicts_are_those_of_lm_eval_s_ifeval() -> None:
    """1,824 verdicts, strict and loose. Only the language of a few words is judged otherwise:
    langdetect takes "Yes." for another language than English, we take French for English."""
    seen = set()
    for line in VERDICTS.read_text(encoding="utf-8").splitlines():
        name, settings, text, strict, loose = json.loads(line)
        found = verify(Instructed("0", "what is water?", (name,), (settings,)), text)
        seen.add(name)
        few = sum(letter.isalpha() for letter in text) < 60
        if few and name.startswith(("language", "change_case:english")):
            continue
        assert (found.strict[0], found.loose[0]) == (strict, loose), (name, settings, text)
    assert seen == CHECKS.keys() - OURS - NLTK


def test_chinese_instructions() -> None:
    assert verdict("length_constraints:number_characters", "北京是首都。", relation="少于",
                   num_characters=6)  # fmt: skip
    assert not verdict("length_constraints:number_characters", "北京是首都。", relation="at least",
                       num_characters=6)  # fmt: skip
    assert not verdict("punctuation:no_comma", "好，走吧", chinese=True)
    assert verdict("punctuation:no_comma", "好，走吧"), "IFEval's own looks for , alone"
    assert not verdict("keywords:forbidden_words", "下雨天", forbidden_words=["雨"])
    assert verdict("detectable_format:title", "《海》\n浪花", chinese=True)
    assert verdict("startend:quotation", "“天气很好。”", chinese=True)
    assert verdict("startend:start_checker", "从前有山", start_phrase="从前")
    assert verdict("language:response_language", "你好", language="zh-cn")
    assert not verdict("language:response_language", "hello", language="zh")
    assert not verdict("language:response_language", "你好", language="en")
    assert verdict("length_constraints:number_sentences", "水很重要。人要喝水！",
                   relation="at least", num_sentences=2)  # fmt: skip
    assert not verdict("length_constraints:number_sentences", "It costs 3.50 in all.",
                       relation="at least", num_sentences=2)  # fmt: skip
    assert is_chinese("用Python写") and not is_chinese("the word 水 in English")


def test_an_empty_answer_follows_nothing() -> None:
    for name in CHECKS:
        assert not verdict(name, "  \n ")


def test_our_prompts_can_be_checked_and_are_half_chinese() -> None:
    with resources.as_file(resources.files("miao.evaluate") / "tasks" / "texts") as folder:
        asked, unknown = read_instructed(folder / "instructions.jsonl")
    assert len(asked) == 40 and not unknown
    assert sum(is_chinese(one.prompt) for one in asked) == 20
    for one in asked:  # settings fit
        verify(one, "一句话。A sentence, with words.")


def test_files_of_another_form_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "ifeval.jsonl"
    path.write_text('{"prompt": "x"}\n', encoding="utf-8")
    with pytest.raises(MiaoError, match="instruction_id_list") as told:
        read_instructed(path)
    assert str(told.value.where).endswith(":1")
    known = {"key": 7, "prompt": "x", "instruction_id_list": ["punctuation:no_comma"],
             "kwargs": [{"num_words": None}]}  # fmt: skip
    other = known | {"instruction_id_list": ["multi-turn:constrained_start"]}
    path.write_text(json.dumps(known) + "\n" + json.dumps(other) + "\n", encoding="utf-8")
    asked, unknown = read_instructed(path)
    assert [one.id for one in asked] == ["7"] and asked[0].settings == ({},)
    assert unknown == ["multi-turn:constrained_start"]
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(MiaoError, match="no prompt whose instructions"):
        read_instructed(path)
    torn = Instructed("3", "?", ("keywords:existence",), ({"keywords": ["("]},))
    with pytest.raises(MiaoError, match="do not fit"):
        verify(torn, "text")
