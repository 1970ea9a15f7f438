"""Two processes train as one: DDP, FSDP2 and ZeRO against a single process, resumed and broken."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.errors import MiaoError
from miao.files import read_json
from miao.model import Decoder, load_model, new_config, save_model
from miao.recipe import Recipe
from miao.recipe.model import ModelOptions
from miao.rundir import list_checkpoints
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.shards.answers import LabelledAnswers
from miao.train.distributed.choice import make_parallel
from miao.train.distributed.world import World
from miao.train.feed.preferences import cache_reference
from miao.train.safety.parts import MODEL, part_name
from tests.conftest import dataset_maker
from tests.model.shapes import LATENT, SIGMOID
from tests.train.conftest import two_sources
from tests.train.pair import Pair
from tests.train.shared_cases import (
    Case,
    begin_spread,
    exchanges,
    grad_sums,
    model_of,
    orthogonalize,
    train,
)
from tests.train.tiny import curve, options

DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)
ZERO = [pytest.param(f"zero{n}", marks=DEEPSPEED) for n in (1, 2, 3)]
SOFTMAX = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOSS, WEIGHT = 5e-6, 5e-5
"""Largest differences allowed: of a logged loss (nats), and of any weight after the last step."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    make = dataset_maker(tmp_path_factory.mktemp("sources"))
    return [str(source.directory) for source in two_sources(make)]


def losses(directory: Path) -> list[float]:
    return [line["loss"] for line in curve(directory) if "loss" in line]


def differences(one: Path, two: Path) -> tuple[float, float]:
    """Of logged losses and of final weights, the largest."""
    a, b = losses(one), losses(two)
    assert len(a) == len(b) > 5
    first, second = (load_model(path / "model").state_dict() for path in (one, two))
    weights = max(float((first[name] - second[name]).abs().max()) for name in first)
    return max(abs(x - y) for x, y in zip(a, b, strict=True)), weights


def both(pair: Pair, case: Case, directory: Path) -> list[dict[str, Any]]:
    answers = pair.run(train, case, directory)
    assert all(isinstance(answer, dict) for answer in answers), answers
    return answers


class Trained(dict[str, tuple[Path, list[dict[str, Any]]]]):
    """Where a case was trained, by two processes or by one alone, and what they answered; once for
    all tests, which look at it and leave it as it is."""

    def __init__(self, pair: Pair, root: Path):
        self.pair, self.root = pair, root

    def two(self, case: Case) -> tuple[Path, list[dict[str, Any]]]:
        directory = self.root / str(len(self))
        if (key := repr(case)) not in self:
            self[key] = directory, both(self.pair, case, directory)
        return self[key]

    def one(self, case: Case) -> Path:
        case = replace(case, parallel="none", compiled=False)
        directory = self.root / str(len(self))
        if (key := repr(case)) not in self:
            self[key] = directory, [train(World(), case, directory)]
        return self[key][0]


