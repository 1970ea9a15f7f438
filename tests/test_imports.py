"""The house's rules: imports point one way, nothing heavy at import, files stay small."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).parent.parent / "miao"
FILES = sorted(PACKAGE.rglob("*.py"))
# Left to right: a room may import rooms of the lines above its own, and itself.
ORDER = [
    {"errors", "gpus", "cores", "provenance", "rules"},
    {"language"},
    {"files", "console", "device", "openai_api"},
    {"options", "own_code"},
    {"recipe"},
    {"complete"},
    {"hubs"},
    {"rundir"},
    {"corpus", "ops"},
    {"tokenizer"},
    {"shards", "model"},
    {"engine"},
    {"evaluate"},
    {"rewards"},
    {"train"},
    {"inspect"},
    {"page"},
    {"export"},
    {"report"},
    {"serve"},
    {"run", "doctor", "studio"},
    {"grow"},
    {"chat"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# The inner rooms of the larger ones, likewise; of `corpus/` in the order of the text.
INNER_ORDER = {
    "corpus": [
        {"records", "ngrams", "steps", "words"},
        {"folder"},
        {"catalog", "seedbed"},
        {"read"},
        {"clean"},
        {"dedup"},
        {"build"},
        {"check", "distill"},
        {"local"},
    ],
    "train": [
        {"gram"},
        {"muon", "adapters", "microbatch", "scaler", "balance"},
        {"optim"},
        {"distributed", "objectives", "watch"},
        {"budget"},
        {"feed", "safety", "gradients", "prepare"},
        {"loop"},
        {"stage"},
    ],
    "evaluate": [
        {"scores", "statistics", "forecast"},
        {"tasks"},
        {"measure"},
        {"benchmark", "opencompass", "own"},
        {"judge"},
        {"results", "stage", "arena", "lm_eval_adapter"},
    ],
    "export": [
        {"origin", "huggingface"},
        {"parity"},
        {"card", "adapter"},
        {"gguf", "page"},
        {"ollama"},
    ],
}
INNER_RANK = {
    outer: {room: rank for rank, rooms in enumerate(order) for room in rooms}
    for outer, order in INNER_ORDER.items()
}
WITHOUT_TORCH = {
    "errors",
    "gpus",
    "cores",
    "provenance",
    "rules",
    "language",
    "files",
    "console",
    "options",
    "recipe",
    "hubs",
    "rundir",
    "corpus",
    "tokenizer",
}
LONGEST_FILE = 400
LONGEST_SITTING = 2500


def room_of(path: Path) -> str:
    """The first name below the package: `corpus`, `recipe`; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported_modules(source: str, package: str) -> set[str]:
    """Dotted names of all modules that a file may load, inside functions and conditions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            # `from miao import x` may mean the module miao.x
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "miao" else {base}
    return found


def imported_rooms(source: str, package: str) -> set[str]:
    ours = {name for name in imported_modules(source, package) if name.split(".")[0] == "miao"}
    rooms = {name.split(".")[1] for name in ours if "." in name}
    return {room for room in rooms if room in RANK or (PACKAGE / room).exists()}


def forbidden_imports(source: str, room: str, package: str) -> set[str]:
    rooms = imported_rooms(source, package) - {room}
    return {other for other in rooms if RANK[other] >= RANK[room]} if room else rooms


def inner_room(module: str, outer: str) -> str:
    """`miao.corpus.read.tables`, "corpus" -> "read"; empty for what is not in `corpus`."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["miao", outer] and len(parts) > 2 else ""


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).parent.parts)


@pytest.mark.parametrize(
    ("source", "room", "forbidden"),
    [
        ("from miao.train.loop import Trainer", "model", {"train"}),
        ("import miao.cli", "run", {"cli"}),
        ("def f():\n    from miao.engine import Engine", "shards", {"engine"}),
        ("from miao import serve", "report", {"serve"}),
        ("from ..train import loop", "evaluate", {"train"}),
        ("from miao.model.config import ModelConfig", "shards", {"model"}),
        ("from miao.ops.attention import attention\nfrom . import cache", "model", set()),
        ("from miao import __version__", "cli", set()),
        ("import miao.recipe", "", {"recipe"}),
    ],
)
def test_the_check_itself_finds_what_it_should(source: str, room: str, forbidden: set[str]) -> None:
    assert forbidden_imports(source, room, f"miao.{room}") == forbidden


