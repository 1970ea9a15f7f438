"""The room of the data: records of a corpus or of your files, and what the rules do to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from miao.corpus.clean.cleaner import Cleaner, Rejected
from miao.corpus.clean.rules import reasons
from miao.corpus.read.formats import RecordCounts, convert_file
from miao.corpus.read.kinds import sniff_kind
from miao.corpus.read.sources import find_sources
from miao.corpus.records import KINDS, Document, Record, text_of
from miao.errors import MiaoError
from miao.files import read_json
from miao.recipe.cleaning import CleanOptions
from miao.rundir import RunDir
from miao.serve.problems import Problem
from miao.studio.inside import explained, fresh
from miao.studio.place import Place

PAGE = 20
"""Records that are shown at a time."""
SCANNED = 5_000
"""Records that are looked through for them in one request; the next one goes on."""
LONGEST = 20_000
"""Characters of a text that are shown, or tried."""
Stage = Literal["pretrain", "sft", "dpo"]
NEAR = "near-duplicate"
NOT_NAMED: dict[str, Any] = {
    "keep_functions": [], "edit_functions": [], "blocklists": [], "blocked_domains": [],
    "classifier": None,
}  # fmt: skip


class Wanted(BaseModel):
    """Which records: of a run's corpus (run, stage, split, source), or of a file or folder below
    the roots (path). least, most: characters. rule: only what this rule changes or rejects.
    text: only what holds it. after: records that were looked through before."""

    model_config = ConfigDict(extra="forbid")
    run: str | None = None
    path: str | None = None
    stage: Stage = "pretrain"
    split: Literal["train", "heldout"] = "train"
    source: str | None = Field(None, max_length=200)
    rule: str | None = Field(None, max_length=100)
    text: str | None = Field(None, max_length=200)
    least: int = Field(0, ge=0)
    most: int | None = Field(None, ge=0)
    after: int = Field(0, ge=0)


class Trial(BaseModel):
    """A text for the rules of a run, or (without one) those of a recipe that says nothing."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=LONGEST)
    run: str | None = None


def add_data(app: FastAPI, place: Place) -> None:
    """Adds the routes of the room."""

    @app.get("/studio/data/{name}")
    def look(name: str) -> Response:
        """Sources of a run's corpus, what the rules did to it, and near-duplicates."""
        return fresh(explained(lambda: summary(place.run(name))))

    @app.post("/studio/records")
    def browse(wanted: Wanted) -> Response:
        """Records, some at a time."""
        return fresh(explained(lambda: records(place, wanted)))

    @app.post("/studio/rules")
    def attempt(trial: Trial) -> Response:
        """What the rules do to a text."""
        run = None if trial.run is None else place.run(trial.run)
        found = explained(lambda: judged(Cleaner(_rules(run)), Document(trial.text)))
        return fresh(found | {"why": reasons()})


def summary(run: RunDir) -> dict[str, Any]:
    """Of each stage: its sources with tokens per character, the rules with their counts and
    examples (before, after), and pairs of near-duplicates.

    Raises:
        MiaoError: the run has no corpus, or a damaged one.
    """
    path = run.corpus / "manifest.json"
    if not path.is_file():
        raise MiaoError("the run has no corpus yet", where=run.path.name)
    manifest, kept = read_json(path), run.corpus / "examples.json"
    examples = read_json(kept) if kept.is_file() else {}
    return {
        "stages": {
            stage: {
                "sources": [_source(run, stage, name, n) for name, n in sources.items()],
                **_rules_of(manifest.get("accounts", {}).get(stage, {}), examples.get(stage, {})),
            }
            for stage, sources in manifest["sources"].items()
            if stage in KINDS
        },
        "why": reasons(),
    }


def _source(run: RunDir, stage: str, name: str, counts: dict[str, int]) -> dict[str, Any]:
    """Records and characters of a source, and its tokens where it has been tokenised."""
    from miao.shards.dataset import (
        read_manifest,
    )  # it loads torch, which a studio at rest needs not

    tokens = 0
    shards = [run.shards(stage, split) / name / "manifest.json" for split in ("train", "heldout")]
    for path in shards:
        if path.is_file():
            tokens += read_manifest(path).tokens
    characters = counts["characters"]
    per = tokens / characters if tokens and characters else None
    named = {key: counts[key] for key in ("train", "heldout", "characters")}
    return {"name": name, **named, "tokens": tokens or None, "tokens_per_character": per}


