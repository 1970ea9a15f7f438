"""Model directories that are damaged or do not fit: refused, and the culprit named."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from miao.errors import MiaoError
from miao.files import atomic_directory
from miao.model import Decoder, count_parameters, load_config, load_model, save_model
from miao.tokenizer import Tokenizer

NORM = "model.layers.1.post_attention_layernorm.weight"


@pytest.fixture
def directory(make_model: Callable[..., Decoder], tmp_path: Path) -> Path:
    save_model(make_model(), tmp_path / "model")
    return tmp_path / "model"


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def refusal(directory: Path) -> str:
    with pytest.raises(MiaoError) as caught:
        load_model(directory)
    return str(caught.value)


def test_saving_and_loading_is_exact(directory: Path, make_model: Callable[..., Decoder]) -> None:
    original, loaded = make_model(), load_model(directory)
    assert loaded.config == original.config
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_a_full_disk_is_told_as_such(
    make_model: Callable[..., Decoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise SafetensorError(f"I/O error: No space left on device (os error {errno.ENOSPC})")

    monkeypatch.setattr("miao.model.directory.save_file", full)
    with pytest.raises(MiaoError, match="disk is full"), atomic_directory(tmp_path / "m") as place:
        save_model(make_model(), place)
    assert not list(tmp_path.iterdir())


def test_a_tied_head_is_not_written_twice(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    assert "lm_head.weight" not in tensors
    assert (
        sum(t.numel() for t in tensors.values()) == count_parameters(load_config(directory)).total
    )


def test_a_tied_head_in_the_file_is_no_stranger(directory: Path) -> None:
    change_weights(
        directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    )
    load_model(directory)


def test_a_missing_tensor_is_named(directory: Path) -> None:
    change_weights(directory, lambda tensors: tensors.pop(NORM))
    assert f"missing: {NORM} (32,)" in refusal(directory)


def test_an_unknown_tensor_is_named(directory: Path) -> None:
    change_weights(directory, lambda t: t.update({"model.layers.2.extra": torch.ones(3)}))
    assert "unknown: model.layers.2.extra (3,)" in refusal(directory)


def test_a_wrong_shape_is_named_with_both_shapes(directory: Path) -> None:
    change_weights(directory, lambda tensors: tensors.update({NORM: torch.ones(31)}))
    message = refusal(directory)
    assert NORM in message and "(31,)" in message and "(32,)" in message


def test_many_problems_are_counted(directory: Path) -> None:
    change_weights(directory, lambda tensors: [tensors.pop(name) for name in list(tensors)[:-1]])
    message = refusal(directory)
    assert message.count("missing: ") == 8
    assert "and 15 more" in message


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_named(directory: Path, size: int) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    message = refusal(directory)
    assert str(path) in message and "damaged" in message


def test_weights_that_git_lfs_left_as_a_pointer_are_named_as_such(directory: Path) -> None:
    """A clone without `git lfs pull` has 130 bytes in the place of every weights file."""
    path = directory / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(MiaoError, match="a Git LFS pointer") as caught:
        load_model(directory)
    assert str(path) in str(caught.value) and "git lfs pull" in str(caught.value)


def test_a_missing_file_is_named(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    assert str(directory / "model.safetensors") in refusal(directory)


def test_a_missing_shard_is_named(directory: Path) -> None:
    index = {"weight_map": {NORM: "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors" in refusal(directory)


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": 1}'])
def test_a_damaged_index_is_named(directory: Path, content: str) -> None:
    (directory / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal(directory)


@pytest.mark.parametrize("content", ["{", "[]", "null", '"qwen3"', ""])
def test_a_damaged_config_is_named(directory: Path, content: str) -> None:
    (directory / "config.json").write_text(content)
    assert "config.json" in refusal(directory)


def test_a_directory_without_config_is_no_model(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "config.json" in refusal(path)
        assert str(path) in refusal(path)


def test_another_architecture_is_refused(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "mixtral"}))
    message = refusal(directory)
    assert "'mixtral'" in message and "qwen3" in message


def test_a_config_of_another_size_does_not_fit(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    assert "(97, 32) in the file, (97, 64) by config.json" in refusal(directory)


def test_the_tokenizer_beside_the_weights_says_which_rows_are_tokens(
    directory: Path, tokenizer: Tokenizer, make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    assert load_model(directory).config.tokens == 97  # none beside it: all
    size = tokenizer.vocab_size
    save_model(make_model(vocab_size=size + 24), tmp_path / "padded")
    tokenizer.save(tmp_path / "padded")
    model = load_model(tmp_path / "padded")
    assert (model.config.tokens, model.config.vocab_size) == (size, size + 24)
    assert load_model(tmp_path / "padded", tokens=size + 3).config.tokens == size + 3
    save_model(model, tmp_path / "again")  # the rows stay what they were
    assert load_config(tmp_path / "again").vocab_size == size + 24
    (tmp_path / "padded" / "tokenizer.json").write_text("[]")  # not this one's to complain
    assert load_model(tmp_path / "padded").config.tokens == size + 24
