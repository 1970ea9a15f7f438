"""The other road: going on with a model that is there already (`--from`), beside a new one."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from miao import rules
from miao.console import count
from miao.doctor.trial import run_trial
from miao.errors import MiaoError
from miao.evaluate.measure.likelihood import sequence_logprobs
from miao.grow.found import Found
from miao.grow.machine import SEQ_LEN, Speed
from miao.hubs import is_hub_name
from miao.model import count_parameters, load_config, load_model
from miao.model.estimate import training_memory
from miao.recipe import PretrainOptions
from miao.rundir import find_model
from miao.tokenizer import Tokenizer

LOOKING = 0.08
"""Of the time, for looking at the model."""
DOUBT = 0.15
"""Of the bits that going on is to bring, half of the interval: they are a guess."""
FEWEST = 16 * 2048
"""Tokens, some steps of them, below which reading on is not expected to bring anything."""
LARGE = 30e6
"""Parameters from which a model is handled gently, as one that knows more than this text."""


@dataclass(frozen=True)
class Given:
    """A model to go on with: what was measured, and what is guessed."""

    path: str
    parameters: int
    inner: int
    vocabulary: int
    talks: bool
    """It has a chat template."""
    now: float
    """Bits per byte of a sample of the text, measured; inf: not in the time that there is."""
    measured_bytes: int
    tokens_per_second: float
    tried: bool
    """That speed was measured on this shape, not drawn from the line of smaller ones."""
    bytes_per_token: float
    against: str = ""
    """Why this road cannot be taken."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def after(self, tokens: float, found: Found, level: float) -> tuple[float, float, float]:
        """Bits per byte after so many tokens of the text, and an interval: a guess.

        It stands where a new model of its size would after D tokens of this text, and goes on from
        there (the data that transfer is worth, arXiv:2102.01293). Reading never makes it worse,
        and a handful of steps no better.
        """

        def law(read: float) -> float:
            return level * rules.expected_bits(self.inner, read).value

        least, most = 1.0, 1e13
        while most / least > 1.01:
            middle = math.sqrt(least * most)
            least, most = (middle, most) if law(middle) > self.now else (least, middle)
        unique = found.total("document", "bytes") / self.bytes_per_token
        value = min(law(least + rules.effective_tokens(tokens, unique)), self.now)
        value = self.now if tokens < FEWEST else value
        gained = self.now - value
        return value, value - DOUBT * self.now, value + max(gained, 0.02 * self.now)

    def line(self) -> str:
        bits = f"{self.now:.3f} bits per byte now" if math.isfinite(self.now) else "not measured"
        how = "measured" if self.tried else "from the line of smaller shapes"
        return (
            f"{self.path}: {count(self.parameters)} parameters, {bits} (measured on "
            f"{self.measured_bytes:,} bytes of your text), learns {self.tokens_per_second:,.0f} "
            f"tokens per second ({how}), {self.bytes_per_token:.2f} bytes each"
        )


def meant(name: str) -> str:
    """The model's name; one that lies here is looked for at once.

    Raises:
        MiaoError: there is none.
    """
    if not Path(name).exists() and not is_hub_name(name) and name.count("/") == 1:
        return f"hf:{name}"
    if not is_hub_name(name):
        find_model(name)
    return name


def look_at(name: str, found: Found, speed: Speed, seconds: float) -> Given:
    """Measures a model on the user's text, and how fast it learns here, within a part of `seconds`.

    Raises:
        MiaoError: no such model, none that can be read, no tokenizer beside it.
    """
    directory = find_model(name)
    where = name if is_hub_name(name) else str(directory)
    tokenizer, config = Tokenizer.from_directory(directory), load_config(directory)
    counted = count_parameters(config)
    pieces = found.pieces[:200]
    ids = [[*tokenizer.document_start, *tokenizer.encode(piece)] for piece in pieces]
    sizes = [len(piece.encode()) for piece in pieces]
    if not tokenizer.document_start:  # nothing stands before the first token: it is not foretold
        sizes = [s - len(tokenizer.token_bytes(i[0])) for s, i in zip(sizes, ids, strict=True)]
    per_token = sum(sizes) / max(sum(map(len, ids)), 1)
    per_second = speed.tokens_per_second(config)
    room = LOOKING * seconds

    def known(now: float, size: int, rate: float, tried: bool, against: str = "") -> Given:
        return Given(
            where, counted.total, counted.inner, tokenizer.vocab_size, tokenizer.has_chat_template,
            now, size, rate, tried, per_token, against,
        )  # fmt: skip

    needed = training_memory(config, 1, SEQ_LEN, muon=False).total
    if not speed.holds(needed):
        against = f"training it takes {needed / 2**30:.1f} GiB, more than this machine has"
        return known(math.inf, 0, per_second, False, against)
    if SEQ_LEN / per_second > room:
        return known(math.inf, 0, per_second, False, "one step takes too long for this time")
    now, size = _bits(load_model(directory), ids, sizes, room)
    rows = max(1, min(8, int(room * per_second / SEQ_LEN / 3)))
    options = PretrainOptions(seq_len=SEQ_LEN, batch_tokens=max(2048, rows * SEQ_LEN))
    device, dtype = torch.device(speed.device), getattr(torch, speed.precision)
    rate = run_trial(config, options, rows, device, dtype, seconds=room).tokens_per_second
    return known(now, size, rate * speed.processes, True)


def _bits(model: Any, ids: list[list[int]], sizes: list[int], room: float) -> tuple[float, int]:
    """Bits per byte over as many pieces as the time allows, and their bytes."""
    began, bits, read = time.monotonic(), 0.0, 0
    for one, size in zip(ids, sizes, strict=True):
        if read and time.monotonic() - began > room:
            break
        (logprobs,) = sequence_logprobs(model, [one])
        bits, read = bits - float(logprobs.sum()) / math.log(2), read + size
    if not read:
        raise MiaoError("no text to measure the model on")
    return bits / read, read
