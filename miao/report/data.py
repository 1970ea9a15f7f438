"""What a run directory holds, read with patience: whatever is missing is empty, not an error."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.files import read_json, read_jsonl
from miao.recipe import STAGES
from miao.report.budgets import budget_of
from miao.rundir import RunDir

Record = dict[str, Any]


@dataclass(frozen=True)
class RunData:
    """Everything that the report shows, as it stands in the files."""

    name: str
    stages: list[str]
    """The training stages that the recipe enables, in order."""
    left_out: list[str]
    """Stages that it does not enable but of which an earlier run left results."""
    recipe: Record
    recipe_text: str
    machine: Record
    finished: dict[str, Record]
    """Facts of every finished stage of the chain: `seconds`."""
    metrics: dict[str, list[Record]]
    """Training log lines by stage."""
    heldout: dict[str, list[Record]]
    """Held-out log lines by stage."""
    tasks: dict[str, list[Record]]
    """Lines of tasks that were asked while training, by stage; each has `scores`."""
    samples: dict[str, list[Record]]
    evaluations: dict[str, Record]
    answers: dict[str, list[Record]]
    expected: dict[str, list[str]]
    """The texts by which the answer to a question is judged right."""
    cards: list[Record]
    """What `miao eval card` has found of this run, and of the models beside it."""
    corpus: Record
    budgets: dict[str, float]
    """Tokens of every stage of which they are known."""
    shards: dict[str, dict[str, Record]]
    """Manifest of the training shards by stage and source."""
    results: dict[str, Record]
    problems: list[str]
    """What was damaged and left out, with its place."""
    config: Record
    """`config.json` of the last stage's model."""
    parameters: int | None

    @property
    def last_evaluated(self) -> str | None:
        evaluated = [
            stage for stage in self.stages if self.evaluations.get(stage, {}).get("scores")
        ]
        return evaluated[-1] if evaluated else None

    def expected_stages(self) -> list[str]:
        """The stages of the chain that this recipe runs, but for the report itself."""
        evaluates = self.recipe.get("evaluate", {}).get("enabled", True)
        items = ["eval items"] if "eval items" in self.finished else []
        before = ["evaluate before"] if "evaluate before" in self.finished else []
        chain = ["corpus", *items, "tokenizer", "shards", *before]
        for stage in self.stages:
            chain += [stage, f"evaluate {stage}"] if evaluates else [stage]
        return chain


def read_run(run: RunDir) -> RunData:
    """Reads a run, finished or not.

    Raises:
        MiaoError: no such directory, or a damaged file in it.
    """
    if not run.path.is_dir():
        raise MiaoError(
            "there is no run here", where=run.path, fix="give a run directory: runs/NAME"
        )
    recipe_text, recipe = run.read_recipe()
    # Runs from before there was GRPO do not mention it.
    enabled = [s for s in STAGES if recipe.get(s, {}).get("enabled", s != "grpo")]
    problems: list[str] = []
    lines = _by_stage(run, run.metrics, problems)
    evaluated = _by_stage(run, run.eval_results, problems)
    evaluations = {stage: records[-1] for stage, records in evaluated.items()}
    config, parameters = _read_model(run, enabled)
    return RunData(
        name=str(recipe.get("name") or run.path.name),
        stages=enabled,
        left_out=[s for s in STAGES if s not in enabled and (s in lines or s in evaluations)],
        recipe=recipe,
        recipe_text=recipe_text,
        machine=_read_if_there(run.path / "manifest.json"),
        finished=run.facts(),
        metrics={stage: [r for r in rows if "loss" in r] for stage, rows in lines.items()},
        heldout={
            stage: [r for r in rows if "heldout_bits_per_byte" in r]
            for stage, rows in lines.items()
        },
        tasks={s: [r for r in rows if r.get("scores")] for s, rows in lines.items()},
        samples=_by_stage(run, run.samples, problems),
        evaluations=evaluations,
        answers={stage: _answers(run.answers(stage), problems) for stage in enabled},
        expected={
            record["question"]: record.get("answers", [])
            for record in read_jsonl(run.eval_items / "questions.jsonl", problems.append)
            if isinstance(record.get("question"), str)
        },
        problems=problems,
        cards=_read_if_there(run.path / "card.json").get("cards", []),
        corpus=_read_if_there(run.corpus / "manifest.json"),
        budgets={s: known for s in enabled if (known := budget_of(run, s)) is not None},
        shards={stage: _read_shards(run.shards(stage, "train")) for stage in STAGES},
        results={s: _read_if_there(run.checkpoints(s) / "result.json") for s in enabled},
        config=config,
        parameters=parameters,
    )


def _read_model(run: RunDir, stages: list[str]) -> tuple[Record, int | None]:
    """Configuration and number of parameters of the last model that there is."""
    for stage in reversed(stages):
        path = run.model(stage) / "config.json"
        if path.exists():
            from miao.model.counts import count_parameters
            from miao.model.hf_config import from_hf

            config = read_json(path)
            return config, count_parameters(from_hf(config, str(path))).total
    return {}, None


def _read_shards(directory: Path) -> dict[str, Record]:
    manifests = sorted(directory.glob("*/manifest.json"))
    return {path.parent.name: read_json(path) for path in manifests}


def _read_if_there(path: Path) -> Record:
    record = read_json(path) if path.exists() else {}
    if not isinstance(record, dict):
        raise MiaoError("the file is damaged: it holds no object", where=path)
    return record


def _by_stage(run: RunDir, path: Path, problems: list[str]) -> dict[str, list[Record]]:
    """The lines of a file of the run, by the stage that each names."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in run.read_lines(path, problems.append):
        grouped[record["stage"]].append(record)
    return dict(grouped)


def _answers(path: Path, problems: list[str]) -> list[Record]:
    """Judged answers to the held-out questions."""
    records = read_jsonl(path, problems.append)
    texts = ("question", "answer", "category")
    found = [r for r in records if all(isinstance(r.get(key), str) for key in texts)]
    if len(found) < len(records):
        problems.append(f"{path}: {len(records) - len(found)} records are no judged answers")
    return found
