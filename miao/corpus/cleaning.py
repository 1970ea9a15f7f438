"""The built-in runner of the first step: records in, chunk files out, in many processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from miao.corpus.chunks import ChunkBuilder, ChunkFile, Tools
from miao.corpus.clean.cleaner import text_of
from miao.corpus.records import Record
from miao.files import full_disk_is_a_user_error, read_json, write_json
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
    advance: Callable[[int], None] = lambda records: None,
) -> list[ChunkFile]:
    """Cleans all records into chunk files; chunks that stand there from the same `inputs` (any
    JSON-like value: options and what the files were) are not done again.

    Raises:
        MiaoError: options that cannot be followed, and whatever `records` raises.
    """
    mark = directory / "inputs.json"
    if not mark.exists() or read_json(mark) != inputs:
        shutil.rmtree(directory, ignore_errors=True)
        write_json(mark, inputs)
    tools = Tools(options)  # here first: mistakes show before any process starts
    chunks: list[ChunkFile] = []
    workers = options.workers or os.cpu_count() or 1
    pool: ProcessPoolExecutor | None = None
    running: set[Future[int]] = set()

    def settle(at_most: int) -> None:
        nonlocal running
        while len(running) > at_most:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                advance(future.result())

    with full_disk_is_a_user_error(directory):
        try:
            for part in _parts(records):
                chunk = ChunkFile(directory, len(chunks))
                chunks.append(chunk)
                if chunk.done:
                    advance(len(part))
                elif workers == 1 or len(chunks) <= FOR_ONE_PROCESS:
                    advance(_clean_part(part, options, chunk, tools))
                else:
                    pool = pool or _pool(workers, options)
                    running.add(pool.submit(_clean_in_worker, part, chunk))
                    settle(workers + 1)
            settle(0)
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)
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


def _pool(workers: int, options: CorpusOptions) -> ProcessPoolExecutor:
    # Not fork: a progress line runs in a thread of this process.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker, (options,))


def _start_worker(options: CorpusOptions) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process to handle
    _worker = options, Tools(options)


def _clean_in_worker(part: list[Record], chunk: ChunkFile) -> int:
    options, tools = _worker
    return _clean_part(part, options, chunk, tools)