def test_every_room_has_its_place_in_the_order() -> None:
    assert len(FILES) > 40
    assert {room_of(path) for path in FILES} - {""} <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_the_left(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert forbidden_imports(source, room_of(path), package_of(path)) == set()
    if room_of(path) in WITHOUT_TORCH:
        assert "torch" not in {n.split(".")[0] for n in imported_modules(source, package_of(path))}


@pytest.mark.parametrize(
    ("outer", "path"),
    [(outer, path) for outer in INNER_ORDER for path in sorted((PACKAGE / outer).rglob("*.py"))],
    ids=lambda given: str(given.relative_to(PACKAGE)) if isinstance(given, Path) else given,
)
def test_inner_rooms_have_an_order_too(outer: str, path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    room, rank = inner_room(module, outer), INNER_RANK[outer]
    if room == "__init__":
        return
    source = path.read_text(encoding="utf-8").replace(
        f"from miao.{outer} import ", f"from miao.{outer}."
    )
    others = {inner_room(name, outer) for name in imported_modules(source, package_of(path))}
    assert {o for o in others - {"", room} if rank[o] >= rank[room]} == set()


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PACKAGE.parent / "scripts"))
    return importlib.import_module("architecture")


def test_the_page_of_the_architecture_is_what_the_code_is(architecture: ModuleType) -> None:
    page = architecture.PAGE.read_text(encoding="utf-8")
    assert architecture.drawn() in page, "run: python scripts/architecture.py"
    assert "|  |" not in page.replace("| [`__main__`](../miao/__main__.py) |  |", ""), "a docstring"


def test_a_circle_of_rooms_is_found(architecture: ModuleType) -> None:
    assert architecture.floors({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == [["b"], ["a"], ["c"]]
    assert architecture.nearest("c", {"a": {"b"}, "b": set(), "c": {"a", "b"}}) == ["a"]
    with pytest.raises(ValueError, match="circle among"):
        architecture.floors({"a": {"b"}, "b": {"a"}})


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def loaded_modules(path: Path, modules: set[str]) -> set[str]:
    """The modules of ours that a file may load, inside functions too; not those that only types
    are taken from."""
    found: set[str] = set()
    open_nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    for node in open_nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "miao":
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= inner or {node.module or ""}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
        open_nodes.extend(ast.iter_child_nodes(node))
    return found - {module_of(path)}


def test_no_modules_stand_in_a_circle() -> None:
    modules = {module_of(path) for path in FILES}
    order = TopologicalSorter({module_of(path): loaded_modules(path, modules) for path in FILES})
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_ops_stand_alone() -> None:
    for path in sorted((PACKAGE / "ops").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert imported_rooms(source, package_of(path)) <= {"ops"}, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_every_file_of_data_is_packaged() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = {
        path
        for room, patterns in project["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in PACKAGE.parent.joinpath(*room.split(".")).glob(pattern)
    }
    data = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".py"}
    data -= {path for path in data if "__pycache__" in path.parts}
    assert len(data) > 50 and sorted(data - packaged) == []


@pytest.mark.parametrize(
    "code",
    [
        "from miao.cli import main; main(['--help'])",
        "from miao.cli import main; main(['run', '--help'])",
        "from miao.cli import main; main(['chat', '--help'])",
        "from miao.cli import main; main(['export', '--help'])",
        "from miao.cli import main; main(['eval', '--help'])",
        "import miao.recipe, miao.run, miao.corpus.build.pipeline, miao.tokenizer",
    ],
)
def test_help_and_recipes_do_not_import_torch(code: str) -> None:
    program = f"""
import sys
try:
    exec({code!r})
except SystemExit as end:
    assert not end.code
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def core_of(page: str) -> list[Path]:
    """The files that a page of the reading path tells to read, in its order."""
    text = (PACKAGE.parent / "docs" / page / "reading.md").read_text(encoding="utf-8")
    return [PACKAGE / name for name in re.findall(r"\]\(\.\./\.\./miao/([\w/]+\.py)\)", text)]


def test_the_core_can_be_read_in_one_sitting() -> None:
    """Both languages name the same files; together they are short, and of what is written twice
    the plain formula stands first."""
    core = core_of("en")
    assert core == core_of("zh") and len(set(core)) == len(core) >= 15
    lines = {str(path): path.read_text(encoding="utf-8").count("\n") for path in core}
    assert sum(lines.values()) < LONGEST_SITTING, lines
    for path in core:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^def (\w+)_reference\(", text, re.MULTILINE):
            assert text.index(f"def {name}_reference(") < text.index(f"def {name}("), path
