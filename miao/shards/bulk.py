"""Files to token shards: many processes, resumable, and only what changed is done again.

Each part of the input (`miao.corpus.read.parts`) becomes a shard of its own, first as a directory
named by the hash of its content and of the settings, in `.NAME.parts` beside the dataset. When all
parts are there, they are linked into the dataset, which is replaced as a whole. So a killed run
goes on with the parts that are missing, and appended text costs only what it adds.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from miao.console import warn
from miao.cores import usable_cores
from miao.corpus.build.processes import worker_pool
from miao.corpus.read.parts import SMALLEST_PART, Part, part_key, read_part, split_file
from miao.corpus.read.sources import find_files
from miao.corpus.records import Kind
from miao.corpus.steps import link
from miao.errors import MiaoError
from miao.files import atomic_directory, read_json, write_json
from miao.shards.build import UNREAD, encode_blocks, new_manifest, nothing_found
from miao.shards.dataset import Manifest, Shard, TokenDataset, read_manifest
from miao.shards.write import ShardWriter, finish_manifest, numbered_file
from miao.tokenizer import Tokenizer
from miao.tokenizer.bulk import BulkEncoder, EncoderMismatch

FORMAT = "tokens-2"
"""Changes when the same text and settings give other shards."""
BYTES_PER_WORKER = 8 * 2**20
"""A process of its own is worth its start from about this much text on."""
WORTH_SPEED = 64 * 2**20
"""Below this much text it is not worth saying that a faster encoder could be installed."""
Advance = Callable[[int], None]


@dataclass
class Job:
    """One dataset to make.

    Args:
        paths: files, folders and globs of records of one kind.
        source: the name under which the data is counted and weighted.
        keep: the shards that are there stay, and the new ones come after them.
        may_be_empty: a dataset without a sequence is no error.
        meant: control tokens that the texts mean where they spell them.
    """

    paths: Sequence[str | Path]
    kind: Kind
    source: str
    directory: Path
    last_turn_only: bool = False
    keep: bool = False
    may_be_empty: bool = False
    meant: tuple[str, ...] = ()
    smallest_part: int = SMALLEST_PART
    parts: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        files = find_files(self.paths)
        self.parts = [p for f in files for p in split_file(f, self.kind, self.smallest_part)]

    @property
    def size(self) -> int:
        """Bytes of input."""
        return sum(part.size for part in self.parts)

    @property
    def workplace(self) -> Path:
        return self.directory.with_name(f".{self.directory.name}.parts")


@dataclass
class BulkReport:
    """What was done: the datasets, and how."""

    manifests: list[Manifest] = field(default_factory=list)
    encoded: int = 0
    """Shards that were made now."""
    reused: int = 0
    """Shards that were there already."""
    notes: Counter[str] = field(default_factory=Counter)
    """Of the shards that were made now; see `Shard.notes`."""
    slow_because: str = ""
    """Why fastokens did not encode; empty: it did."""


def build_datasets(
    jobs: Sequence[Job],
    tokenizer: Tokenizer,
    workers: int | None = None,
    fast: bool = True,
    advance: Advance = lambda size: None,
) -> BulkReport:
    """Tokenises files into datasets, each replaced as a whole when all its parts are done.

    With more than one worker, the program that calls this must guard its entry point with
    `if __name__ == "__main__"`, as always with spawned processes.

    Args:
        workers: processes; None: one per core, fewer for little text.
        fast: encode with fastokens where it gives the same ids.
        advance: is called with the bytes of input that have been dealt with.

    Raises:
        MiaoError: a bad record (file and line), a source without records, no memory.
    """
    for job in jobs:
        _require_continuation(job, tokenizer)
    report = BulkReport()
    for job in jobs:
        known = job.size
        report.reused += _pass_over_known_beginnings(job, tokenizer)
        if known > job.size:
            advance(known - job.size)
    encoder = BulkEncoder(tokenizer, fast, [token for job in jobs for token in job.meant])
    report.slow_because = encoder.slow_because
    much = sum(job.size for job in jobs) > WORTH_SPEED or not encoder.is_missing
    if fast and encoder.slow_because and much:
        warn(f"encoding with tokenizers: {encoder.slow_because}")
    tasks = [(number, part) for number, job in enumerate(jobs) for part in job.parts]
    workers = _worker_count(workers, len(tasks), sum(job.size for job in jobs))
    encode = Encode(jobs, tokenizer, encoder.is_fast)
    try:
        shards = _run(encode, tasks, workers, advance)
    except EncoderMismatch as mismatch:
        warn(f"{mismatch}: encoding everything again with tokenizers, which is slower")
        for job in jobs:
            shutil.rmtree(job.workplace, ignore_errors=True)
        report.slow_because = str(mismatch)
        shards = _run(replace(encode, fast=False), tasks, workers, lambda size: None)
    except BaseException:
        for job in jobs:  # what is done stays for the next time; where nothing is, nothing does
            with suppress(OSError):
                job.workplace.rmdir()
        raise
    for number, job in enumerate(jobs):
        mine = [shards[at] for at, (owner, _) in enumerate(tasks) if owner == number]
        report.manifests.append(_commit(job, tokenizer, mine))
        for done in mine:
            report.notes.update(done.shard.notes if done.is_new else {})
        mine = [done for done in mine if done.shard.sequences]
        report.encoded += sum(done.is_new for done in mine)
        report.reused += sum(not done.is_new for done in mine)
    return report


@dataclass(frozen=True)
class _Done:
    """A shard, and the directory that its files are in."""

    shard: Shard
    directory: Path
    is_new: bool = False


@dataclass(frozen=True)
class Encode:
    """What a worker does: makes the shard of one part of one job in the job's workplace."""

    jobs: Sequence[Job]
    tokenizer: Tokenizer
    fast: bool

    @cached_property
    def encoders(self) -> dict[tuple[str, ...], BulkEncoder]:
        """By what texts mean. Of this process: not before the worker has its copy."""
        every = {job.meant for job in self.jobs}
        return {meant: BulkEncoder(self.tokenizer, self.fast, meant) for meant in every}

    @cached_property
    def old_shards(self) -> list[dict[str, Shard]]:
        """Of every job what its dataset holds already, by the keys of the parts."""
        return [{shard.key: shard for shard in _old_shards(job)} for job in self.jobs]

    def __call__(self, task: tuple[int, Part]) -> _Done:
        number, part = task
        job = self.jobs[number]
        key = part_key(part, _settings(job, self.tokenizer))
        place = job.workplace / key
        if (place / "shard.json").exists():
            return _Done(Shard(**read_json(place / "shard.json")), place)
        if (shard := self.old_shards[number].get(key)) is not None:
            return _Done(shard, job.directory)
        manifest = new_manifest(job.kind, job.source, self.tokenizer)
        with atomic_directory(place) as temporary:
            writer = ShardWriter(temporary, manifest)
            unread: Counter[str] = Counter()
            records = read_part(part, unread)
            encoder = self.encoders[job.meant]
            for block in encode_blocks(records, job.kind, encoder, job.last_turn_only):
                writer.add(block)
            writer.notes.update({f"{UNREAD} {name}": number for name, number in unread.items()})
            shard = replace(writer.close(), origin=part.name, key=key)
            write_json(temporary / "shard.json", asdict(shard))
        return _Done(shard, place, is_new=True)


