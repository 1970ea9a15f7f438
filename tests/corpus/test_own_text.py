"""Conversations made from the user's own text."""

from __future__ import annotations

import random
from pathlib import Path

from miao.corpus.build.own_text import LENGTHS, TEXT, talks_about, topics_of
from miao.corpus.build.pipeline import build_corpus
from miao.corpus.read.frequent import FREQUENT
from miao.evaluate.own import ABOUT, SUBJECT, text_questions, tone_of
from miao.files import read_json, read_jsonl, write_jsonl
from miao.recipe import CorpusOptions, SeedbedOptions
from miao.rundir import RunDir

HEROES = ("石头", "露珠", "木匠")


def chapter(number: int) -> str:
    hero = HEROES[number % 3]
    rng = random.Random(number)
    some = ["".join(rng.choices(FREQUENT, k=24)) for _ in range(30)]
    lines = [f"{hero}{words}。" if n % 2 else f"{words}。" for n, words in enumerate(some)]
    return f"第{number}章 {hero}出门\n" + "\n".join(lines)


def test_a_question_holds_a_word_or_title_and_the_answer_is_the_texts_own() -> None:
    texts = [chapter(number) for number in range(60)]
    made = talks_about(texts, 200, random.Random(0))
    whole = "".join(texts).replace("\n", "")
    assert len(made) >= 20 and set(topics_of(texts, 3)) == set(HEROES)
    for talk in made:
        question, answer = (turn["content"] for turn in talk["messages"])
        assert answer in whole and answer.endswith("。")
        assert LENGTHS["zh"][0] <= len(answer) <= LENGTHS["zh"][1]
        if "about" in talk:
            assert talk["about"] in question and talk["about"] in answer
    assert any("about" in talk for talk in made)
    little = talks_about(texts[:20], 200, random.Random(0))
    assert len({str(talk["messages"]) for talk in little}) == 200, "little text is told densely"
    assert talks_about(["| a | b |\n" * 400], 10, random.Random(0)) == [], "no prose, no talk"
    prose = "Mr. Hale walked to the old mill again, as he did every day. Nobody had seen him. " * 9
    (one, *_) = talks_about([prose], 4, random.Random(1))
    assert one["messages"][1]["content"].endswith(".")


def test_each_side_talks_of_its_own_documents(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "book.jsonl", ({"text": chapter(number)} for number in range(120)))
    options = CorpusOptions(
        paths=[str(tmp_path / "book.jsonl")], text_talks=60, heldout=0.2, workers=1,
        seedbed=SeedbedOptions(conversations=30),
    )  # fmt: skip
    run = RunDir(tmp_path / "run")
    build_corpus(options, 7, run.corpus, ["pretrain", "sft"])
    manifest = read_json(run.corpus / "manifest.json")
    counts = manifest["sources"]["sft"]["text"]
    assert counts["train"] == 60 and counts["heldout"] > 0
    assert {f"sft/{side}/{TEXT}.jsonl" for side in ("train", "heldout")} <= set(manifest["sha256"])
    for side in ("train", "heldout"):
        text = "".join(r["text"] for r in read_jsonl(run.corpus / "pretrain" / side / "book.jsonl"))
        for talk in read_jsonl(run.corpus / "sft" / side / f"{TEXT}.jsonl"):
            assert talk["messages"][1]["content"] in text.replace("\n", "")
    asked = text_questions(run, 5)
    assert asked and all(one.reference for one in asked)
    replies = [
        {"question": q.question, "answer": q.reference, "reference": q.reference, "about": "石头"}
        for q in asked
    ]
    scores = {score.category: score for score in tone_of(run, replies)}
    assert scores[SUBJECT].task == ABOUT and 0 < scores["in words of the text"].value <= 1
    assert tone_of(run, []) == []
