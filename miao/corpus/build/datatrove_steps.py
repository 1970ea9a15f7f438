"""The same rules and the same search for duplicates as steps of datatrove, for many machines.

Three executors, each waiting for the one before: clean (many tasks), find duplicates (one task),
drop them (many tasks). Paths may be of any file system that fsspec knows (`s3://bucket/raw`). With
one task per input file the result equals that of the built-in runner; with fewer, another one of
several equal documents may stay. What reading does to a text of any file (mojibake turned back,
lost characters refused, scores looked at) is done here to each document.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from miao.corpus.build.cleaning import CHUNK_RECORDS
from miao.corpus.dedup.chunks import ChunkBuilder, ChunkFacts, load_arrays, save_arrays
from miao.corpus.dedup.duplicates import KEPT, Duplicates
from miao.corpus.dedup.spans import without_spans
from miao.corpus.read.formats import mend
from miao.corpus.records import Document
from miao.errors import MiaoError, install_hint
from miao.recipe import CorpusOptions

try:
    from datatrove.io import get_datafolder
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise MiaoError("datatrove is not installed", fix=install_hint("datatrove")) from error


def datatrove_executors(
    options: CorpusOptions,
    reader: Any,
    work: str,
    output: str,
    tasks: int,
    executor: Literal["local", "slurm", "ray"] = "local",
    source: str = "documents",
    **settings: Any,
) -> list[Any]:
    """Three executors; running the last runs them all, in order.

    Args:
        reader: a reader of datatrove's, such as `JsonlReader("s3://bucket/raw")`.
        work: a folder for what passes between the steps.
        output: the folder for the clean documents (.jsonl.gz, read by Miao as they are).
        source: of documents that name none in their metadata.
        settings: for the executor's class: `workers=8`, or Slurm's `time`, `partition`, ...
    """
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    clean = JsonlWriter(f"{work}/clean", "${rank}.jsonl.gz", adapter=_as_record)
    drop = DropStep(options, f"{work}/dropped")
    final = JsonlWriter(output, "${rank}.jsonl.gz", adapter=_as_record)
    pipelines: list[tuple[str, list[Any], int]] = [
        ("clean", [reader, CleanStep(options, f"{work}/hashes", source), clean], tasks),
        ("duplicates", [FindStep(options, f"{work}/hashes", f"{work}/dropped")], 1),
        (
            "drop",
            [JsonlReader(f"{work}/clean"), drop, final],
            tasks,
        ),
    ]
    made: list[Any] = []
    for name, pipeline, count in pipelines:
        before = made[-1] if made else None
        made.append(_executor(executor, name, pipeline, count, before, work, settings))
    return made


def _executor(
    kind: str,
    name: str,
    pipeline: list[Any],
    tasks: int,
    before: Any,
    work: str,
    settings: dict[str, Any],
) -> Any:
    common = {"tasks": tasks, "logging_dir": f"{work}/logs/{name}", "depends": before, **settings}
    if kind == "local":
        from datatrove.executor import LocalPipelineExecutor

        return LocalPipelineExecutor(pipeline, **common)
    if kind == "slurm":
        from datatrove.executor import SlurmPipelineExecutor

        return SlurmPipelineExecutor(pipeline, job_name=f"miao-{name}", **common)
    if kind == "ray":
        from datatrove.executor import RayPipelineExecutor

        return RayPipelineExecutor(pipeline, **common)
    raise MiaoError(f"there is no executor '{kind}'", fix="known are local, slurm, ray")


class CleanStep(PipelineStep):
    """Documents -> clean documents; writes their hashes and what was rejected beside."""

    name = "miao clean"
    type = "filter"

    def __init__(self, options: CorpusOptions, hashes: str, source: str = "documents"):
        super().__init__()
        self.options, self.source = options, source
        self.folder = get_datafolder(hashes)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        builder = ChunkBuilder(self.options)
        part = 0
        for document in data or ():
            with self.track_time():
                record = self._cleaned(document, builder)
            if record is None:
                self.stat_update("dropped")
                continue
            self.stat_update("forwarded")
            document.text = record.text
            document.metadata["source"] = record.source
            yield document
            if builder.facts.read >= CHUNK_RECORDS:
                self._write(builder, rank, part)
                builder, part = ChunkBuilder(self.options, builder.tools), part + 1
        self._write(builder, rank, part)

    def _cleaned(self, document: Any, builder: ChunkBuilder) -> Document | None:
        """What the reading of files and the cleaning make of a document; None: it goes."""
        source = document.metadata.get("source") or self.source
        record = Document(document.text, str(source), self.source)
        try:
            for how in mend(record):
                self.stat_update(how)
        except MiaoError as error:
            if not self.options.skip_bad_records:
                fix = f"{error.fix}, or set options.skip_bad_records = True"
                raise MiaoError(error.what, where=f"document {document.id}", fix=fix) from None
            self.stat_update("problems")
            return None
        if rejected := builder.tools.columns.rejects({"id": document.id, **document.metadata}):
            builder.facts.reject(record, *rejected)
            return None
        cleaned = builder.add(record)
        assert cleaned is None or isinstance(cleaned, Document)
        return cleaned

    def _write(self, builder: ChunkBuilder, rank: int, part: int) -> None:
        name = f"{rank:05d}-{part:05d}"
        arrays = io.BytesIO()
        save_arrays(arrays, builder.arrays())
        with self.folder.open(f"{name}.npz", "wb") as file:
            file.write(arrays.getvalue())
        with self.folder.open(f"{name}.json", "w") as file:
            file.write(json.dumps(builder.finish().to_json(), ensure_ascii=False))


class _FolderChunk:
    """A chunk whose arrays lie in a folder of datatrove's."""

    def __init__(self, folder: Any, name: str):
        self.folder, self.name = folder, name

    def facts(self) -> ChunkFacts:
        with self.folder.open(f"{self.name}.json", "r") as file:
            return ChunkFacts.from_json(json.loads(file.read()))

    def arrays(self, *names: str) -> list[Any]:
        with self.folder.open(f"{self.name}.npz", "rb") as file:
            return load_arrays(io.BytesIO(file.read()), *names)