@pytest.fixture(scope="module")
def trained(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(pair, tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", *ZERO])
@pytest.mark.parametrize("kind", ["dense", "latent, experts balanced by a bias"])
def test_two_processes_equal_one(
    trained: Trained, places: list[str], parallel: Any, kind: str
) -> None:
    """Steps that do not divide, accumulation, and a last step of fewer rows."""
    zero = parallel.startswith("zero")
    chosen = {"muon_learning_rate": 0.0} if zero else {}
    case = Case(places, parallel, {} if kind == "dense" else LATENT | SIGMOID, chosen)
    directory, answers = trained.two(case)
    assert answers[0]["steps"] == answers[1]["steps"] > 5
    assert answers[0]["checksum"] == answers[1]["checksum"]
    loss, weight = differences(trained.one(case), directory)
    assert loss < LOSS and weight < WEIGHT, (loss, weight)
    biases = [n for n in load_model(directory / "model").state_dict() if "correction" in n]
    assert bool(biases) == (kind != "dense")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_compiled_too(trained: Trained, places: list[str], parallel: Any) -> None:
    """Block by block; rows of padding make every pass one shape."""
    case = Case(places, parallel, compiled=True)
    loss, weight = differences(trained.one(case), trained.two(case)[0])
    assert loss < LOSS and weight < WEIGHT, (loss, weight)


@pytest.mark.parametrize("kind", ["tied", "experts", "bf16"])
def test_a_spread_model_is_never_whole_and_the_same(pair: Pair, tmp_path: Path, kind: Any) -> None:
    """Made on the meta device, filled at random or from a model directory of several files."""
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    more: dict[str, Any] = {"tie_word_embeddings": kind == "tied"}
    if kind == "experts":
        more = SOFTMAX | {"scoring_func": "sigmoid", "n_shared_experts": 1}
    recipe = Recipe(
        model=ModelOptions(**shape, num_key_value_heads=1, max_position_embeddings=64, **more),
        pretrain=options(seq_len=32, precision="bf16" if kind == "bf16" else "fp32"),
        device="cpu",
        seed=3,
    )
    whole = Decoder(new_config(recipe.model, 97, 1))
    whole.initialize(3)
    base = tmp_path / "base"
    save_model(whole, base, max_shard_bytes=40_000)
    assert len(list(base.glob("model-*.safetensors"))) > 2
    for number, begun in enumerate((None, base)):
        answers = pair.run(begin_spread, recipe, begun, tmp_path / str(number))
        assert all(isinstance(answer, list) for answer in answers), answers
        (one, all_, loss), (two, _, same) = answers
        assert one + two == all_ and max(one, two) < 0.6 * all_ and loss == same
        read = load_model(tmp_path / str(number))
        for name, value in whole.state_dict().items():
            assert torch.equal(read.state_dict()[name], value), name


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp", *ZERO])
def test_preferences_on_two_processes(
    pair: Pair,
    make_dataset: Callable[..., TokenDataset],
    tmp_path: Path,
    parallel: Any,
    loss: str,
) -> None:
    """DPO with its metrics; a step of 3 rows, of which one process has a single one. KTO with the
    estimate of KL that all processes share."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(4, 16, (90,), generator=generator).tolist()
    sequences = [torch.randint(0, 97, (n,), generator=generator).tolist() for n in lengths]
    masks = [[False, False] + [True] * (len(ids) - 2) for ids in sequences]
    dataset = make_dataset(sequences, "preference", masks, name="pairs", vocab_size=97)
    reference = str(tmp_path / "reference.f32")
    case = Case(
        [str(dataset.directory)], parallel, {}, {"batch_tokens": 96, "tokens": 700}, reference, loss
    )
    case.options["muon_learning_rate"] = 0.0
    view = LabelledAnswers(dataset, 5) if loss == "kto" else dataset
    source = PackedSource("pairs", view, 32, 0)
    cache_reference(model_of(case), source, PackedLoader([source], 32).one_pass(4), Path(reference))
    both(pair, case, tmp_path / "two")
    train(World(), case, tmp_path / "one")
    found, weight = differences(tmp_path / "one", tmp_path / "two")
    assert found < LOSS and weight < WEIGHT, (found, weight)
    names = ["accuracy", "margin", "kl", "chosen_logprob"] + ["origin"] * (loss == "kto")
    for name in names:
        one, two = ([line[name] for line in curve(tmp_path / d)] for d in ("one", "two"))
        assert two == pytest.approx(one, abs=2e-4), name


def test_the_balance_loss_of_experts(pair: Pair, places: list[str], tmp_path: Path) -> None:
    """It is that of a micro-batch; cut alike, two processes equal one."""
    chosen = {"batch_tokens": 8 * 32, "micro_batch": 2, "tokens": 1300}
    case = Case(places, "ddp", SOFTMAX, chosen)
    both(pair, case, tmp_path / "two")
    train(World(), case, tmp_path / "one")
    loss, weight = differences(tmp_path / "one", tmp_path / "two")
    assert loss < 5e-4 and weight < 5e-3, (loss, weight)


def test_gradients_are_exchanged_while_the_last_backward_pass_goes_on(pair: Pair) -> None:
    """Counted, not timed; and one process that runs out of memory there leaves nobody waiting."""
    for rank, answer in enumerate(pair.run(exchanges, Case([]))):
        assert isinstance(answer, tuple), answer
        events, difference, count = answer
        step = ["pass", *["exchange"] * count, "pass"]
        assert count > 5 and difference < 1e-4, (count, difference)
        assert events == (step if rank == 1 else [*step, "pass"])


@pytest.mark.parametrize("parallel", ["auto", "ddp", "fsdp", "hsdp", *ZERO])
def test_gradients_are_summed_in_the_type_asked_for(pair: Pair, parallel: Any) -> None:
    """By hand: bfloat16 has 8 binary digits, from 256 on every second number: 256 + 1 is 256."""
    for dtype, kept, all_ in (("fp32", 257.0, 258.0), ("bf16", 256.0, 256.0)):
        if parallel == "auto":
            assert grad_sums(World(), parallel, dtype) == [kept, kept, 1]
            continue
        for found in pair.run(grad_sums, parallel, dtype):
            assert isinstance(found, list), found
            if parallel == "ddp":
                assert found == [all_, all_, 1]
            else:
                assert (found[0] > 0) == (dtype == "fp32") and found[1] > 500, found


def test_sums_in_bfloat16_train_nearly_the_same(trained: Trained, places: list[str]) -> None:
    half, _ = trained.two(Case(places, "ddp", options={"grad_dtype": "bf16"}))
    whole, _ = trained.two(Case(places, "ddp"))
    loss, weight = differences(half, whole)
    assert 0 < loss < 5e-3 and 0 < weight < 0.02, (loss, weight)


@pytest.mark.parametrize("rows", [False, True], ids=["ddp", "fsdp"])
def test_shared_muon_equals_unshared(pair: Pair, rows: bool) -> None:
    """More and fewer matrices than processes; heights that do not divide; stacks of experts."""
    shapes = [(8, 8), (9, 16), (1, 4), (40, 12), (3, 8, 12), (1, 6, 4)]
    for count in (1, 2, 5):
        answers = pair.run(orthogonalize, shapes, count, rows)
        assert all(isinstance(found, float) and found <= 1e-2 for found in answers), answers


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", *ZERO])
def test_stopped_by_one_process_and_resumed_to_the_bit(
    pair: Pair, places: list[str], tmp_path: Path, parallel: Any
) -> None:
    """SIGTERM reaches only the second process; both stop at one step, and go on as if never."""
    case = Case(places, parallel, LATENT | SIGMOID, {"log_every": 3})
    both(pair, case, tmp_path / "whole")
    stopped = both(pair, Case(**vars(case) | {"stop": (1, 4)}), tmp_path / "stopped")
    assert stopped[0]["steps"] == stopped[1]["steps"] in (4, 5)
    assert [answer["stopped"] for answer in stopped] == [143, 143]
    both(pair, Case(**vars(case) | {"seed": 1}), tmp_path / "stopped")
    assert curve(tmp_path / "whole") == curve(tmp_path / "stopped")
    one, two = (load_model(tmp_path / d / "model").state_dict() for d in ("whole", "stopped"))
    for name in one:
        assert torch.equal(one[name], two[name]), name
    state = read_json(list_checkpoints(tmp_path / "stopped" / "checkpoints")[-1] / "state.json")
    assert state["processes"] == 2


@pytest.mark.parametrize(
    "first, then", [("ddp", "none"), ("none", "ddp"), ("ddp", "fsdp"), ("fsdp", "none")]
)
def test_another_number_of_processes_goes_on_with_the_same_data(
    trained: Trained, places: list[str], tmp_path: Path, first: Any, then: Any
) -> None:
    def go(parallel: Any, directory: Path, **changes: Any) -> None:
        case = Case(places, parallel, **changes)
        if parallel == "none":
            train(World(), case, directory)
        else:
            both(trained.pair, case, directory)

    go(first, tmp_path / "mixed", stop=(0, 4))
    (newest,) = list_checkpoints(tmp_path / "mixed" / "checkpoints")[-1:]
    state = read_json(newest / "state.json")
    go(then, tmp_path / "mixed", seed=1)
    alone = trained.one(Case(places))
    loss, weight = differences(alone, tmp_path / "mixed")
    assert loss < LOSS and weight < WEIGHT, (loss, weight)
    ends = [list_checkpoints(d / "checkpoints")[-1] for d in (alone, tmp_path / "mixed")]
    one, mixed = (read_json(end / "state.json") for end in ends)
    assert one["loader"] == mixed["loader"] != state["loader"]


def test_one_process_out_of_memory_and_both_halve(
    pair: Pair, places: list[str], tmp_path: Path
) -> None:
    case = Case(places, "ddp", options={"micro_batch": 2})
    answers = both(pair, Case(**vars(case) | {"memory": 1}), tmp_path / "short")
    assert [answer["micro_batch"] for answer in answers] == [1, 1]
    both(pair, Case(**vars(case) | {"options": {"micro_batch": 1}}), tmp_path / "small")
    assert curve(tmp_path / "short") == curve(tmp_path / "small")


def test_none_is_refused_and_one_process_needs_no_launcher(
    pair: Pair, places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = pair.run(train, Case(places, "none"), tmp_path)
    assert all("2 processes were started, but the recipe says none" in a for a in answers), answers
    parallel = make_parallel("fsdp", model_of(Case(places)), options(), World())
    assert type(parallel).__name__ == "Parallel"
    assert "one trains alone" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="it is installed")
def test_deepspeed_that_is_missing_is_named(places: list[str]) -> None:
    class Two(World):
        size = 2

    with pytest.raises(MiaoError, match=r"DeepSpeed is not installed[\s\S]*pip install"):
        make_parallel("zero2", model_of(Case(places)), options(), Two())


@pytest.mark.parametrize("parallel, file", [("ddp", MODEL), ("fsdp", part_name(1))])
def test_a_damaged_checkpoint_is_passed_over_by_both(
    trained: Trained, places: list[str], tmp_path: Path, parallel: Any, file: str
) -> None:
    case = Case(places, parallel)
    whole, _ = trained.two(case)
    shutil.copytree(whole, tmp_path / "damaged")
    newest = list_checkpoints(tmp_path / "damaged" / "checkpoints")[-1]
    (newest / file).write_bytes(b"nothing")
    both(trained.pair, case, tmp_path / "damaged")
    assert curve(whole) == curve(tmp_path / "damaged")


def test_a_checkpoint_of_another_optimizer_is_refused(
    pair: Pair, places: list[str], tmp_path: Path
) -> None:
    case = Case(places, "ddp", stop=(0, 3))
    both(pair, case, tmp_path)
    other = Case(places, "ddp", options={"muon_learning_rate": 0.0})
    answers = pair.run(train, other, tmp_path)
    assert all("made with Muon and goes on with AdamW" in answer for answer in answers), answers
