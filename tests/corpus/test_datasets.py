"""Data sets by name: the hubs' own clients against a stand-in on this machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import HubServer

from miao.errors import MiaoError
from miao.hubs.datasets import choose_files, parse_dataset_name
from miao.hubs.remote import Listing, RemoteFile

WORKER = """
import contextlib, io, json, sys
from miao.corpus.read.datasets import local_files
from miao.errors import MiaoError
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            local_files.cache_clear()
            result = [[str(path), source] for path, source in local_files(json.loads(line))]
        except MiaoError as error:
            result = str(error)
    print(json.dumps([result, said.getvalue()]), flush=True)
"""
README = b"""---
license: mit
configs:
- config_name: zh
  data_files:
  - {split: train, path: "data/zh/train-*"}
  - {split: test, path: data/zh/test.jsonl}
- config_name: en
  data_files: "data/en/*.parquet"
---
# Data
"""


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, row_group_size=50)
    return buffer.getvalue()


ZH = lines(*({"text": f"第{number}篇", "id": number} for number in range(2000)))
EN = [{"body": f"Text {number}. " * 20, "score": number} for number in range(200)]
FILES = {
    "README.md": README,
    "data/zh/train-00000.jsonl": ZH,
    "data/zh/train-00001.jsonl": lines({"text": "尾"}) + b"{broken\n",
    "data/zh/test.jsonl": lines({"text": "考"}),
    "data/en/train-0.parquet": parquet(EN),
}
ALPACA = [{"instruction": "问", "input": "", "output": "答", "text": "x"}]


class Worker:
    """A process with an environment of its own: the clients read theirs when imported."""

    def __init__(self, home: Path, url: str):
        hidden = ("HF_", "MODELSCOPE_", "HUGGING", "MIAO_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        env = {key: value for key, value in env.items() if not key.lower().endswith("_proxy")}
        env |= {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MODELSCOPE_ENDPOINT": url,
            "MODELSCOPE_CACHE": str(home / "ms-cache"),
            "MODELSCOPE_HOME": str(home / "ms"),
            "MIAO_CACHE": str(home / "miao"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def __call__(self, name: str) -> list[tuple[Path, str]]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(name) + "\n")
        self.process.stdin.flush()
        result, self.said = json.loads(self.process.stdout.readline())
        if isinstance(result, str):
            raise MiaoError(result)
        return [(Path(path), source) for path, source in result]

    def content(self, name: str) -> bytes:
        return b"".join(path.read_bytes() for path, _ in self(name))

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(300)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add("me/data", FILES)
        server.add("me/cut", {"all.jsonl": ZH * 40})
        server.add("tatsu-lab/alpaca", {"data/train-0.parquet": parquet(ALPACA)})
        yield server


@pytest.fixture(scope="module")
def worker(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    one = Worker(tmp_path_factory.mktemp("home"), hub.url)
    yield one
    one.close()


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.skipif(not find_spec(library), reason=library))
        for name, library in (("hf", "huggingface_hub"), ("modelscope", "modelscope_hub"))
    ]
)
def site(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_subset_and_split_are_downloaded(worker: Worker, site: str) -> None:
    with pytest.raises(MiaoError, match="2 subsets to choose from") as caught:
        worker(f"{site}:me/data")
    assert "zh, en" in str(caught.value)
    assert worker.content(f"{site}:me/data?subset=zh&split=test") == FILES["data/zh/test.jsonl"]
    found = worker(f"{site}:me/data?subset=zh")
    assert [(path.name, source) for path, source in found] == [
        ("train-00000.jsonl", "data"),
        ("train-00001.jsonl", "data"),
    ]
    assert found[0][0].read_bytes() == ZH
    assert worker.content(f"{site}:me/data?files=data/en/*") == FILES["data/en/train-0.parquet"]


def test_first_records_and_columns_come_over_the_network(
    hub: HubServer, worker: Worker, site: str
) -> None:
    before = len(hub.requests)
    content = worker.content(f"{site}:me/data?subset=en&columns=body:text&limit=3")
    assert content == lines(*({"text": row["body"]} for row in EN[:3]))
    ranges = [headers.get("Range") for verb, _, headers in hub.requests[before:] if verb == "GET"]
    assert any(ranges)
    before = len(hub.requests)
    assert worker.content(f"{site}:me/data?subset=en&columns=body:text&limit=3") == content
    assert not any(headers.get("Range") for _, _, headers in hub.requests[before:])  # kept
    with pytest.raises(MiaoError, match="no column nothing") as caught:
        worker(f"{site}:me/data?subset=en&columns=nothing&limit=3")
    assert "body" in str(caught.value)


def test_a_record_that_cannot_be_read_stays_to_be_refused_later(worker: Worker, site: str) -> None:
    content = worker.content(f"{site}:me/data?files=data/zh/train-00001.jsonl&stream=true")
    assert content == FILES["data/zh/train-00001.jsonl"]


def test_a_cut_connection_is_resumed(hub: HubServer, worker: Worker, site: str) -> None:
    hub.cuts["all.jsonl"] = [100_000]
    streamed = worker.content(f"{site}:me/cut?stream=true")
    assert streamed == ZH * 40
    hub.cuts["all.jsonl"] = [500_000]
    assert worker.content(f"{site}:me/cut") == ZH * 40
    assert not hub.cuts["all.jsonl"]


def test_the_copy_is_used_when_the_hub_is_down(hub: HubServer, worker: Worker, site: str) -> None:
    name = f"{site}:me/data?files=data/zh/test.jsonl"
    assert worker.content(name) == FILES["data/zh/test.jsonl"]
    hub.down = True
    try:
        assert worker.content(name) == FILES["data/zh/test.jsonl"]
        assert "downloaded before" in worker.said
        with pytest.raises(MiaoError, match="cannot be reached"):
            worker(f"{site}:me/unknown")
    finally:
        hub.down = False


def test_a_catalogue_name(worker: Worker) -> None:
    [(path, source)] = worker("catalog:alpaca")
    assert source == "alpaca" and pyarrow.parquet.read_table(path).to_pylist() == ALPACA
    assert worker.content("catalog:alpaca?limit=1&columns=output:text") == lines({"text": "答"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:me/none", "no such repository"),
        ("hf:me/data?split=train&subst=zh", "did you mean 'subset'?"),
        ("hf:me/data?subset=fr", "choose with ?subset= one of: zh, en"),
        ("hf:me/data?subset=en&split=test", "choose with ?split= one of: train"),
        ("hf:me/data?files=*.csv", "no file matches *.csv"),
        ("hf:me/data?limit=0", "'limit' is no positive number"),
        ("hf:me/data?limit=", "'limit' has no value"),
        ("hf:me/data?stream=yes", "true or false"),
        ("catalog:alpakka", "did you mean 'alpaca'?"),
        ("catalog:alpaca?hub=github", "use hub=hf or hub=modelscope"),
    ],
)
def test_mistakes_in_names(worker: Worker, name: str, message: str) -> None:
    with pytest.raises(MiaoError) as caught:
        worker(name)
    assert message in str(caught.value)


def chosen(name: str, *files: str, readme: str | None = None) -> list[str]:
    listing = Listing(dict.fromkeys(files, 1), "main")
    readable = (".jsonl", ".json", ".parquet", ".md", ".txt")
    return choose_files(
        parse_dataset_name(name), listing, lambda file: file.endswith(readable), readme
    )


def test_files_are_told_by_their_names() -> None:
    usual = ("README.md", "dataset_infos.json", "a/train-1.parquet", "a/test-1.parquet", "x.bin")
    assert chosen("hf:a/b", *usual) == ["a/train-1.parquet"]
    assert chosen("hf:a/b?split=test", *usual) == ["a/test-1.parquet"]
    assert chosen("hf:a/b?files=README.md", *usual) == ["README.md"]
    plain = ("zh.jsonl", "en.jsonl", "dev.jsonl", "data_zh.json")
    assert chosen("hf:a/b", *plain) == ["data_zh.json", "en.jsonl", "zh.jsonl"]
    assert chosen("hf:a/b?subset=zh", *plain) == ["data_zh.json", "zh.jsonl"]
    for wrong in ("---\n: [\n---", "---\nconfigs: 3\n---", "---\nconfigs:\n- 1\n---", "no head"):
        assert chosen("hf:a/b", "a.jsonl", readme=wrong) == ["a.jsonl"]
    with pytest.raises(MiaoError, match="no data that can be read"):
        chosen("hf:a/b", "README.md", "x.bin")


def test_a_remote_file_gives_up_after_some_tries() -> None:
    def fetch(start: int, end: int) -> bytes:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"), RemoteFile("hf:a/b", "x", 10, fetch).open() as file:
        file.read()
    content = bytes(range(256)) * 100
    remote = RemoteFile("hf:a/b", "x", len(content), lambda a, b: content[a : min(b, a + 7)])
    with remote.open() as file:
        assert file.read(1000) == content[:1000]
        file.seek(-5, 2)
        assert file.read() == content[-5:]
