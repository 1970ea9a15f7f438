"""What is not as it was when a stage was done."""

from __future__ import annotations

from typing import Any

SHOWN = 3
LONGEST = 40
"""Characters of a value."""


def changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """`pretrain.learning_rate 0.003 -> 50, the corpus`: in a few words, in the new order.

    Args:
        old, new: a stage's inputs. Under the name of an earlier stage stands what it made: there
            only that it is another can be said.
    """
    found = _differences("", old, new)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def _differences(place: str, old: Any, new: Any) -> list[str]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        places = {key: f"{place}.{key}" if place else str(key) for key in (new | old)}
        lines = [_differences(at, old.get(key), new.get(key)) for key, at in places.items()]
        return [line for part in lines for line in part]
    if place.startswith(FILES):
        return [f"{place.removeprefix(FILES)} ({'changed' if old and new else _news(old)})"]
    if "." not in place and isinstance(new, str):
        return [f"the {place}"]
    return [f"{place} {_shown(old)} -> {_shown(new)}"]


FILES = "files."
"""Below it stand files by their paths."""


def _news(old: Any) -> str:
    return "new" if old is None else "gone"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
