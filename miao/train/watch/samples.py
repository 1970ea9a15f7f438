"""What the model says while it is trained: continuations of texts, or answers in a chat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from miao.engine import Engine, SamplingOptions
from miao.evaluate.measure.quality import chat_answers
from miao.files import append_jsonl, read_jsonl, write_jsonl
from miao.model import Decoder
from miao.recipe import Recipe
from miao.tokenizer import Tokenizer

LONGEST = 96
"""Tokens of a sample at most."""


class SampleLog:
    """samples.jsonl: the lines of one stage, each with the tokens seen when it was written.

    Args:
        recipe: `sample_texts` are continued in pretraining, `sample_prompts` answered later.
        more: further records to write of a model, with `prompt` and `answer`.
    """

    def __init__(
        self,
        path: Path,
        stage: str,
        recipe: Recipe,
        tokenizer: Tokenizer,
        more: Callable[[Decoder], list[dict[str, Any]]] | None = None,
    ):
        self.path, self.stage, self.recipe = path, stage, recipe
        self.tokenizer, self.more = tokenizer, more

    def write(self, model: Decoder, tokens: int) -> list[dict[str, Any]]:
        """Writes greedy samples of the model, and returns them. Those that were written before of
        this moment or later ones go."""
        records = self._continued(model) if self.stage == "pretrain" else self._answered(model)
        records += self.more(model) if self.more else []
        records = [{"stage": self.stage, "tokens": tokens, **record} for record in records]
        self.forget_after(tokens - 1)
        for record in records:
            append_jsonl(self.path, record)
        return records

    def forget_after(self, tokens: int) -> None:
        """Drops this stage's lines behind `tokens`: training comes there again."""
        lines = read_jsonl(self.path)
        kept = [r for r in lines if r["stage"] != self.stage or r["tokens"] <= tokens]
        if len(kept) < len(lines):
            write_jsonl(self.path, kept)

    def _continued(self, model: Decoder) -> list[dict[str, Any]]:
        tokenizer, texts = self.tokenizer, self.recipe.sample_texts
        encoded = [[*tokenizer.document_start, *tokenizer.encode(text)] for text in texts]
        engine = Engine(model, frozenset(tokenizer.stop_ids))
        greedy = SamplingOptions(temperature=0.0, max_new_tokens=_room(model))
        said = [tokenizer.decode(ids) for ids in engine.generate(encoded, greedy)]
        return _records(texts, said)

    def _answered(self, model: Decoder) -> list[dict[str, Any]]:
        prompts = self.recipe.sample_prompts
        return _records(prompts, chat_answers(model, self.tokenizer, prompts, _room(model)))


def _room(model: Decoder) -> int:
    return min(LONGEST, model.config.context_length // 2)


def _records(prompts: list[str], said: list[str]) -> list[dict[str, Any]]:
    return [{"prompt": p, "answer": text} for p, text in zip(prompts, said, strict=True)]
