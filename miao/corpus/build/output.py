"""Records to the files of a corpus: train and held-out, one file per source, jsonl or parquet."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from miao.corpus.records import Kind
from miao.errors import MiaoError, install_hint
from miao.files import atomic_open
from miao.recipe import CorpusOptions

Output = Literal["jsonl", "parquet"]
MAX_SOURCES = 24
"""More sources than this in one corpus count as one per path."""
PARQUET_ROWS = 4096
ONE_SOURCE = {"conversation": "conversations", "preference": "preferences"}
LENGTH_BINS = 24
"""Lengths are counted by their binary logarithm."""


@dataclass
class SourceCounts:
    """What a source gave."""

    train: int = 0
    """Lines written to train on, repetitions included."""
    heldout: int = 0
    heldout_duplicates: int = 0
    """Left out of training because the same text is held out."""
    repeated: int = 0
    """Lines of `train` that repeat earlier ones, as the mix wants."""
    characters: int = 0


class Splitter:
    """Writes records to train/ and heldout/, and can go on where it was interrupted.

    The split is by a hash of the content, so equal texts never stand on both sides.
    """

    def __init__(
        self, directory: Path, options: CorpusOptions, kind: Kind, output: Output = "jsonl"
    ):
        self.directory, self.options, self.kind, self.output = directory, options, kind, output
        self.counts: dict[str, SourceCounts] = {}
        self.lengths = [0] * LENGTH_BINS
        """Distinct records written, by the binary logarithm of their characters."""
        self._heldout: set[bytes] = set()
        self._files: dict[str, IO[bytes]] = {}
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
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
        counts = {name: vars(counts) for name, counts in self.counts.items()}
        return {"sizes": sizes, "counts": counts, "lengths": self.lengths}

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
            if name.startswith("heldout/"):
                with open(self.directory / name, encoding="utf-8") as lines:
                    self._heldout |= {_digest(json.loads(line)) for line in lines}
        self.counts = {name: SourceCounts(**counts) for name, counts in state["counts"].items()}
        self.lengths = state["lengths"]
        return True

    def write(self, record: dict[str, Any], again: bool = False) -> None:
        """Writes a record (in its JSON form); `again`: it has been written before."""
        source = self._source(record["source"])
        digest = _digest(record)
        counts = self.counts.setdefault(source, SourceCounts())
        split = "train"
        if int.from_bytes(digest[:8], "big") < self.options.heldout * 2**64:
            if digest in self._heldout:
                counts.heldout_duplicates += not again
                return
            if counts.heldout < self.options.heldout_max and not again:
                self._heldout.add(digest)
                split = "heldout"
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
            raise MiaoError(
                "no record is left to train on",
                fix="bring more text, lower --corpus.heldout, or look at what the rules of "
                "corpus.clean reject",
            )
        for file in self._files.values():
            file.close()
        if self.output == "parquet":
            for name in self._files:
                write_parquet(self.directory / name, self.kind)
        return self.counts

    def _source(self, name: str) -> str:
        """Only documents are weighted by source; a file name made of the source's name."""
        if self.kind in ONE_SOURCE:
            return ONE_SOURCE[self.kind]
        clean = re.sub(r"[^\w.\-]+", "_", name).strip("._")[:64] or "documents"
        if clean not in self.counts and len(self.counts) >= MAX_SOURCES:
            return "others"
        return clean

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = open(path, "ab")  # noqa: SIM115
        return self._files[name]


def _digest(record: dict[str, Any]) -> bytes:
    """A hash of what a record (in its JSON form) says, wherever it comes from."""
    content = {key: value for key, value in record.items() if key != "source"}
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).digest()


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
        "preference": [(s, arrow.list_(message)) for s in ("prompt", "chosen", "rejected")],
    }
    return arrow.schema([*fields[kind], ("source", text)])


def characters_of(record: dict[str, Any]) -> int:
    """How many characters are said in a record (in its JSON form)."""
    if "text" in record:
        return len(record["text"])
    turns = record.get("messages") or record["prompt"] + record["chosen"] + record["rejected"]
    return sum(len(message["content"]) for message in turns)
