"""ModelScope, through its client `modelscope_hub` (part of `modelscope` from 1.38 on).

The client reads MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN or the token of `modelscope login`, and
MODELSCOPE_CACHE. It resumes half-downloaded files and compares checksums.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

from miao.console import say, warn
from miao.errors import MiaoError
from miao.hubs.files import (
    MODEL_FILES,
    REPLACED,
    check_listing,
    check_space,
    is_model_file,
    remove_stale,
)
from miao.hubs.names import HubName
from miao.hubs.problems import Site, explain, kind_of, no_library
from miao.hubs.remote import README, Listing, RemoteFile, ranged

SECONDS_TO_REACH = 10


def download(name: HubName) -> Path:
    """Brings a model into the client's cache; returns its snapshot directory."""
    hub, site = _client(), _site()
    if not _reachable(site):
        return _cached(name)
    with _explained(name):
        # Without an endpoint of the user's, the client looks on both sites, .cn and .ai.
        endpoint = hub.HubApi().resolve_endpoint_for_read(name.repository)
        api = hub.HubApi(endpoint=endpoint)
        try:
            listing = api.list_repo_files(name.repository, "model", revision=name.revision)
        except hub.errors.NotExistError as error:
            if name.revision and api.repo_exists(name.repository, "model"):
                raise explain("revision", error, name, site) from error
            raise
        files = _sizes(listing)
        check_listing(name, files)
        wanted = {file: size for file, size in files.items() if is_model_file(file)}
        if (present := _local(name)) is not None:
            wanted = {file: n for file, n in wanted.items() if not (present / file).is_file()}
        if wanted:
            check_space(name, sum(wanted.values()), site.cache, site.cache_variable)
            size = f"{sum(wanted.values()) / 2**20:.1f} MiB"
            say(f"downloading {name} from {endpoint}: {len(wanted)} files, {size}")
        path = Path(
            api.download_repo(
                name.repository,
                "model",
                revision=name.revision,
                allow_patterns=list(MODEL_FILES),
            )
        )
        remove_stale(path, files)
        return path


def push(directory: Path, name: HubName, private: bool, message: str) -> str:
    """Uploads a model directory; returns the repository's page."""
    hub, site = _client(), _site()
    if not _reachable(site):
        raise explain("unreachable", ConnectionError(), name, site)
    api = hub.HubApi()
    if not site.has_token:
        raise explain("no token", PermissionError(), name, site)
    with _explained(name):
        user = api.whoami()
        _create(hub, api, name, private)
        say(f"uploading {directory} to {name} as {user.username}")
        # Blobs that the hub has are not sent again. The client's own record of what was uploaded
        # would lie in the model directory and outlive a repository that was deleted.
        api.upload_folder(
            name.repository,
            "model",
            directory,
            commit_message=message,
            allow_patterns=list(MODEL_FILES),
            use_cache=False,
        )
        _remove_replaced(api, directory, name, message)
    return f"{site.endpoint}/models/{name.repository}"


def _create(hub: Any, api: Any, name: HubName, private: bool) -> None:
    visibility = "private" if private else "public"
    if not api.repo_exists(name.repository, "model"):
        api.create_repo(name.repository, "model", visibility=visibility)
        return
    found = api.get_repo(name.repository, "model").visibility
    if private and found == hub.Visibility.PUBLIC:
        raise MiaoError(
            "the repository exists and is public",
            where=str(name),
            fix="make it private on its settings page, or push to another name",
        )


def _remove_replaced(api: Any, directory: Path, name: HubName, message: str) -> None:
    listing = [file.path for file in api.list_repo_files(name.repository, "model")]
    stale = [
        file
        for file in listing
        if any(fnmatchcase(file, pattern) for pattern in REPLACED)
        and not (directory / file).is_file()
    ]
    if stale:
        api.delete_files(name.repository, "model", stale, commit_message=message)


def _cached(name: HubName, repo_type: str = "model") -> Path:
    site = _site()
    path = _local(name, repo_type)
    if path is None:
        raise explain("unreachable", ConnectionError(), name, site)
    warn(f"{site.endpoint} cannot be reached: using the copy of {name} downloaded before")
    return path


