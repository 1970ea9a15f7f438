"""Files to shards in bulk: the same tokens as record by record, whoever encodes, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.corpus.read.formats import read_records
from miao.corpus.records import Conversation, Document, Kind, Message, Preference, Record
from miao.errors import MiaoError
from miao.files import read_json, write_jsonl
from miao.shards import Job, TokenDataset, build_dataset, build_datasets, bulk
from miao.tokenizer import Tokenizer
from miao.tokenizer.bulk import BulkEncoder, EncoderMismatch
from miao.tokenizer.extend import extend_tokenizer

Write = Callable[[Kind, int], Path]


def record(kind: Kind, number: int) -> Record:
    text = f"第{number}天：今天天气很好。The rain was kind, {number} times.\n"
    if kind == "document":
        return Document(text * (1 + number % 5))
    question = [Message("user", f"{number} <|im_end|>?")]
    answer = [Message("assistant", text)]
    if kind == "conversation":
        return Conversation([*question, *answer, Message("user", "谢谢")])
    return Preference(question, answer, [Message("assistant", f"no {number}")])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(kind: Kind, count: int, first: int = 0, name: str = "data") -> Path:
        path = tmp_path / f"{name}.jsonl"
        write_jsonl(path, (record(kind, n).to_json() for n in range(first, first + count)))
        return path

    return to_file


def sequences(directory: Path) -> list[tuple[list[int], list[bool] | None]]:
    data = TokenDataset(directory, verify=True)
    masks = [data.mask(n) for n in range(len(data))]
    return [
        (data.tokens(n).tolist(), None if mask is None else mask.tolist())
        for n, mask in enumerate(masks)
    ]


def reference(tokenizer: Tokenizer, path: Path, kind: Kind) -> list[Any]:
    target = path.parent / "reference"
    build_dataset(read_records([path], kind), kind, "s", tokenizer, target)
    return sequences(target)


@pytest.mark.parametrize("kind", ["document", "conversation", "preference"])
@pytest.mark.parametrize("fast", [True, False])
def test_bulk_equals_one_by_one(
    tokenizer: Tokenizer, write: Write, tmp_path: Path, kind: Kind, fast: bool
) -> None:
    path = write(kind, 60)
    job = Job([path], kind, "s", tmp_path / "out", smallest_part=700)
    assert len(job.parts) > 5
    seen: list[int] = []
    report = build_datasets([job], tokenizer, workers=1, fast=fast, advance=seen.append)
    assert sequences(tmp_path / "out") == reference(tokenizer, path, kind)
    whole, parts = (read_json(tmp_path / name / "manifest.json") for name in ("reference", "out"))
    for count in ("bytes", "trained_tokens", "tokenizer", "vocab_size", "dtype", "kind"):
        assert whole[count] == parts[count], count
    assert sum(seen) == path.stat().st_size == job.size
    assert (report.encoded, report.reused) == (len(parts["shards"]), 0)
    assert not job.workplace.exists()


def test_two_processes_give_the_same_and_the_numbering_stays(
    tokenizer: Tokenizer, write: Write, tmp_path: Path
) -> None:
    jobs = [
        Job([write(kind, 40, name=kind)], kind, "s", tmp_path / f"out-{kind}", smallest_part=2000)
        for kind in ("document", "conversation")
    ]
    build_datasets(jobs, tokenizer, workers=2)
    for job in jobs:
        expected = reference(tokenizer, Path(job.paths[0]), job.kind)
        assert sequences(job.directory) == expected
        origins = [shard.origin for shard in TokenDataset(job.directory).manifest.shards]
        starts = [int(origin.split("[")[1].split(":")[0]) for origin in origins]
        assert starts == sorted(starts)


def test_an_error_in_a_worker_names_file_and_line(
    tokenizer: Tokenizer, write: Write, tmp_path: Path
) -> None:
    path = write("document", 30)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[20] = '{"txt": "misspelt"}'
    path.write_text("\n".join(lines), encoding="utf-8")
    job = Job([path], "document", "s", tmp_path / "out", smallest_part=500)
    for workers in (1, 2):
        with pytest.raises(MiaoError, match=rf"{path}:21: no document") as caught:
            build_datasets([job], tokenizer, workers=workers)
        assert "did you mean 'text'" in str(caught.value)
        assert not job.directory.exists()


def test_only_what_changed_is_encoded_again(
    tokenizer: Tokenizer, write: Write, tmp_path: Path
) -> None:
    def build() -> Any:
        job = Job([path], "document", "s", tmp_path / "out", smallest_part=1000)
        return build_datasets([job], tokenizer, workers=1)

    path = write("document", 50)
    parts = build().encoded
    assert (build().encoded, build().reused) == (0, parts)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "one more"}) + "\n")
    report = build()
    assert (report.encoded, report.reused) == (1, parts - 1)
    assert sequences(tmp_path / "out") == reference(tokenizer, path, "document")
    (tmp_path / "out" / "tokens-00001.bin").unlink()
    assert build().encoded == parts  # what is damaged is made anew
    assert sequences(tmp_path / "out") == reference(tokenizer, path, "document")


def test_appending_keeps_what_is_there(tokenizer: Tokenizer, write: Write, tmp_path: Path) -> None:
    first, second = write("document", 20), write("document", 15, 100, "more")

    def append(path: Path, kind: Kind = "document") -> Any:
        job = Job([path], kind, "s", tmp_path / "out", keep=True, smallest_part=1000)
        return build_datasets([job], tokenizer, workers=1)

    append(first)
    before = sequences(tmp_path / "out")
    append(second)
    both = sequences(tmp_path / "out")
    assert both == before + reference(tokenizer, second, "document")
    assert append(second).encoded == 0 and sequences(tmp_path / "out") == both  # not twice
    with pytest.raises(MiaoError, match="hold documents, not conversations"):
        append(write("conversation", 3, 0, "chats"), "conversation")
    other = extend_tokenizer(tokenizer, control_tokens=["<|note|>"]).tokenizer
    with pytest.raises(MiaoError, match="by another tokenizer"):
        build_datasets([Job([first], "document", "s", tmp_path / "out", keep=True)], other)
    assert sequences(tmp_path / "out") == both


def test_of_a_file_that_has_grown_only_the_new_lines_are_added(
    tokenizer: Tokenizer, write: Write, tmp_path: Path
) -> None:
    path = write("document", 20)
    for number in range(3):
        for again in range(2):
            job = Job([path], "document", "s", tmp_path / "out", keep=True)
            report = build_datasets([job], tokenizer, workers=1)
            assert sequences(tmp_path / "out") == reference(tokenizer, path, "document")
            assert report.reused == (1 if number or again else 0) + bool(number and again)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"text": f"one more, the {number}th"}) + "\n")
    changed = path.read_text("utf-8").replace("one more", "one less")
    path.write_text(json.dumps({"text": "a new beginning"}) + "\n" + changed, encoding="utf-8")
    before = len(sequences(tmp_path / "out"))
    build_datasets([Job([path], "document", "s", tmp_path / "out", keep=True)], tokenizer)
    assert len(sequences(tmp_path / "out")) == before + 24


def test_lines_of_any_length_and_files_of_any_form(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = ["长" * 3000, "b", "", "c" * 5, "d\n\n", "长" * 400]
    raw = tmp_path / "a.jsonl"
    body = "\n\n \r\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts if t)
    raw.write_text("\ufeff" + body, encoding="utf-8")  # no line end at the end
    for size in (1, 7, 100, 999, 5000, 10**6):
        job = Job([raw], "document", "s", tmp_path / "out", smallest_part=size)
        build_datasets([job], tokenizer, workers=1)
        found = [tokenizer.decode(ids[1:-1]) for ids, _ in sequences(tmp_path / "out")]
        assert found == [t for t in texts if t], size
    other = tmp_path / "b.txt"
    other.write_text("plain text", encoding="utf-8")
    build_datasets([Job([raw, other], "document", "s", tmp_path / "out")], tokenizer, workers=1)
    assert len(TokenDataset(tmp_path / "out")) == 6


def test_nothing_to_tokenise(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n", encoding="utf-8")
    job = Job([tmp_path / "a.jsonl"], "document", "mine", tmp_path / "out")
    with pytest.raises(MiaoError, match="'mine' has no documents"):
        build_datasets([job], tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_killed_run_goes_on(tokenizer: Tokenizer, write: Write, tmp_path: Path) -> None:
    path = write("document", 60)
    tokenizer.save(tmp_path / "tokenizer")
    program = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from miao.shards import Job, build_datasets
        from miao.tokenizer import Tokenizer
        here = Path({str(tmp_path)!r})
        job = Job([here / "data.jsonl"], "document", "s", here / "out", smallest_part=700)
        slowly = lambda size: (print("part", flush=True), time.sleep(0.2))
        build_datasets([job], Tokenizer.from_directory(here / "tokenizer"), 1, advance=slowly)
    """)
    environment = os.environ | {"PYTHONPATH": str(Path(bulk.__file__).parents[2])}
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert running.stdout is not None
    for _ in range(3):
        assert running.stdout.readline() == "part\n"
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out").exists()
    job = Job([path], "document", "s", tmp_path / "out", smallest_part=700)
    report = build_datasets([job], tokenizer, workers=1)
    assert report.reused >= 3 and report.reused + report.encoded == len(
        TokenDataset(tmp_path / "out").manifest.shards
    )
    assert sequences(tmp_path / "out") == reference(tokenizer, path, "document")


