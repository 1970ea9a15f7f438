"""What the two processes of `pair.py` do; the same functions run in one process for comparison."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from miao.errors import Interrupted, MiaoError
from miao.model import Decoder, ModelConfig, save_model
from miao.recipe import DpoOptions, Parallelism, Recipe
from miao.shards import PackedLoader, PackedSource, TokenDataset
from miao.shards.answers import LabelledAnswers
from miao.train.distributed import buckets
from miao.train.distributed.choice import make_parallel
from miao.train.distributed.orthogonal import RowsOrthogonalizer, SharedOrthogonalizer, chunk_sizes
from miao.train.distributed.parallel import DataParallel
from miao.train.distributed.world import World, join_world
from miao.train.loop import Trainer
from miao.train.muon import Orthogonalizer
from miao.train.objectives import (
    KtoObjective,
    LanguageObjective,
    Objective,
    PreferenceObjective,
)
from miao.train.optim import local
from miao.train.prepare import filling_of, prepare_model
from miao.train.watch.metrics import MetricsLog
from tests.train.tiny import SEQ_LEN, options, stop_after, watch

UNEVEN = {"batch_tokens": 7 * SEQ_LEN, "micro_batch": 2, "tokens": 1128, "log_every": 1}
"""Five steps of 7 rows, which two processes share as 3 and 4, and a last one of a single row."""


@dataclass
class Case:
    """One training run.

    Args:
        sources: dataset directories. reference: of DPO, the file of reference log-probabilities.
        loss: of DPO.
    """

    sources: list[str]
    parallel: Parallelism = "auto"
    shape: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    loss: Any = "sigmoid"
    stop: tuple[int, int] | None = None
    """SIGTERM to process [0] while it trains step [1]."""
    killed: tuple[int, int] | None = None
    """SIGKILL to process [0] when it begins step [1]."""
    compiled: bool = False
    """As the compiler sees it, without machine code."""
    memory: int | None = None
    """This process runs out of memory in its second forward pass."""
    seed: int = 0
    watched: Path | None = None
    """Where the task lies that is asked while training; None: none is."""


def model_of(case: Case) -> Decoder:
    shape: dict[str, Any] = {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 50,
        "max_position_embeddings": 64,
    }  # fmt: skip
    model = Decoder(ModelConfig(**shape | case.shape))
    model.initialize(case.seed)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(case.seed)
        for name, parameter in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:  # else half of it learns nothing at first
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def train(world: World, case: Case, directory: Path) -> dict[str, Any]:
    """Trains and leaves the main process's model in `directory/model`."""
    torch.manual_seed(world.rank)
    chosen = options(**UNEVEN | case.options)
    model = model_of(case)
    packed = [PackedSource(Path(d).name, TokenDataset(Path(d)), SEQ_LEN, 5) for d in case.sources]
    objective: Objective = LanguageObjective()
    if case.reference is not None:
        preference = DpoOptions(beta=0.1, sft_weight=0.1, loss=case.loss)
        objective = PreferenceObjective(preference)
        if case.loss == "kto":
            view = LabelledAnswers(TokenDataset(Path(case.sources[0])), 5)
            packed[0] = PackedSource(packed[0].name, view, SEQ_LEN, 5)
            objective = KtoObjective(preference, {packed[0].name: view.desirable})
        packed[0].reference = np.memmap(case.reference, dtype=np.float32, mode="r")
    parallel = make_parallel(case.parallel, model, chosen, world)
    if case.compiled:
        compile_module = torch.nn.Module.compile
        with patch.object(
            torch.nn.Module, "compile", partialmethod(compile_module, backend="aot_eager")
        ):
            parallel.compile()
    running = Trainer(
        "pretrain",
        chosen,
        model,
        PackedLoader(packed, SEQ_LEN, window_rows=16),
        objective,
        float(chosen.tokens or 0),
        directory / "checkpoints",
        MetricsLog(directory / "metrics.jsonl", "pretrain"),
        peak_flops=1e12,
        parallel=parallel,
        tasks=watch(case.watched, float(chosen.tokens or 0), share=1.0) if case.watched else None,
    )
    if case.stop and case.stop[0] == world.rank:
        stop_after(running, case.stop[1])
    if case.killed and case.killed[0] == world.rank:
        kill_at(running, case.killed[1])
    if case.memory == world.rank:
        running.gradients.objective = OutOfMemory(objective)
    stopped = 0
    try:
        running.run()
    except Interrupted as interruption:
        stopped = interruption.exit_code
    whole = parallel.plain_model()
    if whole is not None:
        save_model(whole, directory / "model")
    local = [p.detach() for p in model.parameters()] if case.parallel in ("auto", "ddp") else []
    return {
        "steps": running.step,
        "stopped": stopped,
        "micro_batch": running.gradients.micro_batch,
        "checksum": [float(p.double().sum()) for p in local],
    }


def kill_at(running: Trainer, step: int) -> None:
    train_step = running._train_step

    def train_or_die(*of_step: Any) -> None:
        if running.step + 1 == step:
            running.store.failure(wait=True)  # what was being saved is saved
            os.kill(os.getpid(), signal.SIGKILL)
        train_step(*of_step)

    running._train_step = train_or_die  # type: ignore[method-assign]


def launched_train(case: Case, directory: Path) -> int:
    """`train` as a launcher starts it."""
    with join_world("cpu") as world:
        train(world, case, directory)
    return 0


def fail(how: str) -> int:
    """One of two processes that fail in some way."""
    with join_world("cpu") as world:
        world.barrier()
        if how == f"bug in {world.rank}":
            raise ZeroDivisionError("a bug")
        if how == "all alike":
            raise MiaoError("nobody likes it", where="here", fix="turn it down")
        world.barrier()
    return 0