class FindStep(PipelineStep):
    """The hashes of all documents -> which of them to drop. One task."""

    name = "miao duplicates"
    type = "dedup"

    def __init__(self, options: CorpusOptions, hashes: str, dropped: str):
        super().__init__()
        self.options = options
        self.hashes, self.folder = get_datafolder(hashes), get_datafolder(dropped)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        names = sorted(path[:-4] for path in self.hashes.list_files(glob_pattern="*.npz"))
        chunks = [_FolderChunk(self.hashes, name) for name in names]
        with tempfile.TemporaryDirectory() as work:
            duplicates = Duplicates(chunks, self.options.dedup, Path(work))
            found = duplicates.find()
            for number, name in enumerate(names):
                dropped, spans = duplicates.of_chunk(number)
                verdict = {"dropped": dropped.tolist(), "spans": spans}
                with self.folder.open(f"{name}.json", "w") as file:
                    file.write(json.dumps(verdict))
        for what, count in (("exact", found.exact), ("near", found.near), ("spans", found.spans)):
            self.stat_update(what, value=count)
        yield from data or ()


class DropStep(PipelineStep):
    """Clean documents in the order in which they were written -> those that stay."""

    name = "miao drop duplicates"
    type = "filter"

    def __init__(self, options: CorpusOptions, dropped: str):
        super().__init__()
        self.dedup = options.dedup
        self.folder = get_datafolder(dropped)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        verdicts = self._verdicts(rank)
        for document, (dropped, spans) in zip(data or (), verdicts, strict=True):
            if dropped != KEPT:
                self.stat_update("dropped")
                continue
            if spans:
                document.text = without_spans(document.text, spans, self.dedup)
            if document.text.strip():
                self.stat_update("forwarded")
                yield document

    def _verdicts(self, rank: int) -> Iterator[tuple[int, list[int]]]:
        for path in sorted(self.folder.list_files(glob_pattern=f"{rank:05d}-*.json")):
            with self.folder.open(path, "r") as file:
                verdict = json.loads(file.read())
            for place, dropped in enumerate(verdict["dropped"]):
                yield dropped, verdict["spans"].get(str(place), [])


def _as_record(self: Any, document: Any) -> dict[str, Any]:
    """What Miao writes of a document."""
    return {"text": document.text, "source": document.metadata.get("source", "")}
