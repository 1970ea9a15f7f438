"""How errors are put into words."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from miao import errors
from miao.errors import activation_hint, did_you_mean, first_line, install_hint


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("one\ntwo", "one"),
        ("\n  \n  third  \nfourth", "third"),
        ("", "ValueError"),
        (" \n\n", "ValueError"),
    ],
)
def test_first_line_always_says_something(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line


def test_a_misspelt_word_is_guessed() -> None:
    assert did_you_mean("pretran", ["pretrain", "sft"]) == "did you mean 'pretrain'?"
    assert did_you_mean("zzz", ["pretrain", "sft"]) is None


def test_the_install_command_is_that_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "activation_hint", lambda: None)
    root = Path(__file__).resolve().parents[1]
    command = shlex.split(install_hint("data"))
    assert command == ["pip", "install", "-c", f"{root}/constraints.txt", "-e", f"{root}[data]"]
    monkeypatch.setattr(errors, "__file__", "/somewhere/site-packages/miao/errors.py")
    assert install_hint("data") == "pip install 'miaolm[data]'"
    monkeypatch.setattr(errors, "activation_hint", lambda: "source /v/bin/activate")
    assert install_hint("hf") == "source /v/bin/activate && pip install 'miaolm[hf]'"


@pytest.mark.skipif(os.name == "nt", reason="the folders of an environment have other names there")
def test_how_to_activate_is_said_only_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "a venv" / "bin"
    programs.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(programs.parent))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert activation_hint() is None  # a system's Python
    (programs / "activate").touch()
    assert activation_hint() == f"source '{programs}/activate'"
    (tmp_path / "link").symlink_to(programs)
    for entry in (programs, tmp_path / "link"):
        monkeypatch.setenv("PATH", f"/usr/bin:{entry}")
        assert activation_hint() is None


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_constraints_name_one_version_for_each_python(python: str) -> None:
    """lingua 2.1 has no wheels for 3.14, 2.2 none for 3.11."""
    lines = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
    pinned: dict[str, str] = {}
    for requirement in (Requirement(line) for line in lines if line and line[0] != "#"):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.name not in pinned, requirement
            pinned[requirement.name] = str(requirement.specifier)
    assert pinned["lingua-language-detector"] == ("==2.2.0" if python == "3.14" else "==2.1.1")
