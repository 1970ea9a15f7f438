"""Models by name: both hubs' own clients against a stand-in server on this machine."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

from miao.errors import MiaoError, install_hint
from miao.hubs import HubName, is_hub_name, parse_hub_name, push_directory
from miao.hubs import files as hub_files
from miao.hubs.files import check_model_directory, check_space, is_model_file, remove_stale
from miao.hubs.problems import Site, explain, kind_of

WEIGHTS = random.Random(0).randbytes(300_000)
MODEL = {
    "config.json": b'{"model_type": "qwen3"}',
    "generation_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": "{{ '苗' }}".encode(),
    "README.md": b"---\nlicense: apache-2.0\n---\n# Miao\n",
}
OTHERS = {
    "pytorch_model.bin": b"\x80\x04pickle",
    "training_args.bin": b"\x80\x04pickle",
    "original/model.safetensors": b"another layout",
    "onnx/model.onnx": b"onnx",
    ".gitattributes": b"*.safetensors filter=lfs",
}
WORKER = """
import contextlib, io, json, os, sys
from miao import hubs
from miao.errors import MiaoError
for line in sys.stdin:
    ask, said = json.loads(line), io.StringIO()
    for key, value in ask["env"].items():
        os.environ.pop(key, None)
        os.environ |= {key: value} if value is not None else {}
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            result, error = str(getattr(hubs, ask["call"])(*ask["args"], **ask["named"])), None
        except MiaoError as problem:
            result, error = None, str(problem)
    print(json.dumps([result, error, said.getvalue()]), flush=True)
"""


def with_weights(seed: int) -> dict[str, bytes]:
    """A model whose weights no other has: caches know a file by its content."""
    return MODEL | {"model.safetensors": random.Random(seed).randbytes(300_000)}


needs_hf = pytest.mark.skipif(not find_spec("huggingface_hub"), reason="no huggingface_hub")
needs_modelscope = pytest.mark.skipif(not find_spec("modelscope_hub"), reason="no modelscope_hub")


@dataclass
class Outcome:
    """What a call returned, or the user's message, and everything that was printed."""

    result: str | None
    error: str | None
    said: str

    @property
    def files(self) -> dict[str, bytes]:
        assert self.error is None, self.error
        root = Path(str(self.result))
        paths = [path for path in root.rglob("*") if path.is_file()]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


