"""What users point at (files, folders, globs, URLs, hubs, standard input) -> readable files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from miao.corpus.folder import files_at, is_url
from miao.corpus.read.opened import CODE, SUPPORTED, format_of, unknown_format
from miao.corpus.read.stdin import standard_input
from miao.errors import MiaoError
from miao.files import at_home
from miao.hubs.names import is_hub_name
from miao.hubs.remote import RemoteFile

OnSkip = Callable[[Path, str], object]


def find_files(paths: Sequence[str | Path], on_skip: OnSkip | None = None) -> list[Path]:
    """The readable files that files, folders (all levels, sorted) and glob patterns stand for.

    A file reached twice is listed once. `on_skip(path, why)` hears of everything passed over:
    hidden names, unknown extensions, broken links.

    Raises:
        MiaoError: a path that does not exist or cannot be read; nothing readable at all.
    """
    return [file for file, _ in find_sources(paths, on_skip)]


class GivenName(str):
    """The name that the user gave a path (`wiki=data/dump/`): the source of all its records,
    whatever they say themselves."""


def find_sources(
    paths: Sequence[str | Path], on_skip: OnSkip | None = None
) -> list[tuple[Path, str]]:
    """`find_files`, each with its name: the one given to its path, or else that of the file
    (without extension) or folder that the user pointed at."""
    paths = [paths] if isinstance(paths, str | Path) else paths
    found: dict[str, tuple[Path, str]] = {}
    for given in paths:
        own, path = named(given)
        for top, name in _expanded(path):
            for file in _files_at(top, on_skip or (lambda path, why: None)):
                real = str(file) if isinstance(file, RemoteFile) else os.path.realpath(file)
                found.setdefault(real, (file, own or name))
    if not found:
        raise MiaoError(
            "nothing that can be read here",
            where=", ".join(str(path) for path in paths) or None,
            fix=f"supported are {SUPPORTED}; unpack archives, turn .pdf and .docx into text first",
        )
    return list(found.values())


def named(given: str | Path) -> tuple[GivenName | None, str | Path]:
    """`NAME=PATH` as its two parts; a path without a name, or one that exists as it stands."""
    match = re.fullmatch(r"(?![._])([\w.\-]{1,64})=(.+)", given) if isinstance(given, str) else None
    if match is None or Path(given).exists():
        return None, given
    return GivenName(match[1]), match[2]


def is_dataset_name(text: str) -> bool:
    """Whether it names a data set of a hub or of the catalogue rather than a path."""
    text = str(named(text)[1])
    return text.startswith("catalog:") or is_hub_name(text.partition("?")[0])


def is_unseen(path: str) -> bool:
    """Whether looking at it means to read or to download it."""
    return named(path)[1] == "-" or is_dataset_name(path)


def _expanded(given: str | Path) -> list[tuple[Path, str]]:
    """The existing files and folders that one word of the user's stands for, with their source."""
    if given == "-":
        return [(standard_input(), "stdin")]
    if is_url(str(given)):
        name = _stem(Path(str(given).rstrip("/*"))) or "documents"
        return [(cast(Path, file), name) for file in files_at(str(given))]
    if isinstance(given, str) and is_dataset_name(given):
        from miao.corpus.read.datasets import local_files

        return local_files(given)
    return [(top, _stem(top)) for top in _paths(given)]


def _paths(given: str | Path) -> list[Path]:
    """The existing files and folders that one path or glob pattern stands for."""
    path = at_home(given)
    if path.exists():
        if not (path.is_file() or path.is_dir()):
            raise MiaoError(
                "a pipe or a device, which can be read only once",
                where=given,
                fix=f"pass it on as standard input: `cat {given} | miao ... -`",
            )
        if path.is_file() and format_of(path) is None:
            raise unknown_format(path)
        return [path]
    if not glob.has_magic(str(path)):
        raise MiaoError(
            "no such file or folder",
            where=given,
            fix=f"check the spelling; relative paths start at {Path.cwd()}",
        )
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if "**" in path.parts:  # it goes into the folders itself, perhaps for some of their files only
        matches = [match for match in matches if not match.is_dir()]
    if not matches:
        raise MiaoError("no file matches this pattern", where=given, fix="check the pattern")
    return matches


def _files_at(top: Path, skip: OnSkip) -> list[Path]:
    """The readable files of a folder, or the file itself."""

    def unreadable(error: OSError) -> None:
        raise MiaoError(f"the folder cannot be read: {error.strerror}", where=error.filename)

    def visible(folder: str, names: list[str]) -> list[Path]:
        for name in names:
            if name.startswith("."):
                skip(Path(folder, name), "hidden")
        return [Path(folder, name) for name in sorted(names) if not name.startswith(".")]

    if isinstance(top, RemoteFile):
        if format_of(top) is None:
            skip(top, "unknown extension")
        return [top] if format_of(top) else []
    candidates = [] if top.is_dir() else [top]
    walk = os.walk(top, onerror=unreadable, followlinks=True) if top.is_dir() else ()
    visited: set[str] = set()  # links between folders may lead round in a circle
    for folder, subfolders, names in walk:
        visited.add(os.path.realpath(folder))
        candidates += visible(folder, names)
        inner = visible(folder, subfolders)
        subfolders[:] = [path.name for path in inner if os.path.realpath(path) not in visited]
    files = []
    for path in sorted(candidates):
        if (known := format_of(path)) is None:
            skip(path, "unknown extension")
        elif known[0] in CODE and top.is_dir():
            skip(path, f"source code (to read it: '{top}/**/*{known[0]}')")
        elif not path.is_file():
            skip(path, "broken link" if path.is_symlink() else "not a regular file")
        else:
            files.append(path)
    return files


def _stem(top: Path) -> str:
    """`data/wiki` -> "wiki"; `data/wiki.v2.jsonl.xz` -> "wiki.v2"."""
    name = os.path.basename(os.path.abspath(top))
    known = None if top.is_dir() else format_of(top)
    return name[: -len("".join(known))] if known else name
