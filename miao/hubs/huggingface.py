"""Hugging Face and its mirrors, through `huggingface_hub`.

The client reads HF_ENDPOINT (a mirror), HF_TOKEN or the token of `hf auth login`, HF_HOME,
HF_HUB_CACHE and HF_HUB_OFFLINE. It retries and resumes a cut transfer, and keeps finished files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from miao.console import say, warn
from miao.errors import MiaoError
from miao.hubs.files import MODEL_FILES, REPLACED, check_listing, check_space, is_model_file
from miao.hubs.names import HubName
from miao.hubs.problems import Site, explain, kind_of, no_library
from miao.hubs.remote import README, Listing, RemoteFile, ranged

TRIES = 3


def download(name: HubName) -> Path:
    """Brings a model into the client's cache; returns its snapshot directory."""
    listing = _listing(name, "model", list(MODEL_FILES))
    if listing.directory is not None:
        return listing.directory
    check_listing(name, listing.files)
    _announce(name, "model", listing, [file for file in listing.files if is_model_file(file)])
    with _explained(name, unreachable="lost"):
        return _again(lambda: _snapshot(name, "model", list(MODEL_FILES)))


def _again(transfer: Callable[[], Path]) -> Path:
    for attempt in range(TRIES):
        try:
            return transfer()
        except Exception as error:
            # The client tries again by itself, but not after every kind of cut in every version.
            if _kind(error) != "unreachable" or attempt + 1 == TRIES:
                raise
            warn("the connection was lost: trying again")
    raise AssertionError("unreachable")


def push(directory: Path, name: HubName, private: bool, message: str) -> str:
    """Uploads a model directory; returns the repository's page."""
    api, site = _client().HfApi(), _site()
    with _explained(name, offline="offline push"):
        user = api.whoami()
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise explain("read only", PermissionError(), name, site)
    with _explained(name, offline="offline push", unreachable="lost"):
        url = str(api.create_repo(name.repository, private=private, exist_ok=True))
        if private and not api.model_info(name.repository).private:
            raise MiaoError(
                "the repository exists and is public",
                where=str(name),
                fix="make it private on its settings page, or push to another name",
            )
        say(f"uploading {directory} to {name} as {user.get('name')}")
        api.upload_folder(
            repo_id=name.repository,
            folder_path=directory,
            allow_patterns=list(MODEL_FILES),
            delete_patterns=list(REPLACED),
            commit_message=message,
        )
    return url


def dataset_listing(name: HubName) -> Listing:
    """The files of a data set; of the copy on this machine where the site cannot be reached."""
    return _listing(name, "dataset", None)


def download_dataset(name: HubName, listing: Listing, files: list[str]) -> Path:
    """Brings files of a data set into the client's cache; returns the directory they lie in."""
    if files != [README]:
        _announce(name, "dataset", listing, files)
    patterns = [escape(file) for file in files]
    with _explained(name, unreachable="lost"):
        return _again(lambda: _snapshot(name, "dataset", patterns))


def _listing(name: HubName, repo_type: str, patterns: list[str] | None) -> Listing:
    """The files of a repository; a copy downloaded before (of what matches the patterns) where the
    site cannot be reached."""
    site = _site()
    try:
        info = (
            _client()
            .HfApi()
            .repo_info(
                name.repository, repo_type=repo_type, revision=name.revision, files_metadata=True
            )
        )
    except Exception as error:
        kind = _kind(error)
        if kind not in ("unreachable", "offline"):
            raise explain(kind, error, name, site) from error
        try:
            directory = _snapshot(name, repo_type, patterns, local_files_only=True)
        except Exception as missing:
            raise explain(kind, error, name, site) from missing
        why = "offline mode" if kind == "offline" else f"{site.endpoint} cannot be reached"
        warn(f"{why}: using the copy of {name} that was downloaded before")
        return Listing.of_directory(directory)
    return Listing({file.rfilename: file.size or 0 for file in info.siblings or []}, info.sha)


def _announce(name: HubName, repo_type: str, listing: Listing, files: list[str]) -> None:
    """Says how much of these files is not here yet, and makes sure that there is room for it."""
    hub, site = _client(), _site()
    absent = [
        listing.files[file]
        for file in files
        if not isinstance(
            hub.try_to_load_from_cache(
                name.repository, file, revision=listing.revision, repo_type=repo_type
            ),
            str,
        )
    ]
    if absent:
        check_space(name, sum(absent), site.cache, site.cache_variable)
        size = f"{sum(absent) / 2**20:.1f} MiB"
        say(f"downloading {name} from {site.endpoint}: {len(absent)} files, {size}")


def _snapshot(
    name: HubName, repo_type: str, patterns: list[str] | None, local_files_only: bool = False
) -> Path:
    return Path(
        _client().snapshot_download(
            name.repository,
            repo_type=repo_type,
            revision=name.revision,
            allow_patterns=patterns,
            local_files_only=local_files_only,
        )
    )


def remote_file(name: HubName, listing: Listing, file: str) -> RemoteFile:
    """A file of a data set, to be read over the network."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session

    _client()
    url = hf_hub_url(name.repository, file, repo_type="dataset", revision=listing.revision)

    def fetch(start: int, end: int) -> bytes:
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}"}
        return ranged(lambda: get_session().get(url, headers=headers), start, end)

    return RemoteFile(str(name), file, listing.files[file], fetch)


@contextmanager
def _explained(name: HubName, **kinds: str) -> Iterator[None]:
    """Turns whatever the client raises into a `MiaoError`; `kinds` stand for others here."""
    try:
        yield
    except MiaoError:
        raise
    except Exception as error:
        kind = _kind(error)
        raise explain(kinds.get(kind, kind), error, name, _site()) from error


def _kind(error: Exception) -> str:
    from huggingface_hub import errors

    kinds = {
        errors.LocalTokenNotFoundError: "no token",
        errors.OfflineModeIsEnabled: "offline",
        errors.RevisionNotFoundError: "revision",
        errors.GatedRepoError: "gated",
        errors.RepositoryNotFoundError: "missing",
        errors.HFValidationError: "name",
    }
    return next((kind for type_, kind in kinds.items() if isinstance(error, type_)), kind_of(error))


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise no_library("hf") from error
    return huggingface_hub


def _site() -> Site:
    from huggingface_hub import constants, get_token

    try:
        has_token = bool(get_token())
    except OSError:  # the file of `hf auth login` cannot be read; the call that needs it says so
        has_token = False
    return Site(
        title="Hugging Face",
        endpoint=constants.ENDPOINT,
        default_endpoint="https://huggingface.co",
        endpoint_variable="HF_ENDPOINT",
        mirror="where the site is blocked, name a mirror, as HF_ENDPOINT=https://hf-mirror.com, "
        "or take the model from modelscope:owner/name",
        token_variable="HF_TOKEN",
        token_page="https://huggingface.co/settings/tokens",
        has_token=has_token,
        cache=Path(constants.HF_HUB_CACHE),
        cache_variable="HF_HOME",
    )
