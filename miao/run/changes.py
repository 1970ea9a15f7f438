"""What is not as it was when a stage was done."""

from __future__ import annotations

from typing import Any

from miao.corpus.build.pipeline import missing_inputs, needed_kinds
from miao.errors import MiaoError
from miao.files import read_json
from miao.recipe import Recipe, to_dict
from miao.rundir import RunDir

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


def made_with(run: RunDir) -> dict[str, Any]:
    """The options (with `seed`) that the corpus of a run was made with; empty: there is none."""
    manifest = run.corpus / "manifest.json"
    done = "corpus" in run.facts() and manifest.exists()
    return dict(read_json(manifest).get("options", {})) if done else {}


def gone_text(recipe: Recipe) -> list[str]:
    """The user's paths that are not there any more, where the corpus was made from them before:
    what was made is used as it is.

    Raises:
        MiaoError: what was made is not what the options say now.
    """
    before = made_with(RunDir(recipe.run_dir))
    if not before or not (gone := missing_inputs(recipe.corpus, needed_kinds(recipe))):
        return []
    now = to_dict(recipe.corpus) | {"seed": recipe.seed}
    if changed := changes(_corpus_and_seed(before), _corpus_and_seed(now)):
        raise MiaoError(
            f"the corpus would have to be made anew (changed: {changed}), "
            "and the text that it was made from is gone",
            where=", ".join(gone),
            fix="bring the text back, or take back the change",
        )
    return gone


def _corpus_and_seed(options: dict[str, Any]) -> dict[str, Any]:
    corpus = {k: v for k, v in options.items() if k not in ("seed", *CHANGE_NO_TEXT)}
    return {"corpus": corpus, "seed": options["seed"]}


CHANGE_NO_TEXT = ("weights", "workers", "local")
"""Options of the corpus that it does not depend on; `local` does by the files found there."""

FILES = "files."
"""Below it stand files by their paths."""


def _news(old: Any) -> str:
    return "new" if old is None else "gone"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
