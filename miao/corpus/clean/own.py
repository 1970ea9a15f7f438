"""Rules that the user wrote: functions, named as "file.py:function"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from miao.corpus.ngrams import TextView
from miao.errors import MiaoError
from miao.own_code import load_function


def keeper(name: str) -> Callable[[TextView], str | None]:
    """A check from a function of a text to True, False, or the words why the text goes."""
    function = load_function(name, "corpus.clean.keep_functions")

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
    function = load_function(name, "corpus.clean.edit_functions")

    def apply(text: str) -> str:
        changed = _call(function, name, text)
        if not isinstance(changed, str):
            raise MiaoError(f"it returned {changed!r}", where=name, fix="return the text")
        return changed

    return apply


def _call(function: Callable[[str], Any], name: str, text: str) -> Any:
    try:
        return function(text)
    except Exception as error:
        raise MiaoError(
            f"it failed with {type(error).__name__}: {error}; the text begins {text[:60]!r}",
            where=name,
            fix="mend the function (MIAO_DEBUG=1 shows where)",
        ) from error
