"""Every kind of stage under FSDP2 (and HSDP) on two and four processes equals a single process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.files import read_jsonl
from miao.model import load_model
from miao.model.directory import read_safetensors
from miao.rundir import RunDir, list_checkpoints
from miao.tokenizer import Tokenizer
from miao.train.distributed.world import World
from miao.train.safety.parts import weights_of
from tests.train.pair import Pair
from tests.train.spread_cases import (
    AdapterOptions,
    TeacherOptions,
    Whole,
    muon_beside_torch,
    random_model,
    train_whole,
)

LOSS, WEIGHT = 2e-5, 1e-4
TIMES = {
    "seconds",
    "tokens_per_second",
    "mfu",
    "mfu_palm",
    "mfu_bitbrain",
    "data_wait",
    "compilations",
}


class Pairs(dict[int, Pair]):
    """Two processes, four: started when first asked for."""

    def __missing__(self, count: int) -> Pair:
        self[count] = Pair(count)
        return self[count]


@pytest.fixture(scope="module")
def pairs() -> Iterator[Pairs]:
    made = Pairs()
    yield made
    for pair in made.values():
        pair.close()


@pytest.fixture
def base(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return random_model(tokenizer, tmp_path / "base", 0)


def same(one: Path, other: Path, kind: str) -> None:
    """Every logged number, and every weight of the model that is left (and of its adapter)."""
    lines, others = (
        [
            {k: v for k, v in line.items() if k not in TIMES}
            for line in read_jsonl(path / "metrics.jsonl")
        ]
        for path in (one, other)
    )
    assert len(lines) == len(others) > 3
    for line, found in zip(lines, others, strict=True):
        assert line.keys() == found.keys()
        for name, value in line.items():
            if isinstance(value, float) and name != "rollout_tokens_per_second":
                assert found[name] == pytest.approx(value, rel=2e-4, abs=LOSS), (name, line["step"])
    first, second = (load_model(path / "models" / kind).state_dict() for path in (one, other))
    for name, weight in first.items():
        assert float((weight - second[name]).abs().max()) < WEIGHT, name
    for left in (one / "adapters").glob("*/adapter_model.safetensors"):
        mine, theirs = (read_safetensors(r / left.relative_to(one)) for r in (one, other))
        assert mine.keys() == theirs.keys()
        for name, weight in mine.items():
            assert float((weight - theirs[name]).abs().max()) < WEIGHT, name


FOUR = ("GRPO", "LoRA with rows of tokens")
"""Run by four processes, of which some have no rows; the others by two."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "GRPO": ("grpo", {"passes": 2, "kl_coef": 0.1, "temperature": 0.8, "batch_tokens": 256}),
    "GRPO of an adapter": ("grpo", {"adapter": AdapterOptions("lora", rank=3)}),
    "LoRA with rows of tokens": (
        "sft", {"adapter": AdapterOptions("lora", rank=3, tokens=["<|im_end|>"])},
    ),
    "LoRA and a whole matrix": (
        "sft", {"adapter": AdapterOptions("rslora", rank=3, modules_to_save=["embed_tokens"])},
    ),
    "DPO of DoRA": ("dpo", {"adapter": AdapterOptions("dora", rank=3)}),
    "DPO": ("dpo", {}),
    "a teacher": ("sft", {"teacher": TeacherOptions("teacher", weight=0.7)}),
    "activation checkpointing": ("sft", {"activation_checkpointing": "on"}),
    "LoRA with activation checkpointing, compiled": (
        "sft", {
            "adapter": AdapterOptions("lora", rank=3), "activation_checkpointing": "on",
            "compile": "on",
        },
    ),
}  # fmt: skip


def many(pair: Pair, case: Whole, directory: Path) -> None:
    answers = pair.run(train_whole, case, directory / "many")
    assert all(isinstance(answer, dict) for answer in answers), answers
    alone = replace(case, parallel="auto", options=case.options | {"compile": "off"})
    train_whole(World(), alone, directory / "one")
    same(directory / "one", directory / "many", case.kind)


@pytest.mark.parametrize("name", CASES)
def test_a_spread_stage_equals_a_single_process(
    name: str, pairs: Pairs, base: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    kind, options = CASES[name]
    if "teacher" in options:
        place = random_model(tokenizer, tmp_path / "teacher", 1, hidden_size=48)
        options = options | {"teacher": TeacherOptions(str(place), weight=0.7)}
    many(pairs[4 if name in FOUR else 2], Whole(kind, base, base, options=options), tmp_path)


def test_copies_that_are_spread_equal_a_single_process(
    pairs: Pairs, base: Path, tmp_path: Path
) -> None:
    """Two "machines" of two processes; one copy's checkpoint is the whole model's."""
    options = {"muon_learning_rate": 0.02}
    case = Whole("sft", base, base, "hsdp", options, machines=2)
    many(pairs[4], case, tmp_path)
    newest = list_checkpoints(RunDir(tmp_path / "many").checkpoints("sft"))[-1]
    left = load_model(tmp_path / "many" / "models" / "sft").state_dict()
    for name, weight in weights_of(newest).items():
        assert torch.equal(weight, left[name]), name


def test_copies_on_one_machine_are_refused(pairs: Pairs, base: Path, tmp_path: Path) -> None:
    answers = pairs[2].run(train_whole, Whole("sft", base, base, "hsdp"), tmp_path)
    assert all("a copy of the model per machine, and there is only one" in a for a in answers)


def test_spread_muon_equals_torchs_with_two_exchanges_a_shape(pairs: Pairs) -> None:
    """Heights that do not divide; the result does not depend on how the rows are spread."""
    for found in pairs[2].run(muon_beside_torch):
        assert isinstance(found, tuple), found
        difference, exchanges, shapes = found
        assert difference < 1e-4 and exchanges == 2 * shapes, found