def _settings(job: Job, tokenizer: Tokenizer) -> list[Any]:
    """All that decides, beside its content, what shard a part gives."""
    more = [*tokenizer.own_start, *job.meant]
    return [FORMAT, job.kind, tokenizer.fingerprint(), job.last_turn_only, *more]


def _pass_over_known_beginnings(job: Job, tokenizer: Tokenizer) -> int:
    """Of a `.jsonl` file that has grown since it was appended, only the new lines are to be read;
    returns how many parts had such a beginning."""
    if not job.keep:
        return 0
    known = {shard.origin: shard.key for shard in _old_shards(job)}
    found = 0
    for number, part in enumerate(job.parts):
        before = part
        while (rest := _after_known(part, known, _settings(job, tokenizer))) is not None:
            part = rest
        job.parts[number] = part
        found += part is not before
    return found


def _after_known(part: Part, known: dict[str, str], settings: list[Any]) -> Part | None:
    """What comes after a beginning of the part that is a shard already; None: it has none."""
    if part.stop is None:
        return None
    for origin, key in known.items():
        match = re.fullmatch(re.escape(part.path.name) + r"\[(\d+):(\d+)\]", origin)
        if (
            match is None
            or int(match[1]) != part.start
            or not part.start < int(match[2]) < part.stop
        ):
            continue
        stop = int(match[2])
        if part_key(replace(part, size=stop - part.start, stop=stop), settings) == key:
            return replace(part, size=part.stop - stop, start=stop)
    return None


