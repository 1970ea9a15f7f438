"""`miao serve` and `miao chat --server`: options, models, mistakes."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miao.cli import main as miao
from miao.commands.serve import _say_ready, load_models, make_parser
from miao.errors import MiaoError
from miao.files import read_json, write_json
from miao.model import Decoder, save_model
from miao.serve.listening import listen
from miao.tokenizer import Tokenizer
from tests.serve.conftest import RunningServer


@pytest.fixture(scope="module")
def directory(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path_factory: Any
) -> Path:
    path = tmp_path_factory.mktemp("served") / "sprout"
    save_model(make_model(vocab_size=tokenizer.vocab_size), path)
    tokenizer.save(path)
    return path


def load(directory: Path, *words: str) -> list[Any]:
    options = make_parser().parse_args([str(directory), *words])
    with contextlib.ExitStack() as kept:
        return load_models(options, kept)


def test_what_is_served(directory: Path) -> None:
    (served,) = load(directory)
    assert (served.name, served.context) == ("sprout", 64)
    assert served.scheduler.runner.model.weights == "fp32"
    assert served.scheduler.runner.cache.rows == 16
    # The model's own generation_config.json.
    assert (served.defaults.temperature, served.defaults.top_p) == (0.7, 0.9)
    words = ["--name", "a", "--context", "32", "--max-concurrency", "3", "--temperature", "0"]
    (served,) = load(directory, *words)
    assert (served.name, served.context, served.defaults.temperature) == ("a", 32, 0)
    assert served.scheduler.runner.cache.rows == 3


def test_a_run_is_served_under_its_own_name(directory: Path, tmp_path: Path) -> None:
    run = tmp_path / "sapling"
    shutil.copytree(directory, run / "models" / "sft")
    assert [served.name for served in load(run)] == ["sapling"]
    assert [served.name for served in load(run / "models" / "sft")] == ["sft"]
    shutil.copytree(directory, run / "model")
    assert [served.name for served in load(run / "model")] == ["sapling"]


def test_defaults_of_other_models(directory: Path) -> None:
    path = directory / "generation_config.json"
    own = read_json(path)
    try:
        write_json(path, {"do_sample": False, "temperature": 0.6})
        assert load(directory)[0].defaults.temperature == 0
        write_json(path, {"top_k": 20, "top_p": None})
        defaults = load(directory)[0].defaults
        assert (defaults.temperature, defaults.top_k, defaults.top_p) == (1.0, 20, 1.0)
        path.unlink()
        assert load(directory)[0].defaults.temperature == 1.0
    finally:
        write_json(path, own)


def test_adapters_are_models_of_their_own(
    directory: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with_adapter = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in with_adapter.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    with_adapter.save_pretrained(tmp_path / "poet")
    models = load(
        directory, "--adapter", str(tmp_path / "poet"), "--adapter", f"b={tmp_path / 'poet'}"
    )
    assert [served.name for served in models] == ["sprout", "poet", "b"]
    ids = [5, 6, 7, 8]
    found = [torch.tensor(list(served.embedding(ids))[-1]) for served in models]
    with torch.inference_mode():
        theirs = with_adapter(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    expected = torch.nn.functional.normalize(theirs[0].mean(0), dim=0)
    torch.testing.assert_close(found[1], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[1], found[2])
    assert float((found[0] - found[1]).abs().max()) > 1e-3
    with pytest.raises(MiaoError, match="two models are called 'sprout'"):
        load(directory, "--adapter", f"sprout={tmp_path / 'poet'}")
    with pytest.raises(MiaoError, match="not a PEFT adapter"):
        load(directory, "--adapter", f"none={directory}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--context", "65"], "made for 64 tokens, not 65"),
        (["--context", "0"], "--context: 0 is too small"),
        (["--max-concurrency", "0"], "--max-concurrency: 0 is too small"),
        (["--max-queue", "-1"], "--max-queue: -1 is too small"),
        (["--temperature", "-1"], "temperature must not be negative"),
        (["--device", "abacus"], "cannot be used"),
    ],
)
def test_impossible_options(directory: Path, words: list[str], message: str) -> None:
    with pytest.raises(MiaoError, match=message):
        load(directory, *words)


def test_ports_that_are_taken() -> None:
    first = listen("127.0.0.1", 0)
    first.listen()
    port = first.getsockname()[1]
    with pytest.raises(MiaoError, match=f"cannot listen at 127.0.0.1:{port}"):
        listen("127.0.0.1", port)
    first.close()
    for wrong in (-1, 10**6):
        with pytest.raises(MiaoError, match="cannot listen"):
            listen("127.0.0.1", wrong)


def test_a_missing_model_is_said_before_anything_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert miao(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "neither a finished run nor a model directory" in capsys.readouterr().err


def test_chatting_with_a_server(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chat", "--server", server.url, "-p", "hello", "--max-new-tokens", "9"]
    assert miao([*words, "--temperature", "0"]) == 0
    said = capsys.readouterr()  # this model begins with a thought, which goes to stderr
    assert miao([*words, "--temperature", "0"]) == 0
    assert capsys.readouterr() == said and len(said.out + said.err) > 3
    assert miao([*words, "--server-model", "other", "--top-k", "3", "--seed", "1"]) == 0
    assert miao([*words, "--server-model", "third"]) == 2
    assert miao(["chat"]) == 2
    assert miao(["chat", "somewhere", "--server", server.url]) == 2
    assert "one of them" in capsys.readouterr().err


def test_the_first_lines_name_sizes_with_one_unit(capsys: pytest.CaptureFixture[str]) -> None:
    half = SimpleNamespace(nbytes=3 * 2**30)
    runner = SimpleNamespace(
        cache=SimpleNamespace(keys=half, values=half),
        model=SimpleNamespace(weights="fp32", device="cpu"),
    )
    served = SimpleNamespace(name="m", context=512, scheduler=SimpleNamespace(runner=runner))
    options = argparse.Namespace(host="127.0.0.1", max_concurrency=4)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _say_ready(options, listening, [served], None)
    assert "keys and values up to 6.0 GiB each, weights fp32" in capsys.readouterr().out
