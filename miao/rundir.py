"""A run directory: where everything of one run is."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from miao.console import warn
from miao.errors import MiaoError
from miao.files import atomic_directory, lock, read_json, read_jsonl, write_json, write_jsonl
from miao.hubs import download_model, is_hub_name
from miao.options import SafeLoader
from miao.recipe import STAGES

CHECKPOINT = re.compile(r"step-\d{8,}")
"""The name of a checkpoint's directory: its optimizer step."""


@dataclass(frozen=True)
class RunDir:
    """`runs/<name>/`, self-contained and deletable.

    recipe.yaml, manifest.json, stages.json, metrics.jsonl, breaks.jsonl, samples.jsonl,
    answers/<stage>.jsonl, eval_results.jsonl, corpus/, eval_items/, tokenizer/,
    shards/<kind>/<split>/<source>/, cache/, checkpoints/<stage>/step-*/, models/<stage>/ (Hugging
    Face directories), model/ (a copy of the last of them), report.html.
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
    def breaks(self) -> Path:
        return self.path / "breaks.jsonl"

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

    def read_recipe(self) -> tuple[str, dict[str, Any]]:
        """`recipe.yaml` as text and as what it holds; both empty where there is none.

        Raises:
            MiaoError: it is damaged.
        """
        path = self.path / "recipe.yaml"
        if not path.is_file():
            return "", {}
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            recipe = yaml.load(text, SafeLoader) or {}
        except yaml.YAMLError as error:
            raise MiaoError(f"the recipe is not YAML: {error}", where=path) from error
        if not isinstance(recipe, dict):
            raise MiaoError("the recipe is not a mapping of options", where=path)
        return text, recipe

    def read_lines(self, path: Path, pass_over: Callable[[str], None]) -> list[dict[str, Any]]:
        """The lines of one of the run's files, each naming its stage. What is damaged, a line or a
        score in it, is left out and `pass_over` is told: one bad record hides no others."""
        found = []
        for number, record in enumerate(read_jsonl(path, pass_over), 1):
            fits = isinstance(record.get("stage"), str) and all(map(_fits, record.items()))
            if not fits or (CURVES & record.keys() and record.get("tokens") is None):
                pass_over(f"{path}: record {number} is none that a run writes")
                continue
            if bad := [score for score in record.get("scores", []) if not _is_score(score)]:
                record["scores"] = [score for score in record["scores"] if _is_score(score)]
                pass_over(f"{path}: record {number}: {len(bad)} of its scores are damaged")
            found.append(record)
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While entered, no other command may change this run.

        Raises:
            MiaoError: another one does now.
        """
        with open(self.path / ".lock", "ab") as file:
            try:
                lock(file)
            except OSError as error:
                raise MiaoError(
                    "another miao is at work in this run",
                    where=self.path,
                    fix="wait until it has ended, or give this one another --name",
                ) from error
            file.truncate(0)
            file.write(json.dumps(self._holder(os.getpid())).encode())
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def _holder(self, pid: int) -> dict[str, Any]:
        return {"host": socket.gethostname(), "pid": pid, "run": os.fsdecode(self.path.resolve())}

    def is_worked_in(self) -> bool:
        """Whether a command works in this run now, on this machine."""
        return self.worker() is not None

    def worker(self) -> int | None:
        """The process of the command that works in this run now, on this machine (0: not known). A
        copy of a run that somebody works in has none; nor has what a killed process left."""
        try:
            holder = json.loads((self.path / ".lock").read_bytes())
        except PermissionError:
            return 0 if os.name == "nt" else None  # there, nobody reads what is locked
        except (OSError, ValueError):
            return None
        pid = holder.get("pid") if isinstance(holder, dict) else None
        if not isinstance(pid, int) or holder != self._holder(pid) or os.name == "nt":
            return None
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except PermissionError:  # another user's
            pass
        return pid

    def finished(self, stage: str, fingerprint: str) -> bool:
        """Whether a stage is done, with these inputs and options."""
        entry = self._stages().get(stage)
        return entry is not None and entry["fingerprint"] == fingerprint

    def mark_finished(self, stage: str, fingerprint: str, **facts: Any) -> None:
        """Notes that a stage is done; `facts` (seconds, ...) are kept for the report.

        The training stages behind one that was done with other inputs are not done any more:
        their models began with a model that is gone.
        """
        stages = self._stages()
        if stage in STAGES and stages.get(stage, {}).get("fingerprint") != fingerprint:
            for later in STAGES[STAGES.index(stage) + 1 :]:
                stages.pop(later, None)
        stages[stage] = {"fingerprint": fingerprint, **facts}
        write_json(self.path / "stages.json", stages)

    def mark_left_out(self, stage: str) -> None:
        """Notes that a stage is no part of the run (any more)."""
        stages = self._stages()
        if stages.pop(stage, None) is not None:
            write_json(self.path / "stages.json", stages)

    def facts(self) -> dict[str, dict[str, Any]]:
        """What was noted of every finished stage."""
        return self._stages()

    def begin(
        self, stage: str, fingerprint: str, inputs: dict[str, Any], despite_changes: bool = False
    ) -> dict[str, Any] | None:
        """Prepares a training stage, which goes on from checkpoints of equal inputs and options.

        Those of others are set aside as `checkpoints/<stage>.before` (`.before2`, ...), or
        (`despite_changes`) gone on with; those that were set aside come back when theirs are the
        inputs and options again. Returns the inputs that half-trained work was made with; None:
        there was none of others.
        """
        _clear_leftovers(self.model(stage))
        directory, asides = self.checkpoints(stage), self.set_aside(stage)
        half = any(directory.glob("step-*")) and not (directory / "result.json").exists()
        if despite_changes and asides and not any(directory.glob("step-*")):
            shutil.rmtree(directory, ignore_errors=True)
            os.replace(asides.pop(), directory)
            half = True
        before = _begun(directory)
        changed = before.get("fingerprint") != fingerprint
        if changed and not (half and despite_changes):
            if half:
                number = int(asides[-1].suffix.removeprefix(".before") or 1) + 1 if asides else ""
                os.replace(directory, directory.with_name(f"{stage}.before{number}"))
            shutil.rmtree(directory, ignore_errors=True)
            for aside in asides:
                if _begun(aside).get("fingerprint") == fingerprint:
                    os.replace(aside, directory)
                    break
            if self.samples.exists():
                self.replace_lines(self.samples, stage, [])
        if changed:
            self.mark_begun(stage, fingerprint, inputs)
        return before.get("inputs", {}) if half and changed else None

    def mark_begun(self, stage: str, fingerprint: str, inputs: dict[str, Any]) -> None:
        """Notes what a training stage's checkpoints are made with."""
        now = {"fingerprint": fingerprint, "inputs": inputs}
        write_json(self.checkpoints(stage) / "stage.json", now)

    def set_aside(self, stage: str) -> list[Path]:
        """Half-trained work of other inputs and options, oldest first."""
        found = self.checkpoints(stage).parent.glob(f"{stage}.before*")
        return sorted(found, key=lambda path: (len(path.name), path.name))

    def last_model(self) -> Path | None:
        """The model of the last training stage that is done; where that directory was removed, the
        copy in `model/`; in a run that finished no stage, any model there is."""
        finished = self._stages()
        done = [stage for stage in STAGES if stage in finished]
        places = [self.model(done[-1])] if done else []
        places += [self.final_model, *(self.model(stage) for stage in reversed(STAGES))]
        return next((place for place in places if (place / "config.json").exists()), None)

    def update_final_model(self) -> None:
        """Makes `model/` a copy of the last training stage's model, unless it is one."""
        _clear_leftovers(self.final_model)
        last = self.last_model()
        if last is None or _same_files(last, self.final_model):
            return
        with atomic_directory(self.final_model) as temporary:
            shutil.copytree(last, temporary, dirs_exist_ok=True)

    def stage_of(self, directory: Path) -> str | None:
        """The training stage whose model a directory holds; None: of none that is there."""
        stages = (stage for stage in reversed(STAGES) if self.model(stage).is_dir())
        return next((s for s in stages if _same_files(self.model(s), directory)), None)

    def replace_lines(self, path: Path, stage: str, records: list[dict[str, Any]]) -> None:
        """Puts a stage's lines in place of those it wrote before."""
        kept = [record for record in read_jsonl(path, warn) if record.get("stage") != stage]
        write_jsonl(path, [*kept, *records])

    def _stages(self) -> dict[str, dict[str, Any]]:
        path = self.path / "stages.json"
        return read_json(path) if path.exists() else {}


