"""Which kind of record files hold: decided here, for every command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import get_args

from miao.corpus.read.columns import mapped
from miao.corpus.read.convert import kind_of
from miao.corpus.read.formats import AS_IT_IS, Reading
from miao.corpus.read.opened import DamagedFile
from miao.corpus.read.readers import read_objects
from miao.corpus.read.sources import find_sources, named
from miao.corpus.records import Kind

SNIFFED = 200
"""Objects at the beginning of a file that its kind is told from."""


def sniff_kind(path: Path, reading: Reading = AS_IT_IS) -> Kind | None:
    """The kind of record that most of the first objects of a file are best used as."""
    votes: Counter[Kind] = Counter()
    objects = read_objects(path, lambda problem: None, encoding=reading.encoding)
    try:
        for _, value in islice(objects, SNIFFED):
            if kind := kind_of(mapped(value, reading.columns)[0]):
                votes[kind] += 1
    except DamagedFile:  # told when the file is read
        pass
    order = get_args(Kind)[::-1]
    return max(votes, key=lambda kind: (votes[kind], order.index(kind)), default=None)


def paths_by_kind(paths: Sequence[str], reading: Reading = AS_IT_IS) -> dict[Kind, list[str]]:
    """What the user names, by the kind of record in it; a folder of several kinds file by file.
    What holds nothing known counts as documents, whose reading says what is wrong."""
    found: dict[Kind, list[str]] = {}
    for given in paths:
        kinds = {
            str(path): sniff_kind(path, reading) or "document" for path, _ in find_sources([given])
        }
        alike, name = len({*kinds.values()}) == 1, named(given)[0]
        for path, kind in kinds.items():
            names = found.setdefault(kind, [])
            word = given if alike else f"{name}={path}" if name else path
            if word not in names:
                names.append(word)
    return found
