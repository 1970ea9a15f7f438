"""Where results lie: one folder per evaluated model, one file of answers per way of asking.

A run keeps them in RUN/benchmarks/STAGE/ and adds a line to RUN/eval_results.jsonl; other models
have a folder of their own, eval_results.jsonl included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miao import __version__
from miao.console import warn
from miao.errors import MiaoError
from miao.evaluate.scores import Score
from miao.files import read_jsonl, write_json, write_jsonl
from miao.hubs import is_hub_name
from miao.rundir import RunDir, find_model

if TYPE_CHECKING:
    from miao.evaluate.benchmark import Asked
    from miao.evaluate.results.ensemble import Ensemble
    from miao.evaluate.results.summary import Summary

FINAL = "model"
"""What the last model of a run is called beside its stages."""


@dataclass(frozen=True)
class Target:
    """A model to evaluate, and where its results go."""

    name: str
    directory: Path
    results: Path
    lines: Path
    stage: str

    def file(self, asked: Asked, split: str, chat: bool) -> Path:
        return self.results / f"{slug(asked, split, chat)}.jsonl"


def find_target(model: str, stage: str | None, out: Path | None) -> Target:
    """The model meant by a run, a directory or a hub name.

    Raises:
        MiaoError: no such model, or a stage that the run has not.
    """
    run = RunDir(Path(model))
    is_run = not is_hub_name(model) and not (run.path / "config.json").exists()
    if stage is not None and not (is_run and (run.model(stage) / "config.json").exists()):
        there = sorted(path.parent.name for path in run.path.glob("models/*/config.json"))
        raise MiaoError(
            f"there is no model of the stage {stage}",
            where=model,
            fix=f"it has {', '.join(there)}" if there else "--stage chooses a stage of a run",
        )
    directory = run.model(stage) if stage else find_model(model)
    plain = model.rpartition("/")[2].partition("@")[0] if is_hub_name(model) else None
    name = plain or run.path.resolve().name
    if is_run and plain is None:
        results = (out or run.path) / "benchmarks" / (stage or FINAL)
        lines = (out / "eval_results.jsonl") if out else run.eval_results
        return Target(name, directory, results, lines, stage or FINAL)
    folder = out or Path("eval_results") / name
    return Target(
        name, directory, folder / "benchmarks" / FINAL, folder / "eval_results.jsonl", FINAL
    )


def slug(asked: Asked, split: str, chat: bool) -> str:
    """A file name for the way of asking: equal names may be compared."""
    parts = [asked.task.name, split, asked.style_name, asked.style.scoring, f"{asked.shots}shot"]
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts + ["chat"] * chat)


def write_results(
    target: Target,
    asked: Asked,
    summary: Summary | None,
    split: str,
    chat: bool,
    facts: dict[str, Any],
) -> Path:
    """Writes all answers, and the summary as one line of eval_results.jsonl in place of an earlier
    one of the same way of asking. Returns the file of answers."""
    path = target.file(asked, split, chat)
    write_jsonl(path, (answer.to_json() for answer in asked.answers))
    line = {
        "split": split,
        "prompts": asked.style_name,
        "scoring": asked.style.scoring,
        "shots": asked.shots,
        "chat": chat,
        **facts,
        **(summary.to_json() if summary else {"scores": []}),
    }
    _write_line(target, f"benchmark {path.stem}", asked.task.name, asked.task.title_en, line)
    return path


def write_score(
    target: Target,
    ensemble: Ensemble,
    title: str,
    limit: int | None,
    chat: bool,
    files: dict[str, str],
) -> None:
    """The score of a set of tasks as one line of eval_results.jsonl.

    Args:
        files: of each task the file of its answers.
    """
    stage = f"score {ensemble.name}" + f" limit {limit}" * (limit is not None) + " chat" * chat
    line = {
        "limit": limit,
        "chat": chat,
        "ensemble": ensemble.to_json(),
        "files": files,
        "scores": [score.to_json() for score in ensemble.scores()],
    }
    _write_line(target, stage, ensemble.name, title, line)


def write_scores(
    target: Target, name: str, title: str, scores: Sequence[Score], facts: dict[str, Any]
) -> None:
    """Scores that no task file describes as one line of eval_results.jsonl."""
    line = {**facts, "scores": [score.to_json() for score in scores]}
    _write_line(target, name, name, title, line)


def _write_line(target: Target, way: str, task: str, title: str, more: dict[str, Any]) -> None:
    """One line of eval_results.jsonl, in place of an earlier one of the same way of asking."""
    line = {
        "stage": f"{way} of {target.stage}",
        "task": task,
        "title": title,
        "model": str(target.directory),
        "model_stage": target.stage,
        "miao": __version__,
        **more,
    }
    kept = [r for r in read_jsonl(target.lines, warn) if r.get("stage") != line["stage"]]
    write_jsonl(target.lines, [*kept, line])


def write_submission(target: Target, asked: Asked, split: str, chat: bool) -> Path:
    """The answers to an unlabelled split as {subject: {id: letter}}, for the benchmark's site."""
    letters: dict[str, dict[str, str]] = {}
    for answer in asked.answers:
        letter = answer.item.letters[answer.choice] if answer.choice is not None else ""
        letters.setdefault(answer.item.subject, {})[answer.item.id] = letter
    path = target.file(asked, split, chat).with_suffix(".submission.json")
    write_json(path, letters)
    return path


def answers_folder(path: str) -> Path:
    """The folder of answers meant by RUN, RUN:STAGE, a results folder or a folder of answers.

    Raises:
        MiaoError: nothing was evaluated there.
    """
    place, stage = Path(path), None
    if not place.exists() and ":" in path:
        before, _, stage = path.rpartition(":")
        place = Path(before)
    for folder in (place, place / "benchmarks" / (stage or FINAL)):
        if any(folder.glob("*-*shot*.jsonl")):
            return folder
    there = sorted(entry.name for entry in (place / "benchmarks").glob("*/"))
    raise MiaoError(
        "there are no answers of an evaluation here",
        where=path,
        fix=f"evaluated are {', '.join(f'{place}:{name}' for name in there)}"
        if there
        else f"miao eval {path} --tasks ceval --data FOLDER",
    )
