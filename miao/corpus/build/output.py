"""Records to the files of a corpus: train and held-out, files per source, jsonl or parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from miao.corpus.records import Kind
from miao.errors import MiaoError, install_hint

Output = Literal["jsonl", "parquet"]
SplitName = Literal["train", "heldout"]
OUTPUT_BYTES = 512 << 20
"""Files of a source, if there are several, have about this size."""
MOST_SOURCES = 256
"""More own names than this in the records of one path are names of records, not of sources."""
OPEN_FILES = 128
PARQUET_ROWS = 4096
ONE_SOURCE = {"conversation": "conversations", "preference": "preferences"}
BUILT_IN = "built-in"
"""The source of built-in conversations that stand beside the user's own."""
TEXT = "text"
"""The source of conversations that are made from the user's own text."""
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

    def add(self, other: SourceCounts) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Splitter:
    """Writes records to the train/ and heldout/ of a directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.counts: dict[str, SourceCounts] = {}
        self.lengths = [0] * LENGTH_BINS
        """Distinct records written, by the binary logarithm of their characters."""
        self._files: dict[str, IO[bytes]] = {}
        self.names: set[str] = set()
        """The files written to, `train/NAME.jsonl`."""

    def __enter__(self) -> Splitter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def leave(self, name: str) -> None:
        """Counts a record that is not written because of one that is held out."""
        self._counts_of(name).heldout_duplicates += 1

    def write(
        self, line: bytes, name: str, split: SplitName, characters: int, again: bool = False
    ) -> None:
        """Writes a record (its JSON, with the end of the line); `again`: for the second time."""
        counts = self._counts_of(name)
        if split == "train":
            counts.train += 1
            counts.repeated += again
        else:
            counts.heldout += 1
        counts.characters += characters
        if not again:
            self.lengths[min(characters.bit_length(), LENGTH_BINS - 1)] += 1
        self._file(f"{split}/{name}.jsonl").write(line)

    def _counts_of(self, name: str) -> SourceCounts:
        return self.counts.setdefault(name, SourceCounts())

    def _file(self, name: str) -> IO[bytes]:
        """The open file; of many, those that were not written to for longest are closed."""
        file = self._files.pop(name, None)
        if file is None:
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "ab")  # noqa: SIM115
            self.names.add(name)
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
        self._files[name] = file
        return file


def file_name(source: str, kind: Kind) -> str:
    """The files of a source are called so; only documents are weighted by source."""
    if kind in ONE_SOURCE:
        return ONE_SOURCE[kind]
    return re.sub(r"[^\w.\-]+", "_", source).strip("._")[:64] or "documents"


def source_of(path: Path) -> str:
    """The source whose file, or one of whose files, this is: `wiki-00002-of-00014.jsonl`."""
    return re.sub(r"-\d{5,}-of-\d{5,}$", "", path.stem)


def crowded(origins: dict[str, int]) -> dict[str, int]:
    """The paths whose records have too many names of their own for them to be sources.

    Args:
        origins: path -> different names of its records.
    """
    return {origin: n for origin, n in sorted(origins.items()) if n > MOST_SOURCES}


def require_some(counts: Iterable[SourceCounts]) -> None:
    """Raises:
    MiaoError: nothing is left to train on.
    """
    counts = list(counts)
    if any(count.train for count in counts):
        return
    if held := sum(count.heldout for count in counts):
        raise MiaoError(
            f"held out {held} of {held} records: none is left to train on",
            fix="bring more text, or hold nothing out: --corpus.heldout 0",
        )
    raise MiaoError(
        "no record is left to train on",
        fix="bring more text, lower --corpus.heldout, or look at what the rules of "
        "corpus.clean reject",
    )


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


def write_parquet(path: Path, kind: Kind, target: IO[bytes]) -> None:
    """A .jsonl file of ours as parquet, with zstd. What may be any JSON (tool calls, tools) is JSON
    in a string."""
    arrow = require_parquet()
    schema = _schema(arrow, kind)
    with (
        open(path, encoding="utf-8") as lines,
        arrow.parquet.ParquetWriter(target, schema, compression="zstd") as writer,
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
