"""`miao report DIR`: of a run, of a corpus; anything else is a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miao.cli import main
from miao.files import write_json
from miao.rundir import RunDir

Capture = pytest.CaptureFixture[str]


def fails(capsys: Capture, *words: str | Path) -> str:
    capsys.readouterr()
    assert main(["report", *(str(word) for word in words)]) == 2
    return capsys.readouterr().err


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = [{"text": f"第{n}天的天气很好，我们去公园散步。"} for n in range(20)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "clean"
    assert main(["corpus", "build", str(tmp_path / "in.jsonl"), "--out", str(out)]) == 0
    return out


def test_a_run_and_a_corpus(run: RunDir, corpus: Path, capsys: Capture) -> None:
    for path in (run.report, corpus / "report.html"):
        path.unlink(missing_ok=True)
    assert main(["report", str(run.path), str(corpus)]) == 0
    out = capsys.readouterr().out
    assert str(run.report) in out and str(corpus / "report.html") in out
    assert "sprout" in run.report.read_text(encoding="utf-8")
    assert "in" in (corpus / "report.html").read_text(encoding="utf-8")


def test_a_run_that_is_only_begun(run: RunDir, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "recipe.yaml").write_bytes((run.path / "recipe.yaml").read_bytes())
    assert main(["report", str(begun)]) == 0
    assert (begun / "report.html").exists()


def test_anything_else_is_said(run: RunDir, tmp_path: Path, capsys: Capture) -> None:
    assert "miao report runs/NAME" in fails(capsys)
    assert "did you mean 'sprout'?" in fails(capsys, tmp_path / "sprot")
    assert "in here are the runs sprout" in fails(capsys, tmp_path)
    assert "no recipe" in fails(capsys, run.metrics)
    assert "no such recipe" in fails(capsys, "recipes/none.yaml")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "neither a run nor a corpus" in fails(capsys, empty)
    for other in ([], {"dtype": "uint16"}):
        write_json(empty / "manifest.json", other)
        assert "neither a run nor a corpus" in fails(capsys, empty)
    write_json(empty / "manifest.json", {"accounts": {}})
    assert "built-in" in fails(capsys, empty)
    (empty / "manifest.json").write_text("{")
    assert "damaged" in fails(capsys, empty)
    assert not (empty / "report.html").exists()


LINES = (
    b'{"loss": 1}\n{"loss": 2}',
    b"[1]\n[2]",
    b"\xff\n{}",
    b'{"stage": "sft", "loss": "x", "tokens": 1, "prompt": 3, "scores": 5}\n{"stage": 1}',
    b'{"stage": "sft", "loss": 1' + b"0" * 400 + b', "tokens": 1}\n' + b"[" * 99_999,
    b'{"stage": "sft", "scores": [{"task": 1}], "tokens": {}, "answer": []}\n7',
)


@pytest.mark.parametrize("damage", LINES)
def test_a_damaged_line_is_named_and_the_rest_is_shown(
    run: RunDir, capsys: Capture, damage: bytes
) -> None:
    paths = (run.metrics, run.samples, run.eval_results, *run.path.glob("answers/*.jsonl"))
    for path in paths:
        path.write_bytes(damage + b"\n" + path.read_bytes())
    assert main(["report", str(run.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "left out, damaged: " in said and "metrics.jsonl" in said
    page = run.report.read_text(encoding="utf-8")
    assert "Damaged and left out" in page and "sprout" in page
    assert main(["eval", "stages", str(run.path)]) == 0
    assert "eval_results.jsonl" in capsys.readouterr().out
