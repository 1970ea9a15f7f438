"""The stages that prepare: corpus, tokenizer, shards."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from miao import rules
from miao.console import ProgressLine, count, headline, say, warn
from miao.corpus.build.output import source_of
from miao.corpus.build.pipeline import (
    build_corpus,
    input_stamps,
    missing_inputs,
    needed_kinds,
    used_kinds,
    write_eval_items,
)
from miao.corpus.records import KINDS, Kind
from miao.errors import MiaoError
from miao.files import fingerprint, read_json
from miao.hubs import local_directory
from miao.recipe import STAGES, parse_quantity, to_dict
from miao.recipe.checks import check_sources, check_weights
from miao.run.chain import NOT_IN_FINGERPRINT, Chain, tokenizer_mark
from miao.run.changes import gone_text
from miao.tokenizer import Tokenizer, sample_texts, train_tokenizer
from miao.tokenizer.named_templates import with_chat
from miao.tokenizer.sample import fit_training

FEWEST_CONVERSATIONS = 5000
"""Below which own ones alone teach no talking."""


def corpus(chain: Chain) -> None:
    """Text: your files or the built-in corpus, split into train and held-out."""
    recipe = chain.recipe
    options = to_dict(recipe.corpus) | {"weights": {}, "workers": None}
    if not recipe.corpus.text_talks:
        del options["text_talks"]
    if gone := gone_text(recipe):
        headline("corpus: done before")
        say(f"  gone since: {', '.join(gone)}; what was made from it is used as it is")
    else:
        _make_corpus(chain, options)
    _take_corpus(chain)


def _make_corpus(chain: Chain, options: dict[str, Any]) -> None:
    recipe = chain.recipe
    kinds, inputs = _kinds(chain, options)
    with chain.stage("corpus", inputs, chain.run.corpus / "manifest.json") as todo:
        if todo:
            from miao.report.data_report import present_corpus

            report = build_corpus(
                recipe.corpus, recipe.seed, chain.run.corpus, kinds, progress=ProgressLine
            )
            if report.problems:
                warn(
                    f"{report.problems} records could not be used: see "
                    f"{chain.run.corpus / 'problems.jsonl'}"
                )
            if report.skipped_files:
                warn(
                    f"{len(report.skipped_files)} files were passed over: see corpus/manifest.json"
                )
            present_corpus(chain.run.corpus)


def _kinds(chain: Chain, options: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The kinds of record that are needed, and all that a corpus of them depends on; with others
    beside them, where it is there already: a stage that is switched off takes nothing away."""
    recipe = chain.recipe
    needed = needed_kinds(recipe)
    there = chain.run.facts().get("corpus", {}).get("inputs", {}).get("kinds", [])
    for kinds in [there, needed] if set(needed) <= set(there) else [needed]:
        inputs: dict[str, Any] = {"corpus": options, "seed": recipe.seed, "kinds": kinds}
        if kinds is needed or not missing_inputs(recipe.corpus, kinds):
            inputs["files"] = input_stamps(recipe.corpus, kinds)
            if chain.run.finished("corpus", fingerprint(["corpus", inputs])):
                break
    return kinds, inputs


