"""Files that matter are written whole or not at all; everything else about files is here too."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from miao.errors import MiaoError
from miao.language import translated

try:  # five times as fast; a log may have a hundred thousand lines
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]


@contextmanager
def full_disk_is_a_user_error(target: Path) -> Iterator[None]:
    """Turns a full disk, or a place that cannot be written, into a `MiaoError` that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = free_space(target)
            raise MiaoError(
                f"the disk is full ({free / 2**20:.0f} MiB left); nothing half-written was kept",
                where=target,
                fix="free some space or choose another place with --out_dir, then run again: "
                "it continues where it was",
            ) from error
        if error.errno in (
            *(errno.EACCES, errno.EROFS, errno.EPERM),
            *(errno.ENOTDIR, errno.EEXIST),  # a file stands where a directory should be
        ):
            raise MiaoError(
                f"cannot write here ({error.strerror})",
                where=target,
                fix="choose another --out_dir",
            ) from error
        raise


def free_space(path: Path) -> int:
    """Bytes that may still be written on the disk of a path, which need not exist."""
    return shutil.disk_usage(_existing_parent(path)).free


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return error is not None and is_full_disk(error.__cause__)


@contextmanager
def atomic_open(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary neighbour of `path`; flushed, synced and renamed over it on success.

    On any error the temporary file goes and `path` stays as it was. Text is UTF-8.
    """
    path = Path(path)
    with full_disk_is_a_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        )
        try:
            with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, usual_mode(0o666))
            os.replace(temporary, path)
            sync_directory(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A temporary neighbour directory, renamed to `path` (replacing it) when the block succeeds."""
    path = Path(path)
    with full_disk_is_a_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        os.chmod(temporary, usual_mode(0o777))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with open(file, "rb") as opened:
                        os.fsync(opened.fileno())
            if path.exists():
                old = path.with_name(f".{path.name}.old.{os.getpid()}")
                os.replace(path, old)
                try:
                    os.replace(temporary, path)
                except BaseException:
                    os.replace(old, path)
                    raise
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, path)
            sync_directory(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def require_replaceable(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuses a place that holds something else than what would be replaced there.

    Args:
        is_ours: whether a directory that is not empty is an earlier result of the same kind.

    Raises:
        MiaoError: a file, or a directory of something else.
    """
    if path.is_file():
        raise MiaoError("this is a file", where=path, fix="--out names a directory to write")
    if path.exists() and any(path.iterdir()) and not is_ours(path):
        raise MiaoError(
            "this directory holds something else, which would be replaced",
            where=path,
            fix="choose another --out, or empty it",
        )


def sync_directory(path: Path) -> None:
    """Makes a rename in `path` durable (a no-op where directories cannot be opened: Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    with atomic_open(path) as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file of ours.

    Raises:
        MiaoError: missing, not UTF-8, or not JSON; with the place.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MiaoError("the file is missing", where=path) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, too deep, too many digits
        refuse_lfs_pointer(path)
        raise MiaoError(f"the file is damaged: {error}", where=path) from error


def append_jsonl(path: str | Path, record: dict[str, Any]) -> None:
    """Appends one line in a single write, so that a reader never sees half of it; a line that a
    full disk cuts short is taken back."""
    path = Path(path)
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    with full_disk_is_a_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if file.write(line) != len(line):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_jsonl(
    path: str | Path, pass_over: Callable[[str], None] | None = None
) -> list[dict[str, Any]]:
    """Reads JSON lines of ours (none where there is no file); a last line that a crash cut short
    is left out.

    Args:
        pass_over: told of every line that is no JSON object, or holds what nothing can show (a
            number beyond all floats), which is then left out; None: such a line is an error.
    """
    path = Path(path)
    if not path.is_file():
        return []
    return parsed_lines(path.read_text(encoding="utf-8", errors="replace"), path, pass_over)


MOST_DIGITS = 308  # of a whole number that is a float


def parsed_lines(
    text: str, path: Path, pass_over: Callable[[str], None] | None, first: int = 1
) -> list[dict[str, Any]]:
    """The records of a text of JSON lines, as `read_jsonl` reads those of a file.

    Args:
        first: the number that the text's first line has in the file.
    """
    # Not splitlines(): JSON may hold U+2028 and its kin unescaped.
    lines = text.rstrip("\n").split("\n")
    records = []
    for number, line in enumerate(lines, first):
        if not line:
            continue
        try:
            records.append(json.loads(line) if pass_over is None else _showable(line))
        except (ValueError, RecursionError) as error:
            if number - first + 1 == len(lines):
                continue
            problem = MiaoError("not a JSON line", where=f"{path}:{number}")
            if pass_over is None:
                raise problem from error
            pass_over(str(problem))
    return records


def _showable(line: str) -> dict[str, Any]:
    """A line's object, its halves of surrogate pairs replaced. ValueError: see `read_jsonl`."""
    with suppress(ValueError, AttributeError):  # what is none to it may be one: NaN, half pairs
        if type(record := orjson.loads(line)) is dict:
            return record
    if len(line) > MOST_DIGITS:  # else no number in it can be beyond all floats
        record = json.loads(line, parse_int=_int_within_floats)
    else:
        record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("no object")
    if "\\u" in line and "\\ud" in line.lower():
        record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    return record


def _int_within_floats(digits: str) -> int:
    if math.isinf(float(digits)):
        raise ValueError("a number beyond all floats")
    return int(digits)


def write_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    with atomic_open(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """A short, stable hash of a JSON-like value: equal settings give equal fingerprints."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_lfs_pointer(path: Any, beginning: bytes | None = None) -> None:
    """Raises:
    MiaoError: instead of the file there is what Git LFS leaves where it does not fetch it.
    """
    if beginning is None:
        with open(path, "rb") as file:
            beginning = file.read(len(LFS_POINTER))
    if beginning.startswith(LFS_POINTER):
        raise MiaoError(
            "a Git LFS pointer: the file itself was not fetched",
            where=str(path),
            fix="`git lfs pull` in its repository, or download the file itself",
        )


def cache_directory() -> Path:
    """Where Miao keeps what it can make or download again: MIAO_CACHE, else ~/.cache/miao; where
    there is no home, or it cannot be written, a temporary directory of this user's, which is
    said."""
    named = os.environ.get("MIAO_CACHE")
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no HOME, and a user that the system does not know
        base = None
    return _writable_cache(Path(named) if named else None if base is None else Path(base) / "miao")


@functools.cache
def _writable_cache(wanted: Path | None) -> Path:
    reason = "this user has no home"
    if wanted is not None:
        try:
            wanted.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=wanted).close()
            return wanted
        except OSError as error:
            reason = f"no cache in {wanted} ({error.strerror})"
    fallback = _own_temporary_directory()
    print(translated(f"! {reason}: the cache is {fallback}"), file=sys.stderr)
    return fallback


def _own_temporary_directory() -> Path:
    """The same for every command of a user, if nobody else made or may write it."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"miao-cache-{user}"
    with suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        if path.is_dir() and nobody_else_writes(path):
            return path
    return Path(tempfile.mkdtemp(prefix="miao-cache-"))


def at_home(path: str | Path) -> Path:
    """A path that a user wrote, with `~` for the home.

    Raises:
        MiaoError: this user, or the one behind the `~`, has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise MiaoError(
            "there is no home for the ~", where=str(path), fix="name it whole"
        ) from error


def nobody_else_writes(path: Path) -> bool:
    """Whether a file or directory (no link) is this user's or root's, and only they may write."""
    if not hasattr(os, "getuid"):  # Windows, where a home is private anyway
        return True
    found = path.lstat()
    kind = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return kind and found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o022


def private_directory(name: str) -> Path:
    """A directory in the cache for what is run, not read: nobody else may write there. One that
    others could write is closed to them, and what it holds is dropped."""
    path = cache_directory() / name
    with suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        if not path.is_symlink() and not nobody_else_writes(path):
            path.chmod(0o700)  # refused where it is somebody else's
            for file in path.iterdir():
                file.unlink()
        if nobody_else_writes(path):
            return path
    path = _own_temporary_directory() / name
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def _existing_parent(path: Path) -> Path:
    for candidate in (path, *path.parents):
        if candidate.exists():
            return candidate
    return Path(".")


def usual_mode(mode: int) -> int:
    """The permissions that a file or directory made in the ordinary way would have."""
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask


def lock(file: IO[bytes]) -> None:
    """Locks a file until it is closed, or its process ends.

    Raises:
        OSError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
