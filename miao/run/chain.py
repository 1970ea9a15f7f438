"""What the stages of a recipe share: the run, the marks of what was done, skipping, timing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.console import headline
from miao.errors import MiaoError
from miao.files import fingerprint, sha256_of
from miao.hubs import is_hub_name
from miao.recipe import STAGES, Recipe
from miao.rundir import RunDir
from miao.train.world import World

# Options that change neither data nor, without trouble, weights: changing them redoes no stage.
NOT_IN_FINGERPRINT = {
    "enabled", "log_every", "eval_every", "sample_every", "save_every", "keep_last", "keep_every",
    "micro_batch", "spike_action", "spike_threshold", "spike_window", "workers", "fast_encoder",
    "activation_checkpointing", "parallel_answers",
}  # fmt: skip

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "generation_config.json",
)  # fmt: skip


@dataclass
class Chain:
    """One recipe on its way through the stages, in its run directory."""

    recipe: Recipe
    run: RunDir
    marks: dict[str, str]
    world: World

    @contextmanager
    def stage(
        self, name: str, inputs: list[Any], *outputs: Path, quiet: bool = False
    ) -> Iterator[bool]:
        """Headline, skipping, timing and bookkeeping around a stage; True: it must run."""
        mark = fingerprint([name, *inputs])
        self.marks[name] = mark
        if self.run.finished(name, mark) and all(output.exists() for output in outputs):
            if not quiet:
                headline(f"{name}: done before")
            yield False
            return
        if not self.world.is_main and name not in STAGES:
            raise MiaoError(
                f"'{name}' is done, but its files are not seen here",
                where=self.run.path,
                fix="put out_dir on storage that all machines share",
            )
        if not quiet:
            headline(name)
        began = time.monotonic()
        yield True
        if not self.world.is_main:
            return
        seconds = time.monotonic() - began
        self.run.mark_finished(name, mark, seconds=round(seconds, 2))

    def load(self, stage: str | Path) -> Any:
        from miao.device import choose_device
        from miao.model import load_model

        directory = self.run.model(stage) if isinstance(stage, str) else stage
        return load_model(directory).to(choose_device(self.recipe.device))


def model_mark(name: str, directory: Path) -> list[Any]:
    """What tells one state of a model from outside the run from another.

    Of a local directory: the content of its small files, size and time of its weights. Of one on a
    hub: its name and that of the directory it came to (with Hugging Face's client, the commit).

    Args:
        name: as the recipe has it. directory: where it lies.
    """
    if is_hub_name(name):
        return [name, directory.name]
    weights = sorted(directory.glob("*.safetensors"))
    return _contents(directory, ["config.json", *TOKENIZER_FILES]) + [
        [file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in weights
    ]


def tokenizer_mark(name: str) -> list[Any]:
    """The same of a tokenizer. One on a hub counts by its name, which is among the options."""
    return [] if is_hub_name(name) else _contents(Path(name), TOKENIZER_FILES)


def _contents(directory: Path, names: Sequence[str]) -> list[Any]:
    there = [directory / name for name in names if (directory / name).is_file()]
    return [[file.name, sha256_of(file)] for file in there]
