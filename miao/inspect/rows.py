"""A row that a stage trains on, or is measured on: which documents stand in it, what is learned."""

from __future__ import annotations

from typing import Any, Literal

import torch

from miao.errors import MiaoError
from miao.inspect.inspection import Json, token_json
from miao.model import Decoder
from miao.ops.linear_cross_entropy import IGNORE
from miao.recipe import Recipe
from miao.rundir import RunDir
from miao.shards import Batch, PackedLoader
from miao.tokenizer import Tokenizer
from miao.train.feed.sources import make_loader, open_sources

MOST_ROWS = 10_000
"""The rows before the one that is asked for are packed too."""
Split = Literal["train", "heldout"]


def packed_row(
    run: RunDir,
    recipe: Recipe,
    stage: str,
    number: int = 0,
    split: Split = "train",
    tokenizer: Tokenizer | None = None,
    model: Decoder | None = None,
) -> Json:
    """The row of a stage by its number in the order of training (of held-out text: in one pass).

    Args:
        tokenizer: default: the run's own.
        model: that also says how likely every learned token is to it.

    Returns:
        stage, split, row; slots: one for each place of the row, {id, text, bytes, document
        (number within the row from 1; 0: padding), position (in its document, from 0), learned,
        next: the token that is to be predicted there or null, logprob: of that token, where it is
        learned and there is a model, else null}; documents: {source, sequence} of each.

    Raises:
        MiaoError: no such row; no shards.
    """
    if not 0 <= number < MOST_ROWS:
        raise MiaoError(f"rows are numbered from 0 to {MOST_ROWS - 1:,}", where="row")
    batch = _row(run, recipe, stage, number, split)
    tokenizer = tokenizer or Tokenizer.from_directory(run.tokenizer)
    logprobs: list[float | None] = [None] * batch.ids_bt.shape[1]
    if model is not None:
        logprobs = _logprobs(model, batch)
    columns = zip(
        batch.ids_bt[0].tolist(),
        batch.segments_bt[0].tolist(),
        batch.positions_bt[0].tolist(),
        batch.labels_bt[0].tolist(),
        logprobs,
        strict=True,
    )
    slots = [
        token_json(tokenizer, id)
        | {
            "document": segment,
            "position": position,
            "learned": label != IGNORE,
            "next": None if label == IGNORE else token_json(tokenizer, label),
            "logprob": logprob,
        }
        for id, segment, position, label, logprob in columns
    ]
    documents = [{"source": name, "sequence": index} for name, index in batch.sequences[0]]
    return {"stage": stage, "split": split, "row": number, "slots": slots, "documents": documents}


def _row(run: RunDir, recipe: Recipe, stage: str, number: int, split: Split) -> Batch:
    if not (directory := run.shards(stage, split)).is_dir():
        raise MiaoError(
            f"the run has no shards of {stage}, {split}",
            where=directory,
            fix="name pretrain, sft or dpo, and a run whose shards are there",
        )
    if split == "train":
        loader = make_loader(stage, recipe, run)
        steps, place = divmod(number, loader.rows_per_step)
        for _ in range(steps):
            loader.next_rows(loader.rows_per_step)
        return loader.batch(loader.next_rows(loader.rows_per_step)[place : place + 1])
    options: Any = getattr(recipe, stage)
    loader = PackedLoader(open_sources(directory, options.seq_len, recipe.seed), options.seq_len)
    for passed, batch in enumerate(loader.one_pass(1)):
        if passed == number:
            return batch
    raise MiaoError(f"the held-out text fills {passed + 1} rows only, from 0", where="row")


@torch.inference_mode()
def _logprobs(model: Decoder, batch: Batch) -> list[float | None]:
    ids_bt, labels_bt = batch.ids_bt.to(model.device), batch.labels_bt.to(model.device)
    if int(ids_bt.max()) >= model.config.vocab_size:
        raise MiaoError("the row has tokens that the model has not", where="model")
    found_bt = model(
        ids_bt,
        batch.positions_bt.to(model.device),
        batch.segments_bt.to(model.device),
        labels_bt=labels_bt,
        output="logprobs",
    )
    pairs = zip(found_bt[0].tolist(), labels_bt[0].tolist(), strict=True)
    return [None if label == IGNORE else round(value, 6) for value, label in pairs]