def _old_shards(job: Job) -> list[Shard]:
    """What the dataset holds now, as far as its files are all there."""
    if not (job.directory / "manifest.json").exists():
        return []
    try:
        return TokenDataset(job.directory).manifest.shards
    except MiaoError:
        if job.keep:
            raise
        return []


def _run(
    encode: Encode, tasks: list[tuple[int, Part]], workers: int, advance: Advance
) -> list[_Done]:
    """The shard of every task, in order."""
    shards: dict[int, _Done] = {}
    if workers == 1:
        for number, task in enumerate(tasks):
            shards[number] = encode(task)
            advance(task[1].size)
    else:
        with worker_pool(workers, "tokenizer.workers", _begin_worker, encode) as pool:
            # Large ones first, so that no process waits long for the last.
            order = sorted(range(len(tasks)), key=lambda number: -tasks[number][1].size)
            futures = {pool.submit(_work, tasks[number]): number for number in order}
            for future in as_completed(futures):
                number = futures[future]
                shards[number] = future.result()
                advance(tasks[number][1].size)
    return [shards[number] for number in range(len(tasks))]


def _commit(job: Job, tokenizer: Tokenizer, parts: list[_Done]) -> Manifest:
    """Links the shards into the dataset, and puts it in the place of the old one."""
    kept = [_Done(shard, job.directory) for shard in _old_shards(job)] if job.keep else []
    present = {done.shard.key for done in kept}
    added = [done for done in parts if done.shard.sequences and done.shard.key not in present]
    if not kept and not added and not job.may_be_empty:
        shutil.rmtree(job.workplace, ignore_errors=True)
        unlearned = sum(done.shard.notes.get("unlearned", 0) for done in parts)
        raise nothing_found(job.kind, job.source, ", ".join(map(str, job.paths)), unlearned)
    finished: list[Shard] = []
    manifest = new_manifest(job.kind, job.source, tokenizer)
    with atomic_directory(job.directory) as temporary:
        for number, done in enumerate([*kept, *added]):
            files = {}
            for name, checksum in done.shard.files.items():
                numbered = numbered_file(name, number)
                files[numbered] = checksum
                link(done.directory / name, temporary / numbered)
            finished.append(replace(done.shard, files=files))
        finish_manifest(temporary, manifest, finished)
    shutil.rmtree(job.workplace, ignore_errors=True)
    return manifest


def _require_continuation(job: Job, tokenizer: Tokenizer) -> None:
    """What is appended must be of the same kind, cut by the same tokenizer."""
    path = job.directory / "manifest.json"
    if not (job.keep and path.exists()):
        return
    there = read_manifest(path)
    own = "or make a dataset of its own, in another directory"
    if there.kind != job.kind:
        raise MiaoError(
            f"these shards hold {there.kind}s, not {job.kind}s",
            where=job.directory,
            fix=f"append records of that kind, {own}",
        )
    if there.tokenizer != tokenizer.fingerprint():
        raise MiaoError(
            f"these shards were cut by another tokenizer ({there.tokenizer}, not "
            f"{tokenizer.fingerprint()})",
            where=job.directory,
            fix=f"append with the tokenizer that they were cut by, {own}",
        )


def _worker_count(workers: int | None, parts: int, size: int) -> int:
    if workers is None:
        workers = min(usable_cores(), size // BYTES_PER_WORKER)
    return max(1, min(workers, parts))


_encode: Encode | None = None


def _work(task: tuple[int, Part]) -> _Done:
    assert _encode is not None
    return _encode(task)


def _begin_worker(encode: Encode) -> None:
    global _encode
    _encode = encode
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
