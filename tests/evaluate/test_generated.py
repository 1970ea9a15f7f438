"""Questions made from a seed: right ones, others than before, and at chance for who cannot read."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from miao.cli import main
from miao.errors import MiaoError
from miao.evaluate.tasks.generated import EXAMPLES, OPTIONS, generated, kinds
from miao.evaluate.tasks.items import read_questions
from miao.evaluate.tasks.task import load_task, read_task

SKILLS = [kind for kind in kinds() if not kind.startswith("grammar")]
MATE = {"(": ")", "[": "]", "{": "}"}


def solved(kind: str, question: str) -> str:
    """The answer, found from the question's text alone."""
    _, _, asked = question.partition("：" if "：" in question else ": ")
    skill = kind.partition("_")[0]
    if skill == "copying":
        return asked
    if skill == "sorting":
        return " ".join(sorted(asked.split(), key=int))
    if skill.startswith("sums"):
        a, sign, b = asked.split()
        return str(int(a) + int(b) if sign == "+" else int(a) - int(b))
    if skill == "brackets":
        opened: list[str] = []
        for one in asked.split():
            if one in MATE:
                opened.append(MATE[one])
            else:
                assert opened.pop() == one
        return " ".join(reversed(opened))
    if skill == "counting":
        row, _, rest = re.split(r"(。|\. )", question)
        match = re.search(r"“(.+)”|there (\w+)\?", rest)
        assert match
        return str(row.split().count(match[1] or match[2]))
    told, _, rest = re.split(r"(。|\. )", question)
    pairs = dict(re.findall(r"(\w+) is (\w+)", told) or re.findall(r"(\w)是(\w)色", told))
    match = re.search(r"(\w)是什么|is (\w+)\?", rest)
    assert match
    return str(pairs[match[1] or match[2]])


@pytest.mark.parametrize("kind", SKILLS)
def test_generated_answers_are_right(kind: str) -> None:
    for made in generated(kind, 3, False, 200):
        assert len(set(made["options"])) == OPTIONS
        assert made["options"][made["answer"]] == solved(kind, made["question"]), made


def test_more_questions_begin_with_fewer_and_none_is_an_example() -> None:
    for kind in kinds():
        few, many = (list(generated(kind, 0, False, count)) for count in (10, 60))
        shown = list(generated(kind, 0, True, None))
        assert many[:10] == few and len(many) == 60 and len(shown) == EXAMPLES
        asked = {made["question"] for made in many}
        assert len(asked) == 60 and not asked & {made["question"] for made in shown}
        assert list(generated(kind, 1, False, 10)) != few


@pytest.mark.parametrize("kind", SKILLS)
def test_a_model_that_does_not_read_the_question_is_at_chance(kind: str) -> None:
    """Any fixed liking for words and characters, summed over an option, as a likelihood is."""

    def liking(option: str, taste: int) -> float:
        parts = re.findall(r"[a-z]+|\S", option)
        return sum(sha256(f"{taste}{part}".encode()).digest()[0] / 256 - 3 for part in parts)

    count, tastes, hits = 100, 30, 0
    for taste in range(tastes):
        for made in generated(kind, taste, False, count):
            values = [liking(option, taste) for option in made["options"]]
            hits += values.index(max(values)) == made["answer"]
    total = count * tastes
    # A taste is the same for all questions of a stream: the error is wider than a binomial one.
    assert abs(hits / total - 1 / OPTIONS) < 0.05, hits / total


@pytest.mark.parametrize("kind", ["counting_zh", "sums1_en", "sums2_zh"])
def test_who_prefers_a_rank_or_a_place_is_at_chance_in_every_sample(kind: str) -> None:
    for seed in range(3):
        made = list(generated(kind, seed, False, 48))
        values = [[int(option) for option in one["options"]] for one in made]
        for rank in range(OPTIONS):
            chosen = [row.index(sorted(row)[rank]) for row in values]
            assert sum(c == one["answer"] for c, one in zip(chosen, made, strict=True)) == 12
            assert sum(one["answer"] == rank for one in made) == 12


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_minimal_pair_is_one_sentence_sound_and_unsound(language: str) -> None:
    made = list(generated(f"grammar_{language}", 0, False, 400))
    assert len({one["question"] for one in made}) == len(made) == 400
    for one in made:
        good, bad = one["options"][one["answer"]], one["options"][1 - one["answer"]]
        assert len(one["options"]) == 2 and good != bad and one["question"].endswith(f": {good}")
        assert not set("{}[]|'") & set(good + bad), one
        assert good[-1] in ".?。？" and abs(len(good) - len(bad)) <= 8
    kinds_of = {one["question"].partition(":")[0] for one in made}
    assert len(kinds_of) == {"en": 7, "zh": 8}[language], "every phenomenon"
    assert sum(one["answer"] for one in made) == 200, "half of them stand first"


def test_the_task_needs_no_files() -> None:
    task = load_task("skills")
    assert not task.needs_files and list(task.subjects) == SKILLS
    found = read_questions(task, Path("nowhere"), shots=3, limit=5)
    assert {len(items) for items in found.items.values()} == {5}
    assert {len(items) for items in found.examples.values()} == {3}
    with pytest.raises(MiaoError, match="no split train"):
        read_questions(task, Path("nowhere"), "train")
    with pytest.raises(MiaoError, match="20 examples are wanted, examples has 8"):
        read_questions(task, Path("nowhere"), shots=20)


def test_the_prompts_of_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "x", "--tasks", "skills", "--limit", "1", "--show", "99", "--shots", "0"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n答：") == shown.count("\nA:") == len(SKILLS) / 2
    assert re.search(r"Q: Calculate: \d [+-] \d\nA:\n    \+ ' \d+'", shown)


def test_a_task_that_makes_what_nobody_can_make(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "split: test\nsources: [{{{}}}]\nsubjects: {{{}}}\nprompts: {{miao: {{question: x}}}}\n"
    cases: list[tuple[Any, ...]] = [
        ("generated: 7", "juggling_zh: []", "juggling_zh cannot be generated"),
        ("generated: 7", "", "none cannot be generated"),
        ("fields: {question: q}", "", "the key files is missing"),
    ]
    for source, subjects, message in cases:
        path.write_text(text.format(source, subjects), encoding="utf-8")
        with pytest.raises(MiaoError, match=message):
            read_task(path)