NUMBERS = {"step", "tokens", "loss", "lr", "seconds", "grad_norm", "tokens_per_second"}
TEXTS = {"prompt", "answer", "event"}
CURVES = {"loss", "heldout_bits_per_byte", "heldout_reward"}
"""Values that are drawn over tokens."""


def _fits(item: tuple[str, Any]) -> bool:
    """Whether a value is of the kind that lines of a run have under this key."""
    key, value = item
    if key in NUMBERS or key.startswith("heldout_"):
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if key == "scores":
        return isinstance(value, list)
    return key not in TEXTS or isinstance(value, str)


def _is_score(score: Any) -> bool:
    return (
        isinstance(score, dict)
        and all(isinstance(score.get(key), str) for key in ("task", "category"))
        and all(isinstance(score.get(key), int | float) for key in ("value", "count"))
        and all(isinstance(score.get(key), int | float | None) for key in ("stderr", "chance"))
    )


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
    run = RunDir(path)
    if (model := run.last_model()) is not None:
        return model
    if begun := [stage for stage in STAGES if run.checkpoints(stage).exists()]:
        raise MiaoError(
            f"no stage of this run has finished yet: it is in {begun[-1]}",
            where=path,
            fix="wait for it, or run the recipe again, which goes on",
        )
    raise MiaoError(
        "neither a finished run nor a model directory",
        where=path,
        fix="give a run directory (runs/NAME), one that holds config.json and model.safetensors, "
        "or a name on a hub (hf:owner/name, modelscope:owner/name)",
    )


def list_checkpoints(directory: Path) -> list[Path]:
    """All checkpoints, oldest first; whether they are whole shows when they are read."""
    found = [p for p in directory.glob("step-*") if CHECKPOINT.fullmatch(p.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was made."""
    return int(checkpoint.name.removeprefix("step-"))


def _begun(directory: Path) -> dict[str, Any]:
    mark = directory / "stage.json"
    return read_json(mark) if mark.exists() else {}


def _same_files(model: Path, other: Path) -> bool:
    """Whether every file of a model is in another directory too. What has the size and the time of
    its copy is not read."""
    names = [file.name for file in model.iterdir() if file.is_file()]
    if not names or not other.is_dir():
        return False
    return len(filecmp.cmpfiles(model, other, names)[0]) == len(names)


def _clear_leftovers(directory: Path) -> None:
    """Removes what a kill has left of writing a directory."""
    for left in directory.parent.glob(f".{directory.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
