"""Questions of every layout that the tasks know, and mistakes in files and tasks."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from miao.errors import MiaoError
from miao.evaluate.tasks.items import read_questions
from miao.evaluate.tasks.task import built_in_tasks, load_task, read_task

DATA = Path(__file__).parent / "data"
TASK = """
title: mine
split: test
fewshot_split: train
sources:
  - files: "{split}.jsonl"
    fields: {question: q, options: choices, answer: a}
prompts:
  miao: {question: "Q: {{question}}", shots: 1}
"""


@pytest.mark.parametrize(
    ("name", "counts", "answers"),
    [
        ("ceval", {"computer_network": 2, "law": 3}, [1, 1, 0, 3, 2]),
        ("cmmlu", {"chinese_history": 2}, [0, 1]),
        ("mmlu", {"world_religions": 2}, [1, 1]),
        ("arc_easy", {"all": 2}, [0, 0]),
        ("hellaswag", {"all": 2}, [2, 0]),
        ("piqa", {"all": 2}, [1, 0]),
        ("openbookqa", {"all": 2}, [1, 1]),
        ("c3", {"all": 3}, [1, 0, 1]),
        ("gsm8k", {"all": 2}, ["600", "120"]),
        ("cmath", {"all": 2}, ["7", "0.5"]),
        ("math401", {"all": 3}, ["2", "0.1928", "-6"]),
        ("blimp", {"regular_plural_subject_verb_agreement_1": 2, "wh_island": 1}, [0, 0, 0]),
        ("zhoblimp", {"BA_negation": 2, "classifier_noun_agreement": 1}, [0, 0, 0]),
        ("minimal_pairs", {"measure_words": 2, "order": 1}, [0, 0, 0]),
        ("climp", {"ba_construction": 1, "classifier": 2}, [0, 0, 0]),
        ("chid", {"all": 2}, [1, 0]),
        ("bits", {"nature": 2, "towns": 2}, ["None"] * 4),
        ("cmrc", {"all": 3}, [1, 1, 0]),
        ("poems", {"all": 4}, [0, 0, 0, 3]),
        ("lambada", {"all": 2}, [0, 0]),
    ],
)
def test_original_files(name: str, counts: dict[str, int], answers: list[Any]) -> None:
    found = read_questions(load_task(name), DATA)
    assert {subject: len(items) for subject, items in found.items.items()} == counts
    assert [item.answer for item in found.all()] == answers
    assert found.labelled


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def in_columns_of_the_hub(name: str) -> tuple[str, list[dict[str, Any]]]:
    if name == "mmlu":
        options = ["True, True", "True, False", "False, True", "False, False"]
        question = "Statement 1: The lotus is sacred.\nStatement 2: The lotus is a bird. "
        record = {"question": question, "subject": "x", "choices": options, "answer": 1}
        return "world_religions/test-00000-of-00001.parquet", [record]
    if name == "hellaswag":
        found = [r | {"label": str(r["label"])} for r in rows("hellaswag/hellaswag_val.jsonl")]
        return "data/validation-00000-of-00001.parquet", found
    if name == "piqa":
        labels = [1, 0]
        found = [r | {"label": n} for r, n in zip(rows("piqa/valid.jsonl"), labels, strict=True)]
        return "data/validation-00000-of-00001.parquet", found
    file, stem, target = {
        "arc_easy": ("ARC-Easy/ARC-Easy-Test.jsonl", "question", "ARC-Easy/test-0-of-1.parquet"),
        "openbookqa": ("openbookqa/test.jsonl", "question_stem", "main/test-0-of-1.parquet"),
    }[name]
    found = []
    for record in rows(file):
        choices = record["question"]["choices"]
        columns = {key: [choice[key] for choice in choices] for key in ("text", "label")}
        found.append(
            {stem: record["question"]["stem"], "choices": columns, "answerKey": record["answerKey"]}
        )
    return target, found


@pytest.mark.parametrize("name", ["mmlu", "hellaswag", "piqa", "arc_easy", "openbookqa"])
def test_the_hubs_columns_give_the_same_questions(name: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file, records = in_columns_of_the_hub(name)
    (tmp_path / file).parent.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / file)
    task = load_task(name)
    expected = read_questions(task, DATA).all()[: len(records)]
    found = read_questions(task, tmp_path).all()
    assert [(i.question, i.options, i.answer) for i in found] == [
        (i.question, i.options, i.answer) for i in expected
    ]


def test_subjects_of_a_column_and_of_file_names(tmp_path: Path) -> None:
    found = read_questions(load_task("cmath"), DATA)
    assert [item.subject for item in found.all()] == ["grade 1", "grade 6"]
    text = TASK.replace("{split}.jsonl", "{subject}/{split}-*.jsonl")
    task = own_task(tmp_path, [], text)
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test-0.jsonl").write_text(json.dumps(GOOD), encoding="utf-8")
    assert list(read_questions(task, tmp_path).items) == ["blue", "red"]


def test_the_folder_itself_or_the_one_above() -> None:
    task = load_task("ceval")
    above, itself = read_questions(task, DATA), read_questions(task, DATA / "ceval-exam")
    assert [i.fingerprint for i in above.all()] == [i.fingerprint for i in itself.all()]
    assert len(above.missing) == 50, "52 subjects, of which two have files"


def test_subjects_limits_and_splits() -> None:
    task = load_task("ceval")
    found = read_questions(task, DATA, subjects=["law"], limit=1, shots=2)
    assert [item.id for item in found.all()] == ["0"]
    assert [e.answer for e in found.examples["law"]] == [0, 2] and found.missing == []
    test = read_questions(task, DATA, split="test")
    assert not test.labelled and {item.answer for item in test.all()} == {None}
    with pytest.raises(MiaoError, match="no subject 'lore'"):
        read_questions(task, DATA, subjects=["lore"])
    with pytest.raises(MiaoError, match="6 examples are wanted, dev has 5"):
        read_questions(task, DATA, shots=6)
    with pytest.raises(MiaoError, match="no files of the task ceval"):
        read_questions(task, DATA, split="train")
    with pytest.raises(MiaoError, match="names no split for examples"):
        read_questions(load_task("math401"), DATA, shots=1)


def test_equal_questions_have_equal_fingerprints() -> None:
    found = read_questions(load_task("ceval"), DATA).all()
    assert len({item.fingerprint for item in found}) == len(found)


def own_task(tmp_path: Path, records: list[Any], text: str = TASK) -> Any:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    lines = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "test.jsonl").write_text(lines, encoding="utf-8")
    return load_task(str(tmp_path / "mine.yaml"))


GOOD = {"q": "1+1?", "choices": ["1", "2"], "a": 1}


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    task = own_task(tmp_path, [GOOD])
    (item,) = read_questions(task, tmp_path).all()
    assert (item.question, item.options, item.answer, task.name) == ("1+1?", ["1", "2"], 1, "mine")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (GOOD | {"a": 2}, "answer 2 is none of the 2 options"),
        (GOOD | {"a": -1}, "answer -1 is none of the 2 options"),
        (GOOD | {"a": "B"}, "not the number of an option"),
        (GOOD | {"a": True}, "not the number of an option"),
        (GOOD | {"choices": [str(n) for n in range(27)]}, "more than there are letters"),
        ({"q": "x", "a": 0}, "'choices' is undefined|choices is not there"),
        ([1, 2], "does not fit the record"),
        ("text", "does not fit the record"),
    ],
)
def test_records_that_do_not_fit_are_named(tmp_path: Path, record: Any, message: str) -> None:
    task = own_task(tmp_path, [GOOD, record])
    with pytest.raises(MiaoError, match=message) as caught:
        read_questions(task, tmp_path)
    assert "test.jsonl:2" in str(caught.value.where)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split: test", "splitt: test", "no key 'splitt'"),
        ("{{question}}", "{{question", "not a template"),
        ("options: choices", "options: 'choices['", "not an expression"),
        ("shots: 1", "scoring: best", "scoring: 'best' is none of letter"),
        ("prompts:", "prompt:", "lacks the key 'prompts'"),
        ("shots: 1", "shot: 1", "no key 'shot'"),
        ("sources:\n", "sources: x\nsubjects:\n", "a list was expected"),
        ("title: mine", "title: [", "not valid YAML"),
    ],
)
def test_mistakes_in_a_task_are_explained(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TASK
    with pytest.raises(MiaoError, match=message):
        own_task(tmp_path, [GOOD], TASK.replace(old, new))


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_templates_cannot_reach_the_system(tmp_path: Path, text: str) -> None:
    from miao.evaluate.tasks.prompts import build_prompt

    task = own_task(tmp_path, [GOOD], TASK.replace("Q: {{question}}", text))
    (item,) = read_questions(task, tmp_path).all()
    with pytest.raises(MiaoError, match="does not fit"):
        build_prompt(task, task.styles["miao"], item, [])


def test_every_built_in_task_is_sound() -> None:
    assert len(built_in_tasks()) >= 22
    for name in built_in_tasks():
        task = load_task(name)
        assert task.title_en and task.title_zh and task.styles
    subjects = {name: len(load_task(name).subjects) for name in ("ceval", "cmmlu", "mmlu")}
    assert subjects == {"ceval": 52, "cmmlu": 67, "mmlu": 57}
    groups = {group for s in load_task("ceval").subjects.values() for group in s.groups}
    assert groups == {"STEM", "social science", "humanities", "other", "hard"}
    with pytest.raises(MiaoError, match="did you mean 'ceval'"):
        load_task("cevall")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    shutil.copytree(DATA / "mmlu", tmp_path / "mmlu")
    path = tmp_path / "mmlu/test/world_religions_test.csv"
    path.write_text("a question,A,B,C,D\n", encoding="utf-8")
    with pytest.raises(MiaoError, match="a row of 5 cells, where 6 are expected"):
        read_questions(load_task("mmlu"), tmp_path)
    with pytest.raises(MiaoError, match="no such task file"):
        read_task(tmp_path / "none.yaml")


WITH_OTHERS = """
split: test
sources:
  - files: "{split}.jsonl"
    fields: {question: q, right: a, pool: "a | length"}
    wrong: 2
