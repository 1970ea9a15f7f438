"""Standard input as a file: it can be read once, and a corpus is read more than once."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import sys
from pathlib import Path

from miao.corpus.read.opened import CHUNK, MAGIC, read_bytes
from miao.errors import MiaoError
from miao.files import atomic_open, cache_directory


@functools.cache
def standard_input() -> Path:
    """Everything that is piped in, in a file that lives as long as this process.

    Its name follows from its content, so that the same input is the same corpus in another run.

    Raises:
        MiaoError: nothing is piped in, or nothing came.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise MiaoError("nothing is piped into '-'", fix="cat FILES | miao ... -")
    folder = cache_directory() / "stdin" / str(os.getpid())
    atexit.register(shutil.rmtree, folder, True)
    digest, beginning = hashlib.sha256(), b""
    whole = folder / "input"
    with atomic_open(whole, "wb") as file:
        while chunk := sys.stdin.buffer.read(CHUNK):
            beginning = beginning or chunk
            digest.update(chunk)
            file.write(chunk)
    if not beginning:
        raise MiaoError("what is piped into '-' is empty", fix="look at what comes before the pipe")
    path = folder.parent / f"{digest.hexdigest()[:16]}{_extension(whole, beginning)}"
    atexit.register(path.unlink, True)
    os.replace(whole, path)
    os.utime(path, (0, 0))  # part of what a corpus is told apart by
    return path


def _extension(path: Path, beginning: bytes) -> str:
    """The format of the content: JSON lines, a JSON list, a page, parquet, or plain text."""
    for compression, magic in MAGIC.items():
        if beginning.startswith(magic):
            packed = path.with_name(f"input.txt{compression}")
            os.link(path, packed)
            try:
                return _extension(path, next(read_bytes(packed), b"")) + compression
            finally:
                packed.unlink()
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    if beginning.startswith(b"PAR1"):
        return ".parquet"
    if text.startswith(b"{"):
        return ".jsonl" if b"}" in text.split(b"\n", 1)[0] else ".json"
    if text.startswith(b"[") and text[1:].lstrip()[:1] in (b"{", b"["):
        return ".json"
    if text[:200].lower().startswith((b"<!doctype html", b"<html")):
        return ".html"
    return ".txt"
