"""What the stages of a recipe share: the run, the marks of what was done, skipping, timing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from miao.console import by_product, headline, say
from miao.errors import MiaoError
from miao.files import fingerprint, sha256_of, write_json, write_text
from miao.hubs import is_hub_name
from miao.provenance import provenance
from miao.recipe import STAGES, Recipe, to_dict
from miao.run.changes import changes
from miao.run.clock import RunClock
from miao.rundir import RunDir
from miao.tokenizer import Tokenizer
from miao.train.distributed.world import World

# Options that change neither data nor, without trouble, weights: changing them redoes no stage.
NOT_IN_FINGERPRINT = {
    "enabled", "log_every", "eval_every", "sample_every", "save_every", "keep_last", "keep_every",
    "micro_batch", "spike_action", "spike_threshold", "spike_window", "workers", "fast_encoder",
    "activation_checkpointing", "parallel_answers", "meant",
}  # fmt: skip

MOST_INPUTS = 200_000
"""Characters of a stage's inputs that are kept, to say later what has changed."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "generation_config.json",
)  # fmt: skip


PARTS = {"corpus": "corpus", "tokenizer": "tokenizer", **{stage: stage for stage in STAGES}}
"""Parts of a recipe, and the stage that each is for."""


@dataclass
class Chain:
    """One recipe on its way through the stages, in its run directory."""

    recipe: Recipe
    run: RunDir
    world: World
    marks: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Stages that this command runs."""
    despite_changes: bool = False
    """Half-trained stages go on although their inputs or options have changed."""
    clock: RunClock | None = None
    failed: list[str] = field(default_factory=list)
    """What stands beside the models and could not be made."""

    @contextmanager
    def stage(
        self, name: str, inputs: dict[str, Any], *outputs: Path, quiet: bool = False
    ) -> Iterator[bool]:
        """Headline, skipping, timing and bookkeeping around a stage; True: it must run.

        Args:
            inputs: all that the result depends on, by names that `changes` can say.
        """
        mark = fingerprint([name, inputs])
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
            self._say_why(name, mark, inputs)
        self.begun.add(name)
        if self.world.is_main:
            self.write_down()
        began = time.monotonic()
        yield True
        if not self.world.is_main:
            return
        seconds = time.monotonic() - began
        kept = {} if len(str(inputs)) > MOST_INPUTS else {"inputs": inputs}
        self.run.mark_finished(name, mark, seconds=round(seconds, 2), **kept)

    @contextmanager
    def beside(self, what: str) -> Iterator[None]:
        """Around what is made beside the models; the chain goes on where it fails, and says at its
        end that it did."""
        done = False
        with by_product(what):
            yield
            done = True
        if not done:
            self.failed.append(what)

    def write_down(self) -> None:
        """Keeps what the run is made with: of stages that were done by an earlier command, and not
        again by this one, the options of then."""
        now, path = to_dict(self.recipe), self.run.path / "recipe.yaml"
        try:
            before = self.run.read_recipe()[1]
        except MiaoError:  # a damaged one is written anew
            before = {}
        done = set(self.run.facts()) - self.begun
        first = next((stage for stage in STAGES if now[stage]["enabled"]), STAGES[0])
        for part, stage in (PARTS | {"model": first}).items():
            if stage in done and isinstance(before.get(part), dict):
                enabled = {"enabled": now[part]["enabled"]} if "enabled" in now[part] else {}
                now[part] = before[part] | enabled
        trained = bool(done & set(STAGES)) and not self.begun & set(STAGES)
        measured = any(name.startswith("evaluate") for name in self.begun)
        for key in now.keys() & before.keys() - {"name", "out_dir", "model", *PARTS}:
            if trained and not (key == "evaluate" and measured):
                now[key] = before[key]
        if now != before:
            write_text(path, yaml.safe_dump(now, allow_unicode=True, sort_keys=False))
        if self.begun or not (self.run.path / "manifest.json").exists():
            facts = provenance() | {"processes": self.world.size}
            write_json(self.run.path / "manifest.json", facts)

    def _say_why(self, name: str, mark: str, inputs: dict[str, Any]) -> None:
        before = self.run.facts().get(name)
        if before is None:
            return
        if before["fingerprint"] == mark:
            why = "not all of its files are there"
        elif "inputs" in before:
            why = f"changed: {changes(before['inputs'], inputs)}"
        else:
            why = "its inputs or options have changed"
        say(f"  again, {why}")
        if name in STAGES and self.run.model(name).exists():
            say("  the model of then is replaced; another --name would keep it")

    def load(self, stage: str | Path) -> Any:
        from miao.device import choose_device
        from miao.model import load_model

        directory = self.run.model(stage) if isinstance(stage, str) else stage
        tokens = Tokenizer.from_directory(self.run.tokenizer).vocab_size
        return load_model(directory, tokens).to(choose_device(self.recipe.device))


def model_mark(name: str, directory: Path) -> dict[str, str]:
    """What tells one state of a model from outside the run from another: the content of its files;
    of one on a hub the directory that it came to (with Hugging Face's client, the commit).

    Args:
        name: as the recipe has it. directory: where it lies.
    """
    if is_hub_name(name):
        return {name: directory.name}
    weights = sorted(file.name for file in directory.glob("*.safetensors"))
    return _contents(directory, ["config.json", *TOKENIZER_FILES, *weights])


def tokenizer_mark(name: str) -> dict[str, str]:
    """The same of a tokenizer. One on a hub counts by its name, which is among the options."""
    return {} if is_hub_name(name) else _contents(Path(name), TOKENIZER_FILES)


def _contents(directory: Path, names: Sequence[str]) -> dict[str, str]:
    there = [directory / name for name in names if (directory / name).is_file()]
    return {file.name: sha256_of(file) for file in there}
