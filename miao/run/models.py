"""The stages that train, and the report at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miao.console import count, duration, say
from miao.errors import MiaoError
from miao.files import fingerprint, sha256_of, write_json
from miao.hubs import is_hub_name
from miao.recipe import STAGES, StageOptions, to_dict
from miao.run.chain import NOT_IN_FINGERPRINT, Chain, model_mark
from miao.run.measuring import evaluate, evaluate_before
from miao.rundir import find_model
from miao.tokenizer import Tokenizer


def train(chain: Chain, stage: str) -> None:
    """One training stage, then its evaluation."""
    options = getattr(chain.recipe, stage)
    if not options.enabled:
        if chain.world.is_main:
            chain.run.mark_left_out(stage)
        return
    with chain.world.main_first():
        base = _base_model(chain, stage)
    relevant = {k: v for k, v in to_dict(options).items() if k not in NOT_IN_FINGERPRINT}
    base_mark = _base_mark(chain, stage, base)
    inputs = [chain.marks["shards"], relevant, chain.recipe.seed, base_mark]
    if stage == "pretrain":
        inputs += [to_dict(chain.recipe.model)]
    if stage == "grpo":
        from miao.rewards import problem_files

        inputs += [sha256_of(path) for path in problem_files(chain.recipe.grpo)]
    inputs += [chain.recipe.corpus.weights, *_teacher_mark(options)]
    measures = chain.recipe.evaluate.enabled and chain.world.is_main
    if measures and stage != "pretrain" and base and not base.is_relative_to(chain.run.path):
        evaluate_before(chain, stage, base, base_mark)
    with chain.stage(stage, inputs, chain.run.model(stage) / "config.json") as todo:
        if todo:
            _train(chain, stage, base)
    if measures:
        evaluate(chain, stage, base)
    chain.world.barrier()


def report(chain: Chain) -> None:
    """report.html."""
    from miao.report import write_report

    if not any(getattr(chain.recipe, stage).enabled for stage in STAGES):
        return
    with chain.stage("report", [chain.marks], chain.run.report) as todo:
        if todo:
            write_report(chain.run)
    say(f"  {chain.run.report}")


def _train(chain: Chain, stage: str, base: Path | None) -> None:
    from miao.device import choose_device
    from miao.train.samples import SampleLog
    from miao.train.stage import result_facts, train_stage

    if chain.world.is_main:
        chain.run.begin(stage, chain.marks[stage])
    chain.world.barrier()
    tokenizer = Tokenizer.from_directory(chain.run.tokenizer)
    result = train_stage(
        stage, chain.recipe, chain.run, tokenizer, base, chain.marks[stage], chain.world
    )
    if not chain.world.is_main:
        return
    facts = result_facts(result, choose_device(chain.recipe.device))
    write_json(chain.run.checkpoints(stage) / "result.json", facts)
    say(
        f"  {count(result.tokens)} tokens in {duration(result.seconds)}: "
        f"loss {result.loss:.3f}, "
        f"{count(result.tokens_per_second)} tokens/s, "
        f"MFU {result.mfu:.0%} (PaLM's way {result.mfu_palm:.0%}, "
        f"BitBrain's {result.mfu_bitbrain:.0%}), "
        f"{facts['peak_memory_mib']:,} MiB"
    )
    log = SampleLog(chain.run.samples, stage, chain.recipe, tokenizer)
    for record in log.write(chain.load(stage), result.tokens):
        say(f"  > {record['prompt']}\n    {record['answer'].strip()}")


def _base_model(chain: Chain, stage: str) -> Path | None:
    """The model directory that a stage begins with: the stage before it, or model.path."""
    before = STAGES[: STAGES.index(stage)]
    for earlier in reversed(before):
        if getattr(chain.recipe, earlier).enabled:
            return chain.run.model(earlier)
    if chain.recipe.model.path:
        return find_model(chain.recipe.model.path)
    if stage == "pretrain":
        return None
    raise MiaoError(
        f"{stage} has no model to begin with",
        where=stage,
        fix="enable the stage before it, or name a trained model: --model.path DIR",
    )


def _base_mark(chain: Chain, stage: str, base: Path | None) -> str:
    before = [s for s in STAGES[: STAGES.index(stage)] if s in chain.marks]
    if before:
        return chain.marks[before[-1]]
    path = chain.recipe.model.path
    return fingerprint(model_mark(path, base)) if path and base else str(path)


def _teacher_mark(options: StageOptions) -> list[Any]:
    """One on a hub counts by its name, which is among the options."""
    teacher = getattr(options, "teacher", None)
    if teacher is None or teacher.path is None or is_hub_name(teacher.path):
        return []
    return model_mark(teacher.path, find_model(teacher.path))
