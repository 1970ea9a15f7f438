"""The stages that train, and the report at the end."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miao.console import by_product, count, duration, say, warn
from miao.corpus.records import KINDS, REPLAYED
from miao.errors import MiaoError
from miao.files import atomic_directory, fingerprint, sha256_of, write_json
from miao.hubs import is_hub_name, local_directory
from miao.recipe import STAGES, DpoOptions, PretrainOptions, SftOptions, StageOptions, to_dict
from miao.run.chain import NOT_IN_FINGERPRINT, Chain, model_mark
from miao.run.changes import changes
from miao.run.measuring import evaluate, evaluate_before
from miao.rundir import find_model
from miao.tokenizer import Tokenizer

STILL, MOVED = 0.01, 100
"""Below this are margin, and KL per token times that, of a model that preferences did not move."""

if TYPE_CHECKING:
    from miao.train.loop import TrainResult


GROWN = "base"
"""The name, among the run's models, of the one that it begins with, where tokens were added."""


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
    inputs: dict[str, Any] = {
        **_shard_marks(chain, stage),
        "tokenizer": chain.marks["tokenizer"],
        stage: relevant,
        "seed": chain.recipe.seed,
        "model before": base_mark,
        "corpus": {"weights": chain.recipe.corpus.weights} | _own_share(chain, stage),
        "files": _teacher_mark(options),
    }
    if stage == "pretrain":
        inputs["model"] = to_dict(chain.recipe.model)
    if stage == "grpo":
        from miao.rewards import problem_files

        files = problem_files(chain.recipe.grpo)
        inputs["files"] |= {str(path): sha256_of(path) for path in files}
    measures = chain.recipe.evaluate.enabled and chain.world.is_main
    own = base is not None and base.is_relative_to(chain.run.path)
    given = not own or base == chain.run.model(GROWN)
    if measures and stage != "pretrain" and base and given:
        with chain.beside(f"the evaluation before {stage}"):
            evaluate_before(chain, stage, base, base_mark)
    with chain.stage(stage, inputs, chain.run.model(stage) / "config.json") as todo:
        if todo:
            _train(chain, stage, base, inputs)
    if measures:
        with chain.beside(f"the evaluation after {stage}"):
            evaluate(chain, stage, base)
    chain.world.barrier()


def _shard_marks(chain: Chain, stage: str) -> dict[str, str]:
    """What a stage learns from: of its own kind of record, and of that which it repeats."""
    kinds = [stage] if stage in KINDS else []
    if getattr(getattr(chain.recipe, stage), "replay", 0) > 0:
        kinds.append(REPLAYED[stage])
    return {f"{kind} shards": chain.marks[f"{kind} shards"] for kind in kinds}


def _own_share(chain: Chain, stage: str) -> dict[str, Any]:
    options = chain.recipe.corpus
    learns = stage == "sft" or (stage == "dpo" and chain.recipe.dpo.replay > 0)
    return {"own_share": options.own_share} if learns and options.mixes_built_in else {}


def report(chain: Chain) -> None:
    """report.html."""
    from miao.report import write_report

    if not any(getattr(chain.recipe, stage).enabled for stage in STAGES):
        return
    with chain.beside("the report"):
        with chain.stage("report", dict(chain.marks), chain.run.report) as todo:
            if todo:
                write_report(chain.run)
        say(f"  {chain.run.report}")


def _train(chain: Chain, stage: str, base: Path | None, inputs: dict[str, Any]) -> None:
    from miao.device import choose_device
    from miao.train.stage import result_facts, train_stage
    from miao.train.watch.samples import SampleLog

    before, despite = None, chain.despite_changes
    if chain.world.is_main:
        before = chain.run.begin(stage, chain.marks[stage], inputs, despite)
        if before is not None:
            say(f"  {_what_is_half(chain, stage, before, inputs)}")
    chain.world.barrier()
    tokenizer = Tokenizer.from_directory(chain.run.tokenizer)
    checkpoints = chain.run.checkpoints(stage)
    found = set(checkpoints.glob("step-*"))
    try:
        deadline = chain.clock.deadline(stage, chain.run.facts()) if chain.clock else None
        result = train_stage(
            stage,
            chain.recipe,
            chain.run,
            tokenizer,
            base,
            chain.marks[stage],
            chain.world,
            deadline,
        )
    except MiaoError:
        # Checkpoints that were refused are still those of the options of then.
        if despite and before and found == set(checkpoints.glob("step-*")):
            chain.run.mark_begun(stage, fingerprint([stage, before]), before)
        raise
    if not chain.world.is_main:
        return
    facts = result_facts(result, choose_device(chain.recipe.device))
    write_json(checkpoints / "result.json", facts)
    for aside in chain.run.set_aside(stage):
        say(f"  {aside.name}, half trained with other options, is removed: {stage} is done")
        shutil.rmtree(aside, ignore_errors=True)
    say(
        f"  {count(result.tokens)} tokens in {duration(result.seconds)}: "
        f"loss {result.loss:.3f}, "
        f"{count(result.tokens_per_second)} tokens/s, "
        f"MFU {result.mfu:.0%}, "
        f"{facts['peak_memory_mib']:,} MiB"
    )
    warn_if_diverged(stage, getattr(chain.recipe, stage), result, tokenizer.vocab_size)
    log = SampleLog(chain.run.samples, stage, chain.recipe, tokenizer)
    with by_product("the samples"):
        for record in log.write(chain.load(stage), result.tokens):
            say(f"  > {record['prompt']}\n    {record['answer'].strip()}", as_is=True)


