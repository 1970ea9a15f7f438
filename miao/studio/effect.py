"""What a run has learned from what was said: answer by answer, and of what nobody spoke of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from miao.files import read_jsonl
from miao.recipe.reading import load_recipe
from miao.rundir import RunDir
from miao.serve.problems import Problem
from miao.studio.feedback import FILE, Opinion, conversations, lessons, opinions, question
from miao.studio.inside import Reader
from miao.studio.place import Place

SHOWN = 60
"""Opinions of which is told what became of them."""
HELDOUT = 40
"""Conversations that nobody has learned from, by which is told what else has changed."""
FIRST = ("corrected", "better", "down", "up")


def effect(place: Place, reader: Reader, name: str) -> dict[str, Any]:
    """Before and after a lesson, everything as a mean probability of a token:

    opinions: {kind, question, wanted, unwanted: {text, before, after} or null, now: what the model
      says to it now, or null; is_wanted: whether that is (true) the wanted or (false) the unwanted
      answer}. heldout: {count, before, after} of conversations that the run before kept for a
      test, or null. of: how many opinions there were.

    Raises:
        Problem: 404, it is no such run; 400, it has not finished; a model is gone.
    """
    run, learned = place.run(name), lessons(place.home)
    if name not in learned:
        raise Problem(404, "this run has not learned from feedback here", "run")
    folder, before = learned[name]
    models = before, f"{name}/models/dpo"
    said = opinions(folder / FILE)
    shown = sorted(said, key=lambda one: FIRST.index(one.kind))[:SHOWN]
    kept = list(islice(_heldout(place, before, learned), HELDOUT))
    asked = [(one.prompt, text) for one in shown for text in (one.wanted, one.unwanted) if text]
    asked += [(record["messages"][:-1], record["messages"][-1]["content"]) for record in kept]
    was, now = (reader.likely(model, asked) for model in models)
    pairs = zip(was, now, strict=True)
    answers = _answers_now(run)

    def told(text: str | None) -> dict[str, Any] | None:
        return (
            None
            if not text
            else {"text": text} | dict(zip(("before", "after"), next(pairs), strict=True))
        )

    found = [_told(one, told(one.wanted), told(one.unwanted), answers) for one in shown]
    rest = list(pairs)
    heldout = {"count": len(kept)} | {
        key: sum(one[n] for one in rest) / len(rest) for n, key in enumerate(("before", "after"))
    } if rest else None  # fmt: skip
    return {
        "before": models[0], "after": models[1], "of": len(said), "opinions": found,
        "heldout": heldout,
    }  # fmt: skip


def _heldout(
    place: Place, model: str, told: dict[str, tuple[Path, str]]
) -> Sequence[dict[str, Any]]:
    """Conversations kept for a test by the run of a model, or by the one that it came from."""
    for _ in range(100):  # lessons upon lessons
        run = place.run(model.partition("/")[0])
        kept = [one for one in conversations(run, "heldout") if _is_answered(one)]
        recipe = run.path / "recipe.yaml"
        if kept or not recipe.is_file():
            return kept
        if run.path.name in told:
            _, model = told[run.path.name]
            continue
        path = Path(load_recipe(recipe).model.path or "")
        if not path.is_relative_to(place.runs):
            return []
        model = path.relative_to(place.runs).as_posix()
    return []


def _is_answered(record: dict[str, Any]) -> bool:
    turns = record.get("messages") or [{}]
    return len(turns) > 1 and turns[-1].get("role") == "assistant" and bool(turns[-1]["content"])


def _answers_now(run: RunDir) -> dict[str, str]:
    """What the finished model says to the questions: the last of its samples."""
    samples = [one for one in read_jsonl(run.samples) if one.get("stage") == "dpo"]
    return {one["prompt"]: one["answer"] for one in samples}


def _told(
    one: Opinion,
    wanted: dict[str, Any] | None,
    unwanted: dict[str, Any] | None,
    answers: dict[str, str],
) -> dict[str, Any]:
    now = answers.get(question(one) or "")
    verdict = None
    if now is not None:
        same = [
            text is not None and text.strip() == now.strip() for text in (one.wanted, one.unwanted)
        ]
        verdict = True if same[0] else False if same[1] else None
    told = {"kind": one.kind, "question": one.messages[-1].content, "now": now}
    return told | {"wanted": wanted, "unwanted": unwanted, "is_wanted": verdict}
