"""The room where models are grown: what will be done, the queue, and what happens to runs."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI
from pydantic import BaseModel, Field

from miao.console import warn
from miao.hubs import is_hub_name
from miao.recipe import STAGES, Recipe, to_dict
from miao.recipe.reading import load_recipe, shipped_recipes
from miao.serve.board import Runs
from miao.serve.problems import Problem, for_reader
from miao.studio.feedback import lessons, rename_in_lessons
from miao.studio.jobs import Jobs
from miao.studio.place import Place, checked_name
from miao.studio.texts import add_texts, asked

EVERY = 2.0
"""Seconds between two looks whether the next job may begin."""
KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
VALUE = re.compile(r"[\w.+\-]{1,64}")
PLAN_SECONDS = 600
EDITED = (
    "tokenizer.vocab_size", "model.hidden_size", "model.num_hidden_layers",
    "model.num_attention_heads", "model.num_key_value_heads", "model.max_position_embeddings",
    "pretrain.tokens", "pretrain.seq_len", "pretrain.batch_tokens", "pretrain.learning_rate",
    "sft.epochs", "sft.learning_rate", "dpo.enabled", "dpo.epochs", "dpo.learning_rate",
    "evaluate.enabled", "seed",
)  # fmt: skip
"""What the table of a plan offers to change."""
FILES = {"texts": "paths", "chats": "conversations", "pairs": "preferences"}


class Wish(BaseModel):
    """A model to grow: by a recipe, as a clone of a run, or (neither given) by `miao grow`.

    minutes, until, maker, origin: of `miao grow`; origin: a run, a directory below the roots, or a
    hub's model to go on with if that promises more. texts, chats, pairs: paths below the roots.
    options: of the recipe, by dotted keys.
    """

    name: str
    recipe: str | None = None
    clone_of: str | None = None
    minutes: float | None = Field(None, gt=0, le=60 * 24 * 60)
    until: str | None = Field(None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    maker: str | None = Field(None, min_length=1, max_length=60)
    origin: str | None = Field(None, min_length=1, max_length=2000)
    texts: list[str] = Field(default_factory=list, max_length=100)
    chats: list[str] = Field(default_factory=list, max_length=100)
    pairs: list[str] = Field(default_factory=list, max_length=100)
    options: dict[str, str] = Field(default_factory=dict, max_length=100)


class NewName(BaseModel):
    new: str


class Sure(BaseModel):
    sure: str


def add_grow(app: FastAPI, place: Place) -> None:
    """Adds the routes of the room; the queue goes on while the application lives."""
    jobs: Jobs = app.state.jobs
    add_texts(app, place)
    before = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[None]:
        ticking = asyncio.create_task(_keep_ticking(jobs))
        async with before(of):
            yield
        ticking.cancel()

    app.router.lifespan_context = lifespan

    @app.get("/studio/grow")
    def look() -> dict[str, Any]:
        """Jobs, and what there is to begin with."""
        return {
            "jobs": [job.as_json() for job in jobs.all()],
            "recipes": list(shipped_recipes()),
            "before": {run: before for run, (_, before) in lessons(place.home).items()},
        }

    @app.post("/studio/plan")
    def plan(wish: Wish) -> dict[str, Any]:
        """What would be done, in a table, and the command."""
        words = words_of(wish, place)
        found = {"command": f"miao {shlex.join(words)}"}
        if words[0] == "grow":
            plan = asked([*words, "--plan", "--json"], PLAN_SECONDS)
            why = {key: for_reader(reason) for key, reason in plan["why"].items()}
            notes = [for_reader(note) for note in plan["notes"]]
            return found | {"plan": plan | {"why": why, "notes": notes}}
        return found | {"plan": {"options": _rows(load_recipe(words[1], words[2:]))}}

    @app.post("/studio/estimate")
    def estimate(wish: Wish) -> dict[str, Any]:
        """How long a recipe takes here, which the machine must be measured for."""
        _, recipe, *words = words_of(wish, place)
        found = asked(["doctor", recipe, "--json", *words], PLAN_SECONDS)
        hours = {one["stage"]: one["hours"] for one in found["stages"] if one["hours"] is not None}
        minutes = {stage: 60 * spent for stage, spent in hours.items()}
        return {"minutes": minutes, "notes": [for_reader(note) for note in found["advice"]]}

    @app.post("/studio/start")
    def start(wish: Wish) -> dict[str, Any]:
        """Queues it."""
        if (place.runs / checked_name(wish.name)).exists():
            raise Problem(409, f"there is a run called {wish.name!r} already", "name")
        job: dict[str, Any] = jobs.add(wish.name, words_of(wish, place)).as_json()
        return job

    @app.post("/studio/jobs/{name}/{what}")
    def act(name: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """pause, stop, resume or forget a job."""
        if what in ("pause", "stop"):
            return jobs.stop(name, what).as_json()  # type: ignore[arg-type]
        if what == "resume":
            return jobs.resume(name).as_json()
        if what != "forget":
            raise Problem(404, "a job can be paused, stopped, resumed or forgotten", "what")
        jobs.forget(name)
        return {}

    @app.get("/studio/jobs/{name}/log")
    def log(name: str) -> dict[str, str]:
        """The end of what it has printed."""
        return {"log": jobs.log(name)}

    @app.get("/studio/runs/{name}/wish")
    def wish_of(name: str) -> dict[str, Any]:
        """What a clone of a run would begin with."""
        recipe = _recipe_of(place, name)
        given = {field: getattr(recipe.corpus, key) for field, key in FILES.items()}
        return given | {"options": _rows(recipe)}

    @app.post("/studio/runs/{name}/rename")
    def rename(name: str, body: NewName) -> dict[str, Any]:
        """Gives a run, and its job, another name."""
        path, new = _own_run(place, name), checked_name(body.new, "new")
        if (place.runs / new).exists():
            raise Problem(409, f"there is a run called {new!r} already", "new")
        with suppress(Problem):
            words = list(jobs.get(name).words)
            jobs.rename(name, new, [*words, "--name", new] if "--name" in words else words)
        os.replace(path, place.runs / new)
        rename_in_lessons(place.home, name, new)
        return {"name": new}

    @app.post("/studio/runs/{name}/delete")
    def delete(name: str, body: Sure) -> dict[str, Any]:
        """Removes a run and its job; its name must be said once more."""
        path = _own_run(place, name)
        if body.sure != name:
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            raise Problem(409, f"say its name to delete {size / 2**20:,.0f} MiB", "sure")
        with suppress(Problem):
            jobs.forget(name)
        shutil.rmtree(path)
        if name in (told := lessons(place.home)):
            shutil.rmtree(told[name][0])
        return {}


def words_of(wish: Wish, place: Place) -> list[str]:
    """The command of a wish, without `miao`.

    Raises:
        Problem: a name, key or value that is none; a path outside of the roots; a recipe that
            would run a program of its own.
        MiaoError: options that do not fit.
    """
    name = checked_name(wish.name)
    files = {field: [str(place.text(p)) for p in getattr(wish, field)] for field in FILES}
    options = list(_option_words(wish.options))
    where = ["--name", name, "--out_dir", str(place.runs)]
    if wish.recipe is None and wish.clone_of is None:
        if not files["texts"]:
            raise Problem(400, "drop a text first, or choose a recipe: it has its own", "texts")
        given = [f"--{field}" for field in ("chats", "pairs")]
        lists = [word for flag in given for word in (flag, *files[flag[2:]]) if files[flag[2:]]]
        time = [] if wish.minutes is None else ["--minutes", f"{wish.minutes:g}"]
        time = time if wish.until is None else ["--until", wish.until]
        time += [] if wish.maker is None else [f"--maker={wish.maker}"]  # it may begin with a dash
        time += [] if wish.origin is None else [f"--from={_origin(wish.origin, place)}"]
        return ["grow", *files["texts"], *lists, *time, *where, *options]
    for field, key in FILES.items():
        if files[field]:
            options += [f"--corpus.{key}", *files[field]]
    if wish.clone_of is not None:
        recipe = str(place.run(wish.clone_of).path / "recipe.yaml")
    elif wish.recipe in shipped_recipes():
        recipe = str(wish.recipe)
    else:
        raise Problem(404, "there is no such recipe", "recipe")
    _require_harmless(load_recipe(recipe, [*where, *options]), place)
    return ["run", recipe, *where, *options]


def _option_words(options: dict[str, str]) -> Iterator[str]:
    for key, value in options.items():
        if not KEY.fullmatch(key) or key.split(".")[0] in ("name", "out_dir", "trackers", "device"):
            raise Problem(400, f"{key[:80]!r} is no option that can be changed here", key)
        if not VALUE.fullmatch(value):
            raise Problem(400, f"{value[:80]!r} is no number and no word", key)
        yield from (f"--{key}", value)


def _require_harmless(recipe: Recipe, place: Place) -> None:
    """A recipe may come from a stranger's run: it may name no program, and no file outside."""
    own = [name for name in recipe.grpo.rewards if ":" in name]
    if recipe.grpo.environment and ":" in recipe.grpo.environment:
        own.append(recipe.grpo.environment)
    if own:
        raise Problem(
            400, f"this recipe runs Python of its own ({own[0][:80]}): start it by `miao run`"
        )
    for path in _paths(recipe):
        _require_within(path.split("=", 1)[-1] if not Path(path).exists() else path, place)


