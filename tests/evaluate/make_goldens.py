"""Writes goldens_lm_eval.json: what lm-evaluation-harness asks for the fixtures in data/.

    python tests/evaluate/make_goldens.py        (needs lm-eval; the tests only read the result)

The harness's own task files are used; only the place of the data is replaced.
"""

from __future__ import annotations

import csv
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.api.task import ConfigurableTask

HERE = Path(__file__).parent
DATA = HERE / "data"
HARNESS = Path(lm_eval.__file__).parent / "tasks"


def rows(path: Path) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mmlu(path: Path) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {"question": r[0], "choices": r[1:5], "answer": "ABCD".index(r[5])}
            for r in csv.reader(file)
        ]


def chosen(record: dict[str, Any], stem: str) -> dict[str, Any]:
    choices = record["question"]["choices"]
    return {
        "id": record["id"],
        stem: record["question"]["stem"],
        "choices": {"text": [c["text"] for c in choices], "label": [c["label"] for c in choices]},
        "answerKey": record["answerKey"],
    }


def piqa() -> list[dict[str, Any]]:
    labels = (DATA / "piqa/valid-labels.lst").read_text().split()
    return [
        record | {"label": int(label)}
        for record, label in zip(lines(DATA / "piqa/valid.jsonl"), labels, strict=True)
    ]


def hellaswag() -> list[dict[str, Any]]:
    return [r | {"label": str(r["label"])} for r in lines(DATA / "hellaswag/hellaswag_val.jsonl")]


def cases() -> list[tuple[str, str, str, dict[str, list[dict[str, Any]]], list[int]]]:
    """(our task, subject, the harness's file, the splits in the hub's columns, shots)."""
    found: list[Any] = []
    for subject in ("law", "computer_network"):
        splits = {s: rows(DATA / f"ceval-exam/{s}/{subject}_{s}.csv") for s in ("dev", "val")}
        found.append(("ceval", subject, f"ceval/ceval-valid_{subject}.yaml", splits, [0, 3, 5]))
    splits = {s: rows(DATA / f"cmmlu/{s}/chinese_history.csv") for s in ("dev", "test")}
    found.append(("cmmlu", "chinese_history", "cmmlu/cmmlu_chinese_history.yaml", splits, [0, 5]))
    splits = {s: mmlu(DATA / f"mmlu/{s}/world_religions_{s}.csv") for s in ("dev", "test")}
    file = "mmlu/default/mmlu_world_religions.yaml"
    found.append(("mmlu", "world_religions", file, splits, [0, 5]))
    arc = [chosen(r, "question") for r in lines(DATA / "ARC-Easy/ARC-Easy-Test.jsonl")]
    found.append(("arc_easy", "all", "arc/arc_easy.yaml", {"test": arc}, [0]))
    book = [chosen(r, "question_stem") for r in lines(DATA / "openbookqa/test.jsonl")]
    found.append(("openbookqa", "all", "openbookqa/openbookqa.yaml", {"test": book}, [0]))
    found.append(("hellaswag", "all", "hellaswag/hellaswag.yaml", {"validation": hellaswag()}, [0]))
    found.append(("piqa", "all", "piqa/piqa.yaml", {"validation": piqa()}, [0]))
    for uid in ("regular_plural_subject_verb_agreement_1", "wh_island"):
        pairs = {"train": lines(DATA / f"blimp/{uid}.jsonl")}
        found.append(("blimp", uid, f"blimp/{uid}.yaml", pairs, [0]))
    for uid in ("BA_negation", "classifier_noun_agreement"):
        pairs = {"train": lines(DATA / f"ZhoBLiMP/{uid}.jsonl")}
        found.append(("zhoblimp", uid, f"zhoblimp/{uid}.yaml", pairs, [0]))
    passages = {"test": lines(DATA / "lambada/lambada_test.jsonl")}
    found.append(("lambada", "all", "lambada/lambada_openai.yaml", passages, [0]))
    gsm = {s: lines(DATA / f"gsm8k/{s}.jsonl") for s in ("train", "test")}
    found.append(("gsm8k", "all", "gsm8k/gsm8k.yaml", gsm, [0, 5]))
    return found


def config_of(file: Path) -> dict[str, Any]:
    """A task file with what it includes."""
    try:
        from lm_eval.utils import load_yaml_config

        config = load_yaml_config(str(file), mode="full")
    except (ImportError, TypeError):
        from lm_eval.tasks._yaml_loader import load_yaml

        config = load_yaml(file, resolve_func=True, recursive=True)
    return {k: v for k, v in config.items() if k not in ("task_alias", "tag", "group")}


def main() -> None:
    goldens = []
    for name, subject, file, splits, shots in cases():
        config = config_of(HARNESS / file)
        with tempfile.TemporaryDirectory() as folder:
            files = {}
            for split, records in splits.items():
                path = Path(folder) / f"{split}.jsonl"
                path.write_text("\n".join(json.dumps(r) for r in records), encoding="utf-8")
                files[split] = str(path)
            config |= {
                "dataset_path": "json",
                "dataset_name": None,
                "dataset_kwargs": {"data_files": files, "cache_dir": folder},
            }
            for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
                if config.get(key) not in files:
                    config.pop(key, None)
            for count in shots:
                sampler = {"fewshot_config": {"sampler": "first_n"}} if count else {}
                task = ConfigurableTask(config=config | sampler | {"num_fewshot": count})
                docs = task.test_docs() if task.has_test_docs() else task.validation_docs()
                for number, doc in enumerate(docs):
                    context = task.fewshot_context(doc, count)
                    made = task.construct_requests(
                        doc, context, metadata=(name, number, 1), apply_chat_template=False
                    )
                    asked = [list(r.args) for r in (made if isinstance(made, list) else [made])]
                    chat = task.fewshot_context(
                        doc, count, apply_chat_template=True, fewshot_as_multiturn=True,
                        chat_template=lambda turns, **rest: json.dumps(turns),
                    )  # fmt: skip
                    made_chat = task.construct_requests(
                        doc, chat, metadata=(name, number, 1), apply_chat_template=True
                    )
                    answers = made_chat if isinstance(made_chat, list) else [made_chat]
                    one = task.OUTPUT_TYPE == "loglikelihood"  # of the one choice that there is
                    answer = 0 if one else task.doc_to_target(doc)
                    goldens.append(
                        {
                            "task": name,
                            "subject": subject,
                            "number": number,
                            "shots": count,
                            "answer": answer,
                            "requests": [
                                [a if isinstance(a, str) else "" for a in r] for r in asked
                            ],
                            "turns": json.loads(chat),
                            "chat_choices": [r.args[1] for r in answers if len(answers) > 1],
                        }
                    )
    result = {"harness": f"lm-eval {version('lm-eval')}", "goldens": goldens}
    text = json.dumps(result, ensure_ascii=False, indent=1)
    (HERE / "goldens_lm_eval.json").write_text(text + "\n", encoding="utf-8")
    print(len(goldens), yaml.__version__)


if __name__ == "__main__":
    main()
