"""Records to the files of a corpus: train and held-out, one file per source, jsonl or parquet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from miao.corpus.dedup.chunks import ChunkFile
from miao.corpus.records import Kind
from miao.errors import MiaoError, install_hint
from miao.files import atomic_open

Output = Literal["jsonl", "parquet"]
SplitName = Literal["train", "heldout"]
MOST_SOURCES = 256
"""More own names than this in the records of one path are names of records, not of sources."""
OPEN_FILES = 128
PARQUET_ROWS = 4096
ONE_SOURCE = {"conversation": "conversations", "preference": "preferences"}
BUILT_IN = "built-in"
"""The source of built-in conversations that stand beside the user's own."""
LENGTH_BINS = 24
"""Lengths are counted by their binary logarithm."""


@dataclass
class SourceCounts:
    """What a source gave."""

    train: int = 0
    """Lines written to train on, repetitions included."""
    heldout: int = 0
    heldout_duplicates: int = 0
    """Left out of training because the same text, or one much like it, is held out."""
    repeated: int = 0
    """Lines of `train` that repeat earlier ones, as the mix wants."""
    characters: int = 0


class Splitter:
    """Writes records to train/ and heldout/, and can go on where it was interrupted.

    Args:
        source: all records go to the file of this name.
    """

    def __init__(
        self, directory: Path, kind: Kind, output: Output = "jsonl", source: str | None = None
    ):
        self.directory, self.kind, self.output = directory, kind, output
        self.source = source
        self.names: dict[str, str] = {}
        """Sources that are written under another name than their own."""
        self.counts: dict[str, SourceCounts] = {}
        self.lengths = [0] * LENGTH_BINS
        """Distinct records written, by the binary logarithm of their characters."""
        self._files: dict[str, IO[bytes]] = {}
        self._sizes: dict[str, int] = {}  # of files that are closed again
        if output == "parquet":
            require_parquet()

    def __enter__(self) -> Splitter:
        return self

    def __exit__(self, *error: Any) -> None:
        for file in self._files.values():
            file.close()

    @property
    def characters(self) -> int:
        return sum(counts.characters for counts in self.counts.values())

    def state(self) -> dict[str, Any]:
        """What is written so far, on the disk for certain."""
        sizes = {name: _on_disk(file) for name, file in self._files.items()}
        counts = {name: vars(counts) for name, counts in self.counts.items()}
        return {"sizes": self._sizes | sizes, "counts": counts, "lengths": self.lengths}

    def restore(self, state: dict[str, Any] | None) -> bool:
        """Goes back to an earlier state. False: there is none, or its files are damaged, and
        writing begins at the beginning."""
        sizes = state["sizes"] if state else {}
        paths = {self.directory / name: size for name, size in sizes.items()}
        if not all(p.exists() and p.stat().st_size >= size for p, size in paths.items()):
            state, paths = None, {}
        for path in sorted(self.directory.glob("*/*")):
            if path not in paths:
                path.unlink()
        if state is None:
            return False
        for name, size in sizes.items():
            self._file(name).truncate(size)
        self.counts = {name: SourceCounts(**counts) for name, counts in state["counts"].items()}
        self.lengths = state["lengths"]
        return True

    def leave(self, record: dict[str, Any]) -> None:
        """Counts a record that is not written because of one that is held out."""
        self._counts_of(self.name_of(record["source"])).heldout_duplicates += 1

    def write(self, record: dict[str, Any], split: SplitName, again: bool = False) -> None:
        """Writes a record (in its JSON form); `again`: it has been written before."""
        source = self.name_of(record["source"])
        counts = self._counts_of(source)
        if split == "train":
            counts.train += 1
            counts.repeated += again
        else:
            counts.heldout += 1
        size = characters_of(record)
        counts.characters += size
        if not again:
            self.lengths[min(size.bit_length(), LENGTH_BINS - 1)] += 1
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self._file(f"{split}/{source}.jsonl").write(line.encode())

    def finish(self) -> dict[str, SourceCounts]:
        """Closes the files, and writes them as parquet beside if that is wanted.

        Raises:
            MiaoError: nothing is left to train on.
        """
        if not any(count.train for count in self.counts.values()):
            if held := sum(count.heldout for count in self.counts.values()):
                raise MiaoError(
                    f"held out {held} of {held} records: none is left to train on",
                    fix="bring more text, or hold nothing out: --corpus.heldout 0",
                )
            raise MiaoError(
                "no record is left to train on",
                fix="bring more text, lower --corpus.heldout, or look at what the rules of "
                "corpus.clean reject",
            )
        for file in self._files.values():
            file.close()
        if self.output == "parquet":
            for name in self._sizes | self._files:
                write_parquet(self.directory / name, self.kind)
        return self.counts

    def name_of(self, source: str) -> str:
        """The file of a source, made of its name; only documents are weighted by source."""
        if self.source or self.kind in ONE_SOURCE:
            return self.source or ONE_SOURCE[self.kind]
        name = self.names.get(source, source)
        return re.sub(r"[^\w.\-]+", "_", name).strip("._")[:64] or "documents"

    def _counts_of(self, name: str) -> SourceCounts:
        return self.counts.setdefault(name, SourceCounts())

    def _file(self, name: str) -> IO[bytes]:
        """The open file; of many, those that were not written to for longest are closed."""
        file = self._files.pop(name, None)
        if file is None:
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "ab")  # noqa: SIM115
            self._sizes.pop(name, None)
            if len(self._files) >= OPEN_FILES:
                oldest = next(iter(self._files))
                with self._files.pop(oldest) as done:
                    self._sizes[oldest] = _on_disk(done)
        self._files[name] = file
        return file