prompts:
  miao: {question: "{{question}}"}
"""


def test_wrong_options_are_other_questions_answers_of_the_same_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [{"q": f"q{n}", "a": f"a{n}"} for n in range(9)]
    records += [{"q": "q0", "a": "b0"}, {"q": "long", "a": "longer"}]
    task = own_task(tmp_path, records, WITH_OTHERS)
    items = read_questions(task, tmp_path).items["all"]
    assert "1 questions have no others of their kind" in capsys.readouterr().out
    assert len(items) == 10 and [item.id for item in items] != [str(n) for n in range(10)]
    for item in items:
        assert isinstance(item.answer, int) and len(set(item.options)) == 3
        assert item.options[item.answer] == item.variables["right"]
        assert item.question != "q0" or not {"a0", "b0"} <= set(item.options), "both fit"
    few = read_questions(task, tmp_path, limit=4).items["all"]
    assert few == items[:4], "fewer questions are the first of more, with the same options"


@pytest.mark.parametrize(
    ("name", "count"), [("idioms", 240), ("couplets", 166), ("facts", 268), ("sayings", 100)]
)
def test_texts_that_come_with_miao(name: str, count: int) -> None:
    items = read_questions(load_task(name), Path("nowhere")).all()
    assert len(items) == count and {len(item.options) for item in items} == {4}
    rights = [(item.question, item.variables["right"]) for item in items]
    assert len(set(rights)) == count and all(a and b for a, b in rights)


def test_both_layouts_of_cmrc_are_the_same_questions(tmp_path: Path) -> None:
    squad = json.loads((DATA / "cmrc/cmrc2018_dev.json").read_text(encoding="utf-8"))["data"]
    own = [
        {
            "context_id": article["id"],
            "context_text": paragraph["context"],
            "title": article["title"],
            "qas": [
                {
                    "query_text": question["question"],
                    "query_id": question["id"],
                    "answers": [answer["text"] for answer in question["answers"]],
                }
                for question in paragraph["qas"]
            ],
        }
        for article in squad
        for paragraph in article["paragraphs"]
    ]
    (tmp_path / "cmrc2018_dev.json").write_text(json.dumps(own), encoding="utf-8")
    task = load_task("cmrc")
    found = [read_questions(task, folder).items["all"] for folder in (DATA, tmp_path)]
    assert [item.fingerprint for item in found[0]] == [item.fingerprint for item in found[1]]
    assert [(item.id, item.cluster) for item in found[0]] == [(i.id, i.cluster) for i in found[1]]
    assert len({item.cluster for item in found[0]}) == 1, "three questions on one passage"


def test_rows_without_a_partner_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "ba_1000.csv").write_text("好句\n坏句\n孤句\n", encoding="utf-8")
    with pytest.raises(MiaoError, match="an odd number of rows"):
        read_questions(load_task("climp"), tmp_path)


def test_expressions_are_compiled_once_for_all_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from miao.evaluate.tasks import task as tasks

    records = [{"q": f"q{n}", "a": 0, "choices": ["x", "y"]} for n in range(50)]
    task = own_task(tmp_path, records)
    before = tasks._compiled.cache_info().misses
    assert len(read_questions(task, tmp_path).all()) == 50
    assert tasks._compiled.cache_info().misses - before <= 3, "not once for every line"


def test_the_layout_is_that_of_the_subjects_asked_for(tmp_path: Path) -> None:
    """C4 keeps its English and its Chinese held-out text under names of other forms."""
    for name, text in (
        ("en/c4-validation.00000-of-00008.json.gz", "Rain."),
        ("multilingual/c4-zh-validation.tfrecord-00000-of-00002.json.gz", "春天。"),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(gzip.compress(json.dumps({"text": text}).encode()))
    for subject, text in (("en", "Rain."), ("zh", "春天。")):
        (item,) = read_questions(load_task("bits"), tmp_path, subjects=[subject]).all()
        assert item.question == text and item.subject == subject
