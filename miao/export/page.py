"""Writes a model as one HTML file that talks, and compares what the file computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miao.console import count
from miao.export.card import STAGE_NAMES, Card
from miao.export.parity.compare import Finding, compare_answers
from miao.export.parity.reference import ANSWER, CONVERSATIONS, TEXTS, Answer, make_reference
from miao.files import write_text
from miao.model import count_parameters, load_model, native_architecture
from miao.page.contents import PageType, read_contents, rounded
from miao.page.html import page_html
from miao.page.node import run_in_node
from miao.tokenizer import Tokenizer

_TIE = 1e-3
"""Two logits closer than this, as a share of the largest, count as equal: beside int8 weights the
page rounds activations to 14 bits."""


def write_page(source: Path, file: Path, card: Card, dtype: PageType, greeting: str = "") -> None:
    """The page of a model directory; its title is the card's name.

    Raises:
        MiaoError: see `read_contents`.
    """
    contents = read_contents(source, dtype)
    write_text(file, page_html(contents, card.name, card_facts(card), greeting))


def card_facts(card: Card) -> dict[str, Any]:
    """The model card as a page tells it."""
    facts, total = card.facts, count_parameters(card.config).total
    rows = [("name", card.name), ("parameters", f"{count(total)} ({total:,})")]
    rows += [("architecture", native_architecture(card.config)), ("weights", card.dtype)]
    rows += [("context", f"{card.config.context_length:,}")]
    if card.stage:
        rows.append(("stage", STAGE_NAMES.get(card.stage, card.stage)))
    rows += [("tokens", facts.tokens)] if facts and facts.tokens not in ("", "0") else []
    rows.append(("license", card.license))
    trained = [[t.name, t.tokens, t.steps, t.time, t.loss] for t in facts.trained] if facts else []
    return {
        "facts": rows,
        "trained": trained,
        "score_columns": facts.score_columns if facts else [],
        "scores": facts.scores if facts else [],
    }


def check_page(file: Path, source: Path, dtype: PageType) -> list[Finding]:
    """What the page's own engine computes in Node.js, beside Miao's with the same weights."""
    tokenizer = Tokenizer.from_directory(source)
    model = rounded(load_model(source), dtype)
    reference = make_reference(model, tokenizer, draws_padding=False)
    asked: list[list[dict[str, Any]]] = []
    if tokenizer.has_chat_template:
        said = [
            c for c in CONVERSATIONS.values() if c.keys() == {"messages", "add_generation_prompt"}
        ]
        asked = [c["messages"] for c in said if all("content" in m for m in c["messages"])]
    found = run_in_node(
        file,
        texts=list(TEXTS),
        conversations=asked,
        prompts=[answer.prompt_ids for answer in reference.answers],
        count=ANSWER,
    )
    truth = [tokenizer.encode(text) for text in TEXTS]
    prompts = [tokenizer.chat_template.encode_prompt(tokenizer, messages) for messages in asked]
    answers = dict(zip(map(_key, reference.answers), found["prompts"], strict=True))
    return [
        _equal("token ids", found["texts"], truth, "texts"),
        *([_equal("conversations", found["conversations"], prompts, "prompts")] if asked else []),
        compare_answers(reference, lambda answer: answers[_key(answer)], tie=_TIE),
    ]


def _key(answer: Answer) -> tuple[int, ...]:
    return tuple(answer.prompt_ids)


def _equal(what: str, found: list[Any], truth: list[Any], things: str) -> Finding:
    equal = sum(a == b for a, b in zip(found, truth, strict=True))
    return Finding(what, f"{equal} of {len(truth)} {things} equal", equal == len(truth))
