"""The page's colours: light, dark or as the device has it, and an accent of one's own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from miao.errors import MiaoError

LIGHT = {
    "paper": "#fafbf8", "card": "#ffffff", "ink": "#1c231e", "soft": "#56615a",
    "faint": "#636e67", "line": "#dfe5dd", "edge": "#868f88", "hair": "#edf0ea",
    "leaf": "#1f7a4f", "on-leaf": "#ffffff", "bad": "#b23a26", "mine": "#e6f0e8",
    "hot": "200 80 40", "seen": "31 122 79",
}  # fmt: skip
DARK = {
    "paper": "#131714", "card": "#191e1a", "ink": "#e5eae4", "soft": "#a9b4ab",
    "faint": "#8d988f", "line": "#2d352f", "edge": "#69736c", "hair": "#232a25",
    "leaf": "#6cc096", "on-leaf": "#10160f", "bad": "#e88a72", "mine": "#213027",
    "hot": "216 104 72", "seen": "76 160 118",
}  # fmt: skip
_WHEN_DARK = {"auto": "(prefers-color-scheme: dark)", "dark": "all", "light": "not all"}


def themed(css: str, theme: Sequence[str] = ()) -> str:
    """The style with its colours in.

    Args:
        theme: light, dark or auto, and an accent as rrggbb; either may be missing.

    Raises:
        MiaoError: another word.
    """
    when, accent = _WHEN_DARK["auto"], None
    for word in theme:
        if word in _WHEN_DARK:
            when = _WHEN_DARK[word]
        elif re.fullmatch(r"#?[0-9a-fA-F]{6}", word):
            accent = "#" + word.lower().lstrip("#")
        else:
            raise MiaoError(
                f"--theme {word} is no theme",
                fix="light, dark or auto, and for an accent six hexadecimal digits: b3541e",
            )
    parts = {"WHEN_DARK": when}
    for name, colours in (("LIGHT", LIGHT), ("DARK", DARK)):
        own = colours | (_accent(accent, colours) if accent else {})
        parts[name] = " ".join(f"--{key}: {value};" for key, value in own.items())
    return re.sub(r"\{\{([A-Z_]+)\}\}", lambda match: parts[match[1]], css)


def _accent(accent: str, colours: dict[str, str]) -> dict[str, str]:
    """The accent, moved towards the ink until it stands out from the paper, and what is readable
    on it."""
    paper, ink = _channels(colours["paper"]), _channels(colours["ink"])
    colour = _channels(accent)
    while contrast(colour, paper) < 3:
        colour = [0.9 * c + 0.1 * i for c, i in zip(colour, ink, strict=True)]
    text = max(("#ffffff", "#10160f"), key=lambda one: contrast(_channels(one), colour))
    return {"leaf": "#" + "".join(f"{round(c):02x}" for c in colour), "on-leaf": text}


def _channels(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def contrast(a: Sequence[float], b: Sequence[float]) -> float:
    """WCAG's contrast ratio of two colours in channels of 0 to 255."""
    dark, light = sorted((_luminance(a), _luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(channels: Sequence[float]) -> float:
    linear = [
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in channels
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
