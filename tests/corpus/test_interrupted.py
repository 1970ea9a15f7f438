"""Killed at any moment, the same command goes on and ends with the same files, to the byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from miao.cli import main
from miao.corpus.read import blocks
from miao.corpus.read.frequent import FREQUENT
from miao.files import read_json

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
ROOT = Path(__file__).parents[2]

KILLED_ANYWHERE = """
import os, random, signal, sys
from pathlib import Path

from miao import files
from miao.corpus.build import assemble, cleaning, output, pipeline
from miao.corpus.dedup import chunks, duplicates, shuffle
from miao.corpus.read import blocks
from miao.recipe import CorpusOptions
from miao.recipe.cleaning import CategoryOptions, ContaminationOptions, DedupOptions, MixOptions

folder, kind = Path(sys.argv[1]), sys.argv[2]
cleaning.CHUNK_CHARACTERS, blocks.PART_BYTES, chunks.GROUP_CHARACTERS = 1500, 9000, 6000
duplicates.PART_BYTES, shuffle.RUN_BYTES, assemble.OUTPUT_BYTES = 60_000, 9000, 9000
os.fsync = lambda file: None  # slow, and SIGKILL loses nothing that was written
options = CorpusOptions(
    paths=[str(folder / "web.jsonl"), str(folder / "books")],
    conversations=[str(folder / "chats.jsonl")],
    dedup=DedupOptions(near=True, paragraphs=True, min_span=20, keep="longest", prefer=["books"]),
    mix=MixOptions(pretrain={
        "books": CategoryOptions(count=70, repeat=2), "web": CategoryOptions(cap=40)}),
    heldout=0.1, skip_bad_records=True, workers=1,
)
options.clean.min_characters = {"zh": 5}
options.seedbed.preferences = 30


def build(where, kill_at=0):
    # In a process of its own, ended by SIGKILL at the so-many-th event: a rename, rows handed on,
    # a line written to the corpus.
    if not (child := os.fork()):
        events = 0

        def counted(real):
            def call(*arguments, **more):
                nonlocal events
                events += 1
                if events == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)
            return call

        files.os.replace = counted(os.replace)
        shuffle.RowWriter.add = counted(shuffle.RowWriter.add)
        output.Splitter.write = counted(output.Splitter.write)
        pipeline.build_corpus(options, 7, folder / where, output=kind)
        (folder / f"{where}.events").write_text(str(events))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status == 0


assert build("whole")
events = int((folder / "whole.events").read_text())
rng = random.Random(1)
for moment in sorted(rng.sample(range(1, events), int(sys.argv[3]))):
    assert not build(f"once-{moment}", moment)
    assert build(f"once-{moment}")
moment, runs = 1, 0
while not build("often", moment):
    moment, runs = moment + max(2, events // 30), runs + 1
print(events, runs)
"""


def corpus_in(directory: Path) -> dict[str, bytes]:
    """All files but the times."""
    paths = [p for p in sorted(directory.rglob("*")) if p.is_file() and p.name != "timing.json"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def write_inputs(folder: Path) -> None:
    rng = random.Random(3)
    notice = "本文由网站编辑整理发布，欢迎关注我们的更多精彩内容，谢谢大家的支持。"

    def text(length: int = 120) -> str:
        return "".join(rng.choices(FREQUENT, k=length))

    web: list[Any] = [{"text": text() + f"\n\n{notice}" * (n % 4 == 0)} for n in range(60)]
    books: list[Any] = [{"text": text()} for _ in range(40)]
    books += [{"text": one["text"][:100] + text(10)} for one in web[::5]] + books[::7]
    web += [{"text": one["text"]} for one in books[::9]] + [{"text": "短"}, {"words": "none"}]
    chats = [
        {"messages": [{"role": "user", "content": text(9)}, {"role": "assistant", "content": "好"}]}
        for _ in range(25)
    ]
    (folder / "books").mkdir()
    for name, records in (("web", web), ("books/all", books), ("chats", chats)):
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


@pytest.mark.parametrize(("output", "moments"), [("jsonl", 5), ("parquet", 2)])
def test_killed_at_any_moment(tmp_path: Path, output: str, moments: int) -> None:
    if output == "parquet":
        pytest.importorskip("pyarrow")
    write_inputs(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_ANYWHERE, str(tmp_path), output, str(moments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    whole = corpus_in(tmp_path / "whole")
    accounts = read_json(tmp_path / "whole" / "manifest.json")["accounts"]["pretrain"]
    for what in ("exact", "near", "edited", "rejected", "left_out", "repeated", "heldout"):
        assert accounts[what], f"nothing tried of {what}"
    assert any(name.startswith("pretrain/train/books-00000-of-") for name in whole)
    assert any(name.endswith(f".{output}") for name in whole) and "problems.jsonl" in whole
    others = [path for path in tmp_path.glob("o*") if path.is_dir()]
    assert len(others) == moments + 1
    for other in others:
        assert corpus_in(other) == whole, other.name
    assert not list(tmp_path.glob(".*.work"))
    _, runs = map(int, done.stdout.split())
    assert runs >= 3


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(tmp_path)
    program = """
        import sys, time
        from miao.cli import main
        from miao.corpus.build import cleaning
        from miao.corpus.read import blocks
        blocks.PART_BYTES = 1200
        clean = cleaning.Cleaning.whole

        def slowly(*arguments):  # so that a signal comes before the end
            time.sleep(0.2)
            return clean(*arguments)

        cleaning.Cleaning.whole = slowly
        if __name__ == "__main__":
            sys.exit(main(sys.argv[1:]))
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    words = ["corpus", "build", str(tmp_path / "books")]
    workers = ["--corpus.workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def start(out: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                str(tmp_path / "program.py"),
                *words,
                *workers,
                "--out",
                str(tmp_path / out),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def chunks() -> int:
        return len(list((tmp_path / ".out.work").glob("pretrain/done/clean/0*.json")))

    for number in (signal.SIGINT, signal.SIGTERM):
        before = chunks()
        running = start("out")
        began = time.monotonic()
        while chunks() == before:
            assert running.poll() is None and time.monotonic() - began < 300
            time.sleep(0.01)
        running.send_signal(number)
        _, said = running.communicate(timeout=300)
        assert running.returncode == 128 + number, said
        assert f"miao corpus build {tmp_path / 'books'}" in said and "Traceback" not in said
        assert not (tmp_path / "out").exists()
    running = start("out")
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    monkeypatch.setattr(blocks, "PART_BYTES", 1200)
    assert main([*words, "--corpus.workers", "1", "--out", str(tmp_path / "whole")]) == 0
    ours, theirs = corpus_in(tmp_path / "out"), corpus_in(tmp_path / "whole")
    manifest = theirs["manifest.json"].decode().replace('"workers": 1', '"workers": 2')
    theirs["manifest.json"] = manifest.encode()
    assert {name: ours[name] for name in ours if name != "report.html"} == {
        name: theirs[name] for name in theirs if name != "report.html"
    }
