"""What the model says while it is trained: continuations of texts, or answers in a chat."""

from __future__ import annotations

import time
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
SHARE = 0.01
"""Of the time of training that samples on the way may take."""
CAUTION = 4.0
"""Before any were written: how much more a sample's token may take than a trained one, which is
read together with many others."""


class SampleLog:
    """samples.jsonl: the lines of one stage, each with the tokens seen when it was written.

    Args:
        recipe: `sample_texts` are continued in pretraining, `sample_prompts` answered later.
        more: further records to write of a model, with `prompt` and `answer`.
    """

    share = SHARE

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

    def write(
        self, model: Decoder, tokens: int, trained: float | None = None
    ) -> list[dict[str, Any]]:
        """Writes greedy samples of the model, each with its share of the seconds that they took,
        and returns them. Those that were written before of this moment or later ones go.

        Args:
            trained: seconds of training so far, of which all samples take at most `share`: what
                cannot be paid is not written. None: whatever it costs, as at the end. `more` is
                written always: rollouts are what such a training consists of.
        """
        began, records = time.perf_counter(), []
        if trained is None or self._price(tokens, trained) <= self.share * trained:
            records = self._continued(model) if self.stage == "pretrain" else self._answered(model)
        seconds = round((time.perf_counter() - began) / max(1, len(records)), 4)
        records = [record | {"seconds": seconds} for record in records]
        records += self.more(model) if self.more else []
        if not records:
            return []
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

    def _price(self, tokens: int, trained: float) -> float:
        """Seconds that this stage's samples took so far, and what the next will take."""
        ours = (r for r in read_jsonl(self.path) if r["stage"] == self.stage)
        before = [(r["tokens"], r["seconds"]) for r in ours if "seconds" in r]
        if before:
            latest = sum(seconds for moment, seconds in before if moment == before[-1][0])
            return latest + sum(seconds for _, seconds in before)
        recipe = self.recipe
        asked = len(recipe.sample_texts if self.stage == "pretrain" else recipe.sample_prompts)
        return CAUTION * asked * LONGEST * trained / max(1, tokens)

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
