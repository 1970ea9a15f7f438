"""What people think of answers, kept with the run, and a recipe that learns from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field

from miao.errors import MiaoError
from miao.files import append_jsonl, read_jsonl, write_jsonl, write_text
from miao.recipe.reading import load_recipe
from miao.rundir import RunDir
from miao.serve.problems import Problem
from miao.studio.inside import Reader
from miao.studio.place import Place

FILE = "feedback.jsonl"
STEPS = 40
"""About so many optimizer steps are made of however little there is."""
BATCH = 256
"""Tokens of a step: few, since there are few."""
MOST_EPOCHS = 50
HALF = "\ufffd"
MOST_SHOWN = 12
"""Answers of which is told how likely they became."""


class Turn(BaseModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(max_length=200_000)


class Opinion(BaseModel):
    """What somebody says of an answer.

    kind: up, down: of `answer`; better: `answer` than `other`; corrected: `answer` is how it should
    have been, `other` what the model said. messages: all before the answer.
    """

    model: str
    kind: Literal["up", "down", "better", "corrected"]
    messages: list[Turn] = Field(min_length=1, max_length=1000)
    answer: str = Field(max_length=200_000)
    other: str | None = Field(None, max_length=200_000)


def note(run: RunDir, opinion: Opinion) -> None:
    """Adds an opinion to the run's `feedback.jsonl`."""
    append_jsonl(run.path / FILE, opinion.model_dump(exclude_none=True))


def records(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """The opinions as records of training: `labels` (KTO), `pairs` (DPO), `turns` (SFT). Of one
    answer the last opinion counts; what is damaged is left out, as are the halves of characters
    that a young model says, which no corpus takes."""
    last: dict[tuple[str, str, str], Opinion] = {}
    for line in read_jsonl(run.path / FILE, lambda problem: None):
        try:
            one = Opinion.model_validate(line)
        except ValueError:
            continue
        one.answer = one.answer.replace(HALF, "")
        one.other = None if one.other is None else one.other.replace(HALF, "")
        if not one.answer.strip():
            continue
        thumbs = "thumb" if one.kind in ("up", "down") else one.kind
        asked = "\n".join(turn.content for turn in one.messages)
        last[thumbs, asked, one.answer] = one
    found: dict[str, list[dict[str, Any]]] = {"labels": [], "pairs": [], "turns": []}
    for one in last.values():
        prompt = [turn.model_dump() for turn in one.messages]
        answer = _said(one.answer)
        if one.kind in ("up", "down"):
            label = {"prompt": prompt, "completion": answer, "label": one.kind == "up"}
            found["labels"].append(label)
        elif (one.other or "").strip() and one.other != one.answer:
            pair = {"prompt": prompt, "chosen": answer, "rejected": _said(one.other or "")}
            found["pairs"].append(pair)
        if one.kind == "corrected":
            found["turns"].append({"messages": prompt + answer})
    return found


def lesson(run: RunDir, model: Path, folder: Path, name: str) -> list[str]:
    """Writes data and a recipe that goes on from a model with what was said; returns the words of
    the command. Thumbs make it KTO, for which a pair is one good and one bad answer; else the
    pairs are DPO's. Corrected answers are an SFT before.

    Raises:
        Problem: 400, nothing was said yet.
        MiaoError: the run has no tokenizer.
    """
    found = records(run)
    labels, pairs, turns = found["labels"], found["pairs"], found["turns"]
    if not (labels or pairs):
        raise Problem(400, "nothing was said of this run's answers yet: 👍 👎 better, correct")
    if not (model / "tokenizer.json").is_file():
        raise MiaoError("a finished stage is needed to learn from feedback", where=model)
    if labels:
        for pair in pairs:
            both = (("chosen", True), ("rejected", False))
            labels += [
                {"prompt": pair["prompt"], "completion": pair[key], "label": good}
                for key, good in both
            ]
    opinions = labels or pairs
    write_jsonl(folder / "opinions.jsonl", opinions)
    corpus: dict[str, Any] = {
        "preferences": [str(folder / "opinions.jsonl")],
        "heldout": 0.0,
        "seedbed": {"characters": "0.2M", "conversations": 1000, "preferences": 0},
    }
    recipe: dict[str, Any] = {
        "corpus": corpus,
        "tokenizer": {"path": str(model)},
        "model": {"path": str(model)},
        "pretrain": {"enabled": False},
        "sft": {"enabled": False},
        "dpo": {
            "loss": "kto" if labels else "sigmoid",
            "epochs": _epochs(opinions),
            "batch_tokens": BATCH,
            "seq_len": BATCH,
        },
        "evaluate": {"enabled": False},
    }
    if turns:
        write_jsonl(folder / "turns.jsonl", turns)
        corpus["conversations"] = [str(folder / "turns.jsonl")]
        epochs = _epochs(turns)
        recipe["sft"] = {"epochs": epochs, "batch_tokens": BATCH, "seq_len": BATCH}
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False))
    return ["run", str(folder / "recipe.yaml"), "--name", name, "--out_dir", str(run.path.parent)]


def effect(place: Place, reader: Reader, name: str) -> dict[str, Any]:
    """What a run has learned from what was said: of each answer whether it was liked, and how
    likely it is to the model before and after, as a probability per token.

    Raises:
        Problem: 404, it is no such run, or has not finished; a model is gone.
    """
    run = place.run(name)
    recipe = load_recipe(run.path / "recipe.yaml")
    before, lessons = Path(recipe.model.path or ""), place.home / "lessons"
    file = Path(next(iter(recipe.corpus.preferences), ""))
    if not (file.is_relative_to(lessons) and before.is_relative_to(place.runs)):
        raise Problem(404, "this run has not learned from feedback here", "run")
    models = before.relative_to(place.runs).as_posix(), f"{name}/models/dpo"
    shown = [one for record in read_jsonl(file) for one in _judged(record)][:MOST_SHOWN]
    answers = []
    for prompt, answer, liked in shown:
        found = [reader.logprob(model, prompt, answer) for model in models]
        likely = [math.exp(logprob / max(1, tokens)) for logprob, tokens in found]
        one = {"question": prompt[-1]["content"], "answer": answer, "liked": liked}
        answers.append(one | {"before": likely[0], "after": likely[1]})
    return {"before": models[0], "after": models[1], "answers": answers}


def _judged(record: dict[str, Any]) -> Iterator[tuple[list[dict[str, str]], str, bool]]:
    """The answers of a record of training, each with its prompt and whether it was the better."""
    for key, liked in (("completion", record.get("label")), ("chosen", True), ("rejected", False)):
        if key in record:
            yield record["prompt"], record[key][0]["content"], bool(liked)


def _epochs(records: list[dict[str, Any]]) -> int:
    """So often that there are `STEPS` steps, if a token has about two bytes."""
    tokens = sum(len(json.dumps(one, ensure_ascii=False).encode()) for one in records) / 2
    return max(1, min(MOST_EPOCHS, round(STEPS * BATCH / tokens)))


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
