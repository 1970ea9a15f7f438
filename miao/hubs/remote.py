"""The files of a data set on a hub, read over the network without being kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import IO, Any

from miao.console import warn

README = "README.md"
BLOCK = 4 << 20
TRIES = 5


@dataclass(frozen=True)
class Listing:
    """The files of a repository and their sizes in bytes, at a revision."""

    files: dict[str, int]
    revision: str | None
    directory: Path | None = None
    """Where they lie, when the hub could not be asked."""

    @classmethod
    def of_directory(cls, directory: Path) -> Listing:
        paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        sizes = {path.relative_to(directory).as_posix(): path.stat().st_size for path in paths}
        return cls(sizes, None, directory)


def ranged(get: Callable[[], Any], start: int, end: int) -> bytes:
    """The bytes of a response to a request for a range, also from a server that sends all.

    Raises:
        ConnectionError: the network, or an answer that is neither.
    """
    try:
        response = get()
        status, content = response.status_code, bytes(response.content)
    except Exception as error:  # of whichever HTTP library the hub's client uses
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    if status == 200:
        return content[start:end]
    if status != 206:
        raise ConnectionError(f"the hub answers with HTTP status {status}")
    return content


@dataclass(frozen=True)
class RemoteFile:
    """Stands in for a `Path` where files are read.

    `fetch(start, end)` returns the bytes from `start` up to, and without, `end`; an error of the
    network is an `OSError`.
    """

    repository: str
    path: str
    size: int
    fetch: Callable[[int, int], bytes]
    version: str = ""
    """Changes when the content does, where that is known."""

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    @property
    def suffixes(self) -> list[str]:
        return PurePosixPath(self.path).suffixes

    def open(self, mode: str = "rb") -> IO[bytes]:
        assert mode == "rb"
        return io.BufferedReader(_Ranges(self), BLOCK)

    def stat(self) -> Any:
        return SimpleNamespace(st_size=self.size)


class _Ranges(io.RawIOBase):
    """Reads ranges one after the other, and goes on where a cut connection ended."""

    def __init__(self, file: RemoteFile):
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._file.size)
        if self._at >= end:
            return 0
        for attempt in range(TRIES):
            try:
                data = self._file.fetch(self._at, end)
            except OSError:
                if attempt + 1 == TRIES:
                    raise
                warn(f"{self._file}: the connection was lost at byte {self._at:,}: trying again")
                continue
            if data:  # fewer than asked for: the rest comes with the next call
                break
        else:
            raise ConnectionError("the hub sends nothing more")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
