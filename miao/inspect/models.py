"""The models to look into: finished ones, and the checkpoints of a training that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miao.errors import MiaoError
from miao.hubs import is_hub_name
from miao.model import Decoder, ModelConfig, load_model, new_config
from miao.model.build import longer_config
from miao.model.directory import config_for, own_tensors
from miao.recipe import STAGES, Recipe
from miao.recipe.reading import load_recipe
from miao.rundir import CHECKPOINT, RunDir, find_model, list_checkpoints, step_of
from miao.tokenizer import Tokenizer
from miao.train.safety.parts import holds_weights, weights_of


def load(source: str | Path) -> tuple[Decoder, Tokenizer]:
    """A model in float32, and its tokenizer.

    Args:
        source: a run directory, a model directory, a name on a hub, or a checkpoint
            (runs/NAME/checkpoints/STAGE/step-00000123).

    Raises:
        MiaoError: none of them; damaged weights; the checkpoint of an adapter.
    """
    path = Path(source)
    if is_checkpoint(path):
        return load_checkpoint(path)
    directory = find_model(source)
    return load_model(directory), Tokenizer.from_directory(directory)


def is_checkpoint(path: Path) -> bool:
    """Whether a directory is one of a run's checkpoints."""
    return bool(CHECKPOINT.fullmatch(path.name)) and holds_weights(path)


def load_checkpoint(path: Path) -> tuple[Decoder, Tokenizer]:
    """The model of a checkpoint of a run, as it was then.

    Raises:
        MiaoError: it is damaged, or holds an adapter only.
    """
    run, stage = RunDir(path.absolute().parents[2]), path.absolute().parent.name
    tokenizer = Tokenizer.from_directory(run.tokenizer)
    recipe = recipe_of(run)
    model = Decoder(_config_of(run, stage, recipe, tokenizer))
    stored = weights_of(path)
    own = own_tensors(model)
    if {name: t.shape for name, t in own.items()} != {n: t.shape for n, t in stored.items()}:
        adapter = any("lora_" in name for name in stored)
        raise MiaoError(
            "this checkpoint holds an adapter only" if adapter
            else "the checkpoint does not fit the recipe beside it",
            where=path,
            fix="wait for the stage to end, and look at the run" if adapter
            else "look at the model of a finished stage: RUN/models/STAGE",
        )  # fmt: skip
    for name, tensor in own.items():
        tensor.copy_(stored[name])
    return model.eval(), tokenizer


def models_of(run: RunDir) -> list[dict[str, Any]]:
    """What of a run can be looked into, in the order of its growth: {name, stage, step or null for
    the stage's finished model}; the name is its path below the run."""
    found: list[dict[str, Any]] = []
    for stage in STAGES:
        steps = filter(holds_weights, list_checkpoints(run.checkpoints(stage)))
        found += [_entry(run, path, stage, step_of(path)) for path in steps]
        if (run.model(stage) / "config.json").is_file():
            found.append(_entry(run, run.model(stage), stage, None))
    return found


def _entry(run: RunDir, path: Path, stage: str, step: int | None) -> dict[str, Any]:
    return {"name": path.relative_to(run.path).as_posix(), "stage": stage, "step": step}


def _config_of(run: RunDir, stage: str, recipe: Recipe, tokenizer: Tokenizer) -> ModelConfig:
    """The configuration that a stage trains, without its weights."""
    before = STAGES[: STAGES.index(stage)] if stage in STAGES else ()
    bases = [run.model(each) for each in reversed(before)]
    given = recipe.model.path
    if given is not None and not is_hub_name(given):
        bases.append(find_model(given))
    base = next((path for path in bases if (path / "config.json").is_file()), None)
    if base is not None:
        return longer_config(config_for(base, tokenizer.vocab_size), recipe.model)
    if given is not None:  # a stranger's recipe does not make us download what it names
        raise MiaoError(
            "the model that this stage began with is not there",
            where=run.path,
            fix="look at a finished stage: RUN/models/STAGE",
        )
    return new_config(recipe.model, tokenizer.vocab_size, tokenizer.end_of_turn_id)


def recipe_of(run: RunDir) -> Recipe:
    """The recipe of a run.

    Raises:
        MiaoError: it has none, or a damaged one.
    """
    path = run.path / "recipe.yaml"
    if not path.is_file():
        raise MiaoError("this is no run: it has no recipe.yaml", where=run.path)
    return load_recipe(path)
