"""The built-in corpus, written as it is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from miao.corpus.build.assemble import join_segments
from miao.corpus.build.output import (
    Output,
    Splitter,
    characters_of,
    file_name,
    require_some,
)
from miao.corpus.folder import Folder
from miao.corpus.records import Document, Kind
from miao.corpus.seedbed import Seedbed
from miao.corpus.steps import Line
from miao.recipe import CorpusOptions


def write_built_in(
    seedbed: Seedbed,
    kind: Kind,
    options: CorpusOptions,
    output: Output,
    folder: Folder,
    out: Folder,
    line: Line,
    source: str | None = None,
) -> dict[str, Any]:
    """Writes its records of a kind to `out`; what was written, `sources` and `sha256`.

    Args:
        folder: for files on their way.
        source: all records go to the file of this name.
    """
    split, digests = ContentSplit(options), {}
    with folder.scratch() as directory, Splitter(directory) as splitter:
        for record in seedbed.records(kind):
            written = record.to_json()
            name = source or file_name(record.source, kind)
            if side := split.of(written, name):
                text = (json.dumps(written, ensure_ascii=False) + "\n").encode()
                splitter.write(text, name, side, characters_of(written))
            else:
                splitter.leave(name)
            line.advance(len(record.text) if isinstance(record, Document) else 1)
        splitter.close()
        require_some(splitter.counts.values())
        for name in sorted(splitter.names):
            made = Path(name).with_suffix(f".{output}").as_posix()
            digests[made] = join_segments(Folder(str(directory)), [name], made, kind, folder, out)
    return {"sources": {k: vars(v) for k, v in splitter.counts.items()}, "sha256": digests}


class ContentSplit:
    """The split of the built-in corpus, as its records come: by a hash of all that each says (its
    questions that are asked later are never written at all)."""

    def __init__(self, options: CorpusOptions):
        self.options = options
        self._held: set[bytes] = set()
        self._counts: Counter[str] = Counter()

    def of(self, record: dict[str, Any], source: str) -> Literal["train", "heldout"] | None:
        """Where a record goes; None: the same one is held out."""
        content = {key: value for key, value in record.items() if key != "source"}
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        digest = hashlib.sha256(text.encode()).digest()
        if int.from_bytes(digest[:8], "big") >= self.options.heldout * 2**64:
            return "train"
        if digest in self._held:
            return None
        if self._counts[source] >= self.options.heldout_max:
            return "train"
        self._held.add(digest)
        self._counts[source] += 1
        return "heldout"
