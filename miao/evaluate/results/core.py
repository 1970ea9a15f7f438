"""CORE of DCLM (arXiv:2406.11794) as nanochat computes it, from the bundle that both publish.

    DIR/core.yaml             the tasks: label, file, number of examples, kind, delimiter
    DIR/eval_meta_data.csv    what guessing gives, in per cent
    DIR/eval_data/...         the questions, .jsonl

Three kinds of task. multiple_choice: options behind one query; schema: one continuation behind
several contexts; the lowest mean loss over the tokens that differ (that are common) is chosen.
language_modeling: right is what greedy decoding writes. Every text begins with the token that
documents begin with. Examples are drawn for every question from all others of the task.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miao.console import warn
from miao.errors import MiaoError
from miao.evaluate.benchmark import Answer, Asked
from miao.evaluate.measure.continuations import Continuation, continuation_logprobs
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.results.ensemble import Ensemble, part_of
from miao.evaluate.tasks.items import Item
from miao.evaluate.tasks.pieces import LineEncoder
from miao.evaluate.tasks.task import PromptStyle, Task
from miao.files import read_jsonl
from miao.model.decoder import Decoder
from miao.options import read_yaml
from miao.tokenizer import Tokenizer

NAME = "core"
KINDS = ("multiple_choice", "schema", "language_modeling")
ORDER_SEED, EXAMPLES_SEED = 1337, 1234
Record = dict[str, Any]


@dataclass(frozen=True)
class CoreTask:
    """One task of the bundle; `chance` is a share."""

    label: str
    kind: str
    path: Path
    shots: int
    delimiter: str
    chance: float


def read_core(folder: Path, limit: int | None = None) -> tuple[list[CoreTask], str, int]:
    """The tasks whose questions are there, what their score is called (core, or core-18of22), and
    how many questions they have, at most `limit` each.

    Raises:
        MiaoError: not the bundle, or none of its questions.
    """
    folder = folder / "eval_bundle" if (folder / "eval_bundle").is_dir() else folder
    facts, table = folder / "core.yaml", folder / "eval_meta_data.csv"
    for path in (facts, table):
        if not path.is_file():
            fix = "--data names nanochat's eval_bundle: core.yaml, eval_meta_data.csv, eval_data/"
            raise MiaoError("this file of the CORE bundle is missing", where=path, fix=fix)
    with open(table, newline="", encoding="utf-8") as file:
        chances = {r["Eval Task"]: float(r["Random baseline"]) for r in csv.DictReader(file)}
    try:
        tasks = [
            CoreTask(
                entry["label"],
                entry["icl_task_type"],
                folder / "eval_data" / entry["dataset_uri"],
                int(entry["num_fewshot"][0]),
                entry.get("continuation_delimiter", " "),
                chances[entry["label"]] / 100,
            )
            for entry in read_yaml(facts)["icl_tasks"]
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise MiaoError(f"not CORE's list of tasks: {error!r}", where=facts) from error
    for task in tasks:
        if task.kind not in KINDS:
            raise MiaoError(f"{task.label}: tasks of kind {task.kind} are unknown", where=facts)
    there = [task for task in tasks if task.path.is_file()]
    if not there:
        raise MiaoError("no questions of CORE", where=folder / "eval_data")
    if missing := [task.label for task in tasks if task not in there]:
        warn(f"no files of {', '.join(missing)}: the score is over the other {len(there)} tasks")
    count = sum(len(read_records(task, limit)) for task in there)
    return there, NAME if not missing else f"{NAME}-{len(there)}of{len(tasks)}", count


def read_records(task: CoreTask, limit: int | None) -> list[Record]:
    """The questions in nanochat's order; `limit`: the first so many, examples among them."""
    records = list(read_jsonl(task.path))
    random.Random(ORDER_SEED).shuffle(records)
    records = records[:limit]
    if len(records) <= task.shots:
        raise MiaoError(
            f"{task.label}: {len(records)} questions, and {task.shots} examples for each",
            where=task.path,
            fix=f"--limit {task.shots + 1} or more",
        )
    return records


def shown_with(task: CoreTask, records: Sequence[Record], number: int) -> str:
    """The examples before a question, with their answers."""
    others = [index for index in range(len(records)) if index != number]
    drawn = random.Random(EXAMPLES_SEED + number).sample(others, task.shots)
    texts = [texts_of(task, records[i])[int(records[i].get("gold", 0))] for i in drawn]
    return "".join(f"{text}\n\n" for text in texts)


