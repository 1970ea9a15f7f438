"""A corpus to token shards on many machines: tasks of datatrove's, each a share of its files.

What `build_datasets` makes of a part of a file is made by whoever has the file, and laid beside the
others; one task at the end gives the shards their numbers. The datasets are the same, to the bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from miao.console import warn
from miao.corpus.build.datatrove_steps import Kind, make_executor
from miao.corpus.build.output import source_of
from miao.corpus.folder import Folder
from miao.corpus.records import KINDS
from miao.errors import MiaoError
from miao.files import fingerprint
from miao.shards.build import new_manifest, nothing_found
from miao.shards.bulk import FORMAT, Encode, Job
from miao.shards.dataset import Shard
from miao.shards.write import finish_manifest, numbered_file
from miao.tokenizer import Tokenizer
from miao.tokenizer.bulk import BulkEncoder, EncoderMismatch

SLOW = "parts/slow.json"
"""Is there when fastokens gave other ids than tokenizers anywhere: then nothing of it counts."""


def shard_executors(
    corpus: str,
    shards: str,
    tokenizer: str,
    tasks: int,
    work: str,
    executor: Kind = "local",
    after: Any = None,
    **settings: Any,
) -> list[Any]:
    """Two executors; running the last runs both, and what they wait for.

    Args:
        corpus: a folder that `datatrove_executors` or `miao corpus build` wrote (jsonl).
        shards: the folder for `<stage>/<train|heldout>/<source>/`, laid out as a run's shards.
        tokenizer: a directory that all machines see.
        work: for datatrove's logs.
        after: the executor that makes the corpus, if that is not there yet.
    """
    before = [after] if after else []
    steps: list[tuple[str, Any, int]] = [
        ("tokenise", TokeniseStep(corpus, shards, tokenizer), tasks),
        ("number", NumberStep(corpus, shards, tokenizer), 1),
    ]
    made: list[Any] = []
    for name, step, count in steps:
        made.append(make_executor(executor, name, [step], count, before, work, settings))
        before = made[-1:]
    return made


class _Step(PipelineStep):
    type = "miao"

    def __init__(self, corpus: str, shards: str, tokenizer: str):
        super().__init__()
        self.corpus, self.shards, self.tokenizer = Folder(corpus), Folder(shards), tokenizer

    def files(self) -> dict[str, str]:
        """Of the corpus, in order, with their checksums."""
        manifest = self.corpus.read_json("manifest.json")
        if manifest is None:
            raise MiaoError("no corpus is here", where=self.corpus.place)
        return dict(sorted(manifest["sha256"].items()))

    def shards_of(self, name: str, checksum: str, tokenizer: Tokenizer, fast: bool) -> list[Any]:
        """Of a file, made unless they are there, from the same content by the same tokenizer."""
        place = f"parts/{name}/done.json"
        mark = fingerprint([FORMAT, checksum, tokenizer.fingerprint()])
        noted = self.shards.read_json(place) or {}
        slow = self.shards.read_json(SLOW) is not None
        if noted.get("of") == mark and not (slow and noted["fast"]):
            return list(noted["shards"])
        with self.track_time():
            try:
                shards = self._tokenise(name, tokenizer, fast := fast and not slow)
            except EncoderMismatch as mismatch:
                warn(f"{mismatch}: encoding everything again with tokenizers, which is slower")
                self.shards.write_json(SLOW, {})
                shards = self._tokenise(name, tokenizer, fast := False)
        self.shards.write_json(place, {"of": mark, "fast": fast, "shards": shards})
        return shards

    def _tokenise(self, name: str, tokenizer: Tokenizer, fast: bool) -> list[Any]:
        with self.shards.scratch() as directory:
            path = directory / Path(name).name
            with self.corpus.open(name) as file, open(path, "wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
            kind = KINDS[name.split("/")[0]]
            job = Job([path], kind, source_of(path), directory / "dataset")
            encode = Encode([job], tokenizer, fast)
            shards = []
            for number, part in enumerate(job.parts):
                done = encode((0, part))
                for file_name in done.shard.files:
                    place = f"parts/{name}/{number:05d}/{file_name}"
                    self.shards.take(done.directory / file_name, place)
                shards.append(asdict(done.shard))
        return shards


class TokeniseStep(_Step):
    """A rank's share of the files, to a shard of each of their parts."""

    name = "tokenise"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        tokenizer = Tokenizer.from_directory(Path(self.tokenizer))
        fast = BulkEncoder(tokenizer).is_fast
        for name, checksum in list(self.files().items())[rank::world_size]:
            self.shards_of(name, checksum, tokenizer, fast)
            self.stat_update("files")
        yield from data or ()


class NumberStep(_Step):
    """Puts the shards into their datasets; what fastokens made is made again, if it was found to
    err. One task."""

    name = "number"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        tokenizer = Tokenizer.from_directory(Path(self.tokenizer))
        datasets: dict[str, dict[str, list[Any]]] = {}
        for name, checksum in self.files().items():
            target = f"{Path(name).parent.as_posix()}/{source_of(Path(name))}"
            shards = self.shards_of(name, checksum, tokenizer, fast=False)
            datasets.setdefault(target, {})[name] = shards
        for target, made in datasets.items():
            self._number(target, made, tokenizer)
        self.shards.remove("parts")
        yield from data or ()

    def _number(self, target: str, made: dict[str, list[Any]], tokenizer: Tokenizer) -> None:
        stage, split, source = target.split("/")
        finished: list[Shard] = []
        unlearned = 0
        for name, shards in made.items():
            for part, values in enumerate(shards):
                shard = Shard(**values)
                unlearned += shard.notes.get("unlearned", 0)
                if not shard.sequences:
                    continue
                files = {}
                for file, checksum in shard.files.items():
                    numbered = numbered_file(file, len(finished))
                    files[numbered] = checksum
                    self.shards.copy(f"parts/{name}/{part:05d}/{file}", f"{target}/{numbered}")
                finished.append(replace(shard, files=files))
        if not finished and split != "heldout":
            raise nothing_found(KINDS[stage], source, self.corpus.place, unlearned)
        manifest = new_manifest(KINDS[stage], source, tokenizer)
        with self.shards.scratch() as directory:
            finish_manifest(directory, manifest, finished)
            self.shards.take(directory / "manifest.json", f"{target}/manifest.json")
