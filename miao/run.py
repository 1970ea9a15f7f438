"""The chain of stages of one recipe; a stage whose inputs and options are unchanged is skipped."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from miao import __version__
from miao.console import ProgressLine, count, duration, headline, print_table, say, warn
from miao.corpus.local import with_local_files
from miao.corpus.pipeline import (
    KINDS,
    build_corpus,
    input_fingerprint,
    write_eval_items,
)
from miao.corpus.records import Kind
from miao.corpus.summary import account_lines
from miao.errors import MiaoError
from miao.files import (
    fingerprint,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from miao.hubs import local_directory
from miao.recipe import STAGES, Recipe, parse_quantity, to_dict
from miao.rundir import RunDir
from miao.tokenizer import Tokenizer, sample_texts, train_tokenizer
from miao.train.world import World, join_world

# Options that change neither data nor, without trouble, weights: changing them redoes no stage.
NOT_IN_FINGERPRINT = {
    "enabled", "log_every", "eval_every", "sample_every", "save_every", "keep_last", "keep_every",
    "micro_batch", "spike_action", "spike_threshold", "spike_window", "workers", "fast_encoder",
    "activation_checkpointing",
}  # fmt: skip


@dataclass
class Chain:
    """Runs the stages of a recipe in order, in its run directory."""

    recipe: Recipe
    run: RunDir
    marks: dict[str, str]
    world: World

    def corpus(self) -> None:
        """Text: your files or the built-in corpus, split into train and held-out."""
        recipe = self.recipe
        inputs = [
            to_dict(recipe.corpus) | {"weights": {}, "workers": None},
            recipe.seed,
            input_fingerprint(recipe.corpus),
        ]
        with self._stage("corpus", inputs, self.run.corpus / "manifest.json") as todo:
            if todo:
                with ProgressLine("reading", 0) as line:
                    report = build_corpus(recipe.corpus, recipe.seed, self.run.corpus, line.advance)
                if report.problems:
                    warn(
                        f"{report.problems} records could not be used: see "
                        f"{self.run.corpus / 'problems.jsonl'}"
                    )
                if report.skipped_files:
                    warn(
                        f"{len(report.skipped_files)} files were passed over: "
                        "see corpus/manifest.json"
                    )
                if report.accounts:
                    self._say_cleaning()
        manifest = read_json(self.run.corpus / "manifest.json")
        options = to_dict(recipe.evaluate)
        items = self.run.eval_items
        with self._stage("eval items", [self.marks["corpus"], options], items, quiet=True) as todo:
            if todo:
                write_eval_items(recipe, manifest["origin"], items)
        for stage, sources in manifest["sources"].items():
            train = sum(s["train"] for s in sources.values())
            heldout = sum(s["heldout"] for s in sources.values())
            characters = sum(s["characters"] for s in sources.values())
            say(
                f"  {stage}: {train:,} {KINDS[stage]}s to train on, {heldout:,} held out, "
                f"{count(characters)} characters, from {manifest['origin'][stage]}"
            )

    def _say_cleaning(self) -> None:
        """What became of the user's own records; the data report beside the corpus."""
        from miao.report.data_report import write_data_report

        accounts = read_json(self.run.corpus / "manifest.json")["accounts"]
        for stage, facts in accounts.items():
            for line in account_lines(facts):
                say(f"  {stage}: {line}")
        say(f"  {write_data_report(self.run.corpus)}")

    def tokenizer(self) -> None:
        """Byte-level BPE trained on the corpus, or one that is given."""
        options = self.recipe.tokenizer
        output = self.run.tokenizer / "tokenizer.json"
        relevant = {k: v for k, v in to_dict(options).items() if k not in NOT_IN_FINGERPRINT}
        with self._stage("tokenizer", [self.marks["corpus"], relevant], output) as todo:
            if todo and options.path:
                Tokenizer.from_directory(local_directory(options.path)).save(self.run.tokenizer)
            elif todo:
                size = parse_quantity(options.sample, "tokenizer.sample")
                texts = sample_texts(self._training_files(), size, options.balance)
                tokenizer = train_tokenizer(
                    texts,
                    options.vocab_size,
                    trainer=options.trainer,
                    pattern=options.pattern,
                    special_tokens=options.special_tokens,
                )
                tokenizer.save(self.run.tokenizer)

    def shards(self) -> None:
        """Token ids in memory-mapped files."""
        last_turn = self.recipe.sft.last_turn_only
        outputs = [target / "manifest.json" for _, _, target in self._shard_work()]
        with self._stage("shards", [self.marks["tokenizer"], last_turn], *outputs) as todo:
            if todo:
                self._build_shards(last_turn)
        for stage in KINDS:
            manifests = [
                read_json(path) for path in self.run.shards(stage, "train").glob("*/manifest.json")
            ]
            tokens = sum(shard["tokens"] for m in manifests for shard in m["shards"])
            size = sum(m["bytes"] for m in manifests)
            say(f"  {stage}: {count(tokens)} tokens, {size / max(tokens, 1):.2f} bytes per token")

    def train(self, stage: str) -> None:
        """One training stage, then its evaluation."""
        options = getattr(self.recipe, stage)
        if not options.enabled:
            return
        with self.world.main_first():
            base = self._base_model(stage)
        relevant = {k: v for k, v in to_dict(options).items() if k not in NOT_IN_FINGERPRINT}
        inputs = [self.marks["shards"], relevant, self.recipe.seed, self._base_mark(stage)]
        if stage == "pretrain":
            inputs += [to_dict(self.recipe.model)]
        inputs += [self.recipe.corpus.weights]
        with self._stage(stage, inputs, self.run.model(stage) / "config.json") as todo:
            if todo:
                self._train(stage, base)
        if self.recipe.evaluate.enabled and self.world.is_main:
            self._evaluate(stage, base)
        self.world.barrier()

    def report(self) -> None:
        """The final model directory and report.html."""
        from miao.report import write_report

        last = [stage for stage in STAGES if getattr(self.recipe, stage).enabled]
        if not last:
            return
        outputs = (self.run.final_model / "config.json", self.run.report)
        with self._stage("report", [self.marks], *outputs) as todo:
            if todo:
                shutil.rmtree(self.run.final_model, ignore_errors=True)
                shutil.copytree(self.run.model(last[-1]), self.run.final_model)
                write_report(self.run)
        say(f"  {self.run.report}")

    def _train(self, stage: str, base: Path | None) -> None:
        from miao.device import choose_device
        from miao.train.stage import result_facts, train_stage, write_samples

        if self.world.is_main:
            self.run.begin(stage, self.marks[stage])
        self.world.barrier()
        tokenizer = Tokenizer.from_directory(self.run.tokenizer)
        result = train_stage(
            stage, self.recipe, self.run, tokenizer, base, self.marks[stage], self.world
        )
        if not self.world.is_main:
            return
        facts = result_facts(result, choose_device(self.recipe.device))
        write_json(self.run.checkpoints(stage) / "result.json", facts)
        say(
            f"  {count(result.tokens)} tokens in {duration(result.seconds)}: "
            f"loss {result.loss:.3f}, "
            f"{count(result.tokens_per_second)} tokens/s, "
            f"MFU {result.mfu:.0%} of the measured peak, "
            f"{facts['peak_memory_mib']:,} MiB"
        )
        model = self._load(stage)
        for record in write_samples(stage, model, tokenizer, self.recipe, self.run, result.tokens):
            say(f"  > {record['prompt']}\n    {record['answer'].strip()}")

    def _evaluate(self, stage: str, base: Path | None) -> None:
        from miao.evaluate.scores import score_rows
        from miao.evaluate.stage import changed_answers, evaluate_stage

        options = self.recipe.evaluate
        name = f"evaluate {stage}"
        with self._stage(name, [self.marks[stage], to_dict(options)], quiet=True) as todo:
            if not todo:
                return
            reference = self._load(base) if stage == "dpo" and base else None
            tokenizer = Tokenizer.from_directory(self.run.tokenizer)
            result = evaluate_stage(
                stage,
                self._load(stage),
                tokenizer,
                self.run,
                options,
                reference,
                self.recipe.dpo.beta,
            )
            extended = base if stage == "pretrain" else None
            contexts = self._long_contexts(extended, tokenizer) if extended else {}
            if contexts:
                result.scores += contexts["after"].scores()
            line: dict[str, Any] = {
                "stage": stage,
                "scores": [score.to_json() for score in result.scores],
            }
            if contexts:
                line["long_context"] = {name: c.to_json() for name, c in contexts.items()}
            if result.answers:
                write_jsonl(self.run.answers(stage), result.answers)
            if stage == "dpo" and (old := read_jsonl(self.run.answers("sft"))):
                changed = changed_answers(old, result.answers)
                line["changed_answers"] = {"of": len(result.answers), "changed": changed}
            self.run.replace_lines(self.run.eval_results, stage, [line])
        columns = ["measure", "of", "items", "value", "std. error", "chance"]
        print_table(f"after {stage}", columns, score_rows(result.scores), right_from=2)
        if "changed_answers" in line:
            _say_changes(line["changed_answers"])
        if "long_context" in line:
            _say_long_context(line["long_context"])

    def _long_contexts(self, base: Path, tokenizer: Tokenizer) -> dict[str, Any]:
        """What pretraining on a trained model made of a longer context: before and after."""
        from miao.evaluate.long_context import LongContext, measure_long_context
        from miao.model import load_config
        from miao.shards import TokenDataset

        length = load_config(self.run.model("pretrain")).context_length
        if length <= load_config(base).context_length:
            return {}
        models = {"before": self._load(base), "after": self._load("pretrain")}
        heldout = sorted(self.run.shards("pretrain", "heldout").glob("*/"))
        datasets = [TokenDataset(directory) for directory in heldout]
        found: dict[str, LongContext] = {}
        with ProgressLine("long context", 0) as progress:
            for name, model in models.items():
                found[name] = measure_long_context(
                    model, tokenizer, length, datasets, progress.advance, self.recipe.seed
                )
        return found

    def _load(self, stage: str | Path) -> Any:
        from miao.device import choose_device
        from miao.model import load_model

        directory = self.run.model(stage) if isinstance(stage, str) else stage
        return load_model(directory).to(choose_device(self.recipe.device))

    def _base_model(self, stage: str) -> Path | None:
        """The model directory that a stage begins with: the stage before it, or model.path."""
        before = STAGES[: STAGES.index(stage)]
        for earlier in reversed(before):
            if getattr(self.recipe, earlier).enabled:
                return self.run.model(earlier)
        if self.recipe.model.path:
            from miao.rundir import find_model

            return find_model(self.recipe.model.path)
        if stage == "pretrain":
            return None
        raise MiaoError(
            f"{stage} has no model to begin with",
            where=stage,
            fix="enable the stage before it, or name a trained model: --model.path DIR",
        )

    def _base_mark(self, stage: str) -> str:
        before = [s for s in STAGES[: STAGES.index(stage)] if s in self.marks]
        return self.marks[before[-1]] if before else str(self.recipe.model.path)

    def _training_files(self) -> list[tuple[Path, Kind]]:
        return [
            (path, kind)
            for stage, kind in KINDS.items()
            for path in sorted((self.run.corpus / stage / "train").glob("*.jsonl"))
        ]

    def _build_shards(self, last_turn_only: bool) -> None:
        from miao.shards import Job, build_datasets

        options = self.recipe.tokenizer
        tokenizer = Tokenizer.from_directory(self.run.tokenizer)
        jobs = [
            Job([path], kind, path.stem, target, last_turn_only)
            for kind, path, target in self._shard_work()
        ]
        wanted = {job.directory for job in jobs}
        for stale in set((self.run.path / "shards").glob("*/*/*")) - wanted:
            if stale not in {job.workplace for job in jobs}:
                shutil.rmtree(stale, ignore_errors=True)
        with ProgressLine("tokenising", sum(job.size for job in jobs)) as line:
            report = build_datasets(
                jobs, tokenizer, options.workers, options.fast_encoder, line.advance
            )
        if report.reused:
            say(f"  {report.reused} of {report.reused + report.encoded} shards were there already")

    def _shard_work(self) -> list[tuple[Kind, Path, Path]]:
        """(kind, corpus file, dataset directory) of everything to tokenise."""
        return [
            (kind, path, self.run.shards(stage, path.parent.name) / path.stem)
            for stage, kind in KINDS.items()
            for path in sorted((self.run.corpus / stage).glob("*/*.jsonl"))
        ]

    @contextmanager
    def _stage(
        self, name: str, inputs: list[Any], *outputs: Path, quiet: bool = False
    ) -> Iterator[bool]:
        """Headline, skipping, timing and bookkeeping around a stage; True: it must run."""
        mark = fingerprint([name, *inputs])
        self.marks[name] = mark
        if self.run.finished(name, mark) and all(output.exists() for output in outputs):
            if not quiet:
                headline(f"{name}: done before")
            yield False
            return
        if not self.world.is_main and name not in STAGES:
            raise MiaoError(
                f"'{name}' is done, but its files are not seen here",
                where=self.run.path,
                fix="put out_dir on storage that all machines share",
            )
        if not quiet:
            headline(name)
        began = time.monotonic()
        yield True
        if not self.world.is_main:
            return
        seconds = time.monotonic() - began
        self.run.mark_finished(name, mark, seconds=round(seconds, 2))


