"""What people think of answers, kept with the run, and a recipe that learns from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field

from miao.errors import MiaoError
from miao.files import append_jsonl, read_json, read_jsonl, write_json, write_jsonl, write_text
from miao.rundir import RunDir
from miao.serve.problems import Problem

FILE = "feedback.jsonl"
LESSON = "lesson.json"
STEPS = 160
"""So many optimizer steps are made of however little there is, within `PASSES`."""
PASSES = (3, 100)
ROWS = 4
"""Of a step: one of what was said, the others of what the run has learned from before."""
REPLAY = 1 - 1 / ROWS
RATE, WIDTH = 2e-4, 192
"""The rate, and the width of the model at which it was measured (docs/LOG.md); a wider one gets
less, by the power of 1.5."""
AGAIN = 1000
"""Conversations that are read again."""
HALF = "\ufffd"


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

    @property
    def prompt(self) -> list[dict[str, str]]:
        return [turn.model_dump() for turn in self.messages]

    @property
    def wanted(self) -> str | None:
        """The answer that should become likelier."""
        return None if self.kind == "down" else self.answer

    @property
    def unwanted(self) -> str | None:
        """The answer that should become less likely."""
        if self.kind in ("up", "down"):
            return self.answer if self.kind == "down" else None
        return self.other if (self.other or "").strip() and self.other != self.answer else None


def note(run: RunDir, opinion: Opinion) -> None:
    """Adds an opinion to the run's `feedback.jsonl`."""
    append_jsonl(run.path / FILE, opinion.model_dump(exclude_none=True))


def opinions(path: Path) -> list[Opinion]:
    """Those of a file. Of one answer the last counts; what is damaged is left out, as are the
    halves of characters that a young model says, which no corpus takes."""
    last: dict[tuple[str, str, str], Opinion] = {}
    for line in read_jsonl(path, lambda problem: None):
        try:
            one = Opinion.model_validate(line)
        except ValueError:
            continue
        one.answer = one.answer.replace(HALF, "")
        one.other = None if one.other is None else one.other.replace(HALF, "")
        if one.answer.strip():
            thumbs = "thumb" if one.kind in ("up", "down") else one.kind
            asked = "\n".join(turn.content for turn in one.messages)
            last[thumbs, asked, one.answer] = one
    return list(last.values())


def records(said: Sequence[Opinion]) -> dict[str, list[dict[str, Any]]]:
    """Opinions as records of training: `labels` (KTO), `pairs` (DPO), `turns` (SFT)."""
    found: dict[str, list[dict[str, Any]]] = {"labels": [], "pairs": [], "turns": []}
    for one in said:
        if one.kind in ("up", "down"):
            found["labels"].append(_label(one.prompt, one.answer, one.kind == "up"))
        elif one.unwanted:
            pair = {"chosen": _said(one.answer), "rejected": _said(one.unwanted)}
            found["pairs"].append({"prompt": one.prompt} | pair)
        if one.kind == "corrected":
            found["turns"].append({"messages": one.prompt + _said(one.answer)})
    return found


