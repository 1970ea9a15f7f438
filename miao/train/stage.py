"""One training stage: its data, its objective, the loop, and the model directory it leaves."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from miao.console import count, duration, say, warn
from miao.device import (
    choose_device,
    peak_flops,
    peak_memory_mib,
)
from miao.errors import MiaoError
from miao.evaluate.measure.likelihood import answer_loss, bits_per_byte
from miao.files import atomic_directory
from miao.model import (
    Decoder,
    ModelConfig,
    count_parameters,
    native_architecture,
    save_model,
)
from miao.model.directory import Named
from miao.recipe import (
    DpoOptions,
    GrpoOptions,
    PretrainOptions,
    Recipe,
    SftOptions,
    StageOptions,
    of_budget,
    parse_quantity,
    to_dict,
)
from miao.recipe.stages import REFERENCE_FREE
from miao.rundir import RunDir, find_model
from miao.shards import PackedLoader, TokenDataset
from miao.tokenizer import Tokenizer
from miao.train.adapters import (
    adapter_of,
    adapter_tensors,
    add_adapter,
    has_adapter,
    save_adapter,
    trained_tokens,
    with_adapter_settings,
)
from miao.train.budget import Budget
from miao.train.distributed.choice import make_parallel, mesh_for, spreads
from miao.train.distributed.parallel import Parallel
from miao.train.distributed.world import World
from miao.train.feed.preferences import attach_reference, preference_objective
from miao.train.feed.rollouts import Rollouts, make_rollouts
from miao.train.feed.sources import make_loader, packing_facts, token_budget
from miao.train.loop import Trainer, TrainResult
from miao.train.microbatch import fit_to_memory
from miao.train.objectives import (
    DistillObjective,
    GrpoObjective,
    LanguageObjective,
    Objective,
)
from miao.train.objectives.noise import EmbeddingNoise
from miao.train.prepare import (
    beside_model,
    compile_if_it_pays,
    filling_of,
    load_teacher,
    prepare_model,
)
from miao.train.watch.metrics import foretold
from miao.train.watch.samples import SampleLog
from miao.train.watch.tasks import TaskWatch
from miao.train.watch.trackers import TrackedLog, require_trackers

HELDOUT_TOKENS_WHILE_TRAINING = 20_000
FEWEST_STEPS = 20
"""With fewer a training hardly begins."""
MUCH_SPLIT = 0.3
"""Of the tokens: documents are longer than rows as a rule."""
SAMPLED = 100_000
"""Documents whose median length is said then."""


def train_stage(
    stage: str,
    recipe: Recipe,
    run: RunDir,
    tokenizer: Tokenizer,
    base: Path | None,
    mark: str,
    world: World | None = None,
    deadline: float | None = None,
) -> TrainResult:
    """Trains one stage and writes `models/<stage>/`.

    Args:
        base: the model directory to start from; None: random weights.
        mark: fingerprint of the stage's inputs (names the cache of reference log-probabilities).
        world: of the processes that train it together; all call this.
        deadline: where `time.monotonic` is when a stage ends whose budget is in minutes (default:
            so many from the first step on).
    """
    world = world or World()
    require_trackers(recipe.trackers)
    options: StageOptions = with_adapter_settings(getattr(recipe, stage))
    device, spread = choose_device(recipe.device), spreads(recipe.parallel, world)
    model = prepare_model(recipe, options, tokenizer, base, spread)
    model.set_compute_dtype(world.from_main(model.compute_dtype))  # measurements may differ
    mesh = mesh_for(recipe.parallel, world, device) if spread else None
    loader: PackedLoader | Rollouts
    if isinstance(options, GrpoOptions):
        held = base if options.kl_coef else None
        other = beside_model(held, model, mesh, device) if held else None
        loader = make_rollouts(options, model, tokenizer, recipe.seed, world, other)
        objective: Objective = GrpoObjective(options, model, loader.figures)
    else:
        loader = make_loader(stage, recipe, run, world)
        objective = language_objective(options, model, tokenizer, device, mesh)
    refers = None
    if isinstance(options, DpoOptions) and isinstance(loader, PackedLoader):
        objective = preference_objective(options, loader)
        if options.loss not in REFERENCE_FREE:
            refers = partial(attach_reference, model, loader, run, mark, world)
    if refers and not spread:
        refers()
    if (adapter := adapter_of(options)) is not None:
        if base is None:
            raise MiaoError("an adapter needs a trained model", where=stage, fix="--model.path DIR")
        where = f"{stage}.adapter.tokens"
        tokens = trained_tokens(where, adapter.tokens, recipe, tokenizer, base)
        add_adapter(model, adapter, base, recipe.seed, tokens=tokens)
    parallel = None
    if spread:  # from here on the model has weights
        filling = filling_of(recipe, base)
        parallel = make_parallel(recipe.parallel, model, options, world, filling, mesh)
        if isinstance(loader, Rollouts):
            loader.answering = parallel.answering
        if refers:
            refers()
    log = TrackedLog(
        run.metrics,
        stage,
        recipe.trackers,
        run.path / "trackers",
        recipe.name,
        to_dict(recipe),
        recipe.trackers_offline,
    )
    trainer = _make_trainer(
        stage,
        options,
        recipe,
        run,
        tokenizer,
        model,
        loader,
        objective,
        log,
        world,
        parallel,
        deadline,
    )
    with log:
        result = trainer.run()
    if trainer.tasks and trainer.tasks.fell_short:
        say(f"  {trainer.tasks.summary(trainer.seconds)}")
    result.metrics |= trainer.last
    _write_model(stage, trainer, run, tokenizer)
    world.barrier()
    return result


def _make_trainer(
    stage: str,
    options: StageOptions,
    recipe: Recipe,
    run: RunDir,
    tokenizer: Tokenizer,
    model: Decoder,
    loader: PackedLoader | Rollouts,
    objective: Objective,
    log: TrackedLog,
    world: World,
    parallel: Parallel | None,
    deadline: float | None,
) -> Trainer:
    """Fits the stage to the device's memory, and says what will be trained."""
    rollouts = loader if isinstance(loader, Rollouts) else None
    fitted = options.micro_batch == "auto"
    options = fit_to_memory(stage, options, model, world.size, _beside(objective, loader))
    least = min(rows for [rows] in world.gather([int(options.micro_batch)]))
    options = replace(options, micro_batch=least)
    total = 60 * options.minutes if options.minutes else token_budget(stage, options, loader)
    peak = world.from_main(peak_flops(model.device, model.compute_dtype).flops)
    parallel = parallel or make_parallel(recipe.parallel, model, options, world)
    if options.minutes and deadline is not None:
        total = max(deadline - time.monotonic(), 1.0)
    compile_if_it_pays(options, parallel, total, peak)
    _announce(stage, options, model, loader, total)
    budget = Budget(stage, options, total, deadline)

    during = recipe.evaluate.during

    tokens = parse_quantity(recipe.evaluate.heldout_tokens, "evaluate.heldout_tokens")
    tokens = min(tokens, HELDOUT_TOKENS_WHILE_TRAINING)

    inner = count_parameters(model.config).inner
    decay = of_budget(options.decay, total, "pretrain.decay") / total
    new = stage == "pretrain" and recipe.model.path is None and options.schedule == "wsd"

    def heldout(model: Decoder) -> dict[str, float]:
        values = heldout_losses(stage, model, run, tokenizer, tokens)
        if new and "heldout_bits_per_byte" in values:
            spent = (trainer.budget.share, trainer.tokens)
            values |= foretold(*spent, values["heldout_bits_per_byte"], inner, decay)
        return values | rollouts.heldout(model) if rollouts else values

    trainer = Trainer(
        stage,
        options,
        model,
        loader,
        objective,
        budget,
        run.checkpoints(stage),
        log,
        peak,
        heldout=heldout,
        samples=SampleLog(
            run.samples, stage, recipe, tokenizer, rollouts.samples if rollouts else None
        ),
        parallel=parallel,
        fitted=fitted,
        tasks=TaskWatch(during, tokenizer, total) if during.tasks else None,
    )
    return trainer