def run_recipe(recipe: Recipe, up_to: str = "report") -> RunDir:
    """Runs every stage of a recipe that is not done yet, in order, up to the one named. Of several
    processes the first prepares, measures and writes; all of them train."""
    with join_world(recipe.device) as world:
        return _run_in(world, recipe, up_to)


def _run_in(world: World, recipe: Recipe, up_to: str) -> RunDir:
    run = RunDir(recipe.run_dir)
    with world.main_first():
        recipe.corpus = with_local_files(recipe.corpus)
    if world.is_main:
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(
            run.path / "recipe.yaml",
            yaml.safe_dump(to_dict(recipe), allow_unicode=True, sort_keys=False),
        )
        write_json(run.path / "manifest.json", machine_facts() | {"processes": world.size})
    began = time.monotonic()
    chain = Chain(recipe, run, {}, world)
    steps: dict[str, Callable[[], None]] = {
        "corpus": chain.corpus,
        "tokenizer": chain.tokenizer,
        "shards": chain.shards,
        **{stage: partial(chain.train, stage) for stage in STAGES},
        "report": chain.report,
    }
    for name, step in steps.items():
        if name in STAGES:
            step()
        else:
            with world.main_first():
                if world.is_main or name != "report":  # what was measured is known there only
                    step()
        if name == up_to:
            break
    _say_end(run, time.monotonic() - began)
    return run