def _on_disk(file: IO[bytes]) -> int:
    """The size of a file, after all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def crowded_origins(chunks: Iterable[ChunkFile]) -> tuple[dict[str, str], dict[str, int]]:
    """Names for the sources of paths whose records have too many: that of the path. And how many
    each such path has."""
    own: dict[str, set[str]] = {}
    for chunk in chunks:
        facts = chunk.facts()
        for source, origin in zip(facts.sources, facts.origins, strict=True):
            own.setdefault(origin, set()).add(source)
    crowded = {origin: own[origin] for origin in sorted(own) if len(own[origin]) > MOST_SOURCES}
    names = {source: origin for origin, sources in crowded.items() for source in sources}
    return names, {origin: len(sources) for origin, sources in crowded.items()}


def require_parquet() -> Any:
    """pyarrow with its module for parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MiaoError(
            "writing parquet needs pyarrow",
            fix=f"{install_hint('data')}, or --output jsonl",
        ) from error
    return pyarrow


def write_parquet(path: Path, kind: Kind) -> None:
    """A .jsonl file of ours again as .parquet beside it, with zstd. What may be any JSON (tool
    calls, tools) is JSON in a string."""
    arrow = require_parquet()
    schema = _schema(arrow, kind)
    with (
        open(path, encoding="utf-8") as lines,
        atomic_open(path.with_suffix(".parquet"), "wb") as file,
        arrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while rows := [_row(json.loads(line)) for line in islice(lines, PARQUET_ROWS)]:
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _row(record: dict[str, Any]) -> dict[str, Any]:
    row = {key: _flat(value) for key, value in record.items()}
    if "tools" in record:
        row["tools"] = json.dumps(record["tools"], ensure_ascii=False)
    return row


def _flat(value: Any) -> Any:
    """Messages with their tool calls as JSON."""
    if not isinstance(value, list):
        return value
    return [
        {**m, "tool_calls": json.dumps(m["tool_calls"], ensure_ascii=False)}
        if "tool_calls" in m
        else m
        for m in value
    ]


def _schema(arrow: Any, kind: Kind) -> Any:
    text = arrow.large_string()
    texts = [(name, text) for name in ("role", "content", "reasoning", "tool_calls")]
    message = arrow.struct([*texts, ("weight", arrow.int8())])
    fields: dict[str, list[tuple[str, Any]]] = {
        "document": [("text", text)],
        "conversation": [("messages", arrow.list_(message)), ("tools", text)],
        "preference": [
            *((side, arrow.list_(message)) for side in ("prompt", "chosen", "rejected")),
            ("tools", text),
        ],
    }
    return arrow.schema([*fields[kind], ("source", text)])


def characters_of(record: dict[str, Any]) -> int:
    """How many characters are said in a record (in its JSON form)."""
    if "text" in record:
        return len(record["text"])
    turns = record.get("messages") or record["prompt"] + record["chosen"] + record["rejected"]
    return sum(len(message["content"]) for message in turns)
