"""What a stage hours from now would stop at, and can be known before the first one begins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from miao.corpus.build.pipeline import given_paths, needed_kinds
from miao.corpus.read.formats import LOOKED_AT as RECORDS
from miao.corpus.read.formats import Reading, RecordCounts, convert_file
from miao.corpus.read.problems import Problem, stop
from miao.corpus.read.sources import find_sources, is_unseen
from miao.corpus.records import KINDS, Kind, Record
from miao.corpus.seedbed import Seedbed
from miao.errors import MiaoError
from miao.files import free_space
from miao.hubs import is_hub_name
from miao.recipe import STAGES, Recipe, TokenizerOptions
from miao.recipe.checks import check_weights
from miao.recipe.stages import AdapterOptions, TeacherOptions
from miao.rewards import load_environment, load_rewards, problem_files
from miao.run.changes import gone_text
from miao.rundir import find_model
from miao.tokenizer import Tokenizer
from miao.tokenizer.named_templates import check_template_name
from miao.tokenizer.tokenizer import CONTROL_TOKENS

LOOKED_AT = 64
"""Files of each kind of record whose beginning is read."""
PLAIN = {".txt", ".md", ".html", ".htm"}
"""Files whose documents name no source of their own."""


def preflight(recipe: Recipe, up_to: str = "report") -> None:
    """Looks at the machine, the libraries and the files that the stages up to one will need; what
    lies on a hub is left to them.

    Raises:
        MiaoError: something is missing or wrong; all of it, if it is more.
    """
    reached = STAGES[: STAGES.index(up_to) + 1] if up_to in STAGES else STAGES
    trains = up_to in STAGES or up_to == "report"
    stages = [s for s in reached if trains and getattr(recipe, s).enabled]
    kept = bool(gone_text(recipe))
    made = [] if kept else needed_kinds(recipe)
    checks = [partial(_records, recipe, stage, KINDS[stage]) for stage in made]
    if up_to != "corpus":
        checks.append(partial(_tokenizer, recipe.tokenizer))
        talks = [stage for stage in stages if stage != "pretrain"]
        checks += [partial(_chat_template, recipe.tokenizer, talks[0])] if talks else []
    checks.append(partial(_disk, recipe, stages, made))
    if stages:
        checks += [] if kept else [partial(_weights, recipe)]
        checks += [partial(check, recipe) for check in (_device, _trackers, _tasks)]
        checks.append(partial(_base, recipe, stages[0]))
    for stage in stages:
        checks += [partial(_teacher, recipe, stage), partial(_adapter, recipe, stage)]
    if "grpo" in stages:
        checks.append(partial(_rewards, recipe))
    problems: dict[str, MiaoError] = {}  # two checks may find the same
    for check in checks:
        try:
            check()
        except MiaoError as error:
            problems[str(error)] = error
    if len(problems) == 1:
        raise next(iter(problems.values()))
    if problems:
        lines = ["  - " + text.replace("\n", "\n  ") for text in problems]
        raise MiaoError("\n".join([f"{len(problems)} mistakes:", *lines]))


def _files(paths: list[str]) -> Iterator[tuple[Path, str]]:
    local = [path for path in paths if not is_unseen(path)]
    yield from find_sources(local) if local else ()


def _records(recipe: Recipe, stage: str, kind: Kind) -> None:
    """The first record of every file is one of this kind, and of the first ones' columns enough is
    read."""
    corpus = recipe.corpus
    reading = Reading(corpus.columns, corpus.encoding)
    for path, source in islice(_files(given_paths(corpus)[stage]), LOOKED_AT):
        first: list[Record] = []

        def strict(problem: Problem, first: list[Record] = first) -> None:
            if not first and not corpus.skip_bad_records:
                stop(problem)

        records = convert_file(path, kind, source, strict, RecordCounts(), reading)
        for record, _, _ in islice(records, RECORDS):
            first[:] = [record]


def _tokenizer(options: TokenizerOptions) -> None:
    if options.path:
        if not is_hub_name(options.path):
            Tokenizer.from_directory(options.path)
        return
    least = 256 + len({*CONTROL_TOKENS, *options.special_tokens})
    if options.vocab_size < least:
        raise MiaoError(
            f"{options.vocab_size} is too small: the 256 bytes and the control tokens need {least}",
            where="tokenizer.vocab_size",
            fix="choose 1024 or more; 6400 suits small Chinese/English models",
        )


def _chat_template(options: TokenizerOptions, stage: str) -> None:
    if options.chat_template is not None:
        check_template_name(options.chat_template, "tokenizer.chat_template")
        return
    known = options.path and not is_hub_name(options.path)
    if known and not Tokenizer.from_directory(str(options.path)).has_chat_template:
        raise MiaoError(
            f"{stage} learns conversations, and this tokenizer has no chat template",
            where=options.path,
            fix="--tokenizer.chat_template miao (or chatml, llama3, gemma, a .jinja file); "
            f"or leave the stage out: --{stage}.enabled false",
        )


def _weights(recipe: Recipe) -> None:
    """Names of sources, where the paths tell them all; records may name others."""
    corpus, names = recipe.corpus, []
    if not corpus.weights:
        return
    if not corpus.paths and not (corpus.local and Path(corpus.local).is_dir()):
        topics = Seedbed(corpus.seedbed, recipe.seed).document_weights
        names = [name for name, weight in topics.items() if weight]
    elif not any(map(is_unseen, corpus.paths)):
        found = list(_files(corpus.paths))
        if {path.suffix.lower() for path, _ in found} <= PLAIN:
            names = sorted({name for _, name in found})
    if not all(re.fullmatch(r"(?![_.])[\w.\-]{1,64}(?<![_.])", name) for name in names):
        return  # they are written otherwise as names of files
    if names:
        check_weights(corpus.weights, names)


def _device(recipe: Recipe) -> None:
    """A launcher's processes share the devices out when they meet."""
    if recipe.device not in ("auto", "cpu") and os.environ.get("WORLD_SIZE", "1") == "1":
        from miao.device import choose_device

        choose_device(recipe.device)


