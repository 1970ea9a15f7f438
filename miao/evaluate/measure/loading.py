"""A model to evaluate, and how texts are put to it."""

from __future__ import annotations

import argparse
from pathlib import Path

from miao.device import choose_device, choose_dtype
from miao.evaluate.tasks.prompts import Encoder
from miao.model import Decoder, load_model
from miao.tokenizer import Tokenizer


def loaded(directory: Path, device: str, precision: str = "fp32") -> tuple[Decoder, Tokenizer]:
    """The model on its device, computing in this precision, and its tokenizer."""
    place = choose_device(device)
    model = load_model(directory).to(place)
    model.set_compute_dtype(choose_dtype(precision, place))
    return model, Tokenizer.from_directory(directory)


def load_for_evaluation(directory: Path, options: argparse.Namespace) -> tuple[Decoder, Encoder]:
    """The model, and its tokenizer with what it puts before texts."""
    model, tokenizer = loaded(directory, options.device, options.precision)
    begin = tokenizer.document_start if options.begin_document else tokenizer.own_start
    if options.chat:
        assert tokenizer.chat_template is not None  # raises what is missing
    return model, Encoder(tokenizer, begin, options.chat, options.system)