def _write_model(stage: str, trainer: Trainer, run: RunDir, tokenizer: Tokenizer) -> None:
    """The adapter, if there is one, and the model as a whole; the main process writes."""
    model = trainer.model
    if has_adapter(model):
        tensors = adapter_tensors(model, trainer.parallel.whole)
        if trainer.world.is_main:
            save_adapter(model, run.path / "adapters" / stage, tensors)
            say(f"  the adapter: {run.path / 'adapters' / stage}")

    def save(weights: Named) -> None:
        with atomic_directory(run.model(stage)) as directory:
            save_model(model, directory, weights=weights)
            tokenizer.save(directory, model_max_length=model.config.context_length)

    trainer.parallel.save(save)


def _beside(objective: Objective, loader: PackedLoader | Rollouts) -> list[Decoder]:
    """Models that only compute while another is trained."""
    held = [objective.teacher] if isinstance(objective, DistillObjective) else []
    if isinstance(loader, Rollouts) and loader.reference is not None:
        held.append(loader.reference)
    return held


def language_objective(
    options: StageOptions,
    model: Decoder,
    tokenizer: Tokenizer,
    device: torch.device | None = None,
    mesh: Any = None,
) -> Objective:
    """What pretraining and SFT minimise: with a teacher, or with noise, if the options say so.

    Args:
        device, mesh: of the teacher, see `beside_model`.
    """
    if not isinstance(options, PretrainOptions | SftOptions):
        return LanguageObjective()
    if (path := options.teacher.path) is not None:
        teacher = load_teacher(find_model(path), model, tokenizer, options.seq_len, device, mesh)
        mixture = options.teacher
        say(
            f"  teacher: {path}, {_parameters(teacher.config)}; {mixture.kl} KL, "
            f"temperature {mixture.temperature}, weight {mixture.weight}"
        )
        return DistillObjective(mixture, teacher, model)
    if isinstance(options, SftOptions) and options.neftune_alpha:
        return LanguageObjective(EmbeddingNoise(model, options.neftune_alpha))
    return LanguageObjective()