class Client:
    """A process with an environment of its own: the clients read theirs when imported."""

    def __init__(self, home: Path, **settings: str):
        hidden = ("HF_", "MODELSCOPE_", "HUGGING", "TRANSFORMERS_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        for proxy in ("http_proxy", "https_proxy", "all_proxy"):
            env = {key: value for key, value in env.items() if key.lower() != proxy}
        env |= {
            "HF_HOME": str(home / "hf"),
            "MODELSCOPE_CACHE": str(home / "ms-cache"),
            "MODELSCOPE_HOME": str(home / "ms"),
            "HF_HUB_DISABLE_XET": "1",  # the stand-in does not speak its protocol
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        self.log = home / "stderr.txt"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env=env | settings,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __call__(
        self, call: str, *words: str, env: dict[str, str | None] | None = None, **named: Any
    ) -> Outcome:
        assert self.process.stdin and self.process.stdout
        ask = {"call": call, "args": words, "named": named, "env": env or {}}
        self.process.stdin.write(json.dumps(ask) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        return Outcome(*json.loads(answer))

    def download(self, name: str, **env: str | None) -> Outcome:
        return self("download_model", name, env=env)

    def push(self, directory: Path, name: str, token: str | None, **named: Any) -> Outcome:
        env = {"HF_TOKEN": token, "MODELSCOPE_API_TOKEN": token}
        return self("push_directory", str(directory), name, env=env, **named)

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(300)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def hf(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    client = Client(home, HF_ENDPOINT=hub.url)
    yield client
    client.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A finished model directory, with things beside it that nobody should see."""
    directory = tmp_path / "model"
    directory.mkdir()
    hidden = {
        ".config.json.x.tmp": b"half",
        "optimizer.safetensors": b"state",
        "notes.txt": b"mine",
    }
    for name, content in (MODEL | hidden).items():
        (directory / name).write_bytes(content)
    (directory / ".cache").mkdir()
    (directory / ".cache" / "config.json").write_bytes(b"{}")
    return directory


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf:Qwen/Qwen3-0.6B", HubName("hf", "Qwen", "Qwen3-0.6B")),
        ("huggingface:a/b", HubName("hf", "a", "b")),
        ("HF:a/b@v1.0", HubName("hf", "a", "b", "v1.0")),
        ("hf:a/b@refs/pr/1", HubName("hf", "a", "b", "refs/pr/1")),
        ("modelscope:a_b/c.d", HubName("modelscope", "a_b", "c.d")),
        ("ms:a/b@master", HubName("modelscope", "a", "b", "master")),
    ],
)
def test_names(text: str, name: HubName) -> None:
    assert is_hub_name(text) and parse_hub_name(text) == name
    assert parse_hub_name(str(name)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:gpt2", "is not owner/name"),
        ("hf:", "is not owner/name"),
        ("hf:a/b/c", "is not owner/name"),
        ("hf:a/b@", "is not owner/name"),
        ("hf:a/../b", "is not owner/name"),
        ("hf:a/..", "is not owner/name"),
        ("hf:a/b c", "is not owner/name"),
        ("hf:苗/b", "is not owner/name"),
        ("hugginface:a/b", "did you mean 'hf:a/b'"),
        ("modelscop:a/b", "did you mean 'modelscope:a/b'"),
        ("s3:bucket/x", "unknown hub 's3'"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main", "did you mean 'hf:Qwen/Qwen3-0.6B'"),
        ("https://modelscope.cn/models/a/b", "did you mean 'modelscope:a/b'"),
    ],
)
def test_malformed_names(text: str, message: str) -> None:
    assert is_hub_name(text)
    with pytest.raises(MiaoError) as caught:
        parse_hub_name(text)
    assert message in str(caught.value) and text in str(caught.value)


@pytest.mark.parametrize(
    "text", ["runs/seedling", r"C:\models\x", "C:/models/x", "d:x", "./hf:a/b", ""]
)
def test_paths_are_not_names(text: str) -> None:
    assert not is_hub_name(text)
    with pytest.raises(MiaoError, match="not the name of a model on a hub"):
        parse_hub_name(text)


def test_what_exists_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp:1").mkdir()
    assert not is_hub_name("exp:1") and is_hub_name("exp:2")


def test_which_files_are_a_model() -> None:
    assert all(is_model_file(path) for path in MODEL)
    assert is_model_file("model-00001-of-00002.safetensors")
    assert not any(is_model_file(path) for path in OTHERS)


def test_a_model_directory_must_be_whole(model: Path, tmp_path: Path) -> None:
    check_model_directory(model)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "b.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MiaoError, match=r"b\.safetensors is missing"):
        check_model_directory(model)
    (model / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(MiaoError, match="no weight_map"):
        check_model_directory(model)
    (model / "config.json").unlink()
    with pytest.raises(MiaoError, match=r"no config\.json"):
        check_model_directory(model)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / file).write_text("")
    check_model_directory(adapter)


def test_stale_files_leave_the_cache(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text("{}")
    remove_stale(model, MODEL)
    assert not (model / "model.safetensors.index.json").exists()
    assert {path.name for path in model.iterdir()} >= {*MODEL, "notes.txt"}


def test_a_push_to_a_revision_is_refused(model: Path) -> None:
    with pytest.raises(MiaoError, match="leave out @v1"):
        push_directory(model, "hf:me/x@v1")


@pytest.mark.parametrize(("name", "extra"), [("hf:me/x", "hf"), ("ms:me/x", "modelscope")])
def test_a_missing_client_is_named(
    model: Path, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(MiaoError) as caught:
        push_directory(model, name)
    assert install_hint(extra) in str(caught.value)


SITE = Site(
    title="The Hub",
    endpoint="https://hub.example",
    default_endpoint="https://hub.example",
    endpoint_variable="HUB_ENDPOINT",
    mirror="name a mirror",
    token_variable="HUB_TOKEN",
    token_page="https://hub.example/tokens",
    has_token=True,
    cache=Path("/nowhere/cache"),
    cache_variable="HUB_CACHE",
)


def test_a_full_disk_is_said_before_and_during_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    name = HubName("hf", "me", "x")
    check_space(name, 1, SITE.cache, SITE.cache_variable)
    wrapped = RuntimeError("worker failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    during = str(explain(kind_of(wrapped), wrapped, name, SITE))
    free = type("Usage", (), {"free": 5 * 2**20})
    monkeypatch.setattr(hub_files.shutil, "disk_usage", lambda place: free)
    with pytest.raises(MiaoError) as before:
        check_space(name, 7 * 2**20, SITE.cache, SITE.cache_variable)
    assert "7 MiB are needed, 5 MiB are free" in str(before.value)
    for text in (during, str(before.value)):
        assert "disk is too full for hf:me/x" in text and "HUB_CACHE" in text


def test_unknown_errors_are_shown_without_tokens() -> None:
    error = ValueError("bad header\nBearer hf_abcDEF123456 was refused")
    text = str(explain(kind_of(error), error, HubName("hf", "me", "x"), SITE))
    assert "ValueError: bad header" in text and "hf_abc" not in text
    error = ValueError("token hf_abcDEF123456 or ms-0123-4567 was refused")
    text = str(explain(kind_of(error), error, HubName("hf", "me", "x"), SITE))
    assert "token hf_*** or ms-*** was refused" in text


@needs_hf
def test_hf_round_trip(hub: HubServer, hf: Client, model: Path) -> None:
    pushed = hf.push(model, "hf:me/seedling", "hf_writing", private=True, message="first")
    assert pushed.error is None and pushed.result == f"{hub.url}/me/seedling"
    assert pushed.result in pushed.said and "hf_writing" not in pushed.said
    assert hub.repositories["me/seedling"].private
    assert hub.repositories["me/seedling"].files == MODEL
    assert hub.commits[-1]["summary"] == "first"
    downloaded = hf.download("hf:me/seedling", HF_TOKEN="hf_writing")
    assert downloaded.files == MODEL
    before = len(hub.requests)
    assert hf.download("hf:me/seedling", HF_TOKEN="hf_writing").files == MODEL
    assert not [
        path for _, path, _ in hub.requests[before:] if "resolve" in path or "content" in path
    ]
    assert "hf_writing" not in hf.log.read_text()


@needs_hf
def test_hf_large_files_come_from_elsewhere_without_the_token(hub: HubServer, hf: Client) -> None:
    files = with_weights(1)
    hub.add("me/large", files)
    before = len(hub.requests)
    assert hf.download("hf:me/large", HF_TOKEN="hf_writing").files == files
    sent = [
        headers
        for verb, path, headers in hub.requests[before:]
        if "/content/" in path and verb == "GET"
    ]
    assert sent and not any("Authorization" in headers for headers in sent)


@needs_hf
def test_hf_push_again(hub: HubServer, hf: Client, model: Path) -> None:
    """Shards of the model before would be read in place of the new weights: they go."""
    old = {
        "model.safetensors.index.json": b"{}",
        "model-00001-of-00001.safetensors": b"old",
        "config.json": b"old",
        "notes.md": b"theirs",
    }
    hub.add("me/again", old)
    assert hf.push(model, "hf:me/again", "hf_writing").error is None
    assert hub.repositories["me/again"].files == MODEL | {"notes.md": b"theirs"}
    uploads = len(hub.paths("PUT"))
    assert hf.push(model, "hf:me/again", "hf_writing").error is None
    assert len(hub.paths("PUT")) == uploads, "what the hub has is not sent again"


@needs_hf
def test_hf_only_the_files_of_a_model_are_downloaded(hub: HubServer, hf: Client) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 99 for n in (1, 2)}
    index = json.dumps({"weight_map": {"a": next(iter(shards)), "b": list(shards)[1]}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index} | shards
    hub.add("me/much", files | OTHERS)
    assert hf.download("hf:me/much").files == files
    assert not [path for path in hub.paths("GET") if path.endswith((".bin", ".onnx"))]


@needs_hf
def test_hf_revisions(hub: HubServer, hf: Client) -> None:
    hub.add("me/tagged", MODEL).put(MODEL | {"README.md": b"v1"}, tag="v1")
    assert hf.download("hf:me/tagged@v1").files["README.md"] == b"v1"
    assert hf.download("hf:me/tagged").files == MODEL
    error = hf.download("hf:me/tagged@v2").error
    assert error and "no branch, tag or commit 'v2'" in error and "hf:me/tagged@v2" in error


@needs_hf
def test_hf_a_cut_download_goes_on_where_it_was(hub: HubServer, hf: Client) -> None:
    files = MODEL | {"model.safetensors": random.Random(2).randbytes(12_000_000)}
    hub.add("me/cut", files)
    hub.cuts["model.safetensors"] = [11_000_000]
    before = len(hub.requests)
    assert hf.download("hf:me/cut").files == files
    ranges = [h.get("Range") for _, path, h in hub.requests[before:] if "/content/" in path]
    assert ranges == [None, f"bytes={10 * 2**20}-"], "what came is kept in pieces of 10 MiB"


@needs_hf
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "reads safetensors only"),
        ({"README.md": b""}, "it has no model.safetensors"),
        ({"model.safetensors": b"", "README.md": b""}, "it has no config.json"),
    ],
)
def test_hf_repositories_without_readable_weights(
    hub: HubServer, hf: Client, files: dict[str, bytes], message: str
) -> None:
    hub.add("me/other", files)
    before = len(hub.requests)
    error = hf.download("hf:me/other").error
    assert error and message in error and "hf:me/other" in error
    assert not [path for _, path, _ in hub.requests[before:] if "resolve" in path]


@needs_hf
def test_hf_refusals_when_downloading(hub: HubServer, hf: Client) -> None:
    hub.add("me/private", MODEL, private=True)
    hub.add("me/gated", MODEL, gated=True)
    for name, token, words in [
        ("hf:me/nowhere", None, ["no such repository", "check the spelling", "HF_TOKEN", hub.url]),
        ("hf:me/nowhere", "hf_writing", ["no such repository"]),
        ("hf:me/private", None, ["no such repository", "private", "HF_TOKEN"]),
        ("hf:me/gated", None, ["granted on request", f"{hub.url}/me/gated", "HF_TOKEN"]),
        ("hf:me/private", "hf_expired000", ["does not accept the token", "expired"]),
    ]:
        outcome = hf.download(name, HF_TOKEN=token)
        assert outcome.error and all(word in outcome.error for word in words), outcome
        assert "hf_expired000" not in outcome.error + outcome.said
    assert hf.download("hf:me/private", HF_TOKEN="hf_writing").files == MODEL


@needs_hf
def test_hf_refusals_before_anything_is_uploaded(hub: HubServer, hf: Client, model: Path) -> None:
    hub.add("me/open", {})
    (model / "config.json").rename(model / "x.json")
    error = hf.push(model, "hf:me/new", "hf_writing").error
    assert error and "not a model directory" in error
    (model / "x.json").rename(model / "config.json")
    before = len(hub.requests)
    for name, token, private, words in [
        ("hf:me/new", None, False, ["needs a token", "HF_TOKEN", "write access"]),
        ("hf:me/new", "hf_expired000", False, ["does not accept the token"]),
        ("hf:me/new", "hf_reading", False, ["may read but not write"]),
        ("hf:you/new", "hf_writing", False, ["no right to you/new"]),
        ("hf:me/open", "hf_writing", True, ["exists and is public"]),
    ]:
        outcome = hf.push(model, name, token, private=private)
        assert outcome.error and all(word in outcome.error for word in words), outcome
        assert "hf_" not in (outcome.error + outcome.said).replace("HF_", "")
    sent = [path for verb, path, _ in hub.requests[before:] if verb in ("PUT", "POST")]
    assert not [path for path in sent if "create" not in path]
    assert "me/new" not in hub.repositories


@needs_hf
def test_hf_a_hub_that_is_down(hub: HubServer, hf: Client, model: Path) -> None:
    hub.add("me/down", MODEL)
    assert hf.download("hf:me/down").files == MODEL
    hub.down = True
    try:
        again, other = hf.download("hf:me/down"), hf.download("hf:me/unseen")
        pushed = hf.push(model, "hf:me/down", "hf_writing")
    finally:
        hub.down = False
    assert again.files == MODEL and "using the copy" in again.said
    for outcome in (other, pushed):
        assert outcome.error and f"cannot be reached at {hub.url}" in outcome.error


@needs_hf
def test_hf_a_cache_that_cannot_be_written(hub: HubServer, tmp_path: Path) -> None:
    hub.add("me/locked", MODEL)
    (tmp_path / "hf").write_text("a file where the cache should be")
    client = Client(tmp_path, HF_ENDPOINT=hub.url)
    error = client.download("hf:me/locked").error
    client.close()
    assert error and "cannot write into the cache" in error and "HF_HOME" in error


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Taken, so that no other process listens there; but nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@needs_hf
def test_hf_without_a_network(
    hub: HubServer, model: Path, closed_port: int, tmp_path: Path
) -> None:
    hub.add("me/seen", MODEL)
    online = Client(tmp_path, HF_ENDPOINT=hub.url)
    assert online.download("hf:me/seen").files == MODEL
    online.close()
    url = f"http://127.0.0.1:{closed_port}"
    for settings, told, words in [
        ({"HF_ENDPOINT": url}, "cannot be reached", [f"cannot be reached at {url}", "HF_ENDPOINT"]),
        ({"HF_HUB_OFFLINE": "1"}, "offline mode", ["offline mode is on (HF_HUB_OFFLINE)"]),
    ]:
        client = Client(tmp_path, **settings)
        seen, unseen = client.download("hf:me/seen"), client.download("hf:me/unseen")
        pushed = client.push(model, "hf:me/seen", "hf_writing")
        client.close()
        assert seen.files == MODEL and told in seen.said and "downloaded before" in seen.said
        for outcome in (unseen, pushed):
            assert outcome.error and all(word in outcome.error for word in words), outcome


@pytest.fixture(scope="module")
def ms(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("ms"), MODELSCOPE_ENDPOINT=hub.url)
    yield client
    client.close()


def ms_with_token(hub: HubServer, home: Path, token: str | None) -> Client:
    settings = {"MODELSCOPE_API_TOKEN": token} if token else {}
    return Client(home, MODELSCOPE_ENDPOINT=hub.url, **settings)


@needs_modelscope
def test_modelscope_round_trip(hub: HubServer, model: Path, tmp_path: Path) -> None:
    client = ms_with_token(hub, tmp_path, "hf_writing")
    pushed = client(
        "push_directory", str(model), "ms:me/ms-seedling", private=True, message="first"
    )
    assert pushed.error is None and pushed.result == f"{hub.url}/models/me/ms-seedling"
    assert hub.repositories["me/ms-seedling"].private
    assert hub.repositories["me/ms-seedling"].files == MODEL
    assert hub.commits[-1]["summary"].startswith("first")
    assert not (model / ".ms_upload_cache").exists()
    assert client.download("ms:me/ms-seedling").files == MODEL
    hub.repositories["me/ms-seedling"].put(
        {"model.safetensors.index.json": b"{}", "config.json": b"old", "notes.md": b"theirs"}
    )
    assert client("push_directory", str(model), "ms:me/ms-seedling").error is None
    assert hub.repositories["me/ms-seedling"].files == MODEL | {"notes.md": b"theirs"}
    client.close()
    assert "hf_writing" not in client.log.read_text() + pushed.said


@needs_modelscope
def test_modelscope_downloads(hub: HubServer, ms: Client) -> None:
    index = b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
    old = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": b"old"}
    hub.add("me/ms-change", {"config.json": b"{}"} | old | OTHERS)
    hub.repositories["me/ms-change"].put(MODEL | {"README.md": b"v1"}, tag="v1")
    assert ms.download("ms:me/ms-change").files == {"config.json": b"{}"} | old
    hub.repositories["me/ms-change"].put(MODEL | OTHERS)
    assert ms.download("ms:me/ms-change").files == MODEL, "nothing of the old version is left"
    assert ms.download("ms:me/ms-change@v1").files["README.md"] == b"v1"
    error = ms.download("ms:me/ms-change@v2").error
    assert error and "no branch, tag or commit 'v2'" in error
    hub.add("me/ms-bin", {"config.json": b"{}", "pytorch_model.bin": b""})
    error = ms.download("ms:me/ms-bin").error
    assert error and "reads safetensors only" in error


@needs_modelscope
def test_modelscope_a_cut_download_goes_on_where_it_was(hub: HubServer, ms: Client) -> None:
    hub.add("me/ms-cut", MODEL)
    hub.cuts["model.safetensors"] = [100_000]
    assert ms.download("ms:me/ms-cut").files == MODEL
    ranges = [h["Range"] for _, path, h in hub.requests if "ms-cut/repo" in path and "Range" in h]
    assert len(ranges) == 1 and 0 < int(ranges[0][6:-1]) <= 100_000


@needs_modelscope
@pytest.mark.parametrize(
    ("token", "name", "private", "words"),
    [
        (None, "ms:me/ms-new", False, ["needs a token", "MODELSCOPE_API_TOKEN"]),
        ("ms-expired000", "ms:me/ms-new", False, ["does not accept the token"]),
        ("hf_reading", "ms:me/ms-new", False, ["no right to me/ms-new"]),
        ("hf_writing", "ms:you/ms-new", False, ["no right to you/ms-new"]),
        ("hf_writing", "ms:me/ms-open", True, ["exists and is public"]),
    ],
)
def test_modelscope_refusals_before_anything_is_uploaded(
    hub: HubServer,
    model: Path,
    tmp_path: Path,
    token: str | None,
    name: str,
    private: bool,
    words: list[str],
) -> None:
    hub.add("me/ms-open", {})
    before = len(hub.requests)
    client = ms_with_token(hub, tmp_path, token)
    outcome = client("push_directory", str(model), name, private=private)
    client.close()
    assert outcome.error and all(word in outcome.error for word in words), outcome
    assert not [path for verb, path, _ in hub.requests[before:] if verb == "PUT" or "batch" in path]
    if token:
        assert token not in outcome.error + outcome.said + client.log.read_text()


@needs_modelscope
def test_modelscope_refusals_when_downloading(hub: HubServer, ms: Client) -> None:
    hub.add("me/ms-private", MODEL, private=True)
    for name in ("ms:me/ms-nowhere", "ms:me/ms-private"):
        error = ms.download(name).error
        assert error and "no such repository" in error and "MODELSCOPE_API_TOKEN" in error


@needs_modelscope
def test_modelscope_without_a_network(
    hub: HubServer, model: Path, closed_port: int, tmp_path: Path
) -> None:
    hub.add("me/ms-seen", MODEL)
    online = ms_with_token(hub, tmp_path, None)
    assert online.download("ms:me/ms-seen").files == MODEL
    online.close()
    url = f"http://127.0.0.1:{closed_port}"
    client = Client(tmp_path, MODELSCOPE_ENDPOINT=url)
    seen, unseen = client.download("ms:me/ms-seen"), client.download("ms:me/ms-unseen")
    pushed = client.push(model, "ms:me/ms-seen", "hf_writing")
    client.close()
    assert seen.files == MODEL and "downloaded before" in seen.said
    for outcome in (unseen, pushed):
        assert outcome.error and f"cannot be reached at {url}" in outcome.error, outcome