def machine_facts() -> dict[str, Any]:
    """What made this run: versions, commit, machine."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "numpy", "tokenizers", "safetensors"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "?"
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "miao": __version__,
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "packages": versions,
    }


def _say_changes(changes: dict[str, Any]) -> None:
    changed = changes["changed"]
    say(f"  DPO changed {len(changed)} of {changes['of']} answers, for example:")
    for record in changed[:3]:
        say(
            f"  > {record['question']}\n    before: {record['before']}\n"
            f"    after:  {record['after']}"
        )


def _say_long_context(contexts: dict[str, Any]) -> None:
    before, after = contexts["before"], contexts["after"]
    columns = ["passkey found at", "before", "after"]
    rows = [
        [f"{tokens:,} tokens", f"{100 * old:.0f}%", f"{100 * new:.0f}%"]
        for (tokens, old, _), (_, new, _) in zip(before["passkeys"], after["passkeys"], strict=True)
    ]
    print_table("a number said once in a text, to be said again", columns, rows, right_from=1)
    if not after["positions"]:
        say("  bits per byte by position: not measured, no held-out document is that long")
        return
    rows = [
        [f"up to {end:,}", f"{old:.3f}", f"{new:.3f}"]
        for (end, old), (_, new) in zip(before["positions"], after["positions"], strict=True)
    ]
    print_table("bits per byte by position", ["position", "before", "after"], rows, right_from=1)


def _say_end(run: RunDir, seconds: float) -> None:
    headline(f"done in {duration(seconds)}")
    parts = [(name, facts.get("seconds", 0.0)) for name, facts in run.facts().items()]
    total = sum(spent for _, spent in parts) or 1.0
    say(
        "  time: "
        + ", ".join(f"{name} {duration(spent)} ({spent / total:.0%})" for name, spent in parts)
    )
    say("  next:")
    say(f"    miao chat {run.path}")
    say(f"    miao tokenizer inspect {run.path} --text '你好，世界'")
    say(f"    open {run.report}")
