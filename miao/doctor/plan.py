"""What each stage of a recipe will take on this machine: by arithmetic, from its measured peaks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from miao.device import choose_dtype, flash_attention, known_gpu, memory_bytes, peak_flops
from miao.doctor.machine import Machine
from miao.errors import MiaoError
from miao.files import read_jsonl
from miao.gpus import Gpu
from miao.hubs import is_hub_name
from miao.model import Decoder, ModelConfig, count_parameters, load_config, new_config
from miao.model.counts import mfu_conventions
from miao.model.estimate import (
    GIB,
    USABLE,
    Extras,
    TrainingMemory,
    fitting_micro_batch,
    training_memory,
)
from miao.model.roofline import (
    COMPILE_PAYS_AFTER,
    Rates,
    TimeParts,
    cpu_rates,
    gpu_rates,
    training_time,
)
from miao.ops.varlen import has_varlen
from miao.recipe import (
    STAGES,
    DpoOptions,
    GrpoOptions,
    PretrainOptions,
    Recipe,
    SftOptions,
    StageOptions,
    parse_quantity,
)
from miao.rundir import RunDir, find_model
from miao.shards.dataset import read_manifest
from miao.train.adapters import adapter_of, adapter_size, with_adapter_settings
from miao.train.microbatch import cpu_micro_batch, rollout_bytes, wants_checkpointing

DATA_WAIT = 0.05
"""Share of the time spent waiting for data that is worth a word."""


@dataclass(frozen=True)
class StagePlan:
    """One stage on this machine."""

    stage: str
    seq_len: int
    batch_tokens: int
    micro_batch: int | None
    """Rows per pass; None: not even one fits."""
    recompute: bool
    """Activation checkpointing."""
    compiled: bool
    precision: str
    memory: TrainingMemory
    device_memory: int
    """Bytes that the device has; 0: unknown."""
    parts: TimeParts
    tokens: float | None
    """Budget in real tokens; None: in epochs of text that has not been counted yet."""
    mfu: dict[str, float]
    """In every convention, against `peak`."""
    peak: float
    peak_source: str
    data_wait: float | None
    """Share of the time in which an earlier run of this name waited for data."""
    uncounted: str | None = None
    """A model beside the trained one whose size is not known, and so not in `memory`."""

    @property
    def tokens_per_second(self) -> float:
        return 1 / self.parts.total

    @property
    def hours(self) -> float | None:
        return None if self.tokens is None else self.tokens * self.parts.total / 3600

    @property
    def limit(self) -> str:
        """What holds this stage back: `memory`, `data`, or what takes most of the time."""
        if self.micro_batch is None:
            return "memory"
        return "data" if (self.data_wait or 0) > DATA_WAIT else self.parts.limit


def recipe_config(recipe: Recipe) -> ModelConfig:
    """The shape that a recipe trains.

    Raises:
        MiaoError: it starts from a model on a hub: nothing is downloaded here.
    """
    path = recipe.model.path
    if path is None:
        return new_config(recipe.model, recipe.tokenizer.vocab_size, None)
    if is_hub_name(path):
        raise MiaoError(
            "the recipe starts from a model on a hub, and the doctor downloads nothing",
            where="model.path",
            fix=f"miao model show {path}, or give a directory",
        )
    return load_config(find_model(path))


def plan_stage(
    stage: str, recipe: Recipe, config: ModelConfig, machine: Machine, device: torch.device
) -> StagePlan:
    """The estimate for one stage."""
    options: StageOptions = with_adapter_settings(getattr(recipe, stage))
    beside = models_beside(options, config)
    dtype = choose_dtype(options.precision, device)
    extras = replace(
        stage_extras(options, config, beside), later=rollout_bytes(options, config, device, dtype)
    )
    batch = int(parse_quantity(options.batch_tokens, f"{stage}.batch_tokens"))
    rows = max(1, batch // options.seq_len)
    muon = options.muon_learning_rate > 0
    recompute = options.activation_checkpointing == "on" or (
        options.activation_checkpointing == "auto"
        and wants_checkpointing(stage, options, config, device, extras)
    )
    total = memory_bytes(device)[1]
    micro_batch = _micro_batch(options, config, device, total, rows, recompute, extras)
    slots = (micro_batch or 1) * options.seq_len
    budget = _budget(stage, options, recipe)

    def time(compiled: bool) -> TimeParts:
        rates = _rates(machine, device, dtype, compiled, config.query_dim)
        parts = training_time(config, rates, options.seq_len, slots, batch, muon, recompute)
        if extras.adapter:
            parts = _frozen_base(parts, extras.adapter / count_parameters(config).total)
        for other in filter(None, beside.values()):
            whole = training_time(other, rates, options.seq_len, slots, batch, False)
            parts = _added(parts, _forward_only(whole))
        return parts

    compiled = options.compile == "on"
    if options.compile == "auto" and machine.kernels["torch.compile"]:
        seconds = time(False).total * (budget or 0)
        compiled = device.type == "cuda" or seconds > COMPILE_PAYS_AFTER
    parts = time(compiled)
    peak = peak_flops(device, dtype)
    return StagePlan(
        stage,
        options.seq_len,
        batch,
        micro_batch,
        recompute,
        compiled,
        str(dtype).removeprefix("torch."),
        training_memory(
            config, micro_batch or 1, options.seq_len, muon, recompute, dtype.itemsize, extras
        ),
        total,
        parts,
        budget,
        {
            name: flops / parts.total / peak.flops
            for name, flops in mfu_conventions(config, options.seq_len).items()
        },
        peak.flops,
        peak.source,
        _data_wait(stage, recipe),
        next((name for name, other in beside.items() if other is None), None),
    )


def models_beside(options: StageOptions, config: ModelConfig) -> dict[str, ModelConfig | None]:
    """Models that only compute while a stage trains: a teacher, GRPO's reference; None: it cannot
    be read here. (The reference of DPO and its relatives is gone before training: its
    log-probabilities are kept on disk.)"""
    if isinstance(options, GrpoOptions) and options.kl_coef:
        return {"the reference": config}
    if not isinstance(options, PretrainOptions | SftOptions) or options.teacher.path is None:
        return {}
    path = options.teacher.path
    try:
        return {path: None if is_hub_name(path) else load_config(find_model(path))}
    except MiaoError:
        return {path: None}


def stage_extras(
    options: StageOptions, config: ModelConfig, beside: dict[str, ModelConfig | None]
) -> Extras:
    """What a stage holds that the shape does not tell: an adapter, which then alone has gradients;
    models beside."""
    size = 0
    if (adapter := adapter_of(options)) is not None:
        with torch.device("meta"):
            size = adapter_size(Decoder(config), adapter)
    held = sum(4 * count_parameters(other).total for other in beside.values() if other)
    return Extras(size, float(held))


def plan_recipe(recipe: Recipe, machine: Machine, device: torch.device) -> list[StagePlan]:
    """Every stage that the recipe trains."""
    config = recipe_config(recipe)
    return [
        plan_stage(stage, recipe, config, machine, device)
        for stage in STAGES
        if getattr(recipe, stage).enabled
    ]


def checkpoint_bytes(config: ModelConfig, options: StageOptions) -> int:
    """Disk that the checkpoints of one stage take: weights and optimizer, `keep_last` times and
    once more while the newest is written."""
    memory = training_memory(config, 1, 8, options.muon_learning_rate > 0)
    size = memory.weights + memory.optimizer
    adapter = stage_extras(options, config, {}).adapter
    size = 12 * adapter or size  # of an adapter itself and its two means alone
    return int(size * (options.keep_last + 1))


def model_words(config: ModelConfig) -> str:
    """`192×4, 2.4M parameters`."""
    total = count_parameters(config).total
    return f"{config.hidden_size}×{config.num_hidden_layers}, {total / 1e6:.1f}M parameters"


def _frozen_base(parts: TimeParts, share: float) -> TimeParts:
    """Of training an adapter with `share` as many numbers: frozen weights get no gradient."""
    return replace(
        parts,
        linears=parts.linears * (2 / 3 + share),
        head=parts.head * 2 / 3,
        weights=parts.weights * share,
        optimizer=parts.optimizer * share,
    )


def _forward_only(parts: TimeParts) -> TimeParts:
    """Of reading a row: a third of each product, two sevenths of attention, no optimizer."""
    third = {name: part / 3 for name, part in vars(parts).items()}
    return TimeParts(
        **third | {"attention": parts.attention * 2 / 7, "weights": 0.0, "optimizer": 0.0}
    )


def _added(one: TimeParts, other: TimeParts) -> TimeParts:
    return TimeParts(**{name: part + vars(other)[name] for name, part in vars(one).items()})


def _rates(
    machine: Machine, device: torch.device, dtype: torch.dtype, compiled: bool, head: int
) -> Rates:
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    matmul = machine.peaks[names[str(dtype).removeprefix("torch.")]]
    if device.type == "cpu":
        return cpu_rates(matmul, machine.bandwidth, compiled, dtype.itemsize)
    sheet = known_gpu(device) or Gpu("", 0, matmul, machine.bandwidth)
    varlen, flash = has_varlen(device.type, dtype, head), flash_attention(device)
    rates = gpu_rates(sheet, compiled, varlen, flash)
    measured = replace(rates, matmul=matmul, number=dtype.itemsize)
    return replace(measured, bandwidth=0.85 * machine.bandwidth)


def _micro_batch(
    options: StageOptions,
    config: ModelConfig,
    device: torch.device,
    total: int,
    rows: int,
    recompute: bool,
    extras: Extras,
) -> int | None:
    muon = options.muon_learning_rate > 0
    if options.micro_batch != "auto":
        return min(rows, int(options.micro_batch))
    if device.type == "cpu":
        one = training_memory(config, 1, options.seq_len, muon, recompute, extras=extras).total
        if total and one > USABLE * total:
            return None
        return cpu_micro_batch(config, options.seq_len, rows)
    return fitting_micro_batch(
        config, total / GIB if total else 1e9, options.seq_len, rows, muon, recompute, extras
    )


def _budget(stage: str, options: StageOptions, recipe: Recipe) -> float | None:
    """Tokens to train on; for epochs those of the run's shards, where they have been made. DPO
    reads everything once more, forward only, for its reference."""
    if options.tokens is not None:
        return parse_quantity(options.tokens, f"{stage}.tokens")
    manifests = RunDir(recipe.run_dir).shards(stage, "train").glob("*/manifest.json")
    own = sum(read_manifest(path).tokens for path in manifests)
    if not own:
        return None
    replay = options.replay if isinstance(options, SftOptions | DpoOptions) else 0.0
    passes = (options.epochs or 0) / (1 - replay)
    return own * (passes + (1 / 3 if isinstance(options, DpoOptions) else 0))


def _data_wait(stage: str, recipe: Recipe) -> float | None:
    waits = [
        line["data_wait"]
        for line in read_jsonl(RunDir(recipe.run_dir).metrics, lambda _: None)
        if line.get("stage") == stage and isinstance(line.get("data_wait"), float)
    ]
    return sum(waits) / len(waits) if waits else None
