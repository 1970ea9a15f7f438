"""Data sets of the hubs and of the catalogue -> files on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from miao.console import ProgressLine, say
from miao.corpus.read.opened import CODE, Source, format_of
from miao.corpus.read.problems import Problem
from miao.corpus.read.readers import read_objects
from miao.errors import MiaoError
from miao.files import atomic_open, cache_directory, fingerprint
from miao.hubs.datasets import (
    DatasetName,
    choose_files,
    download_dataset,
    list_dataset,
    open_dataset,
    parse_dataset_name,
)
from miao.hubs.remote import README, Listing


@cache
def local_files(text: str) -> list[tuple[Path, str]]:
    """The files that a name stands for, each with its source (the data set's name).

    Without options that choose records or columns they are the repository's own files, in the hub
    client's cache. With `columns`, `limit` or `stream` the chosen records are written into one
    file in Miao's cache, read over the network (`stream`, `limit`) or from the files.

    Raises:
        MiaoError: unknown name or option, nothing to read, network, disk.
    """
    source, name = resolve(text)
    wanted = name.columns or name.limit or name.stream
    kept = _kept(name)
    if wanted and kept.is_file():
        say(f"{name}: the records that were taken before, in {kept}")
        return [(kept, source)]
    listing = list_dataset(name)
    files = choose_files(name, listing, _is_readable, _readme(name, listing))
    if wanted:
        _write_chosen(name, listing, files, kept)
        return [(kept, source)]
    return [(path, source) for path in download_dataset(name, listing, files)]


def resolve(text: str) -> tuple[str, DatasetName]:
    """A short name and the full one."""
    if text.startswith("catalog:"):
        from miao.corpus.catalog import find_entry

        entry, options = find_entry(text)
        return entry.name, parse_dataset_name(entry.address(options))
    name = parse_dataset_name(text)
    return name.hub_name.name, name


def _is_readable(path: str) -> bool:
    known = format_of(Path(path))
    return known is not None and known[0] not in CODE


def _readme(name: DatasetName, listing: Listing) -> str | None:
    if README not in listing.files:
        return None
    [path] = download_dataset(name, listing, [README])
    return path.read_text("utf-8", "replace")


def _kept(name: DatasetName) -> Path:
    """Where the chosen records are kept. A new version on the hub makes no new file: a corpus
    stays as it is until @revision names another version."""
    hub = name.hub_name
    asked = [str(hub), name.subset, name.split, name.files, name.columns, name.limit]
    folder = f"{hub.hub}--{hub.owner}--{hub.name}"
    return cache_directory() / "datasets" / folder / f"{fingerprint(asked)}.jsonl"


def _write_chosen(name: DatasetName, listing: Listing, files: list[str], path: Path) -> None:
    """Writes the records and columns that are asked for into one file."""
    over_network = name.stream or name.limit is not None
    say(f"{name}: taking {_words(name)} {'over the network' if over_network else ''}".rstrip())
    count = 0
    with atomic_open(path) as out, ProgressLine(f"reading {name}", name.limit or 0) as line:
        for text in _lines(name, listing, files, over_network):
            out.write(text + "\n")
            count += 1
            line.advance(1, f"{count:,} records")
            if count == name.limit:
                break


def _lines(
    name: DatasetName, listing: Listing, files: list[str], over_network: bool
) -> Iterator[str]:
    """The records as JSON lines; one that cannot be parsed as it stands, to be refused later."""
    bad: list[str] = []

    def keep(problem: Problem) -> None:
        raw = problem.raw
        raw = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
        raw = raw if isinstance(raw, str) else json.dumps({"unreadable": raw}, default=str)
        bad.append(" ".join(raw.splitlines()) or "{")

    for file in files:
        source: Source
        if over_network:
            source = open_dataset(name, listing, file)
        else:
            [source] = download_dataset(name, listing, [file])
        for _, value in read_objects(source, keep, columns=tuple(name.columns)):
            yield from bad
            bad.clear()
            yield json.dumps(_columns_of(value, name.columns), ensure_ascii=False, default=str)
        yield from bad
        bad.clear()


def _columns_of(value: Any, columns: dict[str, str]) -> Any:
    if not columns or not isinstance(value, dict):
        return value
    chosen = {here: value[there] for there, here in columns.items() if there in value}
    if not chosen:
        raise MiaoError(
            f"no column {', '.join(columns)}", fix=f"there are: {', '.join(map(str, value))[:300]}"
        )
    return chosen


def _words(name: DatasetName) -> str:
    records = f"the first {name.limit:,} records" if name.limit else "all records"
    return f"{records}, columns {', '.join(name.columns)}" if name.columns else records