def _take_corpus(chain: Chain) -> None:
    """Says what is there, and makes the questions that belong to it."""
    recipe = chain.recipe
    manifest = read_json(chain.run.corpus / "manifest.json")
    check_weights(recipe.corpus.weights, sorted(manifest["sources"].get("pretrain", {})))
    # What comes after depends on what was written, not on the times of the files that were read.
    chain.marks["corpus"] = fingerprint([manifest["sha256"], manifest["origin"]])
    for kind, origin in manifest["origin"].items():
        files = {n: sha for n, sha in manifest["sha256"].items() if n.startswith(f"{kind}/")}
        chain.marks[f"{kind} corpus"] = fingerprint([files, origin])
    from miao.evaluate.own import write_cloze_items

    items = chain.run.eval_items
    inputs = {"corpus": chain.marks["corpus"], "evaluate": to_dict(recipe.evaluate)}
    with chain.stage("eval items", inputs, items, quiet=True) as todo:
        if todo:
            write_eval_items(recipe, manifest["origin"], items)
            if manifest["origin"].get("pretrain") == "files":
                write_cloze_items(chain.run, recipe.evaluate.own_items)
    for stage, sources in manifest["sources"].items():
        train = sum(s["train"] for s in sources.values())
        heldout = sum(s["heldout"] for s in sources.values())
        characters = sum(s["characters"] for s in sources.values())
        say(
            f"  {stage}: {train:,} {KINDS[stage]}s to train on, {heldout:,} held out, "
            f"{count(characters)} characters, from {manifest['origin'][stage]}"
        )


def tokenizer(chain: Chain) -> None:
    """Byte-level BPE trained on the corpus, or one that is given."""
    options = chain.recipe.tokenizer
    output = chain.run.tokenizer / "tokenizer.json"
    relevant = {k: v for k, v in to_dict(options).items() if k not in NOT_IN_FINGERPRINT}
    if options.trainer == "auto":  # which is the same, nearly always
        relevant["trainer"] = "tokenizers"
    inputs: dict[str, Any] = {**_learned_from(chain), "tokenizer": relevant}
    if options.chat_template is None:
        del relevant["chat_template"]
    if options.path:
        inputs["files"] = tokenizer_mark(options.path)
    with chain.stage("tokenizer", inputs, output) as todo:
        if todo and options.path:
            given = Tokenizer.from_directory(local_directory(options.path))
            with_chat(given, options.chat_template, options.special_tokens).save(
                chain.run.tokenizer
            )
        elif todo:
            _require_corpus(chain)
            from torch import device as torch_device

            from miao.device import memory_bytes

            files, free = _training_files(chain), memory_bytes(torch_device("cpu"))[0]
            size = parse_quantity(options.sample, "tokenizer.sample")
            size, trainer = fit_training(files, size, options.balance, options.trainer, free)
            tokenizer = train_tokenizer(
                sample_texts(files, size, options.balance),
                options.vocab_size,
                trainer=trainer,
                pattern=options.pattern,
                special_tokens=options.special_tokens,
            )
            tokenizer.save(chain.run.tokenizer)
    chain.marks["tokenizer"] = fingerprint(tokenizer_mark(str(chain.run.tokenizer)))
    say(f"  {Tokenizer.from_directory(chain.run.tokenizer).vocab_size:,} tokens")


def _learned_from(chain: Chain) -> dict[str, str]:
    """The corpora that the tokenizer is trained on: all; but one that is there stays, where stages
    were only switched on or off since."""
    now = {name: chain.marks[name] for name in _CORPORA if name in chain.marks}
    inputs = chain.run.facts().get("tokenizer", {}).get("inputs", {})
    before = {name: inputs[name] for name in _CORPORA if name in inputs}
    both = before.keys() & now.keys()
    return before if both and all(before[name] == now[name] for name in both) else now


_CORPORA = [f"{kind} corpus" for kind in KINDS]


