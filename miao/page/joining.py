"""Modules of JavaScript as one script, so that a page asks for one file, or for none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_IMPORT = re.compile(r'^import (?:(.+) from )?"[./\w]*?([\w-]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(
    r"^export (?:default (\w+);|\{([^}]*)\};?|(?=(?:const|class|(?:async )?function) (\w+)))",
    re.MULTILINE,
)


def loaded(entries: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
    """Modules and all that they import, each after those that it imports: name -> source.

    Args:
        entries: names, without the ending.
        folders: where modules lie; of two that have the same name the first one's is meant.
    """
    found: dict[str, str] = {}

    def load(name: str) -> None:
        path = next(path for folder in folders if (path := folder / f"{name}.js").is_file())
        source = path.read_text(encoding="utf-8")
        for imported in _IMPORT.finditer(source):
            if imported[2] not in found:
                load(imported[2])
        found[name] = source

    for entry in entries:
        load(entry)
    return found


def joined(modules: Mapping[str, str]) -> str:
    """What was loaded as one script, in which every module is a function that returns what it
    exports (`$name`). None exports what it assigns to again, no import goes round in a circle."""
    return "".join(
        f"const {_variable(name)} = {_called(text)};\n" for name, text in modules.items()
    )


def _called(source: str) -> str:
    exported: list[str] = []

    def export(found: re.Match[str]) -> str:
        default, listed, named = found.groups()
        exported.append(f"default: {default}" if default else listed or named)
        return ""

    body = _EXPORT.sub(export, _IMPORT.sub(_taken, source))
    return f"(() => {{\n{body}return {{ {', '.join(one.strip() for one in exported)} }};\n}})()"


def _variable(name: str) -> str:
    return "$" + name.replace("-", "_")


def _taken(found: re.Match[str]) -> str:
    """An import as the names that it gives."""
    names, module = found[1], _variable(found[2])
    if names is None:
        return ""
    if names.startswith("* as "):
        return f"const {names.removeprefix('* as ')} = {module};\n"
    if not names.startswith("{"):
        return f"const {names} = {module}.default;\n"
    return f"const {names.replace(' as ', ': ')} = {module};\n"
