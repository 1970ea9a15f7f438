"""Mistakes of a user: one message with the place and the remedy, exit code 2, nothing left half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from miao.cli import main
from miao.files import read_json
from tests.test_run import TINY


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


def fails(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The message of a command that must fail with exit code 2."""
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_a_recipe_key_that_does_not_exist(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("pretrian:\n  tokens: 4M\n")
    message = fails(capsys, "run", bad)
    assert "bad.yaml" in message and "'pretrian'" in message and "'pretrain'" in message
    assert "did you mean 'sft.epochs'?" in fails(capsys, "run", recipe, "--sft.epoch", "2")


def test_no_recipe_or_a_missing_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "which recipe?" in fails(capsys, "run")
    assert "no such recipe" in fails(capsys, "run", "recipes/sedling.yaml")


def test_a_misspelt_verb_or_recipe_names_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "`miao recipe` lists" in fails(capsys, "run", "x.yaml")
    assert "did you mean 'seedling'?" in fails(capsys, "run", "seedlign")
    assert "did you mean 'buddy-0.3b'?" in fails(capsys, "doctor", "budy-0.3b")
    Path("my.yaml").write_text("name: mine\n")
    assert "did you mean 'my.yaml'?" in fails(capsys, "corpus", "my")
    assert "did you mean 'my.yaml'?" in fails(capsys, "run", "myy.yaml", "--sft.epochs", "2")
    assert "recipes here: my.yaml" in fails(capsys, "corpus", "other.yaml")
    message = fails(capsys, "corpus", "chekc", "x")
    assert "check | catalog" in message and "did you mean 'check'?" in message
    assert "miao tokenizer RECIPE: train" in fails(capsys, "tokenizer", "train")
    assert "did you mean 'pretrain'?" in fails(capsys, "pretrian")
    assert "miao --help" in fails(capsys, "qqq")
    assert "miao run my.yaml" in fails(capsys, "my.yaml")


def test_a_recipe_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.yaml").write_text("name: mine\n")
    for words in (["check"], ["build", "--out", tmp_path / "out"]):
        message = fails(capsys, "corpus", words[0], tmp_path / "my.yaml", *words[1:])
        assert "this is a recipe" in message and f"miao corpus {tmp_path / 'my.yaml'}" in message


def test_a_malformed_line_names_file_and_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "好"}\n{"text": \n')
    message = fails(capsys, "run", recipe, "--out_dir", tmp_path, "--corpus.paths", data)
    assert f"{data}:2" in message
    assert not (tmp_path / "tiny" / "corpus").exists()


def test_bad_records_can_be_skipped_and_are_listed(recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = [json.dumps({"text": f"第{n}天，天气很好。"}, ensure_ascii=False) for n in range(40)]
    data.write_text("\n".join([*lines, '{"txet": "oops"}', "{"]), encoding="utf-8")
    words = ["corpus", str(recipe), "--out_dir", str(tmp_path), "--corpus.paths", str(data)]
    assert main([*words, "--corpus.skip_bad_records", "true"]) == 0
    problems = (tmp_path / "tiny" / "corpus" / "problems.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in problems] == [41, 42]
    assert read_json(tmp_path / "tiny" / "corpus" / "manifest.json")["problems"] == 2


def test_a_file_that_is_no_text(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.txt").write_bytes("春天来了，小草绿了。".encode("utf-16") + b"\xd8")
    words = ("run", recipe, "--out_dir", tmp_path, "--corpus.paths", tmp_path / "cut.txt")
    message = fails(capsys, *words)
    assert "cut.txt" in message and "as UTF-8" in message


def test_a_file_in_another_encoding_is_read_and_said(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gbk.txt").write_bytes("春天来了，小草绿了。".encode("gb18030"))
    words = ["corpus", recipe, "--out_dir", tmp_path, "--corpus.paths", tmp_path / "gbk.txt"]
    assert main([str(word) for word in words]) == 0
    assert "GB18030" in capsys.readouterr().out
    (written,) = (tmp_path / "tiny" / "corpus" / "pretrain").glob("*/gbk.jsonl")
    assert "小草绿了" in written.read_text(encoding="utf-8")


def test_an_empty_corpus(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    words = ("run", recipe, "--out_dir", tmp_path, "--corpus.paths", tmp_path / "empty")
    assert "nothing that can be read" in fails(capsys, *words)
    (tmp_path / "empty" / "a.jsonl").write_text("")
    assert "no documents found" in fails(capsys, *words)


def test_a_vocabulary_larger_than_the_data_allows(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "small.txt"
    data.write_text("一二三四五" * 50, encoding="utf-8")
    for key in ("paths",):
        words = ["tokenizer", recipe, "--out_dir", tmp_path, f"--corpus.{key}", data]
    message = fails(capsys, *words, "--tokenizer.vocab_size", "60000")
    assert "tokens" in message and "vocab_size" in message
    assert not (tmp_path / "tiny" / "tokenizer").exists()


def test_a_sequence_length_above_the_models(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "run", recipe, "--out_dir", tmp_path, "--sft.seq_len", "512")
    assert "sft.seq_len" in message and "max_position_embeddings" in message


def test_a_damaged_shard_is_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out_dir", str(tmp_path), "--evaluate.enabled", "false"]
    assert main(["shards", str(recipe), *words]) == 0
    (shard,) = (tmp_path / "tiny" / "shards" / "pretrain" / "train" / "stories").glob("tokens-*")
    content = bytearray(shard.read_bytes())
    content[7] ^= 255
    shard.write_bytes(content)
    message = fails(capsys, "pretrain", recipe, *words)
    assert str(shard) in message and "damaged" in message and "run again" in message


def test_chat_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither a finished run nor a model directory" in fails(capsys, "chat", tmp_path)


def test_a_device_that_is_not_there(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out_dir", str(tmp_path), "--device", "cuda:7", "--evaluate.enabled", "false"]
    assert "cuda:7" in fails(capsys, "pretrain", recipe, *words)


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "ascii:surrogateescape", "utf-8"])
def test_no_message_ends_a_command_whatever_the_output_can_encode(
    encoding: str, tmp_path: Path
) -> None:
    """An emoji, Chinese, and a file name that is no text; what comes out is still the text."""
    said = '{"说": "好😀é"}'
    code = (
        "import sys; from miao import cli; from miao.console import headline, print_table, say\n"
        "def verb(words):\n"
        "    headline(words); say(words); print_table(words, ['é'], [[words]]); print(words)\n"
        "    print('\\udcff\\ud800'); raise cli.MiaoError(words)\n"
        "cli._dispatch = lambda words: verb(words[0])\n"
        f"sys.exit(cli.main([{said!a}]))"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    lines = done.stdout.decode(encoding.partition(":")[0]).splitlines()
    assert json.loads(lines[-2]) == json.loads(said)
    assert lines[-1] == "\\udcff\\ud800"
