"""Evaluation questions in training text: whole, edited, short, in traditional characters."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.dedup.contamination import EvaluationIndex
from miao.corpus.ngrams import TextView
from miao.corpus.read.frequent import FREQUENT
from miao.errors import MiaoError
from miao.recipe.cleaning import ContaminationOptions

LONG = {
    "question": "下列关于光合作用的说法中，哪一项是正确的？请根据课本第三章的内容作答。",
    **{"A": "主要在叶绿体中进行", "B": "不需要光照", "C": "只在夜里进行", "D": "释放二氧化碳"},
    "answer": "A",
}
SHORT = {
    "question": "声音不能在哪里传播？",
    **{"A": "空气", "B": "真空", "C": "水", "D": "钢铁", "answer": "B"},
}


def index_of(directory: Path, *questions: Any) -> EvaluationIndex:
    path = directory / "exam.jsonl"
    lines = [json.dumps(question, ensure_ascii=False) for question in questions]
    path.write_text("\n".join(lines), encoding="utf-8")
    return EvaluationIndex(ContaminationOptions(paths=[str(path)]))


def with_options(question: dict[str, str], layout: str = "{}. {}\n") -> str:
    options = "".join(layout.format(letter, question[letter]) for letter in "ABCD")
    return question["question"] + "\n" + options


def amid(text: str, seed: int = 0) -> TextView:
    """A document that holds the text."""
    words = random.Random(seed).choices(FREQUENT, k=600)
    return TextView("".join(words[:300]) + text + "".join(words[300:]))


def place(index: EvaluationIndex, view: TextView) -> str | None:
    overlap = index.overlap(view)
    return overlap.place.rpartition(":")[2] if overlap else None


def test_questions_are_found_with_their_options_and_alone(tmp_path: Path) -> None:
    index = index_of(tmp_path, LONG, SHORT)
    assert index.short == 0
    for number, question in (("1", LONG), ("2", SHORT)):
        assert place(index, amid(with_options(question))) == number
        assert place(index, amid(with_options(question, "（{}） {} "))) == number
    assert place(index, amid(LONG["question"])) == "1"
    assert place(index, amid("")) is None


def test_short_questions_are_found_verbatim_and_their_options_are_phrases(tmp_path: Path) -> None:
    board = "国务院环境保护行政主管部门"
    question = {"question": "哪个部门主管全国的环境保护工作？", "A": board, "B": "县级人民政府"}
    index = index_of(tmp_path, {**question, "answer": "A"})
    assert place(index, amid(question["question"])) == "1"
    assert place(index, amid("哪个部门主管着该地的各种工作？")) is None
    assert place(index, amid(f"{board}应当制定标准，{board}对此负责。")) is None


@pytest.mark.parametrize("question", [LONG, SHORT])
def test_questions_are_found_in_traditional_characters_and_other_width(
    tmp_path: Path, question: dict[str, str]
) -> None:
    index = index_of(tmp_path, question)
    wide = with_options(question).translate({ord(c): ord(c) + 0xFEE0 for c in "ABCD."})
    assert place(index, amid("  ".join(wide).replace("？", "!"))) == "1"
    opencc = pytest.importorskip("opencc").OpenCC("s2t")
    assert place(index, amid(opencc.convert(with_options(question)))) == "1"


def test_edited_questions_are_found(tmp_path: Path) -> None:
    """With one character in twenty edited 95 of 100 questions, with one in ten 80."""
    rng = random.Random(5)
    asked = []
    for _ in range(100):
        words = rng.choices(FREQUENT, k=rng.choice([25, 40, 80]))
        options = {letter: "".join(rng.choices(FREQUENT, k=5)) for letter in "ABCD"}
        asked.append({"question": "".join(words), **options, "answer": "A"})
    index = index_of(tmp_path, *asked)
    for rate, wanted in ((0.05, 95), (0.1, 80)):
        found = 0
        for number, question in enumerate(asked):
            text = with_options(question)
            text = "".join(rng.choice(FREQUENT) if rng.random() < rate else c for c in text)
            found += place(index, amid(text, number)) == str(number + 1)
        assert found >= wanted, rate
    assert not any(place(index, amid("", number)) for number in range(100, 300))


def test_what_is_scattered_over_a_long_text_is_no_overlap(tmp_path: Path) -> None:
    index = index_of(tmp_path, LONG)
    text, filler = with_options(LONG), amid("").text
    pieces = [text[start : start + 6] for start in range(0, len(text), 4)]
    assert place(index, TextView(filler.join(pieces))) is None
    assert place(index, TextView("".join(pieces))) == "1"


def test_the_wording_of_the_set_tells_nothing(tmp_path: Path) -> None:
    asked = "根据本章所学的内容，下列选项中符合题意并且说法正确的一项是"
    index = index_of(
        tmp_path,
        *({"question": f"{asked}{word * 3}", "answer": "A"} for word in FREQUENT[:12]),
    )
    assert index.overlap(amid(asked)) is None


def test_sets_of_any_shape(tmp_path: Path) -> None:
    passage = "".join(random.Random(3).choices(FREQUENT, k=90))
    prose = {"id": "x1", "context": {"paragraphs": [passage]}, "label": 3}
    index = index_of(tmp_path, prose, {"prompt": "写一首诗", "answer": "好"})
    assert index.short == 1
    assert place(index, amid(passage)) == "1"
    with pytest.raises(MiaoError, match="no question of 10 characters"):
        index_of(tmp_path, {"prompt": "写一首诗", "answer": "好"})