def _paths(recipe: Recipe) -> Iterator[str]:
    corpus = recipe.corpus
    yield from (*corpus.paths, *corpus.conversations, *corpus.preferences, *recipe.grpo.problems)
    single = (recipe.tokenizer.path, recipe.model.path, recipe.evaluate.during.data)
    yield from (path for path in single if path)


def _origin(given: str, place: Place) -> str:
    """What `--from` takes: a run's directory for its name."""
    if (run := Runs(place.runs).found().get(given)) is not None:
        return str(run.path)
    _require_within(given, place)
    return given


def _require_within(given: str, place: Place) -> None:
    """That it is a hub's name or a path below the roots."""
    path = Path(given).resolve()
    inside = any(path.is_relative_to(root) for root in (*place.texts, place.runs))
    if not inside and not is_hub_name(given):
        raise Problem(403, f"{given[:200]} is not below the runs or a directory of --texts")


def _recipe_of(place: Place, name: str) -> Recipe:
    path = place.run(name).path / "recipe.yaml"
    if not path.is_file():
        raise Problem(404, "this run has no recipe", "run")
    try:
        return load_recipe(path)
    except yaml.YAMLError as error:
        raise Problem(400, f"its recipe is damaged: {error}", "run") from error


def _rows(recipe: Recipe) -> dict[str, Any]:
    """The options that a table offers, with their values; of stages that are off none."""
    values, found = to_dict(recipe), {}
    for key in EDITED:
        stage, _, inner = key.partition(".")
        is_off = stage in STAGES and not values[stage]["enabled"] and inner != "enabled"
        value = values[stage].get(inner) if inner else values[stage]
        if value is not None and not is_off:
            found[key] = value
    return found


def _own_run(place: Place, name: str) -> Path:
    """The directory of a run that nobody works in, directly below the runs.

    Raises:
        Problem: 404, none; 409, somebody does; 403, it is a link or the studio's only run.
    """
    run = place.run(name)
    if run.path.is_symlink() or run.path.parent.resolve() != place.runs.resolve():
        raise Problem(403, "this run is elsewhere, and stays as it is", "run")
    if run.is_worked_in():
        raise Problem(409, "a command works in this run: stop it first", "run")
    return run.path


async def _keep_ticking(jobs: Jobs) -> None:
    while True:
        try:
            await asyncio.to_thread(jobs.tick)
        except Exception as error:  # a damaged job must not end the queue
            warn(f"the queue: {type(error).__name__}: {error}")
        await asyncio.sleep(EVERY)