def _what_is_half(chain: Chain, stage: str, before: dict[str, Any], inputs: dict[str, Any]) -> str:
    changed = changes(before, inputs) if before else "its inputs or options"
    if chain.despite_changes:
        return f"goes on from what was half trained, although changed: {changed}"
    if any(chain.run.checkpoints(stage).glob("step-*")):
        return (
            f"goes on from what was set aside; what was half trained since is, changed: {changed}"
        )
    return (
        f"begun anew, changed: {changed}; what was half trained is set aside, "
        "--resume-with-changes goes on from it"
    )


def warn_if_diverged(
    stage: str, options: StageOptions, result: TrainResult, vocab_size: int
) -> None:
    """Says so of a model that is worse than one which knows nothing, and of preferences that did
    not move it."""
    from miao.train.stage import FEWEST_STEPS

    chance, loss = math.log(vocab_size), result.loss
    rates = ["learning_rate"] + ["muon_learning_rate"] * bool(options.muon_learning_rate)
    named = " and ".join(f"{stage}.{rate}" for rate in rates)
    what, teacher = "the loss", getattr(options, "teacher", None)
    if isinstance(options, DpoOptions):
        of = result.metrics
        loss = -of.get("chosen_logprob", 0.0) / max(of.get("chosen_tokens", 1.0), 1.0)
        what = "the loss of the chosen answers' tokens"
        if max(abs(of.get("margin", 1.0)), MOVED * of.get("kl", 1.0)) < STILL:
            warn(
                f"the preferences moved nothing: margin {of['margin']:.4f}, KL {of['kl']:.1e} per "
                f"token, both 0 at the beginning; raise {named}, {stage}.epochs or lower "
                f"{stage}.batch_tokens"
            )
    elif not isinstance(options, PretrainOptions | SftOptions):
        return
    # A few steps may end where they began; a teacher's loss has a scale of its own.
    few = result.steps < FEWEST_STEPS or isinstance(options, DpoOptions)
    limit = chance + few if teacher is None or teacher.path is None else 2 * chance
    if loss > limit:
        warn(
            f"{what}, {loss:,.2f}, is above that of guessing ({chance:.2f}): the training "
            f"diverged; lower {named}"
        )


def _base_model(chain: Chain, stage: str) -> Path | None:
    """The model directory that a stage begins with: the stage before it, or model.path."""
    before = STAGES[: STAGES.index(stage)]
    for earlier in reversed(before):
        if getattr(chain.recipe, earlier).enabled:
            return chain.run.model(earlier)
    if chain.recipe.model.path:
        return _with_rows(chain, find_model(chain.recipe.model.path))
    if stage == "pretrain":
        return None
    raise no_model(stage)


def _with_rows(chain: Chain, base: Path) -> Path:
    """The model that a recipe begins with; a copy with rows for the tokens that the recipe adds to
    its tokenizer, if it adds any."""
    options = chain.recipe.tokenizer
    if not options.adds_to_given:
        return base
    from miao.model import load_model, save_model, with_tokens

    grown = chain.run.model(GROWN)
    path = str(chain.recipe.model.path)
    inputs = {"model": model_mark(path, base), "tokenizer": chain.marks["tokenizer"]}
    with chain.stage(GROWN, inputs, grown / "config.json", quiet=True) as todo:
        if todo:
            tokenizer = Tokenizer.from_directory(chain.run.tokenizer)
            before = Tokenizer.from_directory(local_directory(str(options.path))).vocab_size
            new: dict[int, list[int]] = {id: [] for id in range(before, tokenizer.vocab_size)}
            model = with_tokens(load_model(base, before), tokenizer.vocab_size, new)
            with atomic_directory(grown) as directory:
                save_model(model, directory)
                tokenizer.save(directory, model_max_length=model.config.context_length)
            say(f"  {grown}: {len(new)} tokens are new, their rows are the mean of all others")
    return grown


def no_model(stage: str) -> MiaoError:
    """The error of a first stage that cannot begin with random weights."""
    return MiaoError(
        f"{stage} has no model to begin with",
        where=stage,
        fix="enable the stage before it, or name a trained model: --model.path DIR",
    )


def _base_mark(chain: Chain, stage: str, base: Path | None) -> str:
    before = [s for s in STAGES[: STAGES.index(stage)] if s in chain.marks]
    if before:
        return chain.marks[before[-1]]
    path = chain.recipe.model.path
    if base == chain.run.model(GROWN):
        return chain.marks[GROWN]
    return fingerprint(model_mark(path, base)) if path and base else str(path)


def _teacher_mark(options: StageOptions) -> dict[str, Any]:
    """One on a hub counts by its name, which is among the options."""
    teacher = getattr(options, "teacher", None)
    if teacher is None or teacher.path is None or is_hub_name(teacher.path):
        return {}
    return model_mark(teacher.path, find_model(teacher.path))