def _local(name: HubName, repo_type: str = "model") -> Path | None:
    """The directory of an earlier download, whole or not."""
    hub = _client()
    try:
        path = hub.HubApi().download_repo(
            name.repository, repo_type, revision=name.revision or "master", local_files_only=True
        )
    except hub.errors.CacheError:
        return None
    return Path(path)


def dataset_listing(name: HubName) -> Listing:
    """The files of a data set; of the copy on this machine where the site cannot be reached."""
    if not _reachable(_site()):
        return Listing.of_directory(_cached(name, "dataset"))
    with _explained(name):
        api = _reading_api(name)
        listing = api.list_repo_files(name.repository, "dataset", revision=name.revision)
        return Listing(_sizes(listing), name.revision)


def _sizes(listing: Any) -> dict[str, int]:
    """The files of a client's listing and their bytes."""
    return {file.path: file.size or 0 for file in listing if file.type != "tree"}


def download_dataset(name: HubName, listing: Listing, files: list[str]) -> Path:
    """Brings files of a data set into the client's cache; returns the directory they lie in."""
    site = _site()
    size = sum(listing.files[file] for file in files)
    check_space(name, size, site.cache, site.cache_variable)
    with _explained(name):
        if files != [README]:
            say(
                f"{name}: {len(files)} files, {size / 2**20:.1f} MiB, those not here are downloaded"
            )
        return Path(
            _reading_api(name).download_repo(
                name.repository,
                "dataset",
                revision=name.revision,
                allow_patterns=[escape(file) for file in files],
            )
        )


def remote_file(name: HubName, listing: Listing, file: str) -> RemoteFile:
    """A file of a data set, to be read over the network."""
    import requests

    with _explained(name):
        client = _reading_api(name).legacy
        url = client.get_download_url(name.repository, "dataset", file, name.revision or "master")
    token = _token()

    def fetch(start: int, end: int) -> bytes:
        headers = {"Range": f"bytes={start}-{end - 1}"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        return ranged(lambda: requests.get(url, headers=headers, timeout=60), start, end)

    return RemoteFile(str(name), file, listing.files[file], fetch)


def _reading_api(name: HubName) -> Any:
    """A client of the site that has this repository: without an endpoint of the user's, the
    client looks on both, .cn and .ai."""
    hub = _client()
    return hub.HubApi(endpoint=hub.HubApi().resolve_endpoint_for_read(name.repository))


def _token() -> str | None:
    from modelscope_hub import get_default_config

    return get_default_config().token or None


def _reachable(site: Site) -> bool:
    """Whether the site answers; the client itself would try again for minutes."""
    import requests

    try:
        answer = requests.head(site.endpoint, timeout=SECONDS_TO_REACH, allow_redirects=False)
    except requests.RequestException:
        return False
    return bool(answer.status_code < 500)


@contextmanager
def _explained(name: HubName) -> Iterator[None]:
    """Turns whatever the client raises into a `MiaoError`."""
    try:
        yield
    except MiaoError:
        raise
    except Exception as error:
        failed = getattr(error, "failed_files", None) or {}
        cause = next(iter(failed.values()), error)
        kind = kind_of(cause)
        kind = "lost" if kind == "unreachable" else kind  # it was reached a moment ago
        raise explain(kind, cause, name, _site()) from error


def _client() -> Any:
    try:
        import modelscope_hub
        import modelscope_hub.errors
    except ImportError as error:
        raise no_library("modelscope") from error
    if "MODELSCOPE_LOG_LEVEL" not in os.environ:
        logging.getLogger("modelscope_hub").setLevel(logging.WARNING)
    return modelscope_hub


def _site() -> Site:
    from modelscope_hub import get_default_config
    from modelscope_hub.constants import DEFAULT_ENDPOINT

    config = get_default_config()
    return Site(
        title="ModelScope",
        endpoint=config.endpoint or DEFAULT_ENDPOINT,
        default_endpoint=DEFAULT_ENDPOINT,
        endpoint_variable="MODELSCOPE_ENDPOINT",
        mirror="outside China, MODELSCOPE_ENDPOINT=https://www.modelscope.ai may be nearer, "
        "or take the model from hf:owner/name",
        token_variable="MODELSCOPE_API_TOKEN",
        token_page="https://modelscope.cn/my/myaccesstoken",
        has_token=bool(config.token),
        cache=Path(config.cache_dir),
        cache_variable="MODELSCOPE_CACHE",
    )
