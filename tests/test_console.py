"""What is said at the end of a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from miao import console
from miao.console import say_next


def test_the_next_commands_begin_with_what_they_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "activation_hint", lambda: None)
    say_next("miao chat runs/a", "miao [x]")
    say_next()
    monkeypatch.setattr(console, "activation_hint", lambda: "source .venv/bin/activate")
    say_next("miao chat runs/a")
    assert capsys.readouterr().out.splitlines() == [
        "  next:",
        "    miao chat runs/a",
        "    miao [x]",
        "  next:",
        "    source .venv/bin/activate",
        "    miao chat runs/a",
    ]


def test_the_end_of_a_run_names_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from miao.run import _say_end
    from miao.rundir import RunDir

    monkeypatch.setattr(console, "activation_hint", lambda: None)
    run = RunDir(tmp_path / "a run")
    _say_end(run, 1.0)
    assert "next" not in (printed := capsys.readouterr().out) and "report" not in printed
    for path in (run.model("sft") / "config.json", run.tokenizer / "tokenizer.json", run.report):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    _say_end(run, 1.0)
    printed = capsys.readouterr().out
    assert f"    miao chat '{run.path}'\n" in printed
    assert f"  report: {tmp_path.as_uri()}/a%20run/report.html\n" in printed
