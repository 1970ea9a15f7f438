"""Data sets by name: `hf:owner/name[@revision][?subset=..&split=..&files=..&columns=..&limit=..]`.

Which files of a repository are meant is told from the `configs` of its README (Hugging Face's
own rule), or from the files' names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl

import yaml

from miao.errors import MiaoError, did_you_mean
from miao.hubs import client_of
from miao.hubs.names import HubName, parse_hub_name
from miao.hubs.remote import Listing, RemoteFile

OPTIONS = {
    "subset": "a configuration of the data set: subset=zh",
    "split": "train (the default), test, ...: split=train",
    "files": "the files of the repository, as glob patterns: files=data/zh/*.parquet",
    "columns": "the columns to take, others dropped, renamed after a colon: columns=body:text,id",
    "limit": "only the first records: limit=10000",
    "stream": "read over the network, keep only the records: stream=true",
}
NOT_DATA = re.compile(
    r"(?:^|/)(?:\.[^/]*|README[^/]*|LICEN[CS]E[^/]*|dataset_infos?\.json|dataset_dict\.json|"
    r"state\.json|configuration\.json|config\.json|meta(?:data)?\.json|[^/]*\.md)(?:/|$)",
    re.IGNORECASE,
)
SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")


@dataclass(frozen=True)
class DatasetName:
    """A data set on a hub, or the part of it that is asked for."""

    hub_name: HubName
    subset: str | None = None
    split: str | None = None
    files: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    """Names of the columns there -> here; empty: all."""
    limit: int | None = None
    stream: bool = False

    def __str__(self) -> str:
        return str(self.hub_name)


def parse_dataset_name(text: str) -> DatasetName:
    """Reads a name and what follows its question mark.

    Raises:
        MiaoError: malformed name, unknown or malformed option.
    """
    name, _, query = text.partition("?")
    hub_name = parse_hub_name(name)
    values: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in OPTIONS:
            hint = did_you_mean(key, OPTIONS)
            known = "; ".join(OPTIONS.values())
            raise MiaoError(f"unknown option '{key}'", where=text, fix=hint or f"known are {known}")
        if not value.strip():
            raise MiaoError(f"'{key}' has no value", where=text, fix=OPTIONS[key])
        values[key] = value.strip()
    if "files" in values:
        values["files"] = tuple(values["files"].split(","))
    if "columns" in values:
        pairs = [column.partition(":") for column in values["columns"].split(",")]
        values["columns"] = {there: here or there for there, _, here in pairs}
    if "limit" in values:
        if not re.fullmatch(r"[1-9]\d{0,11}", values["limit"]):
            raise MiaoError("'limit' is no positive number", where=text, fix=OPTIONS["limit"])
        values["limit"] = int(values["limit"])
    if "stream" in values:
        if values["stream"] not in ("true", "false"):
            raise MiaoError("'stream' is true or false", where=text, fix=OPTIONS["stream"])
        values["stream"] = values["stream"] == "true"
    return DatasetName(hub_name, **values)


def list_dataset(name: DatasetName) -> Listing:
    """The files of a data set's repository.

    Raises:
        MiaoError: no such repository or revision, private, no network and no copy, no library.
    """
    listing: Listing = client_of(name.hub_name).dataset_listing(name.hub_name)
    return listing


def download_dataset(name: DatasetName, listing: Listing, files: list[str]) -> list[Path]:
    """Brings these files into the client's cache, resuming what was begun; returns their paths."""
    directory = listing.directory
    if directory is None:
        directory = client_of(name.hub_name).download_dataset(name.hub_name, listing, files)
    paths = [directory / file for file in files]
    for path in paths:
        if not path.is_file():
            raise MiaoError("this file is not here", where=path, fix="run again with a network")
    return paths


def open_dataset(name: DatasetName, listing: Listing, file: str) -> RemoteFile | Path:
    """A file of the data set, to be read over the network."""
    if listing.directory is not None:
        return listing.directory / file
    remote: RemoteFile = client_of(name.hub_name).remote_file(name.hub_name, listing, file)
    return remote


