"""The room where models are talked to, compared, and told what was good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from miao.files import append_jsonl, read_jsonl
from miao.rundir import RunDir
from miao.serve.problems import Problem
from miao.studio.effect import effect
from miao.studio.feedback import FILE, Opinion, lesson, lessons, note, opinions, records
from miao.studio.inside import explained, fresh
from miao.studio.jobs import Jobs
from miao.studio.place import Place, checked_name
from miao.studio.voices import Voices

EVERY = 30.0
"""Seconds between two looks for models that nobody asks any more."""


class Server(BaseModel):
    url: str = Field(max_length=2000)
    key: str | None = Field(None, max_length=2000)


class Vote(BaseModel):
    """Which of two models answered better."""

    first: str = Field(max_length=400)
    second: str = Field(max_length=400)
    better: Literal["first", "second", "neither"]
    blind: bool = False


class Lesson(BaseModel):
    model: str


def add_talk(app: FastAPI, place: Place) -> None:
    """Adds the routes of the room; what it has loaded ends with the application."""
    voices = Voices(place)
    jobs: Jobs = app.state.jobs
    votes = place.home / "votes.jsonl"
    before = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[None]:
        releasing = asyncio.create_task(_release(voices))
        async with before(of):
            yield
        releasing.cancel()
        voices.close()

    app.router.lifespan_context = lifespan

    def run_of(model: str) -> RunDir:
        return place.run(model.partition("/")[0])

    def counts_of(run: RunDir) -> dict[str, Any]:
        learned = run.path.name in lessons(place.home) and run.model("dpo").is_dir()
        return _counts(run) | {"learned": learned}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        """Everything that can be talked to."""
        return {"data": [{"id": name, "object": "model"} for name in voices.models()]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        """As `miao serve` answers; the model is loaded first if need be."""
        try:
            body = json.loads(await request.body())
            model = str(body["model"])
        except (ValueError, KeyError, TypeError):
            raise Problem(400, "which model?", "model") from None
        status, kind, pieces = await asyncio.to_thread(voices.forward, model, body)
        return StreamingResponse(pieces, status, media_type=kind)

    @app.post("/studio/servers")
    def add_server(body: Server) -> dict[str, Any]:
        """Also another OpenAI-compatible server's models."""
        return {"models": voices.add_server(body.url, body.key)}

    @app.post("/studio/feedback")
    def say(body: Opinion) -> dict[str, Any]:
        """Keeps an opinion with the run of the model."""
        run = run_of(body.model)
        note(run, body)
        return counts_of(run)

    @app.get("/studio/feedback")
    def said(model: str) -> dict[str, Any]:
        """How much was said of a run's answers, and of which questions."""
        return counts_of(run_of(model))

    @app.post("/studio/learn")
    def learn(body: Lesson) -> dict[str, Any]:
        """Queues a run that learns from what was said."""
        run = run_of(body.model)
        taken = {job.name for job in jobs.all()} | {path.name for path in place.runs.iterdir()}
        taken |= {folder.name for folder, _ in lessons(place.home).values()}  # a run may be renamed
        names = (f"{run.path.name}-taught-{number}" for number in range(1, 10_000))
        name = checked_name(next(one for one in names if one not in taken))
        folder = place.home / "lessons" / name
        words = lesson(run, voices.path_of(body.model), folder, name)
        job: dict[str, Any] = jobs.add(name, words).as_json()
        return job

    @app.get("/studio/effect")
    def learned(run: str) -> Response:
        """What it has learned, answer by answer, and what else has changed."""
        return fresh(explained(lambda: effect(place, app.state.reader, run)))

    @app.post("/studio/votes")
    def vote(body: Vote) -> Response:
        """Keeps a verdict; returns the score."""
        append_jsonl(votes, body.model_dump())
        return score()

    @app.get("/studio/votes")
    def score() -> Response:
        """Of every two models that were compared: how often which was better."""
        return JSONResponse({"score": score_of(read_jsonl(votes, lambda problem: None))})


def score_of(votes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of models with how often the first, the second or neither won, the latest last."""
    pairs: dict[tuple[str, str], dict[str, int]] = {}
    turned = {"first": "second", "second": "first"}
    for vote in votes:
        first, second, better = (str(vote.get(key)) for key in ("first", "second", "better"))
        if first > second:
            first, second, better = second, first, turned.get(better, better)
        wins = pairs.pop((first, second), {"first": 0, "second": 0, "neither": 0})
        if better in wins:
            wins[better] += 1
        pairs[first, second] = wins
    return [{"models": list(models), **wins} for models, wins in pairs.items()]


def _counts(run: RunDir) -> dict[str, Any]:
    said = opinions(run.path / FILE)
    asked = dict.fromkeys(one.messages[-1].content for one in said)
    counts: dict[str, Any] = {kind: len(ones) for kind, ones in records(said).items()}
    return counts | {"run": run.path.name, "questions": list(asked)[-8:]}


async def _release(voices: Voices) -> None:
    while True:
        await asyncio.sleep(EVERY)
        await asyncio.to_thread(voices.release)
