"""The room where a model is looked into: `POST /v1/inspect`, rows of its training, its code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

import miao
from miao.errors import MiaoError
from miao.rundir import RunDir
from miao.serve.board import Runs
from miao.serve.pages import HEADERS
from miao.serve.problems import Problem
from miao.studio.place import Place

PACKAGE = Path(miao.__file__).parent
DOCS = PACKAGE.parent / "docs"
CODE = (
    "inspect/inspection.py", "inspect/forward.py", "inspect/rows.py", "ops/watched_attention.py",
    "engine/sampling.py", "page/sampling.js", "page/inspect.js", "model/decoder.py",
    "shards/packing.py", "shards/loader.py", "corpus/clean/edits.py", "corpus/clean/checks.py",
    "corpus/dedup/minhash.py",
)  # fmt: skip
"""What views link to."""
LOADED = 2
"""Models in memory."""
LONGEST = 20_000
"""Characters of a text; of what is longer than an inspection only the beginning would be shown."""


class Off(BaseModel):
    """What is switched off, counted from 0."""

    model_config = ConfigDict(extra="forbid")
    tokens: list[int] = Field(default_factory=list, max_length=1000)
    layers: list[int] = Field(default_factory=list, max_length=1000)
    heads: list[tuple[int, int]] = Field(default_factory=list, max_length=1000)


class Turn(BaseModel):
    """A turn of the conversation that is looked at."""

    model_config = ConfigDict(extra="forbid")
    role: str = Field(max_length=40)
    content: str = Field(max_length=LONGEST)


class Inspection(BaseModel):
    """What to look at; its answer is described in page/inspect.js.

    Args:
        model, against: RUN/PART, as GET /studio/inside lists them.
        text, or messages and answer (text or token ids).
        without: what is switched off for a second reading; not together with `against`.
        whole: a place whose whole distribution is told. attention: whether heads are told.
    """

    model_config = ConfigDict(extra="forbid")
    model: str
    against: str | None = None
    text: str | None = Field(None, max_length=LONGEST)
    messages: list[Turn] | None = Field(None, max_length=100)
    answer: str | list[int] | None = Field(None, max_length=LONGEST)
    without: Off | None = None
    whole: int | None = None
    attention: bool = True


class Reader:
    """Loads models and reads with them, one request at a time: a training may run beside."""

    def __init__(self, place: Place):
        self._place = place
        self._one = threading.Lock()
        self._load = lru_cache(LOADED)(_load)

    def models(self) -> list[dict[str, Any]]:
        """What can be looked into: {name, run, stage, step}, the runs that changed last first."""
        from miao.inspect.models import models_of

        runs = Runs(self._place.runs).found()
        return [
            part | {"name": f"{name}/{part['name']}", "run": name}
            for name, run in runs.items()
            for part in models_of(run)
        ]

    def inspect(self, asked: Inspection) -> dict[str, Any]:
        from miao.inspect.forward import Without
        from miao.inspect.inspection import Show, inspect, most_tokens
        from miao.inspect.text import ids_of, require_same_tokens

        with self._one:
            model, tokenizer = self._model(asked.model, "model")
            against = None
            if asked.against is not None:
                against, theirs = self._model(asked.against, "against")
                require_same_tokens(tokenizer, theirs, Path(asked.against))
            show = Show(whole=asked.whole, attention=asked.attention)
            turns = None if asked.messages is None else [t.model_dump() for t in asked.messages]
            most = most_tokens(model, show)
            ids, prompt = ids_of(tokenizer, asked.text, turns, asked.answer, most)
            without = None
            if (off := asked.without) is not None:
                without = Without(off.tokens, off.layers, off.heads)
            return inspect(model, tokenizer, ids, prompt, show, against, without)

    def likely(
        self, name: str, asked: Sequence[tuple[Sequence[dict[str, Any]], str]]
    ) -> list[float]:
        """Of answers to conversations: the mean probability (geometric) of a token."""
        from math import exp

        from miao.evaluate.measure.likelihood import sequence_logprobs
        from miao.inspect.text import ids_of

        with self._one:
            model, tokenizer = self._model(name, "model")
            most = model.config.context_length
            read = [ids_of(tokenizer, None, turns, answer, most) for turns, answer in asked]
            values = sequence_logprobs(model, [ids for ids, _ in read])
        means = (t[prompt - 1 :].mean() for t, (_, prompt) in zip(values, read, strict=True))
        return [exp(float(mean)) for mean in means]

    def row(self, name: str, stage: str, split: str, number: int) -> dict[str, Any]:
        """A row of the run that a model is of, as this model finds it."""
        from miao.inspect.models import recipe_of
        from miao.inspect.rows import packed_row
        from miao.recipe import STAGES

        run = self._run(name)
        if stage not in STAGES or split not in ("train", "heldout"):
            raise Problem(400, "stage: pretrain, sft or dpo; split: train or heldout", "stage")
        with self._one:
            model, tokenizer = self._model(name, "model")
            chosen: Any = split
            return packed_row(run, recipe_of(run), stage, number, chosen, tokenizer, model)

    def _run(self, name: str) -> RunDir:
        return self._place.run(name.partition("/")[0])

    def _model(self, name: str, param: str) -> Any:
        from miao.inspect.models import models_of

        run, part = self._run(name), name.partition("/")[2]
        if not any(each["name"] == part for each in models_of(run)):
            raise Problem(404, f"there is no such model: {name[:200]!r}", param)
        path = run.path / part
        return self._load(path, path.stat().st_mtime_ns)


def _load(path: Path, changed: int) -> Any:
    from miao.inspect.models import load

    return load(path)


def add_inside(app: FastAPI, place: Place) -> None:
    """Adds the routes of the room."""
    reader: Reader = app.state.reader

    @app.get("/studio/inside")
    def look() -> Response:
        """The models, and whether the page about them is at hand."""
        return fresh({"models": reader.models(), "has_docs": _lesson("en").is_file()})

    @app.post("/v1/inspect")
    def inspect(asked: Inspection) -> Response:
        """What goes on inside a model while it reads a text."""
        return fresh(explained(lambda: reader.inspect(asked)))

    @app.get("/studio/inside/row")
    def pack(model: str, stage: str, split: str = "train", row: int = 0) -> Response:
        """A row that a stage trains on."""
        return fresh(explained(lambda: reader.row(model, stage, split, row)))

    @app.get("/studio/about/{name:path}")
    def about(name: str, request: Request) -> Response:
        """The code that a view links to, or the lesson about it, as text."""
        path = _lesson(name) if name in ("en", "zh") else PACKAGE / name
        if not (name in ("en", "zh", *CODE) and path.is_file()):
            raise Problem(404, "there is no such page", "name")
        text = path.read_text(encoding="utf-8")
        return PlainTextResponse(text, headers=dict(HEADERS))


def _lesson(language: str) -> Path:
    return DOCS / language / "22-inside.md"


def explained(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A mistake without the directories of this machine, as a refusal."""
    try:
        return work()
    except MiaoError as error:
        where = Path(error.where).name if error.where else ""
        fix = f" ({error.fix})" if error.fix else ""
        raise Problem(400, f"{where}{': ' if where else ''}{error.what}{fix}") from error


def fresh(content: dict[str, Any]) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})
