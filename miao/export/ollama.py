"""The Modelfile with which Ollama serves a GGUF as the model was trained to talk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from miao.corpus.records import Message, Role
from miao.errors import MiaoError
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
    ("user", "assistant"),
    ("user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
    ("system", "user"),
    ("system", "user", "assistant", "user", "assistant"),
)


class _Turn(NamedTuple):
    """What stands before and after the content of a message."""

    before: str
    after: str


def write_modelfile(gguf_path: Path, model_directory: Path, target: Path) -> None:
    """Writes what `ollama create NAME -f Modelfile` reads.

    The prompt equals the chat template's for system, user and assistant messages; tools and
    reasoning are left to the template inside the GGUF.

    Args:
        gguf_path: of `write_gguf`; named relative to `target` where they share a directory.
        model_directory: whose tokenizer, config and generation settings count.

    Raises:
        MiaoError: the chat template does more than to put text around each message.
    """
    tokenizer = Tokenizer.from_directory(model_directory)
    config = read_json(model_directory / "config.json")
    file = model_directory / "generation_config.json"
    generation = read_json(file) if file.is_file() else {}
    lines = [f"FROM {_relative(gguf_path, target.parent)}", ""]
    lines += [f'TEMPLATE """{_template(tokenizer, model_directory)}"""', ""]
    stops = [tokenizer.id_to_token(id) for id in tokenizer.stop_ids]
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if stop]
    lines += [f"PARAMETER {name} {value}" for name, value in _sampling(generation).items()]
    if isinstance(length := config.get("max_position_embeddings"), int):
        lines.append(f"PARAMETER num_ctx {length}")
    write_text(target, "\n".join(lines) + "\n")


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
    """
    try:
        template = tokenizer.chat_template
    except MiaoError:
        return "{{ .Prompt }}"
    turns = _turns(template, directory)
    opening = turns["assistant"].before
    texts = [text for turn in turns.values() for text in turn]
    if any(mark in text for text in texts for mark in ("{{", "}}", '"""')):
        raise MiaoError("the chat template writes braces, which Ollama's cannot", where=directory)
    parts = ["{{ range $i, $_ := .Messages }}"]
    parts.append("{{ $last := eq (len (slice $.Messages $i)) 1 }}")
    for number, (role, (before, after)) in enumerate(turns.items()):
        # The last assistant's turn stays open: Ollama lets the model go on with it.
        end = f"{{{{ if not $last }}}}{after}{{{{ end }}}}" if role == "assistant" else after
        test = "else if" if number else "if"
        parts.append(f'{{{{ {test} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{end}')
    parts.append("{{ end }}")
    parts.append(f'{{{{ if and $last (ne .Role "assistant") }}}}{opening}{{{{ end }}}}')
    parts.append("{{ end }}")
    return "".join(parts)


def _turns(template: ChatTemplate, directory: Path) -> dict[str, _Turn]:
    """The text around each role's messages, found by rendering and then checked by rendering."""
    refusal = MiaoError(
        "the chat template does more than to put text around each message, which is all that "
        "Miao writes for Ollama",
        where=directory,
        fix="write the TEMPLATE by hand; llama.cpp itself reads the template inside the GGUF",
    )

    def render(roles: tuple[Role, ...], add_generation_prompt: bool = False) -> str:
        messages = [Message(role, f"({role} {number})") for number, role in enumerate(roles)]
        return template.render(messages, add_generation_prompt=add_generation_prompt)

    def around(text: str, content: str) -> _Turn:
        before, found, after = text.partition(content)
        if not found:
            raise refusal
        return _Turn(before, after)

    try:
        user = around(render(("user",)), "(user 0)")
        opening = render(("user",), True).removeprefix(render(("user",)))
        said = render(("user", "assistant")).removeprefix(render(("user",)))
        system = render(("system", "user")).replace("(user 1)", "(user 0)")
        turns = {
            "system": around(system.removesuffix(render(("user",))), "(system 0)"),
            "user": user,
            "assistant": around(said, "(assistant 1)"),
        }
        for roles in _PROBES:
            messages = [f"({role} {number})" for number, role in enumerate(roles)]
            expected = "".join(
                turns[role].before + text + turns[role].after
                for role, text in zip(roles, messages, strict=True)
            )
            if render(roles) != expected or turns["assistant"].before != opening:
                raise refusal
    except MiaoError as error:
        raise refusal from error
    return turns
