"""Rules that the user wrote: functions of a Python file, named as "file.py:function"."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from miao.corpus.ngrams import TextView
from miao.errors import MiaoError, did_you_mean
from miao.files import at_home

_FIX = "write it as path/to/rules.py:function"


def keeper(name: str) -> Callable[[TextView], str | None]:
    """A check from a function of a text to True, False, or the words why the text goes."""
    function = _function(name, "corpus.clean.keep_functions")

    def judge(view: TextView) -> str | None:
        verdict = _call(function, name, view.text)
        if verdict is True:
            return None
        if verdict is False or isinstance(verdict, str):
            return verdict or "it says so"
        raise MiaoError(
            f"it returned {verdict!r}", where=name, fix="return True, False, or why the text goes"
        )

    return judge


def editor(name: str) -> Callable[[str], str]:
    """An edit from a function of a text to a text."""
    function = _function(name, "corpus.clean.edit_functions")

    def apply(text: str) -> str:
        changed = _call(function, name, text)
        if not isinstance(changed, str):
            raise MiaoError(f"it returned {changed!r}", where=name, fix="return the text")
        return changed

    return apply


def file_of(name: str) -> Path:
    """The file that a function stands in."""
    return at_home(name.rpartition(":")[0])


def _call(function: Callable[[str], Any], name: str, text: str) -> Any:
    try:
        return function(text)
    except Exception as error:
        raise MiaoError(
            f"it failed with {type(error).__name__}: {error}; the text begins {text[:60]!r}",
            where=name,
            fix="mend the function (MIAO_DEBUG=1 shows where)",
        ) from error


def _function(name: str, option: str) -> Callable[[str], Any]:
    path, function = file_of(name), name.rpartition(":")[2]
    if not path.name or not path.is_file():
        raise MiaoError(f"no such file: {path}", where=f"{option}: {name}", fix=_FIX)
    module = _module(path.resolve())
    found = getattr(module, function, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise MiaoError(
            f"there is no function '{function}' in {path}",
            where=option,
            fix=did_you_mean(function, names) or _FIX,
        )
    return found


@cache
def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"miao_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise MiaoError("this is no Python file", where=path, fix=_FIX)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise MiaoError(f"it cannot be loaded: {error!r}", where=path, fix="mend it") from error
    return module
