"""Texts for a model: dropped files, folders below the roots, and what is recognised in them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from miao.files import free_space, read_jsonl
from miao.serve.problems import Problem, for_reader
from miao.studio.place import Place, checked_name

LARGEST = 4 * 2**30
"""Bytes of a file that is dropped."""
SPARE = 2**30
"""Bytes of the disk that stay free."""
PATIENCE = 60.0
"""Seconds to wait for the next piece of a file."""
SHOWN = 500
"""Entries of a folder."""
PROBLEMS = 30
CHECKED = 20_000
"""Records of a file that are looked at."""
CHECK_SECONDS = 120
UNSAFE = re.compile(r"[^\w.\-()（）+ ]+")


class Paths(BaseModel):
    """Paths below the roots."""

    paths: list[str] = Field(min_length=1, max_length=100)


def add_texts(app: FastAPI, place: Place) -> None:
    """Adds dropping, choosing and checking."""

    @app.post("/studio/upload")
    async def upload(request: Request, folder: str, name: str) -> dict[str, Any]:
        """Keeps the bytes of the body as a file of a folder below the first root."""
        target = _free_place(place, folder, name)
        length = request.headers.get("content-length", "0")
        size = await _keep(request.stream(), target, int(length) if length.isdigit() else 0)
        return {"path": str(target), "bytes": size, "name": target.name}

    @app.get("/studio/texts")
    def look(path: str = "") -> dict[str, Any]:
        """What is in a folder; without one, the roots."""
        if not path:
            return {"path": "", "entries": [_entry(root) for root in place.texts if root.exists()]}
        folder = place.text(path)
        try:
            found = sorted(islice(folder.iterdir(), SHOWN), key=lambda one: one.name)
        except OSError as error:
            raise Problem(400, f"cannot be read: {error.strerror}", "path") from error
        return {"path": path, "entries": [_entry(one) for one in found if _is_shown(one)]}

    @app.post("/studio/check")
    def check(body: Paths) -> dict[str, Any]:
        """What `miao corpus check` says."""
        return checked([str(place.text(path)) for path in body.paths])


def checked(paths: Sequence[str]) -> dict[str, Any]:
    """What `miao corpus check --json` finds, the first problems with file and line, and the
    command."""
    words = ["corpus", "check", *paths]
    with tempfile.TemporaryDirectory() as kept:
        bad = Path(kept) / "quarantine.jsonl"
        more = ["--json", "--limit", str(CHECKED), "--quarantine", str(bad)]
        found: dict[str, Any] = asked([*words, *more], CHECK_SECONDS, (0, 1))
        problems = islice(read_jsonl(bad, lambda problem: None), PROBLEMS)
        found["problems"] = [
            {key: one.get(key) for key in ("path", "line")}
            | {key: for_reader(one.get(key) or "") for key in ("reason", "fix")}
            for one in problems
        ]
    return found | {"command": f"miao {shlex.join(words)}", "quarantine": None}


def asked(words: Sequence[str], seconds: float, fine: Sequence[int] = (0,)) -> Any:
    """The JSON that a verb prints.

    Raises:
        Problem: 400, with the message that the command ends with; 500, it takes too long.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "miao", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise Problem(500, f"`miao {words[0]}` takes longer than {seconds:g} seconds") from None
    said = done.stdout.decode("utf-8", "replace")
    begin = said.find("\n{") + 1 if not said.startswith("{") else 0
    with suppress(ValueError):
        if done.returncode in fine:
            return json.loads(said[begin:])
    lines = done.stderr.decode("utf-8", "replace").strip().removeprefix("miao: ")
    raise Problem(400, lines[-2000:] or f"`miao {words[0]}` failed ({done.returncode})")


def _free_place(place: Place, folder: str, name: str) -> Path:
    """Where a dropped file goes: its own name made harmless, numbered where it is taken."""
    root = place.texts[0]
    directory = root / checked_name(folder, "folder")
    clean = UNSAFE.sub("_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")[-120:]
    path = Path(clean or "text.txt")
    root.mkdir(parents=True, exist_ok=True)
    if directory.is_symlink():
        raise Problem(403, "this is not below a directory given by --texts", "folder")
    directory.mkdir(exist_ok=True)
    names = (path.name, *(f"{path.stem}-{number}{path.suffix}" for number in range(2, 1000)))
    for one in names:
        with suppress(FileExistsError):
            os.close(os.open(directory / one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return directory / one
    raise Problem(409, "there are too many files of that name", "name")


async def _keep(stream: AsyncIterator[bytes], target: Path, expected: int) -> int:
    """Writes a stream to a file, which is whole or gone."""
    size = 0
    most = min(LARGEST, free_space(target.parent) - SPARE)
    try:
        if expected > most:
            raise Problem(413, f"larger than {max(0, most) / 2**20:,.0f} MiB, what may be kept")
        with open(target, "wb") as file:
            while True:
                async with asyncio.timeout(PATIENCE):
                    piece = await anext(stream, None)
                if piece is None:
                    return size
                size += len(piece)
                if size > most:
                    raise Problem(413, f"larger than {max(0, most) / 2**20:,.0f} MiB")
                await run_in_threadpool(file.write, piece)
    except TimeoutError:
        target.unlink(missing_ok=True)
        raise Problem(408, f"nothing came for {PATIENCE:g} seconds") from None
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _entry(path: Path) -> dict[str, Any]:
    is_folder = path.is_dir()
    size = None
    with suppress(OSError):
        size = None if is_folder else path.stat().st_size
    whole = str(path.resolve())
    return {"name": path.name or whole, "path": whole, "folder": is_folder, "bytes": size}


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.isprintable()
