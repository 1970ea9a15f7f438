"""What can go wrong with a hub, in words: the same for both clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from miao.errors import MiaoError, first_line, install_hint
from miao.hubs.files import disk_full, is_disk_full, is_not_writable
from miao.hubs.names import HubName

# The HTTP libraries of the clients' past and present versions; their other errors come as statuses.
_NETWORK_MODULES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}


@dataclass(frozen=True)
class Site:
    """A hub as this process is set up to reach it."""

    title: str
    endpoint: str
    default_endpoint: str
    endpoint_variable: str
    mirror: str
    token_variable: str
    token_page: str
    has_token: bool
    cache: Path
    cache_variable: str

    @property
    def unreachable_fix(self) -> str:
        if self.endpoint.rstrip("/") != self.default_endpoint:
            return (
                f"the address comes from the environment variable {self.endpoint_variable}: check "
                "it, or unset it; a model that was downloaded before is found without a network"
            )
        return f"check the network (and proxy settings); {self.mirror}"

    def token_fix(self, right: str) -> str:
        return (
            f"make a token with {right} access at {self.token_page} and set {self.token_variable}"
        )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of a client came from, if it did."""
    for one in chain(error):
        status = getattr(one, "status_code", None) or getattr(
            getattr(one, "response", None), "status_code", None
        )
        if isinstance(status, int):
            return status
    return None


def kind_of(error: BaseException) -> str:
    """Which of `_words` an error of a client is about, by its HTTP status and its causes."""
    status = status_of(error)
    if status is not None and status >= 400:
        named = {401: "token", 403: "forbidden", 404: "missing", 429: "busy"}
        return named.get(status, "unreachable" if status >= 500 else "other")
    for one in chain(error):
        module = type(one).__module__.split(".")[0]
        if isinstance(one, ConnectionError | TimeoutError) or module in _NETWORK_MODULES:
            return "unreachable"
    return "other"


def explain(kind: str, error: BaseException, name: HubName, site: Site) -> MiaoError:
    """The user's words for an error of a client."""
    for one in chain(error):
        if is_disk_full(one):
            return disk_full(name, site.cache, site.cache_variable)
        if is_not_writable(one):
            return MiaoError(
                f"cannot write into the cache of downloads ({one.strerror})",  # type: ignore[attr-defined]
                where=site.cache,
                fix=f"choose another place with the environment variable {site.cache_variable}",
            )
    if kind in ("token", "forbidden") and not site.has_token:
        kind = "missing"
    what, fix = _words(kind, name, site)
    if kind in ("name", "other"):
        what += f": {type(error).__name__}: {_without_token(error)}"
    return MiaoError(what, where=str(name), fix=fix)


def _words(kind: str, name: HubName, site: Site) -> tuple[str, str]:
    table = {
        "missing": (
            f"there is no such repository on {site.title} ({site.endpoint}), or it is private",
            f"check the spelling; for a private one, {site.token_fix('read')}",
        ),
        "revision": (
            f"the repository has no branch, tag or commit '{name.revision}'",
            "leave out @revision for the newest version",
        ),
        "gated": (
            "access to this repository is granted on request only",
            f"accept its conditions at {site.endpoint}/{name.repository}, "
            f"then {site.token_fix('read')}",
        ),
        "no token": (
            f"{site.title} needs a token for this",
            site.token_fix("write"),
        ),
        "token": (
            f"{site.title} does not accept the token",
            f"it may have expired: make a new one at {site.token_page} and set "
            f"{site.token_variable}, or unset it for public models",
        ),
        "read only": (
            "this token may read but not write",
            site.token_fix("write"),
        ),
        "forbidden": (
            f"the token has no right to {name.repository}",
            f"use a repository of yours or of an organisation that you may write to, or "
            f"{site.token_fix('write')}",
        ),
        "busy": (f"{site.title} asks to wait: too many requests", "try again in a few minutes"),
        "offline": (
            "offline mode is on (HF_HUB_OFFLINE), and no complete copy of this model is here",
            "unset HF_HUB_OFFLINE and run again with a network",
        ),
        "offline push": (
            "offline mode is on (HF_HUB_OFFLINE)",
            "unset HF_HUB_OFFLINE and run again with a network",
        ),
        "unreachable": (
            f"{site.title} cannot be reached at {site.endpoint}",
            site.unreachable_fix,
        ),
        "lost": (
            f"{site.title} ({site.endpoint}) stopped answering",
            "run the same command again: what is finished is not transferred twice",
        ),
        "name": (f"{site.title} does not allow this name", "choose another one"),
        "other": (
            f"{site.title}'s client failed",
            "run again: what is finished is not transferred twice (MIAO_DEBUG=1 shows the details)",
        ),
    }
    return table[kind]


def _without_token(error: BaseException) -> str:
    return re.sub(r"\b(hf_|ms-)[A-Za-z0-9-]{6,}", r"\1***", first_line(error))[:300]


def no_library(extra: str) -> MiaoError:
    return MiaoError(
        "the hub's client library is not installed",
        fix=install_hint(extra),
    )