def _rules_of(accounts: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    rejected, edited = accounts.get("rejected", {}), accounts.get("edited", {})
    rules = [
        {
            "rule": rule,
            "rejected": rejected.get(rule, 0),
            "edited": edited.get(rule, 0),
            "examples": examples.get(rule, []),
        }
        for rule in dict.fromkeys([*rejected, *edited, *examples])
        if rule != NEAR
    ]
    copies = {key: accounts.get(key, 0) for key in ("exact", "near", "contaminated")}
    return {"read": accounts.get("read"), **copies, "rules": rules, "pairs": examples.get(NEAR, [])}


def records(place: Place, wanted: Wanted) -> dict[str, Any]:
    """Those that are wanted, as JSON with their characters and what the rules do to them; `next`
    is where another request goes on, null at the end.

    Raises:
        MiaoError: nothing is there. Problem: a path that is not allowed.
    """
    run = None if wanted.run is None else place.run(wanted.run)
    cleaner = Cleaner(_rules(run))
    shown: list[dict[str, Any]] = []
    number = wanted.after
    with_rules = wanted.path is not None  # a corpus has been cleaned
    for record, origin in islice(_read(place, run, wanted), wanted.after, wanted.after + SCANNED):
        number += 1
        if not _is_wanted(record, wanted):
            continue
        found = judged(cleaner, record) if with_rules else {"edits": [], "rejected": None}
        rules = {edit["rule"] for edit in found["edits"]}
        rules |= {found["rejected"]["rule"]} if found["rejected"] else set()
        if wanted.rule and wanted.rule not in rules:
            continue
        text = text_of(record)
        shown.append(
            {
                "record": _shortened(record.to_json()),
                "characters": len(text),
                "origin": origin,
                "number": number,
                **found,
            }
        )
        if len(shown) == PAGE:
            break
    is_end = len(shown) < PAGE and number < wanted.after + SCANNED
    return {"records": shown, "next": None if is_end else number, "why": reasons()}


def judged(cleaner: Cleaner, record: Record) -> dict[str, Any]:
    """What the rules do to a record: each edit before and after, the first rule that rejects it
    with what it measured, and the text that would be kept."""
    edits, texts = [], [text_of(record)]
    for edit in cleaner.edits:
        changed = edit.apply(texts[-1])
        if changed != texts[-1]:
            before, now = texts[-1][:LONGEST], changed[:LONGEST]
            edits.append({"rule": edit.name, "before": before, "after": now})
            texts.append(changed)
    found = cleaner.clean(record)
    if isinstance(found, Rejected):
        why = {"rule": found.rule, "detail": found.detail}
        return {"edits": edits, "rejected": why, "text": None}
    return {"edits": edits, "rejected": None, "text": text_of(found.record)[:LONGEST]}


def _read(place: Place, run: RunDir | None, wanted: Wanted) -> Iterator[tuple[Record, str]]:
    """The records in order, and where each comes from. What cannot be read is passed over here;
    `miao corpus check` names it."""
    if (run is None) == (wanted.path is None):
        raise Problem(400, "name either a run or a path", "run")
    if wanted.path is not None:
        path = place.text(wanted.path)
        files = [file for file, _ in find_sources([str(path)], lambda file, why: None)]
        files = [place.text(str(file)) for file in files]
    else:
        assert run is not None
        folder = run.corpus / wanted.stage / wanted.split
        files = sorted(folder.glob("*.jsonl"))
        if wanted.source is not None:
            files = [file for file in files if file.stem == wanted.source]
        if not files:
            raise MiaoError(f"the corpus has nothing of {wanted.stage}, {wanted.split}")
    for file in files:
        kind = KINDS[wanted.stage] if run is not None else sniff_kind(file) or "document"
        found = convert_file(file, kind, file.stem, lambda problem: None, RecordCounts())
        for record, _, _ in found:
            yield record, record.source or file.name


def _is_wanted(record: Record, wanted: Wanted) -> bool:
    text = text_of(record)
    fits = wanted.least <= len(text) <= (wanted.most or len(text))
    return fits and (not wanted.text or wanted.text.casefold() in text.casefold())


def _rules(run: RunDir | None) -> CleanOptions:
    """The rules of a run's recipe but for functions and files that it names: what a stranger's run
    names is neither executed nor read."""
    from miao.inspect.models import recipe_of

    return CleanOptions() if run is None else replace(recipe_of(run).corpus.clean, **NOT_NAMED)


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value[:LONGEST] + ("…" if len(value) > LONGEST else "")
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    return value