def lesson(run: RunDir, model: Path, folder: Path, name: str) -> list[str]:
    """Writes data and a recipe that goes on from a model with what was said; returns the words of
    the command.

    One stage learns all of it: DPO where there are only pairs, else KTO, for which a pair is one
    good and one bad answer. What was wanted is learned as in SFT too (`sft_weight`), and the run's
    own conversations are read again beside it (`replay`): so few answers alone would cost all that
    the model knows.

    Raises:
        Problem: 400, nothing was said yet.
        MiaoError: the run has no tokenizer.
    """
    said = opinions(run.path / FILE)
    if not said:
        raise Problem(400, "nothing was said of this run's answers yet: 👍 👎 better, correct")
    if not (model / "tokenizer.json").is_file():
        raise MiaoError("a finished stage is needed to learn from feedback", where=model)
    found = records(said)
    by_pairs = len(found["pairs"]) == len(said)
    judged = found["pairs"] if by_pairs else [label for one in said for label in _labels(one)]
    wanted = [{"messages": one.prompt + _said(one.wanted)} for one in said if one.wanted]
    again = [*wanted, *islice(conversations(run, "train"), AGAIN)]
    length = _length(judged, model)
    write_jsonl(folder / FILE, [one.model_dump(exclude_none=True) for one in said])
    write_jsonl(folder / "opinions.jsonl", judged)
    write_jsonl(folder / "again.jsonl", again)
    repeats = len(again) > len(wanted)
    dpo: dict[str, Any] = {
        "loss": "sigmoid" if by_pairs else "kto",
        "epochs": _epochs(judged, length),
        "batch_tokens": ROWS * length,
        "seq_len": length,
        "learning_rate": _rate(model),
        "sft_weight": 1.0,
        "replay": REPLAY if repeats else 0.0,
    }
    recipe: dict[str, Any] = {
        "corpus": {
            "preferences": [str(folder / "opinions.jsonl")],
            "conversations": [str(folder / "again.jsonl")] if repeats else [],
            "heldout": 0.0,
            "seedbed": {"characters": "2K", "conversations": 20, "preferences": 0},  # not read
        },
        "tokenizer": {"path": str(model)},
        "model": {"path": str(model)},
        "pretrain": {"enabled": False},
        "sft": {"enabled": False},
        "dpo": dpo,
        "evaluate": {"enabled": False},
        "sample_prompts": list(dict.fromkeys(q for one in said if (q := question(one)))),
    }
    write_json(
        folder / LESSON, {"run": name, "before": model.relative_to(run.path.parent).as_posix()}
    )
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False))
    return ["run", str(folder / "recipe.yaml"), "--name", name, "--out_dir", str(run.path.parent)]


def lessons(home: Path) -> dict[str, tuple[Path, str]]:
    """Of the runs that learned from feedback: name -> the lesson's folder, and the model before it
    (run and path in it)."""
    found = ((path.parent, read_json(path)) for path in home.glob(f"lessons/*/{LESSON}"))
    return {told["run"]: (folder, told["before"]) for folder, told in found}


def rename_in_lessons(home: Path, old: str, new: str) -> None:
    """Whatever its name, a run stays what it has learned, and what others have learned from."""
    for run, (folder, before) in lessons(home).items():
        first, _, rest = before.partition("/")
        if old in (run, first):
            told = {
                "run": new if run == old else run,
                "before": f"{new if first == old else first}/{rest}",
            }
            write_json(folder / LESSON, told)


def question(one: Opinion) -> str | None:
    """What was asked, where nothing stood before it: samples of a training are asked so."""
    return one.messages[0].content if len(one.messages) == 1 else None


def conversations(run: RunDir, split: str) -> Iterator[dict[str, Any]]:
    """Those that a run has learned from (train), or kept for a test (heldout)."""
    for path in sorted((run.corpus / "sft" / split).glob("*.jsonl")):
        yield from read_jsonl(path, lambda problem: None)


def _labels(one: Opinion) -> Iterator[dict[str, Any]]:
    if one.wanted:
        yield _label(one.prompt, one.wanted, True)
    if one.unwanted:
        yield _label(one.prompt, one.unwanted, False)


def _label(prompt: list[dict[str, str]], answer: str, good: bool) -> dict[str, Any]:
    return {"prompt": prompt, "completion": _said(answer), "label": good}


def _length(judged: list[dict[str, Any]], model: Path) -> int:
    """Of a row that holds the longest of them: a power of two."""
    most = int(read_json(model / "config.json").get("max_position_embeddings", 256))
    return min(most, max(256, 1 << (2 * max(map(_tokens, judged))).bit_length()), 2048)


def _rate(model: Path) -> float:
    width = int(read_json(model / "config.json").get("hidden_size", WIDTH))
    return float(f"{RATE * min(1.0, (WIDTH / width) ** 1.5):.2g}")


def _epochs(judged: list[dict[str, Any]], length: int) -> int:
    """So many passes that they fill a row of each step; KTO reads every answer twice."""
    read = sum(_tokens(one) * (1 if "chosen" in one else 2) for one in judged)
    return min(max(PASSES[0], round(STEPS * length / read)), PASSES[1])


def _tokens(one: dict[str, Any]) -> int:
    """About so many: two and a half bytes each, and the marks of the template."""
    sides = [one[key] for key in ("completion", "chosen", "rejected") if key in one]
    texts = [turn["content"] for side in sides for turn in [*one["prompt"], *side]]
    return sum(len(text.encode()) for text in texts) * 2 // 5 + 8 * len(sides)


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
