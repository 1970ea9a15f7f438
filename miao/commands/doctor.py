"""The verb: examines, estimates, measures when asked to, and prints or writes JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miao.console import count, print_table, say, warn
from miao.device import choose_device, choose_dtype
from miao.doctor.advice import machine_advice, recipe_advice
from miao.doctor.machine import Machine, examine
from miao.doctor.plan import StagePlan, model_words, models_beside, plan_recipe, recipe_config
from miao.doctor.trial import Trial, run_trial
from miao.language import translated
from miao.model.estimate import gib, long_time
from miao.recipe import Recipe
from miao.recipe.reading import load_recipe
from miao.train.adapters import with_adapter_settings

HELP = """miao doctor [RECIPE] [--measure] [--json] [--key.sub value ...]

What this machine is and reaches (measured in a few seconds). With a recipe: for every stage the
micro-batch, memory, expected speed and hours, what limits it, and what would help.

  --measure   also train the recipe's shape for a few real steps, beside the estimate
  --json      for programs
"""


def main(words: list[str]) -> int:
    """Runs `miao doctor` with these words; returns the exit code.

    Raises:
        MiaoError: a recipe that cannot be read, an option that does not exist, no such device.
    """
    if "-h" in words or "--help" in words:
        print(translated(HELP))
        return 0
    flags = {"--measure", "--json"}
    rest = [word for word in words if word not in flags]
    path = rest.pop(0) if rest and not rest[0].startswith("--") else None
    recipe = load_recipe(path, rest)
    found = diagnose(recipe, path is not None, "--measure" in words)
    if "--json" in words:
        print(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
    else:
        found.show()
    return 0


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    machine: Machine
    plans: list[StagePlan]
    trials: dict[str, Trial]
    advice: list[str]
    what: str

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON-like values; bytes, tokens, seconds and FLOP/s are plain numbers."""
        stages = []
        for plan in self.plans:
            facts = asdict(plan) | {
                "memory": asdict(plan.memory) | {"total": plan.memory.total},
                "parts": {name: part / plan.parts.total for name, part in vars(plan.parts).items()},
                "tokens_per_second": plan.tokens_per_second,
                "hours": plan.hours,
                "limit": plan.limit,
            }
            if trial := self.trials.get(plan.stage):
                facts["measured"] = asdict(trial)
            stages.append(facts)
        machine = asdict(self.machine) | {"fast_types": self.machine.fast_types}
        return {"machine": machine, "stages": stages, "advice": self.advice}

    def show(self) -> None:
        """Prints it."""
        print_table("this machine", ["what", "value"], machine_rows(self.machine), right_from=2)
        if self.plans:
            columns = ["stage", "rows", "memory", "tokens/s", "time", "MFU", "limited by"]
            say()
            print_table(
                f"{self.what}: an estimate from the measured peaks",
                columns,
                [stage_row(plan) for plan in self.plans],
            )
            for plan in self.plans:
                say(stage_details(plan))
        for plan in self.plans:
            if trial := self.trials.get(plan.stage):
                say(trial_words(plan, trial))
        say()
        for line in self.advice:
            warn(line)


def diagnose(recipe: Recipe, with_recipe: bool, measure: bool) -> Diagnosis:
    """Examines the machine; with a recipe also its stages.

    Args:
        measure: train each stage's shape for a few steps.
    """
    device = choose_device(recipe.device)
    machine = examine(device, Path(recipe.out_dir))
    advice = machine_advice(machine, device)
    if not with_recipe:
        return Diagnosis(machine, [], {}, advice, "")
    config = recipe_config(recipe)
    plans = plan_recipe(recipe, machine, device)
    trials = {}
    for plan in plans if measure else []:
        options = with_adapter_settings(getattr(recipe, plan.stage))
        if plan.micro_batch is not None:
            dtype = choose_dtype(options.precision, device)
            trials[plan.stage] = run_trial(
                config,
                options,
                plan.micro_batch,
                device,
                dtype,
                plan.compiled,
                plan.recompute,
                [other for other in models_beside(options, config).values() if other],
            )
    advice += recipe_advice(plans, recipe, config, machine)
    return Diagnosis(machine, plans, trials, advice, f"{recipe.name} ({model_words(config)})")


