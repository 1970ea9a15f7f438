"""What a model knows: bits per byte, multiple choice, questions, preferences, benchmarks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miao.evaluate.likelihood import bits_per_byte, choose_by_perplexity, prefer
    from miao.evaluate.questions import answer_questions, chat_answers
    from miao.evaluate.scores import Score, score_rows

__all__ = [
    "Score",
    "answer_questions",
    "bits_per_byte",
    "chat_answers",
    "choose_by_perplexity",
    "prefer",
    "score_rows",
]

_MODULES = {
    "Score": "scores",
    "score_rows": "scores",
    "answer_questions": "questions",
    "chat_answers": "questions",
    "bits_per_byte": "likelihood",
    "choose_by_perplexity": "likelihood",
    "prefer": "likelihood",
}


def __getattr__(name: str) -> Any:
    """Loads a part when it is first asked for: `miao eval --help` needs none."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
