"""What made a run: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from miao import __version__

PACKAGES = ("torch", "numpy", "tokenizers", "safetensors")


def provenance() -> dict[str, Any]:
    """Versions, commit and machine, as manifest.json keeps them."""
    return {
        "miao": __version__,
        "commit": commit_of(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "packages": {package: installed_version(package) or "?" for package in PACKAGES},
    }


def commit_of(root: Path) -> str | None:
    """The commit of a checkout of Miao; None: `root` is none (an installed package may well lie
    inside somebody else's repository), or there is no git."""
    if not ((root / ".git").exists() and (root / "pyproject.toml").is_file()):
        return None
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError:
        return None
    return said.stdout.strip() or None


def processor_name() -> str:
    """As the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def installed_version(package: str) -> str | None:
    """None: it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
