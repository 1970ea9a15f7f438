"""What the stages of a recipe share: the run, the marks of what was done, skipping, timing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.console import headline
from miao.errors import MiaoError
from miao.files import fingerprint
from miao.recipe import STAGES, Recipe
from miao.rundir import RunDir
from miao.train.world import World

# Options that change neither data nor, without trouble, weights: changing them redoes no stage.
NOT_IN_FINGERPRINT = {
    "enabled", "log_every", "eval_every", "sample_every", "save_every", "keep_last", "keep_every",
    "micro_batch", "spike_action", "spike_threshold", "spike_window", "workers", "fast_encoder",
    "activation_checkpointing", "parallel_answers",
}  # fmt: skip


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
