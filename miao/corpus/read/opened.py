"""A file of the user's -> its bytes, decompressed; its format told from its name."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from miao.corpus.read.meter import metered
from miao.errors import MiaoError, install_hint
from miao.files import LFS_POINTER, refuse_lfs_pointer
from miao.hubs.remote import RemoteFile

FORMATS = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow"),
    *(".txt", ".md", ".html", ".htm"),
)
CODE = (
    *(".py", ".c", ".h", ".cpp", ".hpp", ".cc", ".cu", ".java", ".js", ".jsx", ".ts", ".tsx"),
    *(".go", ".rs", ".rb", ".php", ".cs", ".kt", ".swift", ".scala", ".lua", ".pl", ".r", ".jl"),
    *(".sh", ".sql", ".hs", ".ml", ".vue", ".tex", ".rst"),
)
"""Source code: texts like others, but in a folder only where they are asked for."""
ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")
COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst", ".zip")
MAGIC = {
    ".gz": b"\x1f\x8b",
    ".xz": b"\xfd7zXZ\x00",
    ".bz2": b"BZh",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".zip": b"PK",
}
"""What a compressed file begins with."""
SUPPORTED = f"{' '.join(FORMATS)}, plain or with {' '.join(COMPRESSIONS)} after it"
CHUNK = 1 << 20
"""Bytes read at a time."""

Source = Path | RemoteFile


def format_of(path: Source) -> tuple[str, str] | None:
    """The extension and the compression ("" if plain) in a file name; None if not supported.

    A file without an extension that begins like JSON lines or like what WikiExtractor writes
    (`AA/wiki_00`) is one of those.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    if suffixes and suffixes[-1] in (*FORMATS, *CODE):
        return suffixes[-1], compression
    if not suffixes and isinstance(path, Path) and not path.name.startswith("."):
        form = _format_within(path, compression)
        return (form, compression) if form else None
    return None


def _format_within(path: Path, compression: str) -> str | None:
    try:
        with path.open("rb") as packed, _unpacked(path, compression, packed) as file:
            beginning = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, MiaoError):
        return None
    if beginning.startswith(b"<doc id="):
        return ".txt"
    return ".jsonl" if re.match(rb'\{\s*"', beginning) else None


def unknown_format(path: Source) -> MiaoError:
    if path.suffix in (".yaml", ".yml"):
        command = f"miao corpus {shlex.quote(str(path))}"
        return MiaoError("this is a recipe, not text", where=str(path), fix=command)
    ending = "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSIONS else path.suffix
    if any(suffix.lower() in ARCHIVES for suffix in path.suffixes[-2:]):
        return MiaoError(
            f"an archive ({ending}), which may hold many files",
            where=str(path),
            fix="unpack it into a folder and name that",
        )
    return MiaoError(
        f"files that end in '{ending}' cannot be read" if ending else "no extension",
        where=str(path),
        fix=f"convert or rename it; supported are {SUPPORTED}, and source code",
    )


def missing_library(name: str, path: Source) -> MiaoError:
    return MiaoError(f"reading this needs {name}", where=str(path), fix=install_hint("data"))


class DamagedFile(MiaoError):
    """The rest of a file cannot be read: truncated, damaged, or not text."""


@contextmanager
def open_binary(path: Source) -> Iterator[IO[bytes]]:
    """Opens a file for reading, decompressed. Use it inside `readable`."""
    known = format_of(path)
    if known is None:
        raise unknown_format(path)
    with ExitStack() as stack:
        raw: Any = metered(stack.enter_context(path.open("rb")), CHUNK)
        refuse_lfs_pointer(path, raw.read(len(LFS_POINTER)))
        raw.seek(0)
        if known[1] or known[0] in (".parquet", ".arrow"):
            _check_beginning(path, known[1], raw)
        yield stack.enter_context(_unpacked(path, known[1], raw))


