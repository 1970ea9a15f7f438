"""Pages of a tiny model, and how a test talks to one in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miao.engine import Engine, SamplingOptions
from miao.engine.backend import pack
from miao.export.card import Card, Facts
from miao.export.page import write_page
from miao.model import Decoder, load_model, save_model
from miao.page.contents import rounded
from miao.tokenizer import Tokenizer
from tests.serve.browsing import answers, ask, until

SHAPE = {"vocab_size": 384, "max_position_embeddings": 8192, "eos_token_id": 2}
GREEDY = {"temperature": "0", "max_new_tokens": "24"}
DONE = "document.getElementById('stop').hidden && document.querySelector('.message:last-child.assistant .actions')"


@pytest.fixture(scope="module", name="model")
def model_fixture(
    make_model: Callable[..., Decoder],
    tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    directory = tmp_path_factory.mktemp("model")
    save_model(make_model(**SHAPE), directory)
    tokenizer.save(directory)
    return directory


def card_of(model: Path, text: str = "小苗") -> Card:
    """A card whose every text is `text`."""
    facts = Facts(
        trained=[[text, "1.4M", "660", "5 min", "1.23", ""]],
        sources=[[text, text, text, "1", "1", "1", "1"]],
        score_columns=[text],
        scores=[[text, "", "400", "85.5 % ± 1.8 %", "25.0 %"]],
        machine=text,
        recipe=f"name: {text}",
    )
    config = load_model(model).config
    return Card(text, config, "sft", facts, text, ["zh"], True, "int8")


@pytest.fixture(scope="module", name="file")
def file_fixture(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "小苗 page.html"
    write_page(model, file, card_of(model), "int8")
    return file


def open_file(open_page: Any, file: Path, **options: Any) -> Any:
    page = open_page(file.as_uri(), **options)
    until(page, "!document.getElementById('send').disabled")
    return page


def change_settings(page: Any, **values: str) -> None:
    page.click("#open-settings")
    for name, value in values.items():
        page.fill(f"[name={name}]", value)
    page.click("#save")


def answer_to(page: Any, text: str) -> str:
    ask(page, text)
    until(page, DONE)
    return answers(page)[-1]


def greedy(model: Path, messages: list[dict[str, Any]], count: int) -> str:
    """What Miao's own engine says, with the page's weights."""
    tokenizer = Tokenizer.from_directory(model)
    engine = Engine(pack(rounded(load_model(model)), "int8"), tokenizer.stop_ids, rows=1)
    prompt = tokenizer.chat_template.encode_prompt(tokenizer, messages)
    (ids,) = engine.generate([prompt], SamplingOptions(max_new_tokens=count))
    return tokenizer.decode([id for id in ids if id not in tokenizer.stop_ids])
