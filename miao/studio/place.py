"""Where a studio reads and writes, and what may not be left."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from miao.errors import MiaoError
from miao.files import at_home
from miao.rundir import RunDir
from miao.serve.board import Runs
from miao.serve.problems import Problem

NAME = re.compile(r"[^\W_][\w.\-]{0,79}")
"""Of a run or a folder that the studio makes: letters of any script, digits, `_`, `-`, `.`."""


@dataclass(frozen=True)
class Place:
    """What a studio was opened with.

    Args:
        runs: the directory of runs.
        texts: roots below which texts may be read; what is dropped goes below the first.
        home: the studio's own directory. Commands and process numbers stand here and never in a
            run directory, which may be a stranger's and is only read.
    """

    runs: Path
    texts: tuple[Path, ...]
    home: Path

    def run(self, name: str) -> RunDir:
        """The run of a name that the board shows.

        Raises:
            Problem: 404, there is none.
        """
        run = Runs(self.runs).found().get(name)
        if run is None:
            raise Problem(404, "there is no such run", "run")
        return run

    def text(self, given: str) -> Path:
        """A path that a page names, links resolved.

        Raises:
            Problem: 403, it is not below a root; 404, it is not there.
        """
        try:
            path = Path(given).resolve()
            is_there = path.exists()
        except (OSError, ValueError, RuntimeError):
            raise Problem(404, "there is no such file", "path") from None
        if not any(path.is_relative_to(root) for root in self.texts):
            raise Problem(403, "this is not below a directory given by --texts", "path")
        if not is_there:
            raise Problem(404, "there is no such file", "path")
        return path

    def token(self, new: bool = False) -> str:
        """The secret of the first address. It stays the same, so that an open page finds the
        studio again; nobody else may read its file."""
        path = self.home / "token"
        if new or not path.is_file():
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
        return path.read_text(encoding="utf-8").strip()


def checked_name(name: str, what: str = "name") -> str:
    """A name for a new run or folder.

    Raises:
        Problem: 400, it could be a path, an option, or no name of a file everywhere.
    """
    if not NAME.fullmatch(name) or name.endswith("."):
        raise Problem(
            400, f"{name[:80]!r} is no name: letters and digits, then also . - _ (at most 80)", what
        )
    return name


def home_of(runs: Path) -> Path:
    """The directory that a studio of these runs keeps for itself, outside of them."""
    state = os.environ.get("XDG_STATE_HOME") or at_home("~/.local/state")
    digest = hashlib.sha256(os.fsencode(runs.resolve())).hexdigest()[:8]
    return Path(state) / "miao" / f"studio-{digest}"


def open_place(runs: Path, texts: tuple[Path, ...], home: Path | None = None) -> Place:
    """The place, its directories made.

    Raises:
        MiaoError: one of them cannot be.
    """
    # Whole paths: what a verb says of a file is found again among those that were chosen, and a
    # studio that begins elsewhere finds the same.
    roots = tuple(path.resolve() for path in texts)
    place = Place(runs.resolve(), roots, (home or home_of(runs)).resolve())
    try:
        place.runs.mkdir(parents=True, exist_ok=True)
        place.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise MiaoError(f"cannot be made: {error.strerror}", where=error.filename) from error
    return place