@contextmanager
def _unpacked(path: Source, compression: str, raw: Any) -> Iterator[IO[bytes]]:
    """The file without its compression."""
    with ExitStack() as stack:
        match compression:
            case ".gz":
                raw = stack.enter_context(gzip.open(raw, "rb"))
            case ".xz":
                raw = stack.enter_context(lzma.open(raw, "rb"))
            case ".bz2":
                raw = stack.enter_context(bz2.open(raw, "rb"))
            case ".zst":
                raw = stack.enter_context(io.BufferedReader(_ZstdStream(path, raw), CHUNK))
            case ".zip":
                raw = stack.enter_context(_zip_member(path, raw))
        yield raw


def _check_beginning(path: Source, compression: str, raw: IO[bytes]) -> None:
    """An empty file, or one whose name says another compression than its content, is told here:
    the libraries' own words on that help nobody."""
    beginning = raw.read(8)
    raw.seek(0)
    if not beginning:
        raise DamagedFile(
            "the file is empty (0 bytes)", where=str(path), fix="download or copy it again"
        )
    if not compression or beginning.startswith(MAGIC[compression]):
        return
    if compression == ".zst" and 0x50 <= beginning[0] <= 0x5F and beginning[1:4] == b"\x2a\x4d\x18":
        return  # a frame that is to be skipped
    is_really = [name for name, magic in MAGIC.items() if beginning.startswith(magic)]
    raise DamagedFile(
        f"the name says {compression}, the content does not"
        + (f" (it is {is_really[0]})" if is_really else ""),
        where=str(path),
        fix=f"rename it to end in {is_really[0]}"
        if is_really
        else f"if it is not compressed, take {compression} off its name; else download it again",
    )


def _zip_member(path: Source, raw: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(raw)
    members = [entry for entry in archive.infolist() if not entry.is_dir()]
    members = [entry for entry in members if not entry.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        raise DamagedFile(
            f"an archive of {len(members)} files", where=str(path), fix="unpack it into a folder"
        )
    if members[0].flag_bits & 1:
        raise DamagedFile("the archive has a password", where=str(path), fix="unpack it first")
    return archive.open(members[0])


@contextmanager
def readable(path: Source) -> Iterator[None]:
    """Turns what can go wrong in reading bytes into a `DamagedFile` that names the file."""
    again = "download or copy the file again"
    try:
        yield
    except EOFError as error:
        what = "the compressed file is truncated"
        raise DamagedFile(what, where=str(path), fix=again) from error
    except (OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(path, RemoteFile) and isinstance(error, ConnectionError):
            what, again = f"the connection was lost: {error}", "run the same command again"
            raise DamagedFile(what, where=str(path), fix=again) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise DamagedFile(f"cannot be read: {error.strerror}", where=str(path)) from error
        raise DamagedFile(f"the file is damaged: {error}", where=str(path), fix=again) from error


def read_bytes(path: Source, size: int = CHUNK) -> Iterator[bytes]:
    """The decompressed file in chunks of exactly `size` bytes (the last may be shorter)."""
    with readable(path), open_binary(path) as file:
        while chunk := file.read(size):
            yield chunk


class _ZstdStream(io.RawIOBase):
    """The frames of a .zst file. Unlike zstandard's own reader it notices a missing end."""

    def __init__(self, path: Source, file: IO[bytes]):
        try:
            import zstandard
        except ImportError as error:
            raise missing_library("zstandard", path) from error
        # The window of `zstd --long=31`; only as much as a file asks for is allocated.
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._error = zstandard.ZstdError
        self._file = file
        self._frame = self._new_frame()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data or self._file.read(1 << 16)
            if not packed and self._frame.eof:
                return 0
            if not packed:
                raise EOFError
            if self._frame.eof:
                self._frame = self._new_frame()
            try:
                self._ready = memoryview(self._frame.decompress(packed))
            except self._error as error:
                raise OSError(str(error)) from error
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count
