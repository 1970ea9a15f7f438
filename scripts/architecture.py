"""Draws the rooms of the package into docs/architecture.md, from the code.

python scripts/architecture.py            writes the page's tables again
python scripts/architecture.py --check    ends with 1 where the page says something else
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "miao"
BEGIN, END = "<!-- drawn by scripts/architecture.py -->", "<!-- end -->"

Imports = dict[str, set[str]]


def rooms_of(folder: Path) -> dict[str, list[Path]]:
    """Rooms of a folder, its own modules and folders, with their files."""
    rooms = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            rooms[path.name] = sorted(path.rglob("*.py"))
        elif path.suffix == ".py" and path.stem != "__init__":
            rooms[path.stem] = [path]
    return rooms


def modules_of(path: Path) -> set[str]:
    """Dotted names of the package's modules that a file imports, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("miao.")}


def imports_of(folder: Path) -> Imports:
    """For each room of a folder the other rooms of it that its files import."""
    rooms, depth = rooms_of(folder), len(folder.relative_to(ROOT).parts)
    prefix = list(folder.relative_to(ROOT).parts)
    found: Imports = {}
    for room, files in rooms.items():
        names = [name.split(".") for path in files for name in modules_of(path)]
        used = {parts[depth] for parts in names if parts[:depth] == prefix and len(parts) > depth}
        found[room] = (used & set(rooms)) - {room}
    return found


def floors(imports: Imports) -> list[list[str]]:
    """Rooms by height: those of a floor import only from floors below.

    Raises:
        ValueError: rooms import one another in a circle.
    """
    height: dict[str, int] = {}
    while len(height) < len(imports):
        ready = [
            room for room, used in imports.items() if room not in height and used <= set(height)
        ]
        if not ready:
            raise ValueError(f"a circle among {sorted(set(imports) - set(height))}")
        for room in ready:
            height[room] = 1 + max((height[used] for used in imports[room]), default=0)
    return [
        sorted(room for room in height if height[room] == floor)
        for floor in range(1, max(height.values()) + 1)
    ]


def nearest(room: str, imports: Imports) -> list[str]:
    """The imported rooms that no other imported room stands on, in turn."""
    reached = {used: below(used, imports) for used in imports[room]}
    hidden = set().union(*reached.values()) if reached else set()
    return sorted(imports[room] - hidden)


def below(room: str, imports: Imports) -> set[str]:
    found: set[str] = set()
    for used in imports[room]:
        found |= {used} | below(used, imports)
    return found


def what(folder: Path, room: str) -> str:
    """The first sentence of a room's docstring."""
    path = folder / room / "__init__.py"
    path = path if path.exists() else folder / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def table(folder: Path) -> list[str]:
    """A Markdown table of a folder's rooms, the highest floor first."""
    imports = imports_of(folder)
    link = "../" + folder.relative_to(ROOT).as_posix()
    lines = [
        "| floor · 层 | room · 房间 | what · 做什么 | stands on · 立在谁上面 |",
        "|---|---|---|---|",
    ]
    for number, rooms in reversed(list(enumerate(floors(imports), start=1))):
        for room in rooms:
            target = f"{link}/{room}/" if (folder / room).is_dir() else f"{link}/{room}.py"
            on = ", ".join(nearest(room, imports)) or "–"
            lines.append(f"| {number} | [`{room}`]({target}) | {what(folder, room)} | {on} |")
    return lines


def drawn() -> str:
    """What stands between the marks of the page."""
    lines = ["", "## `miao/`", "", *table(PACKAGE)]
    for room in ("corpus", "train", "evaluate", "export"):
        lines += ["", f"## `miao/{room}/`", "", *table(PACKAGE / room)]
    return "\n".join([*lines, ""])


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    new = f"{head}{BEGIN}\n{drawn()}\n{END}{tail}"
    if "--check" in sys.argv[1:]:
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