def heldout_losses(
    stage: str,
    model: Decoder,
    run: RunDir,
    tokenizer: Tokenizer,
    tokens: float = HELDOUT_TOKENS_WHILE_TRAINING,
) -> dict[str, float]:
    """Bits per byte of held-out documents (mean over the sources); after pretraining also the
    loss per learned token of held-out conversations."""
    values: dict[str, float] = {}
    documents = sorted(run.shards("pretrain", "heldout").glob("*/"))
    if documents:
        scores = [
            bits_per_byte(model, TokenDataset(directory), tokenizer, tokens)
            for directory in documents
        ]
        values["heldout_bits_per_byte"] = sum(score.value for score in scores) / len(scores)
    conversations = run.shards("sft", "heldout") / "conversations"
    if stage != "pretrain" and conversations.exists() and len(TokenDataset(conversations)):
        dataset = TokenDataset(conversations)
        values["heldout_answer_loss"] = answer_loss(model, dataset, tokens)
    return values


def result_facts(result: TrainResult, model_device: torch.device) -> dict[str, Any]:
    """What the run keeps of a finished training stage."""
    facts = {
        k: None if isinstance(v, float) and math.isnan(v) else v
        for k, v in asdict(result).items()
        if k != "metrics"
    }
    return facts | {"peak_memory_mib": round(peak_memory_mib(model_device))}


def _parameters(config: ModelConfig) -> str:
    counted = count_parameters(config)
    active = f" ({count(counted.active)} active)" if counted.active < counted.total else ""
    return f"{count(counted.total)} parameters{active}"


def _announce(
    stage: str,
    options: StageOptions,
    model: Decoder,
    loader: PackedLoader | Rollouts,
    budget: float,
) -> None:
    config = model.config
    of, step = "tokens of rollouts", f"at most {options.batch_tokens}"
    rows = int(parse_quantity(options.batch_tokens, "batch_tokens")) // options.seq_len
    if isinstance(loader, PackedLoader):
        of = f"tokens of {count(loader.epoch_tokens)} per epoch"
        step = f"{rows:,} rows of {options.seq_len} = {rows * options.seq_len:,}"
    dtype = str(model.compute_dtype).removeprefix("torch.")
    amount = count(budget)
    if options.minutes is not None:
        amount, of = f"{duration(budget)} of training", of.removeprefix("tokens ")
    say(
        f"  {native_architecture(config)}, {_parameters(config)}, "
        f"{dtype} on {model.device}; "
        f"{amount} {of}, {step} per step"
    )
    if not isinstance(loader, PackedLoader):
        return
    packing = packing_facts(loader)
    steps = math.ceil(budget / max(rows * options.seq_len * packing["filled"], 1))
    if options.minutes is None and steps < FEWEST_STEPS:
        budgeted = "epochs" if options.tokens is None else "tokens"
        warn(
            f"only {steps} step{'s' * (steps != 1)}: lower {stage}.batch_tokens or raise "
            f"{stage}.{budgeted}"
        )
    split = f"{packing['split']:.1%} of tokens split"
    if packing["split"] > MUCH_SPLIT:
        cut = [
            source.dataset.first_lengths(SAMPLED)
            for source in loader.sources
            if source.split_tokens and isinstance(source.dataset, TokenDataset)
        ]
        median = int(np.median(np.concatenate(cut)))
        split += f"; raise {stage}.seq_len (median document: {median:,} tokens)"
    say(f"  packing: {packing['filled']:.2%} of slots filled, {split}")
    if packing["truncated"]:
        say(f"  {packing['truncated']} conversations are longer than seq_len: their end is cut off")
    if packing["unlearned"]:
        warn(
            f"{packing['unlearned']:,} of {packing['sequences']:,} sequences are left out: within "
            f"{options.seq_len} tokens nothing of them is learned, their answers begin later; "
            f"raise {stage}.seq_len"
        )
    if packing["left_out"]:
        kto = isinstance(options, DpoOptions) and options.loss == "kto"
        what = "answers with another prompt's answer beside them" if kto else "pairs"
        say(f"  {packing['left_out']} {what} do not fit a row of seq_len and are left out")
    if packing["single"]:
        say(f"  {packing['single']} single answers are no pairs and left out: --dpo.loss kto")