def shards(chain: Chain) -> None:
    """Token ids in memory-mapped files."""
    last_turn = chain.recipe.sft.last_turn_only
    outputs = [target / "manifest.json" for _, _, target in _needed_work(chain)]
    inputs: dict[str, Any] = {
        "corpus": chain.marks["corpus"],
        "tokenizer": chain.marks["tokenizer"],
        "sft": {"last_turn_only": last_turn},
    }
    if start := Tokenizer.from_directory(chain.run.tokenizer).own_start:
        inputs["documents"] = {"begin": start}
    if meant := chain.recipe.tokenizer.meant:
        inputs["tokenizer.meant"] = meant
        sources = {target.name for _, _, target in _shard_work(chain)}
        check_sources(set(meant) - {"*"}, sorted(sources), "tokenizer.meant")
    with chain.stage("shards", inputs, *outputs) as todo:
        if todo:
            _build_shards(chain, last_turn)
    begin = [inputs.get("documents"), inputs.get("tokenizer.meant"), last_turn]
    for kind in KINDS:
        marks = [chain.marks.get(f"{kind} corpus"), chain.marks["tokenizer"], *begin]
        chain.marks[f"{kind} shards"] = fingerprint(marks[: None if kind == "sft" else -1])
    from miao.shards.build import note_lines
    from miao.shards.dataset import read_manifest

    for stage, kind in KINDS.items():
        found = sorted(chain.run.shards(stage, "train").glob("*/manifest.json"))
        if not found:
            continue
        manifests = [read_manifest(path) for path in found]
        tokens = sum(manifest.tokens for manifest in manifests)
        size = sum(manifest.bytes for manifest in manifests)
        say(f"  {stage}: {count(tokens)} tokens, {size / max(tokens, 1):.2f} bytes per token")
        notes = sum((manifest.notes for manifest in manifests), Counter())
        for line in note_lines(notes, kind):
            say(f"    {line}")
    _warn_of_unused(chain)


def _warn_of_unused(chain: Chain) -> None:
    """Control tokens of the user's own that no shard holds: nothing would train them."""
    own = chain.recipe.tokenizer.special_tokens
    if not own:
        return
    from miao.shards.stats import token_counts

    ids = Tokenizer.from_directory(chain.run.tokenizer).control_ids
    found = [
        token_counts(path.parent)[0]
        for path in (chain.run.path / "shards").glob("*/train/*/manifest.json")
    ]
    if unused := [token for token in own if not any(counts[ids[token]] for counts in found)]:
        warn(
            f"{', '.join(unused)}: no shard holds them, so nothing trains them; where a text that "
            "spells them means them, say so: --tokenizer.meant"
        )


def require_rows(chain: Chain, up_to: str) -> None:
    """That there is something to learn in what each later stage will be trained on.

    Raises:
        MiaoError: nothing is; before the first stage has begun to train.
    """
    from miao.train.feed.sources import require_rows

    if chain.world.is_main:
        warn_of_babble(chain)
    for stage in STAGES:
        if stage in KINDS and getattr(chain.recipe, stage).enabled:
            require_rows(stage, chain.recipe, chain.run)
        if stage == up_to:
            break


def _needed_decay(chain: Chain, tokens: int) -> float:
    """Weight decay by the rule, for so many tokens of text and the recipe's rates."""
    options = chain.recipe.pretrain
    batch = round(parse_quantity(options.batch_tokens, "pretrain.batch_tokens"))
    return rules.weight_decay(batch, options.muon_learning_rate or options.learning_rate, tokens)


def warn_of_babble(chain: Chain) -> None:
    """Says so before a training whose model can only babble, with what to change."""
    from miao.shards.dataset import read_manifest

    recipe, run = chain.recipe, chain.run
    sources = read_json(run.corpus / "manifest.json")["sources"]
    found = run.shards("pretrain", "train").glob("*/manifest.json")
    tokens = sum(read_manifest(path).tokens for path in found)
    budget, pretrain = 0.0, recipe.pretrain
    if pretrain.enabled and recipe.corpus.paths and tokens:
        if pretrain.tokens is not None:
            budget = parse_quantity(pretrain.tokens, "pretrain.tokens")
        if (times := max(budget / tokens, pretrain.epochs or 0)) > rules.MOST_PASSES:
            warn(
                f"pretraining reads {count(tokens)} tokens {times:.0f} times: what is read more "
                f"than {rules.MOST_PASSES} times teaches nothing more (arXiv:2305.16264), it is "
                "learned by heart; bring more text, or lower pretrain.tokens"
            )
        if (
            times > rules.OFTEN
            and pretrain.weight_decay < (needed := _needed_decay(chain, tokens)) / 3
        ):
            warn(
                f"pretraining reads {count(tokens)} tokens {times:.0f} times: it will know them by "
                f"heart, and what is held out worse and worse; --pretrain.weight_decay {needed:g} "
                "helps (page 24 of the documentation)"
            )
    own = sources.get("sft", {}).get("conversations", {}).get("train", 0)
    alone = recipe.corpus.conversations and not recipe.corpus.mixes_built_in
    if recipe.sft.enabled and alone and not recipe.model.path and own < FEWEST_CONVERSATIONS:
        warn(
            f"{own:,} conversations are all that a new model learns talking from: it will babble "
            "about anything else (its name, small talk, sums); --corpus.own_share auto puts the "
            "built-in ones beside them"
        )
    if alone and recipe.dpo.enabled and not recipe.corpus.preferences:
        warn(
            "DPO's built-in pairs are about what your conversations do not teach: "
            "--dpo.enabled false, or --corpus.own_share auto"
        )


