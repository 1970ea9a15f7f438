"""Which files make a model directory: what is downloaded, what is uploaded, and nothing else."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from miao.errors import MiaoError
from miao.files import read_json
from miao.hubs.names import HubName

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
REPLACED = [
    "config.json",
    "generation_config.json",
    *(WEIGHTS, INDEX, SHARDS),
    *ADAPTER,
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
]
"""Glob patterns from the repository's root. A push removes those that the new model lacks."""
MODEL_FILES = [
    *REPLACED,
    "configuration.json",  # ModelScope's own
    *("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md"),
]
"""What is downloaded and uploaded. Never a pickle: `*.bin`, `*.pt` and their kin are not here."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def is_model_file(path: str) -> bool:
    """Whether a path in a repository is a file of a model."""
    return "/" not in path and any(fnmatchcase(path, pattern) for pattern in MODEL_FILES)


def check_listing(name: HubName, paths: Iterable[str]) -> None:
    """Checks before a download that a repository holds a model that Miao can read.

    Raises:
        MiaoError: pickled weights only, or no weights or configuration at all.
    """
    paths = set(paths)
    weights = paths & {WEIGHTS, INDEX} and "config.json" in paths
    if weights or paths.issuperset(ADAPTER):
        return
    pickles = sorted(path for path in paths if path.endswith(PICKLES))
    if pickles and not paths & {WEIGHTS, INDEX}:
        raise MiaoError(
            f"its weights are pickles ({', '.join(pickles[:3])}); Miao reads safetensors only, "
            "because opening a pickle can run any program",
            where=str(name),
            fix="choose a repository or a @revision that has model.safetensors",
        )
    lacking = "config.json" if paths & {WEIGHTS, INDEX} else WEIGHTS
    raise MiaoError(
        f"this repository is not a model that Miao can read: it has no {lacking}",
        where=str(name),
        fix="choose one in Hugging Face's layout (config.json, model.safetensors, tokenizer.json)",
    )


def check_model_directory(directory: Path) -> None:
    """Checks that a directory holds a whole model: configuration and every weights file.

    Raises:
        MiaoError: what is missing.
    """
    if all((directory / file).is_file() for file in ADAPTER):
        return
    if not (directory / "config.json").is_file():
        raise MiaoError(
            "not a model directory: it has no config.json",
            where=directory,
            fix="give a finished run (runs/NAME), or a directory that holds config.json and "
            "model.safetensors",
        )
    for file in weights_files(directory):
        if not (directory / file).is_file():
            raise MiaoError(
                f"the weights file {file} is missing",
                where=directory,
                fix="download it again, restore it from a copy, or train again",
            )


def remove_stale(directory: Path, paths: Iterable[str]) -> None:
    """Removes model files from a client's cache that are no longer in the repository.

    ModelScope's cache keeps one directory per branch; an index left there by an earlier version
    would send the reader to old shards.
    """
    paths = set(paths)
    for file in directory.iterdir():
        if file.is_file() and is_model_file(file.name) and file.name not in paths:
            file.unlink()


def check_space(name: HubName, needed: int, cache: Path, setting: str) -> None:
    """Raises a `MiaoError` when `needed` bytes do not fit beside `cache`, which `setting` moves."""
    place = next(parent for parent in (cache, *cache.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise disk_full(name, cache, setting, f"{needed / 2**20:.0f} MiB are needed, ")


def disk_full(name: HubName, cache: Path, setting: str, needed: str = "") -> MiaoError:
    place = next(parent for parent in (cache, *cache.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    return MiaoError(
        f"the disk is too full for {name}: {needed}{free / 2**20:.0f} MiB are free in {cache}",
        fix=f"free some space, or choose another place with the environment variable {setting}",
    )


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_not_writable(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (
        *(errno.EACCES, errno.EROFS, errno.EPERM),
        *(errno.ENOTDIR, errno.EEXIST),  # a file stands where a directory should be
    )


def weights_files(directory: Path) -> list[str]:
    """The names of the files of weights in a model directory, whether they are there or not.

    Raises:
        MiaoError: an index that names none.
    """
    index = directory / INDEX
    if not index.is_file():
        return [WEIGHTS]
    try:
        return sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise MiaoError("the file is damaged: it has no weight_map", where=index) from error
