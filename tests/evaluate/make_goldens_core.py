"""Writes goldens_core.json: the texts that nanochat makes of the fixture bundle.

    python tests/evaluate/make_goldens_core.py PATH/TO/nanochat/core_eval.py

The tests only read the result.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
BUNDLE = HERE / "data/eval_bundle"


def main(path: str) -> None:
    spec = importlib.util.spec_from_file_location("core_eval", path)
    assert spec and spec.loader
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    render = {
        "multiple_choice": theirs.render_prompts_mc,
        "schema": theirs.render_prompts_schema,
        "language_modeling": theirs.render_prompts_lm,
    }
    goldens = {}
    for task in yaml.safe_load((BUNDLE / "core.yaml").read_text())["icl_tasks"]:
        lines = (BUNDLE / "eval_data" / task["dataset_uri"]).read_text(encoding="utf-8")
        data = [json.loads(line) for line in lines.splitlines()]
        random.Random(1337).shuffle(data)
        (shots,), delimiter = task["num_fewshot"], task.get("continuation_delimiter", " ")
        goldens[task["label"]] = []
        for number, item in enumerate(data):  # the draw of examples stands in evaluate_example
            others = [index for index in range(len(data)) if index != number]
            shown = random.Random(1234 + number).sample(others, shots) if shots else []
            texts = render[task["icl_task_type"]](item, delimiter, [data[i] for i in shown])
            goldens[task["label"]].append(texts)
    text = json.dumps(goldens, ensure_ascii=False, indent=1)
    (HERE / "goldens_core.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