class OutOfMemory:
    """An objective that fails once."""

    def __init__(self, objective: Objective):
        self.objective, self.calls = objective, 0

    def weight(self, batch: Any) -> int:
        return self.objective.weight(batch)

    def loss(self, model: Any, batch: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.objective.loss(model, batch)


def exchanges(world: World, case: Case) -> tuple[list[str], float, int]:
    """What happens in a step of two passes, how far its gradient is from that of a process alone,
    and the buckets. Then the last process runs out of memory within a pass."""
    with patch.object(buckets, "BUCKET", 3000):
        model, alone = model_of(case), model_of(case)
        parallel = make_parallel("ddp", model, options(), world)
    assert isinstance(parallel, DataParallel)
    ids = torch.randint(97, (2 * world.size, 12), generator=torch.Generator().manual_seed(1))
    alone(ids, labels_bt=ids, output="loss").backward()
    events: list[str] = []

    def pass_through(number: int) -> None:
        part = ids[2 * world.rank + number][None]
        loss = parallel.module(part, labels_bt=part, output="loss")
        parallel.backward(loss, last=number == 1)
        events.append("pass")

    reduce = torch.distributed.all_reduce

    def counted(*arguments: Any, **named: Any) -> Any:
        events.append("exchange")
        return reduce(*arguments, **named)

    def fails(gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError

    with patch.object(torch.distributed, "all_reduce", counted):
        pass_through(0)
        pass_through(1)
        parallel.sum_gradients()
    largest = 0.0
    for parameter, truth in zip(model.parameters(), alone.parameters(), strict=True):
        assert parameter.grad is not None and truth.grad is not None
        largest = max(largest, float((parameter.grad - truth.grad).abs().max()))
    parallel.forget_gradients()
    if world.rank == world.size - 1:
        model.model.layers[1].mlp.up_proj.weight.register_hook(fails)
    with suppress(torch.OutOfMemoryError):
        pass_through(1)
    parallel.sum_gradients()
    return events, largest, len(parallel.buckets.flats)


def grad_sums(world: World, way: Parallelism, dtype: str) -> list[float]:
    """Where `.grad` is kept in the type: 256 and 1 in the first process and 1 in every other, as a
    sum, its norm, and whether a step follows it. Elsewhere: how many numbers of a real gradient,
    summed over the processes, the type cannot hold, and how many are not zero."""
    chosen = options(grad_dtype=dtype, muon_learning_rate=0.0)
    model = model_of(Case([]))
    if way == "hsdp":  # each process on a "machine" of its own
        world = copy(world)
        world.local_size = 1
    parallel = make_parallel(way, model, chosen, world)
    if way in ("auto", "ddp"):
        weight = model.model.norm.weight
        before = weight.detach().clone()
        parts = (256.0, 1.0) if world.rank == 0 else (1.0,)
        parallel.forget_gradients()
        for number, value in enumerate(parts, start=1):
            parallel.backward(value * weight[0], last=number == len(parts))
        parallel.sum_gradients()
        assert weight.grad is not None and weight.dtype == torch.float32
        found = [float(weight.grad[0]), float(parallel.norm())]
        parallel.step()
        return [*found, float((weight.detach() != before).sum())]
    ids = torch.randint(97, (1, 12), generator=torch.Generator().manual_seed(world.rank))
    parallel.backward(parallel.module(ids, labels_bt=ids, output="loss"), last=True)
    held = torch.cat([gradient.float().flatten() for gradient in parallel.gradients()])
    return [float((held != held.bfloat16()).sum()), float((held != 0).sum())]


def orthogonalize(world: World, shapes: list[tuple[int, ...]], count: int, rows: bool) -> float:
    """The largest difference between shared and unshared results, over this process's part."""
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        for shape in shapes:
            stack = torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])
            truth = Orthogonalizer(dtype).begin(stack, torch.Size(shape))()
            kind: Callable[..., Orthogonalizer] = SharedOrthogonalizer
            if rows:
                kind = RowsOrthogonalizer
                heights = chunk_sizes(shape[0], world.size)
                stack, truth = (t.split(heights, dim=1)[world.rank] for t in (stack, truth))
            found = kind(dtype).begin(stack, torch.Size(shape))()
            for a, b in zip(found, truth, strict=True):
                assert a.shape == b.shape
                if a.numel():
                    largest = max(largest, float((a - b).abs().max()))
    return largest


def begin_spread(world: World, recipe: Recipe, base: Path | None, directory: Path) -> list[int]:
    """A model that no process ever has as a whole, written to `directory`; the numbers that this
    process holds, and those of the whole model."""
    tokenizer = SimpleNamespace(vocab_size=97, end_of_turn_id=1)
    model = prepare_model(recipe, recipe.pretrain, tokenizer, base, on_meta=True)  # type: ignore[arg-type]
    assert all(parameter.is_meta for parameter in model.parameters())
    parallel = make_parallel("fsdp", model, recipe.pretrain, world, filling_of(recipe, base))
    parallel.save(lambda weights: save_model(model, directory, weights=weights))
    ids = torch.arange(12).view(2, 6)
    loss = model(ids, labels_bt=ids, output="loss")
    parallel.backward(loss, last=True)
    assert all(g.dtype == torch.float32 for g in parallel.gradients())
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    assert tied == model.config.tie_word_embeddings
    held = [local(parameter).numel() for parameter in model.parameters()]
    return [sum(held), sum(parameter.numel() for parameter in model.parameters()), int(1e4 * loss)]