def texts_of(task: CoreTask, record: Record) -> list[str]:
    """A question with each answer (one where there is nothing to choose from)."""
    if task.kind == "multiple_choice":
        return [f"{record['query']}{task.delimiter}{choice}" for choice in record["choices"]]
    if task.kind == "schema":
        end = f"{task.delimiter}{record['continuation']}"
        return [f"{context}{end}" for context in record["context_options"]]
    return [f"{str(record['context']).strip()}{task.delimiter}{record['continuation']}"]


def ask_core(
    model: Decoder,
    tokenizer: Tokenizer,
    tasks: Sequence[CoreTask],
    limit: int | None,
    advance: Advance = nothing,
) -> list[Asked]:
    """Every question of every task; advances by questions."""
    return [_ask(model, tokenizer, task, read_records(task, limit), advance) for task in tasks]


def _ask(
    model: Decoder,
    tokenizer: Tokenizer,
    task: CoreTask,
    records: Sequence[Record],
    advance: Advance,
) -> Asked:
    encoder, answers, cut = LineEncoder(tokenizer), [], 0
    style = PromptStyle("", scoring="greedy" if task.kind == KINDS[2] else "ppl", shots=task.shots)
    for start in range(0, len(records), 64):
        numbers = range(start, min(start + 64, len(records)))
        asked = [_continuations(tokenizer, encoder, task, records, n) for n in numbers]
        flat = [one for group in asked for one in group if one.scored]
        values = iter(continuation_logprobs(model, flat))
        for number, group in zip(numbers, asked, strict=True):
            found = [next(values) if one.scored else None for one in group]
            cut += any(value is not None and value.cut for value in found)
            answers.append(_answer(task, records[number], number, group, found))
        advance(len(numbers))
    name = Task(task.label, task.path, task.label, task.label, "eval", [], {})
    return Asked(name, NAME, style, task.shots, answers, cut)


def _continuations(
    tokenizer: Tokenizer,
    encoder: LineEncoder,
    task: CoreTask,
    records: Sequence[Record],
    number: int,
) -> list[Continuation]:
    before = shown_with(task, records, number)
    texts = [before + text for text in texts_of(task, records[number])]
    if task.kind == KINDS[2]:
        context = str(records[number]["context"]).strip()
        texts.append((before + context + task.delimiter).strip())
    ids = [[*tokenizer.document_start, *own] for own in encoder.encode_batch(texts)]
    if task.kind == "schema":
        common = _common([row[::-1] for row in ids])
        return [Continuation(row, min(common, len(row) - 1)) for row in ids]
    common = _common(ids)
    rows = ids[:1] if task.kind == KINDS[2] else ids
    return [Continuation(row, len(row) - max(common, 1)) for row in rows]


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    shortest = min(len(row) for row in rows)
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)


def _answer(
    task: CoreTask, record: Record, number: int, group: Sequence[Continuation], found: Sequence[Any]
) -> Answer:
    if task.kind == KINDS[2]:
        item = Item(
            str(number), task.label, str(record["context"]), [record["continuation"]], 0, {}
        )
        return Answer(item, found[0].is_greedy, nats=-found[0].logprob)
    options = [str(option) for option in record.get("choices") or record["context_options"]]
    question = str(record.get("query", record.get("continuation")))
    # An option that is the beginning of all others has no token of its own and no loss: NaN, which
    # counts as the least where it stands first, as in nanochat.
    losses = [
        math.nan
        if value is None
        else -value.logprob / min(one.scored, len(one.ids) - value.cut - 1)
        for one, value in zip(group, found, strict=True)
    ]
    choice = losses.index(min(losses))
    item = Item(str(number), task.label, question, options, int(record["gold"]), {})
    return Answer(item, choice == item.answer, choice, logprobs=[-loss for loss in losses])


def core_of(name: str, tasks: Sequence[CoreTask], asked: Sequence[Asked]) -> Ensemble:
    """The score, with the bundle's own numbers for guessing."""
    parts = [
        replace(part_of(task.label, "en", one.answers, task=task.label), chance=task.chance)
        for task, one in zip(tasks, asked, strict=True)
    ]
    return Ensemble(name, tuple(parts))
