"""The built-in runner of the first step: records in, chunk files out, in many processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from miao.cores import usable_cores
from miao.corpus.build.processes import worker_pool
from miao.corpus.dedup.chunks import ChunkBuilder, ChunkFile, Tools
from miao.corpus.read.meter import metering
from miao.corpus.records import Record, text_of
from miao.corpus.steps import Line, claim
from miao.files import full_disk_is_a_user_error
from miao.recipe import CorpusOptions

CHUNK_CHARACTERS = 3_000_000
CHUNK_RECORDS = 20_000
FOR_ONE_PROCESS = 2
"""So many chunks are cleaned before other processes are worth their start."""


def clean_chunks(
    records: Iterable[Record],
    options: CorpusOptions,
    directory: Path,
    inputs: Any,
    line: Line | None = None,
) -> list[ChunkFile]:
    """Cleans all records into chunk files; chunks that stand there from the same `inputs` (any
    JSON-like value: options and what the files were) are not done again.

    Args:
        line: moves on by the bytes of the input files whose records are done.

    Raises:
        MiaoError: options that cannot be followed, and whatever `records` raises.
    """
    claim(directory, inputs)
    tools = Tools(options)  # here first: mistakes show before any process starts
    chunks: list[ChunkFile] = []
    workers = options.workers or usable_cores()
    pool: ProcessPoolExecutor | None = None
    running: dict[Future[int], int] = {}
    cleaned = 0

    def advance(count: int, size: int) -> None:
        nonlocal cleaned
        cleaned += count
        if line:
            line.advance(size, f"{cleaned:,} records")

    def settle(at_most: int) -> None:
        while len(running) > at_most:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                advance(future.result(), running.pop(future))

    with full_disk_is_a_user_error(directory), ExitStack() as stack:
        meter = stack.enter_context(metering())
        for part in _parts(records):
            chunk, size = ChunkFile(directory, len(chunks)), meter.take()
            chunks.append(chunk)
            if chunk.done:
                advance(len(part), size)
            elif workers == 1 or len(chunks) <= FOR_ONE_PROCESS:
                advance(_clean_part(part, options, chunk, tools), size)
            else:
                pool = pool or stack.enter_context(
                    worker_pool(workers, "corpus.workers", _start_worker, options)
                )
                running[pool.submit(_clean_in_worker, part, chunk)] = size
                settle(workers + 1)
        settle(0)
        advance(0, meter.take())
    return chunks


def _parts(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Lists of records of about equal size; the same ones for the same records."""
    part: list[Record] = []
    size = 0
    for record in records:
        part.append(record)
        size += len(text_of(record))
        if size >= CHUNK_CHARACTERS or len(part) >= CHUNK_RECORDS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _clean_part(part: list[Record], options: CorpusOptions, chunk: ChunkFile, tools: Tools) -> int:
    builder = ChunkBuilder(options, tools)
    for record in part:
        builder.add(record)
    chunk.write(builder)
    return len(part)


_worker: tuple[CorpusOptions, Tools]


def _start_worker(options: CorpusOptions) -> None:
    global _worker
    _worker = options, Tools(options)


def _clean_in_worker(part: list[Record], chunk: ChunkFile) -> int:
    options, tools = _worker
    return _clean_part(part, options, chunk, tools)
