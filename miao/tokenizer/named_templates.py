"""Chat templates by name, for base models that have none; and a tokenizer with one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from miao.errors import MiaoError, did_you_mean
from miao.tokenizer.extend import extend_tokenizer
from miao.tokenizer.template import MIAO_TEMPLATE
from miao.tokenizer.tokenizer import MARKUP_TOKENS, TURN_END, TURN_START, Tokenizer

# Turns that all look alike: OPENING, its role, BREAK, the text, END and CLOSE.
_TURNS = """
{%- for message in messages %}
    {%- set role = 'ASSISTANT' if message.role == 'assistant' else message.role %}
    {{- 'OPENING' + role + 'BREAK' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- TEXT + 'END' }}
        {%- endgeneration %}
        {{- 'CLOSE' }}
    {%- else %}
        {{- TEXT + 'ENDCLOSE' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'OPENINGASSISTANTBREAK' }}
{%- endif %}
""".strip()


def _turns(**parts: str) -> str:
    source = _TURNS
    usual = {"ASSISTANT": "assistant", "TEXT": "(message.content or '')"}
    for name, text in (usual | parts).items():
        source = source.replace(name, text)
    return source


class NamedTemplate(NamedTuple):
    """Jinja text, and the control tokens that it writes."""

    source: str
    tokens: tuple[str, ...]


_TRIMMED = "(message.content or '').strip()"
NAMED_TEMPLATES = {
    "miao": NamedTemplate(MIAO_TEMPLATE, (TURN_START, TURN_END, *MARKUP_TOKENS)),
    "chatml": NamedTemplate(
        _turns(OPENING=TURN_START, BREAK="\\n", END=TURN_END, CLOSE="\\n"), (TURN_START, TURN_END)
    ),
    "llama3": NamedTemplate(
        _turns(
            OPENING="<|start_header_id|>",
            BREAK="<|end_header_id|>\\n\\n",
            END="<|eot_id|>",
            CLOSE="",
            TEXT=_TRIMMED,
        ),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "gemma": NamedTemplate(
        _turns(
            OPENING="<start_of_turn>",
            BREAK="\\n",
            END="<end_of_turn>",
            CLOSE="\\n",
            TEXT=_TRIMMED,
            ASSISTANT="model",
        ),
        ("<start_of_turn>", "<end_of_turn>"),
    ),
}
"""Miao's own, with tools and <think>; ChatML (Qwen, SmolLM, ...); Llama 3's turns; Gemma's."""


def check_template_name(name: str, where: str) -> None:
    """Raises:
    MiaoError: neither a name nor a file.
    """
    if name not in NAMED_TEMPLATES and not Path(name).is_file():
        known = ", ".join(NAMED_TEMPLATES)
        raise MiaoError(
            f"'{name}' is neither the name of a chat template nor a file of one",
            where=where,
            fix=did_you_mean(name, NAMED_TEMPLATES) or f"{known}, or a .jinja file",
        )


def with_chat(tokenizer: Tokenizer, template: str | None, tokens: Sequence[str] = ()) -> Tokenizer:
    """A base model's tokenizer made ready for conversations: with a chat template, the control
    tokens that this writes, and further ones. What the vocabulary has keeps its id; the others come
    after it. What the tokenizer itself puts before texts, the template puts before conversations.

    Args:
        template: a name of `NAMED_TEMPLATES`, or a file of Jinja; None: stays as it is.

    Raises:
        MiaoError: neither of them; see `extend_tokenizer`.
    """
    source, wanted = None, tuple(tokens)
    if template is not None:
        check_template_name(template, "tokenizer.chat_template")
        if named := NAMED_TEMPLATES.get(template):
            wanted = (*named.tokens, *wanted)
            begin = "".join(tokenizer.id_to_token(id) or "" for id in tokenizer.own_start)
            source = f"{{{{- '{begin}' }}}}\n{named.source}" if begin else named.source
        else:
            source = Path(template).read_text(encoding="utf-8")
    known = tokenizer.control_ids
    if new := [token for token in dict.fromkeys(wanted) if token not in known]:
        tokenizer = extend_tokenizer(tokenizer, control_tokens=new).tokenizer
    return tokenizer if source is None else tokenizer.with_template(source)
