"""Names of repositories on a hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from miao.errors import MiaoError, nearest

PREFIXES = {
    "hf": "hf",
    "huggingface": "hf",
    "modelscope": "modelscope",
    "ms": "modelscope",
}
_SITES = {
    "hf": r"https?://(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/",
    "modelscope": r"https?://(?:www\.)?modelscope\.(?:cn|ai)/models/",
}
# Two characters at least: `C:\models` and `C:/models` are paths.
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_.-]+):(.*)", re.DOTALL)
_PART = r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.-]*"
_REPOSITORY = re.compile(rf"({_PART})/({_PART})(?:@([^\s@]+))?")
_FORM = "write hf:owner/name or modelscope:owner/name, with @revision after it for another version"


@dataclass(frozen=True)
class HubName:
    """A repository on a hub (`hf` or `modelscope`).

    `revision` is a branch, tag or commit; None: the newest.
    """

    hub: str
    owner: str
    name: str
    revision: str | None = None

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.hub}:{self.repository}{revision}"


def is_hub_name(text: str) -> bool:
    """Whether a text that names a model means one on a hub rather than a local path.

    True also for a misspelt or malformed name, on which `parse_hub_name` has more to say than
    "no such directory"; false for whatever exists here and for Windows paths.
    """
    match = _PREFIX.fullmatch(text)
    return match is not None and (match[1].lower() in PREFIXES or not Path(text).exists())


def parse_hub_name(text: str) -> HubName:
    """Reads `hf:owner/name[@revision]` or `modelscope:owner/name[@revision]`.

    Raises:
        MiaoError: unknown prefix, or not an owner and a name.
    """
    match = _PREFIX.fullmatch(text)
    if match is None:
        raise MiaoError("not the name of a model on a hub", where=text, fix=_FORM)
    prefix, rest = match[1].lower(), match[2]
    if prefix not in PREFIXES:
        raise MiaoError(f"unknown hub '{match[1]}'", where=text, fix=_better(text, prefix, rest))
    repository = _REPOSITORY.fullmatch(rest)
    if repository is None:
        raise MiaoError(
            f"'{rest}' is not owner/name[@revision] (letters, digits, '-', '_' and '.')",
            where=text,
            fix=_FORM,
        )
    return HubName(PREFIXES[prefix], *repository.groups())


def _better(text: str, prefix: str, rest: str) -> str:
    for hub, site in _SITES.items():
        if page := re.match(rf"{site}({_PART}/{_PART})", text):
            return f"did you mean '{hub}:{page[1]}'?"
    known = nearest(prefix, PREFIXES)
    return _FORM if known is None else f"did you mean '{PREFIXES[known]}:{rest}'?"
