"""Writes goldens_opencompass.json: the texts that OpenCompass compares for the fixtures in data/.

    python tests/evaluate/make_goldens_opencompass.py CONFIGS
    (needs opencompass; CONFIGS is its folder opencompass/configs/datasets)

Its published configurations, prompt templates, retriever and the template parser of its
`HuggingFaceBaseModel` are used.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from make_goldens import DATA, HERE, chosen, lines, mmlu, piqa, rows
from opencompass.models.base import LMTemplateParser
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.openicl.icl_retriever.icl_fix_k_retriever import FixKRetriever

Rows = list[dict[str, Any]]


def lettered(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    texts = record["choices"]["text"]
    return record | {f"{prefix}{letter}": text for letter, text in zip("ABCD", texts, strict=False)}


def cases() -> list[tuple[str, str, str, str, str, Rows, Rows]]:
    """(our task, subject, config, its variable, its dataset, examples, questions)."""
    found: list[Any] = []
    for subject in ("law", "computer_network"):
        dev = rows(DATA / f"ceval-exam/dev/{subject}_dev.csv")
        val = rows(DATA / f"ceval-exam/val/{subject}_val.csv")
        config = "ceval/ceval_ppl_578f8d.py"
        found.append(("ceval", subject, config, "ceval_datasets", subject, dev, val))
        config = "ceval/ceval_gen_5f30c7.py"
        found.append(("ceval", subject, config, "ceval_datasets", subject, dev, val))
    china = [
        [
            {**r, "question": r["Question"], "answer": r["Answer"]}
            for r in rows(DATA / f"cmmlu/{s}/chinese_history.csv")
        ]
        for s in ("dev", "test")
    ]
    name = "chinese_history"
    found.append(("cmmlu", name, "cmmlu/cmmlu_ppl_8b9c76.py", "cmmlu_datasets", name, *china))
    religions = [
        [
            {
                "input": r["question"],
                **dict(zip("ABCD", r["choices"], strict=True)),
                "target": "ABCD"[r["answer"]],
            }
            for r in mmlu(DATA / f"mmlu/{s}/world_religions_{s}.csv")
        ]
        for s in ("dev", "test")
    ]
    name = "world_religions"
    found.append(("mmlu", name, "mmlu/mmlu_ppl_ac766d.py", "mmlu_datasets", name, *religions))
    arc = [
        lettered(chosen(r, "question"), "text")
        for r in lines(DATA / "ARC-Easy/ARC-Easy-Test.jsonl")
    ]
    four = [record for record in arc if "textD" in record]
    found.append(
        ("arc_easy", "all", "ARC_e/ARC_e_ppl_a450bd.py", "ARC_e_datasets", "ARC-Easy", [], four)
    )
    book = [lettered(chosen(r, "question_stem")) for r in lines(DATA / "openbookqa/test.jsonl")]
    found.append(
        ("openbookqa", "all", "obqa/obqa_ppl_c7c154.py", "obqa_datasets", "main", [], book)
    )
    found.append(("piqa", "all", "piqa/piqa_ppl_1cf9f0.py", "piqa_datasets", "", [], piqa()))
    reading = []
    for file in sorted((DATA / "c3").glob("c3-?-dev.json")):
        for passage, asked, _ in json.loads(file.read_text(encoding="utf-8")):
            for q in asked:
                padded = q["choice"] + [q["choice"][0]] * (4 - len(q["choice"]))
                record = {"content": " ".join(passage), "question": q["question"]}
                record |= {f"choice{i}": text for i, text in enumerate(padded)}
                reading.append(record | {"label": q["choice"].index(q["answer"])})
    found.append(("c3", "all", "CLUE_C3/CLUE_C3_ppl_e24a31.py", "C3_datasets", "", [], reading))
    return found


def texts(
    config: dict[str, Any], examples: Rows, questions: Rows, shots: int, generates: bool
) -> list[list[str]]:
    """The text of every label, or the one to be continued, for every question."""
    infer = config["infer_cfg"]

    def make(key: str) -> PromptTemplate | None:
        if key not in infer:
            return None
        kept = {k: v for k, v in infer[key].items() if k != "type"}
        return PromptTemplate(**kept)

    ice_template, prompt_template = make("ice_template"), make("prompt_template")
    reader = SimpleNamespace(output_column=config["reader_cfg"]["output_column"])
    dataset = SimpleNamespace(reader=reader, train=examples, test=questions)
    retriever = FixKRetriever(dataset, fix_id_list=list(range(shots)))
    labels = []
    if not generates:
        labels = retriever.get_labels(ice_template=ice_template, prompt_template=prompt_template)
    parser, found = LMTemplateParser(), []
    for number in range(len(questions)):
        ice = retriever.generate_ice(list(range(shots)), ice_template=ice_template)
        if generates:
            prompt = retriever.generate_prompt_for_generate_task(
                number, ice, ice_template=ice_template, prompt_template=prompt_template
            )
            found.append([parser.parse_template(prompt, mode="gen")])
            continue
        made = []
        for label in labels:
            prompt = retriever.generate_label_prompt(
                number, ice, label, ice_template=ice_template, prompt_template=prompt_template
            )
            made.append(parser.parse_template(prompt, mode="ppl"))
        found.append(made)
    return found


def main(configs: Path) -> None:
    goldens = []
    for task, subject, file, variable, name, examples, questions in cases():
        several = runpy.run_path(str(configs / file))[variable]
        config = next(c for c in several if not name or c.get("name") == name)
        for shots in (5, 3) if examples else (0,):
            made = texts(config, examples, questions, shots, "_gen_" in file)
            style = "opencompass-gen" if "_gen_" in file else "opencompass"
            asked = {"task": task, "style": style, "subject": subject, "shots": shots}
            goldens += [asked | {"number": n, "texts": t} for n, t in enumerate(made)]
    result = {"harness": "OpenCompass, its repository of August 2026", "goldens": goldens}
    text = json.dumps(result, ensure_ascii=False, indent=1)
    (HERE / "goldens_opencompass.json").write_text(text + "\n", encoding="utf-8")
    print(len(goldens))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