def choose_files(
    name: DatasetName, listing: Listing, readable: Callable[[str], bool], readme: str | None
) -> list[str]:
    """The files that a name means, sorted.

    Args:
        readable: whether a file's format is known, by its path.
        readme: the text of the repository's README.md, whose `configs` name files.

    Raises:
        MiaoError: none, or several subsets or splits between which the user must choose.
    """
    data = sorted(file for file in listing.files if readable(file))
    if name.files:
        chosen = [
            file for file in data if any(fnmatchcase(file, pattern) for pattern in name.files)
        ]
        return _some(chosen, name, data, f"no file matches {', '.join(name.files)}")
    data = [file for file in data if not NOT_DATA.search(file)]
    configs = _configs(readme)
    if configs:
        return _by_config(name, configs, data)
    if name.subset:
        wanted = name.subset
        data = _some(
            [file for file in data if _names_subset(file, wanted)],
            name,
            data,
            f"no subset '{wanted}'",
        )
    split = name.split or "train"
    chosen = [file for file in data if _names_split(file, split)]
    if name.split:
        return _some(chosen, name, data, f"no split '{name.split}'")
    others = [file for file in data if not any(_names_split(file, s) for s in SPLITS[1:])]
    return _some(chosen or others or data, name, data, "no data that can be read")


def _names_subset(file: str, subset: str) -> bool:
    path = PurePosixPath(file)
    stem = path.name.split(".")[0]
    return subset in path.parts or stem == subset or re.split(r"[-_]", stem)[-1] == subset


def _names_split(file: str, split: str) -> bool:
    return re.search(rf"(?:^|[-_./]){re.escape(split)}(?:[-_./0-9]|$)", file) is not None


def _some(chosen: list[str], name: DatasetName, data: list[str], what: str) -> list[str]:
    if chosen:
        return chosen
    shown = ", ".join(data[:12]) + (f" and {len(data) - 12} more" if len(data) > 12 else "")
    raise MiaoError(
        what, where=str(name), fix=f"choose with ?subset=, ?split= or ?files= from: {shown or '-'}"
    )


def _configs(readme: str | None) -> dict[str, dict[str, list[str]]]:
    """Subset -> split -> patterns of files, from the head of a README."""
    head = re.match(r"\s*---\r?\n(.*?)\r?\n---", readme or "", re.DOTALL)
    try:
        listed = yaml.safe_load(head[1]).get("configs") if head else None
    except (yaml.YAMLError, AttributeError, ValueError, RecursionError):
        return {}
    configs: dict[str, dict[str, list[str]]] = {}
    for config in listed if isinstance(listed, list) else []:
        if not isinstance(config, dict) or "data_files" not in config:
            continue
        entries = config["data_files"]
        if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
            entries = [{"split": "train", "path": entries}]
        splits: dict[str, list[str]] = {}
        for entry in entries:
            paths = entry.get("path")
            paths = [paths] if isinstance(paths, str) else paths
            if isinstance(paths, list) and all(isinstance(path, str) for path in paths):
                splits.setdefault(str(entry.get("split", "train")), []).extend(paths)
        if splits:
            configs[str(config.get("config_name", "default"))] = splits
    return configs


def _by_config(
    name: DatasetName, configs: dict[str, dict[str, list[str]]], data: list[str]
) -> list[str]:
    splits = configs[_pick("subset", name.subset, "default", configs, name)]
    split = _pick("split", name.split, "train", splits, name)
    chosen = [file for file in data if any(_matches(file, pattern) for pattern in splits[split])]
    return _some(chosen, name, data, f"no file of the split '{split}' that can be read")


def _pick(
    what: str, asked: str | None, usual: str, known: Mapping[str, object], name: DatasetName
) -> str:
    """What was asked for, else the usual one, else the only one there is."""
    picked = asked or (usual if usual in known else None)
    if picked is None and len(known) == 1:
        picked = next(iter(known))
    if picked is None or picked not in known:
        raise MiaoError(
            f"no {what} '{picked}'" if picked else f"{len(known)} {what}s to choose from",
            where=str(name),
            fix=f"choose with ?{what}= one of: {', '.join(known)}",
        )
    return picked


def _matches(file: str, pattern: str) -> bool:
    pattern = pattern.removeprefix("./").replace("**/", "*")
    return fnmatchcase(file, pattern) or fnmatchcase(file, f"{pattern.rstrip('/')}/*")
