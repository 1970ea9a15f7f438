"""Records to the files of a corpus: train and held-out, one file per source, jsonl or parquet."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from miao.corpus.records import Kind
from miao.errors import MiaoError
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
    """Writes records to train/ and heldout/.

    The split is by a hash of the content, so equal texts never stand on both sides.
    """

    def __init__(
        self, directory: Path, options: CorpusOptions, kind: Kind, output: Output = "jsonl"
    ):
        self.directory, self.options, self.kind, self.output = directory, options, kind, output
        self.counts: dict[str, SourceCounts] = defaultdict(SourceCounts)
        self.lengths = [0] * LENGTH_BINS
        """Distinct records written, by the binary logarithm of their characters."""
        self._heldout: set[bytes] = set()
        self._writers: dict[Path, _Writer] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Splitter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def write(self, record: dict[str, Any], again: bool = False) -> None:
        """Writes a record (in its JSON form); `again`: it has been written before."""
        content = {key: value for key, value in record.items() if key != "source"}
        source = self._source(record["source"])
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        digest = hashlib.sha256(text.encode()).digest()
        counts = self.counts[source]
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
        self._writer(self.directory / split / source).write(record)

    def finish(self) -> dict[str, SourceCounts]:
        """Closes the files.

        Raises:
            MiaoError: nothing is left to train on.
        """
        if not any(count.train for count in self.counts.values()):
            raise MiaoError(
                "no record is left to train on",
                fix="bring more text, lower --corpus.heldout, or look at what the rules of "
                "corpus.clean reject",
            )
        self._stack.close()
        return dict(self.counts)

    def _source(self, name: str) -> str:
        """Only documents are weighted by source; a file name made of the source's name."""
        if self.kind in ONE_SOURCE:
            return ONE_SOURCE[self.kind]
        clean = re.sub(r"[^\w.\-]+", "_", name).strip("._")[:64] or "documents"
        if clean not in self.counts and len(self.counts) >= MAX_SOURCES:
            return "others"
        return clean

    def _writer(self, path: Path) -> _Writer:
        if path not in self._writers:
            path.parent.mkdir(parents=True, exist_ok=True)
            made = _ParquetWriter if self.output == "parquet" else _JsonWriter
            self._writers[path] = writer = made(path, self.kind)
            self._stack.callback(writer.close)
        return self._writers[path]


class _Writer(Protocol):
    def write(self, record: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class _JsonWriter:
    def __init__(self, path: Path, kind: Kind):
        self._file = open(f"{path}.jsonl", "w", encoding="utf-8")  # noqa: SIM115

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _ParquetWriter:
    """Parquet with zstd. What may be any JSON (tool calls, tools) is JSON in a string."""

    def __init__(self, path: Path, kind: Kind):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MiaoError(
                "writing parquet needs pyarrow",
                fix="pip install 'miaolm[data]', or --output jsonl",
            ) from error
        self._arrow = pyarrow
        self._rows: list[dict[str, Any]] = []
        self._schema = _schema(pyarrow, kind)
        self._file = pyarrow.parquet.ParquetWriter(
            f"{path}.parquet", self._schema, compression="zstd"
        )

    def write(self, record: dict[str, Any]) -> None:
        row = {key: _flat(value) for key, value in record.items()}
        if "tools" in record:
            row["tools"] = json.dumps(record["tools"], ensure_ascii=False)
        self._rows.append(row)
        if len(self._rows) >= PARQUET_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


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
    message = arrow.struct(
        [(name, text) for name in ("role", "content", "reasoning", "tool_calls")]
    )
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