def test_workers_end_with_their_parent(tokenizer: Tokenizer, tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import multiprocessing, os, time
        from miao.corpus.build.processes import worker_pool
        if __name__ == "__main__":
            with worker_pool(1, "workers", os.getpid) as pool:
                print(pool.submit(os.getpid).result(), flush=True)
                pool.submit(time.sleep, 600).result()
    """)
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(bulk.__file__).parents[2])}
    running = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert running.stdout is not None
    worker = int(running.stdout.readline())
    running.kill()
    running.wait()
    for _ in range(1000):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        stat = Path(f"/proc/{worker}/stat")
        if stat.exists() and ") Z " in stat.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the worker outlived its parent")


class _Wrong:
    """An encoder that is wrong about one word."""

    def __init__(self, tokenizer: Tokenizer, word: str):
        self.right, self.word = BulkEncoder(tokenizer)._fast, word

    def encode_batch_flat(self, texts: list[str], **options: Any) -> Any:
        assert self.right is not None
        return self.right.encode_batch_flat([t.replace(self.word, "") for t in texts], **options)  # type: ignore[attr-defined]


def test_a_mismatch_is_said_and_everything_encoded_again(
    tokenizer: Tokenizer,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("fastokens")
    path = write("document", 50)
    wrong = _Wrong(tokenizer, "第40天")
    monkeypatch.setattr(BulkEncoder, "_load", lambda self: wrong)
    encoder = BulkEncoder(tokenizer)
    with pytest.raises(EncoderMismatch, match="第40天"):
        encoder.encode([f"第{n}天" for n in range(60)])
    job = Job([path], "document", "s", tmp_path / "out", smallest_part=1500)
    report = build_datasets([job], tokenizer, workers=1)
    assert "fastokens gives other ids" in report.slow_because
    assert "encoding everything again" in capsys.readouterr().out
    assert sequences(tmp_path / "out") == reference(tokenizer, path, "document")


def test_tasks_of_a_cluster_encode_again_what_was_wrong_or_is_of_other_text(
    tokenizer: Tokenizer, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file is done before the second one shows that fastokens errs; the third changes."""
    pytest.importorskip("fastokens")
    pytest.importorskip("datatrove")
    from miao.shards.cluster import shard_executors

    texts = [[f"第{n}天" for n in days] for days in (range(30), range(30, 60), range(9), range(7))]
    folder = tmp_path / "corpus" / "pretrain" / "train"
    folder.mkdir(parents=True)

    def lay(number: int, some: list[str]) -> None:
        lines = [json.dumps({"text": text, "source": "s"}, ensure_ascii=False) for text in some]
        name = f"s-{number:05d}-of-00003.jsonl"
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
        digests[f"pretrain/train/{name}"] = str(some)
        manifest = json.dumps({"sha256": digests})
        (tmp_path / "corpus" / "manifest.json").write_text(manifest, encoding="utf-8")

    digests: dict[str, str] = {}
    for number, some in enumerate(texts[:3]):
        lay(number, some)
    tokenizer.save(tmp_path / "tokenizer")
    right = BulkEncoder(tokenizer)._fast
    wrong = _Wrong(tokenizer, "第40天")
    out = tmp_path / "shards"
    places = (str(tmp_path / "corpus"), str(out), str(tmp_path / "tokenizer"), 3, str(tmp_path))
    tokenise, number = (executor.pipeline[0] for executor in shard_executors(*places))
    for rank, encoder in enumerate((right, wrong, wrong)):
        monkeypatch.setattr(BulkEncoder, "_load", lambda self, encoder=encoder: encoder)
        list(tokenise.run(None, rank, 3))
    lay(2, texts[3])
    list(number.run(None, 0, 1))
    found = TokenDataset(out / "pretrain" / "train" / "s")
    expected = [[0, *tokenizer.encode(text), 0] for some in (*texts[:2], texts[3]) for text in some]
    assert [found.tokens(number).tolist() for number in range(len(found))] == expected