def _trackers(recipe: Recipe) -> None:
    if recipe.trackers:
        from miao.train.watch.trackers import require_trackers

        require_trackers(recipe.trackers)


def _tasks(recipe: Recipe) -> None:
    if recipe.evaluate.during.tasks:
        from miao.train.watch.tasks import prepare

        prepare(recipe.evaluate.during)


def _base(recipe: Recipe, first: str) -> None:
    path = recipe.model.path
    if path is None and first != "pretrain":
        from miao.run.models import no_model

        raise no_model(first)
    if path is not None and not is_hub_name(path):
        own = (find_model(path) / "tokenizer.json").is_file()
        if own and recipe.tokenizer.path is None:
            raise MiaoError(
                "this model knows the tokens of its own tokenizer, and another would be trained",
                where=path,
                fix=f"--tokenizer.path {path}",
            )


def _disk(recipe: Recipe, stages: list[str], made: list[str]) -> None:
    """There is room for the least that the run writes: the corpus and its shards (each about as
    large as the text), and of every stage one checkpoint and its model.

    Args:
        made: the kinds of record of which a corpus is made.
    """
    from miao.model import count_parameters, load_config, new_config

    given = given_paths(recipe.corpus)
    paths = {path for stage in made for path, _ in _files(given[stage])}
    needed = 2 * sum(path.stat().st_size for path in paths)
    path = recipe.model.path
    if stages and not is_hub_name(path or ""):
        size = recipe.tokenizer.vocab_size
        config = load_config(find_model(path)) if path else new_config(recipe.model, size, None)
        for stage in stages:  # 4 bytes of model, 8 of checkpoint: weights, one mean of gradients
            adapter = getattr(getattr(recipe, stage), "adapter", None)
            alone = adapter is None or adapter.kind == "none"
            needed += (12 if alone else 4) * count_parameters(config).total
    there = sum(file.stat().st_size for file in recipe.run_dir.rglob("*") if file.is_file())
    if needed > (free := free_space(recipe.run_dir)) + there:
        raise MiaoError(
            f"the run writes {needed / 2**20:,.0f} MiB or more (corpus, shards, a checkpoint and a "
            f"model of every stage), and {free / 2**20:,.0f} MiB of disk are free",
            where=recipe.run_dir,
            fix="free some space, or choose another place with --out_dir",
        )


def _teacher(recipe: Recipe, stage: str) -> None:
    teacher: TeacherOptions | None = getattr(getattr(recipe, stage), "teacher", None)
    if teacher is None or teacher.path is None or is_hub_name(teacher.path):
        return
    if not Path(teacher.path).absolute().is_relative_to(recipe.run_dir.absolute()):
        find_model(teacher.path)  # else an earlier stage makes it


def _adapter(recipe: Recipe, stage: str) -> None:
    options: AdapterOptions | None = getattr(getattr(recipe, stage), "adapter", None)
    if options is None or options.kind == "none":
        return
    from miao.train.adapters import check_targets, linear_layers, require_peft

    require_peft(f"{stage}.adapter.kind")
    path = recipe.model.path
    if not options.targets or is_hub_name(path or ""):
        return
    import torch

    from miao.model import Decoder, load_config, new_config

    if path is None:
        config = new_config(recipe.model, recipe.tokenizer.vocab_size, None)
    else:
        config = load_config(find_model(path))
    with torch.device("meta"):
        known = linear_layers(Decoder(config))
    check_targets(options.targets, known, f"{stage}.adapter.targets")


def _rewards(recipe: Recipe) -> None:
    problem_files(recipe.grpo)
    load_rewards(recipe.grpo.rewards)
    if recipe.grpo.environment:
        load_environment(recipe.grpo.environment)
