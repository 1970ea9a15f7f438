"""A run directory: where everything of one run is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.files import read_json, read_jsonl, write_json, write_jsonl
from miao.hubs import download_model, is_hub_name


@dataclass(frozen=True)
class RunDir:
    """`runs/<name>/`, self-contained and deletable.

    recipe.yaml, manifest.json, stages.json, metrics.jsonl, samples.jsonl, answers/<stage>.jsonl,
    eval_results.jsonl, corpus/, eval_items/, tokenizer/, shards/<kind>/<split>/<source>/, cache/,
    checkpoints/<stage>/step-*/, models/<stage>/ (Hugging Face directories), model/ (the last of
    them), report.html.
    """

    path: Path

    @property
    def corpus(self) -> Path:
        return self.path / "corpus"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def eval_items(self) -> Path:
        return self.path / "eval_items"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def eval_results(self) -> Path:
        return self.path / "eval_results.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def final_model(self) -> Path:
        return self.path / "model"

    def shards(self, stage: str, split: str) -> Path:
        return self.path / "shards" / stage / split

    def checkpoints(self, stage: str) -> Path:
        return self.path / "checkpoints" / stage

    def model(self, stage: str) -> Path:
        return self.path / "models" / stage

    def answers(self, stage: str) -> Path:
        return self.path / "answers" / f"{stage}.jsonl"

    def finished(self, stage: str, fingerprint: str) -> bool:
        """Whether a stage is done, with these inputs and options."""
        entry = self._stages().get(stage)
        return entry is not None and entry["fingerprint"] == fingerprint

    def mark_finished(self, stage: str, fingerprint: str, **facts: Any) -> None:
        """Notes that a stage is done; `facts` (seconds, ...) are kept for the report."""
        stages = self._stages()
        stages[stage] = {"fingerprint": fingerprint, **facts}
        write_json(self.path / "stages.json", stages)

    def facts(self) -> dict[str, dict[str, Any]]:
        """What was noted of every finished stage."""
        return self._stages()

    def begin(self, stage: str, fingerprint: str) -> bool:
        """Prepares a training stage; True when half-done work of the same stage is continued.

        Checkpoints made with other inputs or options are removed.
        """
        directory = self.checkpoints(stage)
        mark = directory / "stage.json"
        if mark.exists() and read_json(mark) == {"fingerprint": fingerprint}:
            return any(directory.glob("step-*"))
        shutil.rmtree(directory, ignore_errors=True)
        write_json(mark, {"fingerprint": fingerprint})
        return False

    def replace_lines(self, path: Path, stage: str, records: list[dict[str, Any]]) -> None:
        """Puts a stage's lines in place of those it wrote before."""
        kept = [record for record in read_jsonl(path) if record["stage"] != stage]
        write_jsonl(path, [*kept, *records])

    def _stages(self) -> dict[str, dict[str, Any]]:
        path = self.path / "stages.json"
        return read_json(path) if path.exists() else {}


def find_model(path: str | Path) -> Path:
    """The model directory meant by a run directory, a model directory or a name on a hub.

    Raises:
        MiaoError: none of them, or the download fails.
    """
    if isinstance(path, str) and is_hub_name(path):  # before Path, which changes it on Windows
        return download_model(path)
    path = Path(path)
    if (path / "config.json").exists():
        return path
    if (path / "model" / "config.json").exists():
        return path / "model"
    stages = sorted((path / "models").glob("*/config.json"), key=lambda p: p.stat().st_mtime)
    if stages:
        return stages[-1].parent
    raise MiaoError(
        "neither a finished run nor a model directory",
        where=path,
        fix="give a run directory (runs/NAME), one that holds config.json and model.safetensors, "
        "or a name on a hub (hf:owner/name, modelscope:owner/name)",
    )
