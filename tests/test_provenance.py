"""What a manifest says of the code and the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from miao import provenance
from miao.provenance import commit_of, processor_name


def git(directory: Path, *words: str) -> str:
    command = ["git", "-C", str(directory), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_a_checkout_and_of_nothing_around_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    installed = tmp_path / "venv" / "site-packages"
    installed.mkdir(parents=True)
    assert commit_of(tmp_path) is None, "somebody's repository"
    assert commit_of(installed) is None
    (tmp_path / "pyproject.toml").write_text("")
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(installed) is None


def test_git_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) is None
    facts = provenance.provenance()
    assert facts["packages"]["torch"][0].isdigit()


def test_the_processor_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, **options: Any) -> str:
        assert str(path) == "/proc/cpuinfo"
        return "processor\t: 0\nmodel name\t: Fast CPU @ 2 GHz\n"

    monkeypatch.setattr(Path, "read_text", read)
    assert processor_name() == "Fast CPU @ 2 GHz"
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "processor_name", lambda: "Fast CPU")
    assert provenance.provenance()["processor"] == "Fast CPU"
