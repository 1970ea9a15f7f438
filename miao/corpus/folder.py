"""A folder here, or one of any file system that fsspec knows (`s3://bucket/work`).

Files are written whole or not at all, and read whole or in ranges. Nothing is ever listed that was
just written: object stores may show it late.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from miao.corpus.steps import link
from miao.errors import MiaoError, install_hint
from miao.files import atomic_open, sync_directory
from miao.hubs.remote import RemoteFile

READERS = 32
"""Small files of an object store that are asked for at a time."""


def is_url(place: str) -> bool:
    """Whether it names a place of another file system than this machine's."""
    return "://" in place


@functools.lru_cache(4096)
def file_system(place: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there.

    Raises:
        MiaoError: fsspec, or what it needs for this kind of place, is not installed.
    """
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(place, use_listings_cache=False)
    except ImportError as error:
        kind = place.partition("://")[0]
        fix = f"pip install s3fs; {install_hint('datatrove')}" if kind == "s3" else None
        raise MiaoError(f"'{kind}://' cannot be opened: {error}", where=place, fix=fix) from error
    except ValueError as error:
        raise MiaoError(f"no such kind of place: {error}", where=place) from error
    return system, path


@dataclass(frozen=True)
class _Ranges:
    """Fetches bytes of a file, in any process."""

    url: str

    def __call__(self, start: int, end: int) -> bytes:
        system, path = file_system(self.url)
        content: bytes = system.cat_file(path, start=start, end=end)
        return content


def files_at(url: str) -> list[RemoteFile]:
    """The files that a URL stands for: one, all below a folder, or those of a pattern.

    Raises:
        MiaoError: there are none.
    """
    system, path = file_system(url)
    kind, _, _ = url.partition("://")
    try:
        if "*" in path or "[" in path:
            found = system.glob(path, detail=True)
        else:
            found = system.find(path, detail=True)
    except (OSError, ValueError) as error:
        raise MiaoError(f"cannot be listed: {error}", where=url) from error
    files = []
    for name, facts in sorted(found.items()):
        if facts["type"] == "file":
            root, _, rest = f"{kind}://{name.lstrip('/')}".rpartition("/")
            root = f"{kind}:///{root[len(kind) + 3 :]}" if name.startswith("/") else root
            stamps = (facts.get(key) for key in ("ETag", "LastModified", "mtime"))
            version = next((str(stamp) for stamp in stamps if stamp), "")
            files.append(RemoteFile(root, rest, facts["size"], _Ranges(f"{root}/{rest}"), version))
    if not files:
        raise MiaoError("no such file or folder", where=url, fix="check the spelling")
    return files


@dataclass(frozen=True)
class Folder:
    """A folder, by its path or URL; it need not exist."""

    place: str

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.place.rstrip('/')}/{name}")

    @property
    def is_local(self) -> bool:
        return not is_url(self.place)

    def path(self, name: str = "") -> Path:
        """Of a folder of this machine."""
        assert self.is_local
        return Path(self.place, name)

    def open(self, name: str) -> IO[bytes]:
        if self.is_local:
            return open(self.path(name), "rb")
        system, path = file_system(self.place)
        opened: IO[bytes] = system.open(f"{path}/{name}", "rb", cache_type="readahead")
        return opened

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of a file, or some of them.

        Raises:
            FileNotFoundError
        """
        if not self.is_local:
            system, path = file_system(self.place)
            content: bytes = system.cat_file(f"{path}/{name}", start=start or None, end=stop)
            return content
        with open(self.path(name), "rb") as file:
            file.seek(start)
            return file.read(-1 if stop is None else stop - start)

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """The file is there when the block has succeeded, and not before."""
        if self.is_local:
            with atomic_open(self.path(name), "wb") as file:
                yield file
            return
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            self._put(Path(file.name), name)

    def take(self, file: Path, name: str) -> None:
        """Moves a file of this machine into the folder."""
        if self.is_local:
            target = self.path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
            os.replace(file, target)
            sync_directory(target.parent)
        else:
            self._put(file, name)
            file.unlink()

    def copy(self, name: str, target: str) -> None:
        """A file of the folder under a second name."""
        if self.is_local:
            place = self.path(target)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            link(self.path(name), place)
            return
        system, path = file_system(self.place)
        with suppress(NotImplementedError, FileExistsError):
            system.makedirs(f"{path}/{target}".rpartition("/")[0], exist_ok=True)
        system.cp_file(f"{path}/{name}", f"{path}/{target}")

    def _put(self, file: Path, name: str) -> None:
        system, path = file_system(self.place)
        with suppress(NotImplementedError, FileExistsError):  # object stores have no folders
            system.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), f"{path}/{name}")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory of this machine for files on their way into the folder."""
        parent = self.path() if self.is_local else None
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".") as directory:
            yield Path(directory)

    def write_json(self, name: str, value: Any) -> None:
        with self.write(name) as file:
            file.write(json.dumps(value, ensure_ascii=False).encode())

    def note(self, name: str, value: Any) -> None:
        """`write_json` of what may be lost with the power, as long as it is never half there."""
        if not self.is_local:
            return self.write_json(name, value)
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, path)

    def read_json(self, name: str) -> Any:
        """None: there is no such file, or it is damaged."""
        try:
            return json.loads(self.read(name))
        except (FileNotFoundError, ValueError):
            return None

    def read_many(self, names: Sequence[str]) -> list[Any]:
        """`read_json` of each; of an object store many at a time."""
        if self.is_local or len(names) < 2:
            return [self.read_json(name) for name in names]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self.read_json, names))

    def remove(self, name: str = "") -> None:
        """A file, or a folder with all in it; nothing where there is none."""
        if self.is_local:
            file = self.path(name)
            if file.is_file():
                file.unlink()
            else:
                shutil.rmtree(file, ignore_errors=True)
            return
        system, path = file_system(self.place)
        with suppress(FileNotFoundError):
            system.rm(f"{path}/{name}".rstrip("/"), recursive=True)
