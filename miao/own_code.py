"""The user's own Python by name: `package.module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from miao.errors import MiaoError, did_you_mean, first_line
from miao.files import at_home


def source_file(name: str) -> Path | None:
    """The file that `path/to/file.py:function` or `module:function` stands in; None: there is no
    such module."""
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        return at_home(place)
    _look_here()
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found and found.origin else None


def load_object(name: str, where: str, known: Collection[str] = ()) -> Any:
    """What `module:object` or `file.py:object` names.

    Modules are looked for in the working directory, too.

    Args:
        where: the recipe key, for error messages. known: built-in names, for a suggestion.

    Raises:
        MiaoError: no such name, file, module or object; or the module fails as it is loaded.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon:
        words = "name it as module:function or path/to/file.py:function"
        if known:
            words = (
                f"known: {', '.join(known)}; your own: module:function or path/to/file.py:function"
            )
        raise MiaoError(
            f"there is no '{name}'",
            where=where,
            fix=did_you_mean(name, known) or words,
        )
    module = _load_module(place, where)
    if not hasattr(module, attribute):
        public = [other for other in vars(module) if not other.startswith("_")]
        raise MiaoError(
            f"'{place}' has no '{attribute}'", where=where, fix=did_you_mean(attribute, public)
        )
    return getattr(module, attribute)


def load_function(name: str, where: str, known: Collection[str] = ()) -> Callable[..., Any]:
    """The same of a function."""
    function: Callable[..., Any] = load_object(name, where, known)
    if not callable(function):
        raise MiaoError(f"'{name}' is no function", where=where)
    return function


def _look_here() -> None:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def _load_module(place: str, where: str) -> ModuleType:
    if not place.endswith(".py"):
        _look_here()
        return _guarded(lambda: importlib.import_module(place), place, where)
    path = at_home(place)
    if not path.is_file():
        raise MiaoError(f"there is no file '{path}'", where=where)
    return _guarded(lambda: _of_file(path.resolve()), place, where)


@cache
def _of_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"miao_user_{digest}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _guarded(load: Any, place: str, where: str) -> Any:
    try:
        return load()
    except Exception as error:
        raise MiaoError(
            f"'{place}' cannot be loaded: {type(error).__name__}: {first_line(error)}",
            where=where,
            fix="MIAO_DEBUG=1 shows where",
        ) from error
