"""What a model knows: bits per byte, multiple choice, questions, preferences."""

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
