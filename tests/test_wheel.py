"""What `pip install` gives: the package's every file, and a command that needs no clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the tree by its own build system, unpacked."""
    tree, wheels = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "miao", tree / "miao", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(next(wheels.glob("*.whl"))).extractall(site)
    return site


def test_a_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    def files(root: Path) -> set[str]:
        found = (path.relative_to(root) for path in (root / "miao").rglob("*") if path.is_file())
        return {path.as_posix() for path in found if "__pycache__" not in path.parts}

    assert files(installed) == files(ROOT)


def test_a_recipe_of_the_wheel_runs_without_a_clone(installed: Path, tmp_path: Path) -> None:
    def miao(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "200"}
        command = [sys.executable, "-m", "miao", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "seedling-grpo" in miao("recipe")
    (tmp_path / "mine.yaml").write_text(miao("recipe", "seedling"), encoding="utf-8")
    shipped = (ROOT / "miao" / "recipes" / "seedling.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == shipped
    assert "miao run smoke" in miao("corpus", "smoke")
    assert (tmp_path / "runs" / "smoke" / "corpus" / "manifest.json").is_file()