def _require_corpus(chain: Chain) -> None:
    """Raises:
    MiaoError: files of the run's corpus are gone, from which something would be made anew.
    """
    corpus = chain.run.corpus
    names = read_json(corpus / "manifest.json")["sha256"]
    if gone := [name for name in names if not (corpus / name).exists()]:
        raise MiaoError(
            f"{len(gone)} of its {len(names)} files are gone ({gone[0]}, ...), and what was made "
            "from them would have to be made anew",
            where=corpus,
            fix="take back the change; or delete manifest.json there, to make the corpus anew",
        )


def _training_files(chain: Chain) -> list[tuple[Path, Kind]]:
    return [
        (path, kind)
        for stage, kind in KINDS.items()
        for path in sorted((chain.run.corpus / stage / "train").glob("*.jsonl"))
    ]


def _build_shards(chain: Chain, last_turn_only: bool) -> None:
    from miao.shards import Job, build_datasets

    _require_corpus(chain)
    options = chain.recipe.tokenizer
    tokenizer = Tokenizer.from_directory(chain.run.tokenizer)
    jobs = [
        Job(
            paths,
            kind,
            target.name,
            target,
            last_turn_only,
            may_be_empty=target.parent.name == "heldout",
            meant=tuple(options.meant.get(target.name, options.meant.get("*", []))),
        )
        for kind, paths, target in _needed_work(chain)
    ]
    known = {target for _, _, target in _shard_work(chain)}
    for stale in set((chain.run.path / "shards").glob("*/*/*")) - known:
        if stale not in {job.workplace for job in jobs}:
            shutil.rmtree(stale, ignore_errors=True)
    with ProgressLine("tokenising", sum(job.size for job in jobs)) as line:
        report = build_datasets(
            jobs, tokenizer, options.workers, options.fast_encoder, line.advance
        )
    if report.reused:
        say(f"  {report.reused} of {report.reused + report.encoded} shards were there already")


def _needed_work(chain: Chain) -> list[tuple[Kind, list[Path], Path]]:
    """What of `_shard_work` some stage that is on trains on or measures with."""
    used = used_kinds(chain.recipe)
    heldout = chain.run.shards("pretrain", "heldout")  # bits per byte, of whatever is trained
    return [
        work
        for work in _shard_work(chain)
        if work[2].is_relative_to(heldout)
        or any(work[2].is_relative_to(chain.run.path / "shards" / stage) for stage in used)
    ]


def _shard_work(chain: Chain) -> list[tuple[Kind, list[Path], Path]]:
    """(kind, corpus files, dataset directory) of everything to tokenise."""
    work: dict[Path, tuple[Kind, list[Path], Path]] = {}
    for stage, kind in KINDS.items():
        for path in sorted((chain.run.corpus / stage).glob("*/*.jsonl")):
            target = chain.run.shards(stage, path.parent.name) / source_of(path)
            work.setdefault(target, (kind, [], target))[1].append(path)
    return list(work.values())
