"""What a model knows: bits per byte, multiple choice, questions, preferences, benchmarks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miao.evaluate.measure.likelihood import bits_per_byte, choose_by_perplexity, prefer
    from miao.evaluate.measure.questions import answer_questions, chat_answers
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
    "answer_questions": "measure.questions",
    "chat_answers": "measure.questions",
    "bits_per_byte": "measure.likelihood",
    "choose_by_perplexity": "measure.likelihood",
    "prefer": "measure.likelihood",
}


def __getattr__(name: str) -> Any:
    """Loads a part when it is first asked for: `miao eval --help` needs none."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
