"""Models by name: `hf:owner/name[@revision]` and `modelscope:owner/name[@revision]`.

Reading and publishing go through the hubs' own clients, which are optional
(the extras `hf` and `modelscope`) and imported when first needed.
They bring mirrors, tokens, caches, retries and parallel transfers; this room adds which files make
a model, and words for what can go wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miao.console import say
from miao.errors import MiaoError
from miao.hubs.files import check_model_directory
from miao.hubs.names import HubName, is_hub_name, parse_hub_name


def client_of(name: HubName) -> Any:
    """The module that speaks to this hub; it imports the hub's own library when called."""
    if name.hub == "hf":
        from miao.hubs import huggingface

        return huggingface
    from miao.hubs import modelscope

    return modelscope


def local_directory(text: str | Path) -> Path:
    """A directory as it is; a name on a hub downloaded first."""
    if isinstance(text, str) and is_hub_name(text):  # before Path, which changes it on Windows
        return download_model(text)
    return Path(text)


def download_model(name: HubName | str) -> Path:
    """Brings a model's files into the client's cache and returns the directory they lie in.

    What is there already is not downloaded again. Without a network the copy that was downloaded
    before is used, and that is said.

    Raises:
        MiaoError: malformed name, no such repository or revision, private or gated, no safetensors
            weights, no network and no copy, full disk, no client library.
    """
    name = parse_hub_name(name) if isinstance(name, str) else name
    directory: Path = client_of(name).download(name)
    check_model_directory(directory)
    return directory


def push_directory(
    directory: str | Path,
    name: HubName | str,
    *,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Uploads a model directory, creates the repository where there is none, and returns its URL.

    Only the files that make a model go up (`miao.hubs.files`); model files of an earlier push that
    this directory does not have are removed from the repository, so that no stale shard is ever
    read with the new weights. Directory, name, network and token are checked before that.

    Args:
        private: create the repository as a private one.
        message: the commit message.

    Raises:
        MiaoError: not a complete model directory, malformed name, no token or one that may not
            write there, no network, no client library.
    """
    name = parse_hub_name(name) if isinstance(name, str) else name
    if name.revision:
        raise MiaoError(
            "a push goes to the repository's main branch",
            where=str(name),
            fix=f"leave out @{name.revision}",
        )
    directory = Path(directory)
    check_model_directory(directory)
    url: str = client_of(name).push(directory, name, private, message or "Model trained with Miao")
    say(f"published: {url}")
    return url