def machine_rows(m: Machine) -> list[list[str]]:
    """The table of the machine."""
    rows = [
        ["system", f"{m.system}, Python {m.python}, torch {m.torch}"],
        ["processor", f"{m.processor}: {m.cores} cores, {m.threads} threads, {_cache(m.cache)}"],
        ["memory", f"{gib(m.memory)}, {gib(m.memory_free)} free; allocator {m.allocator}"],
        ["disk", f"{gib(m.disk_free)} free"],
    ]
    for card in m.gpus:
        sheet = f", {card.datasheet_flops / 1e12:.0f} TFLOP/s" if card.datasheet_flops else ""
        about = f"{gib(card.memory)}, compute capability {card.capability}{sheet}"
        rows.append(["GPU", f"{card.name}: {about}"])
    peaks = ", ".join(f"{name} {flop_words(flops)}" for name, flops in m.peaks.items())
    fast = " and ".join(m.fast_types)
    there = [name for name, found in m.kernels.items() if found]
    packages = [f"{name} {version}" for name, version in m.packages.items()]
    return [
        *rows,
        ["trains on", m.device],
        ["matrix products", peaks + (f"; fast: {fast}" if fast else "")],
        ["bandwidth", f"{m.bandwidth / 1e9:.0f} GB/s"],
        ["kernels", ", ".join(there)],
        ["compiler", m.compiler or "none"],
        ["settings", ", ".join(f"{k}={v}" for k, v in m.settings.items()) or "none"],
        ["packages", ", ".join(packages) or "no optional ones"],
    ]


def stage_row(plan: StagePlan) -> list[str]:
    """A stage in the table."""
    if plan.micro_batch is None:
        return [plan.stage, "none fits", gib(plan.memory.total), "", "", "", "memory"]
    return [
        plan.stage,
        f"{plan.micro_batch}×{plan.seq_len}",
        gib(plan.memory.total),
        count(plan.tokens_per_second),
        "?" if plan.hours is None else long_time(plan.hours),
        f"{plan.mfu['mfu']:.0%}",
        plan.limit,
    ]


def stage_details(plan: StagePlan) -> str:
    """What stands below the table."""
    memory, mfu = plan.memory, plan.mfu
    extras = ["compiled"] * plan.compiled + ["activation checkpointing"] * plan.recompute
    text = (
        f"{plan.stage}: {', '.join([plan.precision, *extras])}; {gib(memory.weights)} weights, "
        f"{gib(memory.gradients)} gradients, {gib(memory.optimizer)} optimizer, "
        f"{gib(memory.work)} activations and work\n"
        f"  MFU {mfu['mfu']:.0%} causal, {mfu['mfu_palm']:.0%} PaLM, {mfu['mfu_bitbrain']:.0%} "
        f"BitBrain's, of the {plan.peak_source} {flop_words(plan.peak)}"
    )
    if plan.tokens is None:
        text += "\n  its budget is in epochs: the time is known after `miao shards`"
    return text


def trial_words(plan: StagePlan, trial: Trial) -> str:
    """Estimate beside measurement."""
    ratio = plan.tokens_per_second / trial.tokens_per_second
    return (
        f"{plan.stage}, measured in {trial.passes} passes: {count(trial.tokens_per_second)} "
        f"tokens/s (estimated: {ratio:.2f} times that), {trial.peak_memory_mib:,.0f} MiB; "
        f"the first pass took {trial.first_pass_seconds:.1f} s"
    )


def flop_words(flops: float) -> str:
    """`165 TFLOP/s`, `170 GFLOP/s`."""
    if flops >= 1e12:
        return f"{flops / 1e12:.0f} TFLOP/s"
    return f"{flops / 1e9:.0f} GFLOP/s" if flops >= 1e10 else f"{flops / 1e9:.1f} GFLOP/s"


def _cache(size: int) -> str:
    return f"{size / 2**20:.0f} MiB cache" if size else "cache unknown"
