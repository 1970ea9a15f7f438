"""The one exception for user mistakes, and the helpers that phrase it."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path


class MiaoError(Exception):
    """A mistake the user can mend: what is wrong, where, and what to do about it.

    The command line prints it without a traceback and exits with code 2
    (`MIAO_DEBUG=1` shows the traceback). Invariants of ours are `assert`s instead.

    Args:
        what: what is wrong, in one sentence.
        where: the place: `path`, `path:line`, or a recipe key.
        fix: what to do, in one sentence.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None):
        self.what, self.where, self.fix = what, str(where) if where else None, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  -> {self.fix}" if self.fix else text


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A suggestion ("did you mean 'x'?") for a misspelt word, or None when nothing is close."""
    close = nearest(word, known)
    return None if close is None else f"did you mean '{close}'?"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one is most like, or None when nothing is close."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something; its type where none does."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def activation_hint() -> str | None:
    """The command that activates the virtual environment Miao runs in; None where it is active,
    or where there is none."""
    windows = os.name == "nt"
    programs = Path(sys.prefix, "Scripts" if windows else "bin")
    script = programs / "activate"
    on_path = {os.path.realpath(entry) for entry in os.get_exec_path() if entry}
    if not script.exists() or os.path.realpath(programs) in on_path:
        return None
    return str(script) if windows else f"source {shlex.quote(str(script))}"


def install_hint(extra: str) -> str:
    """The command that installs what an extra of Miao needs: with the tested versions where Miao
    runs from its repository, else from the package index."""
    root = Path(__file__).resolve().parents[1]
    command = f"pip install 'miaolm[{extra}]'"
    if (root / "pyproject.toml").exists() and (root / "constraints.txt").exists():
        constraints = shlex.quote(str(root / "constraints.txt"))
        command = f"pip install -c {constraints} -e {shlex.quote(f'{root}[{extra}]')}"
    activate = activation_hint()
    return f"{activate} && {command}" if activate else command


class Interrupted(Exception):
    """The user (Ctrl-C) or the system (SIGTERM) asked to stop; what can be, is saved.

    Args:
        whole: everything is saved, not only what a full disk had room for.
    """

    def __init__(self, signal_number: int, whole: bool = True):
        self.exit_code, self.whole = 128 + signal_number, whole
        super().__init__("interrupted")
