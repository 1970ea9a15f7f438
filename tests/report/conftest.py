"""A small run directory, written by hand, with hostile text wherever text comes from outside."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from miao.rundir import RunDir

HOSTILE = "</script><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>\"'"
Record = dict[str, Any]


@pytest.fixture
def hostile() -> str:
    """Text that is dangerous in a page."""
    return HOSTILE


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run of all three stages."""
    run = RunDir(tmp_path / "sprout")
    _write_settings(run)
    _write_training(run)
    _write_scores(run)
    _write_answers(run)
    _write_data(run)
    return run


def _write_settings(run: RunDir) -> None:
    recipe: Record = {"name": "sprout", "seed": 7, "corpus": {"paths": [HOSTILE]}}
    recipe |= {stage: {"enabled": True} for stage in ("pretrain", "sft", "dpo", "evaluate")}
    _write(run.path / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))
    machine: Record = {"miao": "0.1.0", "commit": "abc123", "python": "3.11.7", "platform": "Linux"}
    machine |= {"processor": "a small CPU", "packages": {"torch": "2.13.0"}}
    _write(run.path / "manifest.json", machine)
    seconds = {
        "corpus": 0.5,
        "eval items": 0.5,
        "tokenizer": 1,
        "shards": 2,
        "pretrain": 50,
        "evaluate pretrain": 4,
    }
    seconds |= {"sft": 30, "evaluate sft": 4, "dpo": 6, "evaluate dpo": 2}
    finished = {stage: {"fingerprint": "f", "seconds": spent} for stage, spent in seconds.items()}
    _write(run.path / "stages.json", finished)
    shape: Record = {
        "model_type": "qwen3",
        "vocab_size": 300,
        "hidden_size": 64,
        "num_hidden_layers": 2,
    }
    shape |= {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64}
    shape |= {"intermediate_size": 128, "tie_word_embeddings": True}
    _write(run.model("dpo") / "config.json", shape)


def _write_training(run: RunDir) -> None:
    pairs = {"accuracy": 0.75, "margin": 0.4, "kl": 0.01}
    pairs |= {"chosen_logprob": -20.0, "rejected_logprob": -40.0}
    lines = [
        *_logged("pretrain", [8.0, 4.0, 2.0]),
        *_logged("sft", [2.0, 1.0]),
        *_logged("dpo", [0.6, 0.5], **pairs),
    ]
    _write_lines(run.metrics, lines)
    for stage, tokens in (("pretrain", 3000), ("sft", 2000), ("dpo", 2000)):
        result = {"steps": 9, "tokens": tokens, "seconds": 5.0, "loss": 0.5}
        result |= {"tokens_per_second": 500.0, "mfu": 0.25, "peak_memory_mib": 900}
        _write(run.checkpoints(stage) / "result.json", result)
    samples = [
        ("pretrain", 1500, "从前，", "的的的"),
        ("pretrain", 3000, "从前，", "有一只小猫。"),
        ("sft", 1000, "Who are you?", "I I I"),
        ("sft", 2000, "Who are you?", "I am Miao."),
        ("dpo", 2000, "Who are you?", HOSTILE),
    ]
    keys = ("stage", "tokens", "prompt", "answer")
    _write_lines(run.samples, [dict(zip(keys, sample, strict=True)) for sample in samples])


def _write_scores(run: RunDir) -> None:
    def choice(share: float) -> list[Record]:
        categories = (("animals", 10), ("all", 40))
        return [_share("multiple choice", name, n, share, 0.25) for name, n in categories]

    changed = [
        {"question": HOSTILE, "before": "a", "after": HOSTILE}
        | {"right_before": True, "right_after": False},
        {"question": "3加4？", "before": "8", "after": "7"}
        | {"right_before": False, "right_after": True},
    ]
    reward = _share("preference (reward)", "all", 50, 0.96, 0.5)
    pretrain = [_bits(1.5), *choice(0.2)]
    sft = [_bits(1.8), _share("questions", "all", 40, 0.5), *choice(0.5)]
    dpo = [_bits(1.81), _share("questions", "all", 40, 0.525), reward, *choice(0.5)]
    lines: list[Record] = [
        {"stage": "pretrain", "scores": pretrain},
        {"stage": "sft", "scores": sft},
        {"stage": "dpo", "scores": dpo, "changed_answers": {"of": 40, "changed": changed}},
    ]
    _write_lines(run.eval_results, lines)


def _write_answers(run: RunDir) -> None:
    asked = [
        *(("arithmetic", f"arithmetic {n}", HOSTILE, False) for n in range(20)),
        *(("identity", f"identity {n}", HOSTILE, False) for n in range(2)),
        ("knowledge", "1加1？", "3", False),
        ("knowledge", "2加2？", "4", True),
    ]
    keys = ("category", "question", "answer", "right")
    _write_lines(run.answers("dpo"), [dict(zip(keys, record, strict=True)) for record in asked])
    expected = [{"question": "1加1？", "answers": ["2"]}]
    _write_lines(run.eval_items / "questions.jsonl", expected)


def _write_data(run: RunDir) -> None:
    corpus = {
        "records": {"pretrain": 100, "sft": 20, "dpo": 10},
        "origin": {"pretrain": "files", "sft": "seedbed", "dpo": "seedbed"},
        "sources": {
            "pretrain": {"stories": _counts(60, 3, 1, 8000), HOSTILE: _counts(30, 3, 0, 2000)},
            "sft": {"conversations": _counts(19, 1, 0, 4000)},
            "dpo": {"preferences": _counts(9, 1, 0, 1000)},
        },
        "shapes": {"pretrain": {HOSTILE: 90}, "sft": {}, "dpo": {}},
        "problems": 5,
        "skipped_files": [HOSTILE],
    }
    _write(run.corpus / "manifest.json", corpus)
    stories: Record = {
        "kind": "document",
        "source": "stories",
        "vocab_size": 300,
        "trained_tokens": 3900,
    }
    stories |= {"bytes": 16000, "shards": [{"sequences": 60, "tokens": 4000}]}
    _write(run.shards("pretrain", "train") / "stories" / "manifest.json", stories)


def _logged(stage: str, losses: list[float], **more: float) -> list[Record]:
    """A training line every 1000 tokens, and a held-out line at the end."""
    fixed = {"lr": 0.003, "grad_norm": 1.5, "tokens_per_second": 500.0, "mfu": 0.25}
    lines: list[Record] = [
        {"stage": stage, "step": n, "tokens": 1000 * n, "seconds": 2.0 * n, "loss": loss}
        | fixed
        | {"data_wait": 0.01, **more}
        for n, loss in enumerate(losses, 1)
    ]
    last = lines[-1]["tokens"]
    return [*lines, {"stage": stage, "step": 9, "tokens": last, "heldout_bits_per_byte": 1.5}]


def _share(
    task: str, category: str, count: int, value: float, chance: float | None = None
) -> Record:
    error = math.sqrt(value * (1 - value) / count)
    score: Record = {"task": task, "category": category, "count": count, "value": value}
    return score | {"stderr": error, "chance": chance, "unit": "accuracy"}


def _bits(value: float) -> Record:
    score: Record = {"task": "bits per byte", "category": "stories", "count": 50, "value": value}
    return score | {"stderr": 0.02, "chance": None, "unit": "bits"}


def _counts(train: int, heldout: int, duplicates: int, characters: int) -> Record:
    counts = {"train": train, "heldout": heldout, "heldout_duplicates": duplicates}
    return counts | {"characters": characters}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def _write_lines(path: Path, records: list[Record]) -> None:
    _write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
