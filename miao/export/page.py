"""Writes a model as a page that talks, one file or a folder, and compares what it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from miao.console import count
from miao.export.card import STAGE_NAMES, UNKNOWN_LICENSE, Card, Facts
from miao.export.parity.compare import Finding, compare_answers
from miao.export.parity.reference import ANSWER, CONVERSATIONS, TEXTS, Answer, make_reference
from miao.files import write_text
from miao.model import count_parameters, load_model, native_architecture
from miao.page.contents import PageType, read_contents, rounded
from miao.page.html import folder, page_html
from miao.page.node import run_in_node
from miao.tokenizer import Tokenizer

_TIE = 1e-3
"""Two logits closer than this, as a share of the largest, count as equal: beside int8 weights the
page rounds activations to 14 bits."""


def write_page(
    source: Path,
    file: Path,
    card: Card,
    dtype: PageType,
    greeting: str = "",
    theme: Sequence[str] = (),
    kind: str = "page",
) -> None:
    """The page of a model directory; its title is the card's name.

    Args:
        kind: whose limits count, see `read_contents`.

    Raises:
        MiaoError: see `read_contents`, `themed`.
    """
    contents = read_contents(source, dtype, kind)
    write_text(file, page_html(contents, card.name, card_facts(card), greeting, theme))


def write_folder(
    source: Path,
    out: Path,
    card: Card,
    dtype: PageType,
    greeting: str = "",
    theme: Sequence[str] = (),
) -> None:
    """A static site with the page of a model directory, and what hosts want beside it.

    Raises:
        MiaoError: see `write_page`.
    """
    contents = read_contents(source, dtype, "folder")
    files = folder(contents, card.name, card_facts(card), greeting, theme)
    files["README.md"] = _readme(card).encode()
    files[".nojekyll"] = b""  # GitHub Pages: serve the files as they are
    files[".gitattributes"] = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    files["SHA256SUMS"] = "".join(sums).encode()
    for name, data in files.items():
        (out / name).write_bytes(data)


def _readme(card: Card) -> str:
    """Its head is what a static Space of Hugging Face reads (hub docs, spaces-config-reference)."""
    head = {"title": card.name, "emoji": "🌱", "colorFrom": "green", "colorTo": "yellow"}
    head |= {"sdk": "static", "app_file": "index.html"}
    head |= {} if card.license == UNKNOWN_LICENSE else {"license": card.license}
    return f"""---
{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---

# {card.name}

A small language model that runs in the browser that opens this page, grown with Miao 苗. Put these
files on any static host; below a sub-path works too. What is said to it goes nowhere.

一个在浏览器里运行的小语言模型，用 Miao 苗训练。把这些文件放到任何静态网站上（放在子路径下也行）；
对它说的话哪里也不去。

`sha256sum -c SHA256SUMS`
"""


def card_facts(card: Card) -> dict[str, Any]:
    """The model card as a page tells it."""
    facts, total = card.facts or Facts(), count_parameters(card.config).total
    rows = [("name", card.name), ("parameters", f"{count(total)} ({total:,})")]
    rows += [("architecture", native_architecture(card.config)), ("weights", card.dtype)]
    rows += [("context", f"{card.config.context_length:,}")]
    if card.stage:
        rows.append(("stage", STAGE_NAMES.get(card.stage, card.stage)))
    rows += [("tokens", facts.tokens)] if facts.tokens not in ("", "0") else []
    rows += [("base", facts.base)] if facts.base else []
    rows += [("machine", facts.machine)] if facts.machine else []
    rows.append(("license", card.license))
    return {
        "facts": rows,
        "sources": [[*row[:4], *row[5:]] for row in facts.sources],
        "trained": [row[:5] for row in facts.trained],
        "score_columns": facts.score_columns,
        "scores": facts.scores,
        "recipe": facts.recipe,
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
