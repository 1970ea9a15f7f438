"""The Modelfile with which Ollama serves a GGUF as the model was trained to talk."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from miao.corpus.records import Message, Role
from miao.errors import MiaoError
from miao.export.gguf.tokenizer import adds_ends
from miao.files import read_json, write_text
from miao.tokenizer import Tokenizer
from miao.tokenizer.template import ChatTemplate

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""generation_config.json's names, and Ollama's."""

_PROBES: tuple[tuple[Role, ...], ...] = (
    ("user",),
    ("user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
    ("system", "user"),
    ("system", "user", "assistant", "user"),
)
"""What Ollama sends: conversations that the assistant goes on with."""


class _Turn(NamedTuple):
    """What stands before and after the content of a message."""

    before: str
    after: str


class _Turns(NamedTuple):
    """A chat template that only puts text around each message."""

    beginning: str
    """Before a conversation without a system message: a default one, or nothing."""
    turns: dict[str, _Turn]
    opening: str
    """What the assistant goes on from."""

    def render(self, roles: Sequence[Role]) -> str:
        texts = [f"({role} {number})" for number, role in enumerate(roles)]
        parts = [self.turns[role] for role in roles]
        said = "".join(t.before + text + t.after for t, text in zip(parts, texts, strict=True))
        return (self.beginning if roles[0] != "system" else "") + said + self.opening


def write_modelfile(gguf_path: Path, model_directory: Path, target: Path) -> str | None:
    """Writes what `ollama create NAME -f Modelfile` reads.

    Its TEMPLATE equals the chat template for system, user and assistant messages; tools and
    reasoning are left to the template inside the GGUF. A chat template that does more than to put
    text around each message gets no TEMPLATE: Ollama then has llama.cpp render the GGUF's own
    (versions before that knew only the usual ones, by their likeness).

    Args:
        gguf_path: of `write_gguf`; named relative to `target` where they share a directory.
        model_directory: whose tokenizer, config and generation settings count.

    Returns:
        why there is no TEMPLATE; None: there is one.
    """
    tokenizer = Tokenizer.from_directory(model_directory)
    config = read_json(model_directory / "config.json")
    file = model_directory / "generation_config.json"
    generation = read_json(file) if file.is_file() else {}
    lines, reason = [f"FROM {_relative(gguf_path, target.parent)}", ""], None
    try:
        lines += [f'TEMPLATE """{_template(tokenizer, model_directory)}"""', ""]
    except MiaoError as error:
        reason = error.what
        lines += ["# No TEMPLATE: the chat template inside the GGUF counts.", ""]
    stops = [tokenizer.id_to_token(id) for id in tokenizer.stop_ids]
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if stop]
    lines += [f"PARAMETER {name} {value}" for name, value in _sampling(generation).items()]
    if isinstance(length := config.get("max_position_embeddings"), int):
        lines.append(f"PARAMETER num_ctx {length}")
    write_text(target, "\n".join(lines) + "\n")
    return reason


def _relative(path: Path, start: Path) -> str:
    try:
        relative = Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # another drive (Windows)
        return path.resolve().as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def _sampling(generation: dict[str, Any]) -> dict[str, float]:
    if generation.get("do_sample") is False:
        return {"temperature": 0}
    found = {ours: generation.get(theirs) for theirs, ours in _SAMPLING.items()}
    return {name: value for name, value in found.items() if value is not None}


def _template(tokenizer: Tokenizer, directory: Path) -> str:
    """The chat template in Go's template language.

    There are no trimming marks, so that all text outside the braces is written as it is.

    Raises:
        MiaoError: it does more than to put text around each message, or writes braces.
    """
    try:
        template = tokenizer.chat_template
    except MiaoError:
        return "{{ .Prompt }}"
    found = _turns(template)
    # llama.cpp begins a text by itself where the tokenizer does.
    begins = template.special_tokens.get("bos_token", "") if adds_ends(directory)[0] else ""
    beginning = found.beginning.removeprefix(begins)
    turns = {
        role: turn._replace(before=turn.before.removeprefix(begins))
        for role, turn in found.turns.items()
    }
    texts = [beginning, found.opening, *(text for turn in turns.values() for text in turn)]
    if any(mark in text for text in texts for mark in ("{{", "}}", '"""')):
        raise MiaoError("the chat template writes braces, which Ollama's cannot")
    parts = ["{{ range $i, $_ := .Messages }}"]
    parts.append("{{ $last := eq (len (slice $.Messages $i)) 1 }}")
    if beginning:
        parts.append(f'{{{{ if and (eq $i 0) (ne .Role "system") }}}}{beginning}{{{{ end }}}}')
    for number, (role, (before, after)) in enumerate(turns.items()):
        # The last assistant's turn stays open: Ollama lets the model go on with it.
        end = f"{{{{ if not $last }}}}{after}{{{{ end }}}}" if role == "assistant" else after
        test = "else if" if number else "if"
        parts.append(f'{{{{ {test} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{end}')
    parts.append("{{ end }}")
    if found.opening:
        parts.append(f'{{{{ if and $last (ne .Role "assistant") }}}}{found.opening}{{{{ end }}}}')
    parts.append("{{ end }}")
    return "".join(parts)


def _turns(template: ChatTemplate) -> _Turns:
    """The text around each role's messages, found by rendering and then checked by rendering.

    Raises:
        MiaoError: there is more to the template.
    """
    refusal = MiaoError("the chat template does more than to put text around each message")

    def render(roles: tuple[Role, ...], add_generation_prompt: bool = False) -> str:
        messages = [Message(role, f"({role} {number})") for number, role in enumerate(roles)]
        return template.render(messages, add_generation_prompt=add_generation_prompt)

    def around(*roles: Role, prompt: bool = False) -> list[str]:
        """What stands before, between and after the contents."""
        contents = [re.escape(f"({role} {number})") for number, role in enumerate(roles)]
        return re.split("|".join(contents), render(roles, prompt))

    if "strftime_now" in template.source:
        raise MiaoError("the chat template writes the date of today")
    try:
        begun, to_answer, to_question, user_after = around("user", "assistant", "user")
        system_before, to_user = around("system", "user")[:2]
        said, asked = around("user", "assistant")[-1], around("user", prompt=True)[-1]
        # Some templates end a text that goes on nowhere in another way.
        if not (asked.startswith(user_after) and to_answer.startswith(user_after)):
            user_after = ""
        if to_question.startswith(said):
            user_before = to_question.removeprefix(said)
        else:
            ends = (begun[i:] for i in range(len(begun) + 1))
            user_before = next(end for end in ends if to_question.endswith(end))
        after = to_question.removesuffix(user_before)
        opening = asked.removeprefix(user_after)
        turns = {
            "system": _Turn(system_before, to_user.removesuffix(user_before)),
            "user": _Turn(user_before, user_after),
            "assistant": _Turn(to_answer.removeprefix(user_after), after),
        }
        found = _Turns(begun.removesuffix(user_before), turns, opening)
        agrees = all(found.render(roles) == render(roles, True) for roles in _PROBES)
    except (MiaoError, ValueError) as error:  # a role is refused, a message is left out
        raise refusal from error
    if not agrees:
        raise refusal
    return found
