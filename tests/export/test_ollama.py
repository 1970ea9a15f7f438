"""Modelfiles against the chat template."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from miao.export.ollama import write_modelfile
from miao.export.origin import ollama_name

Make = Callable[..., Path]


def test_the_modelfile_says_how_miao_talks(make_directory: Make, tmp_path: Path) -> None:
    directory = make_directory("qwen3")
    (directory / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.7, "top_p": 0.9, "eos_token_id": 2})
    )
    write_modelfile(tmp_path / "m.gguf", directory, tmp_path / "Modelfile")
    text = (tmp_path / "Modelfile").read_text()
    assert text == (
        'FROM ./m.gguf\n\nTEMPLATE """'
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}'
        "{{ if not $last }}<|im_end|>\n{{ end }}{{ end }}"
        '{{ if and $last (ne .Role "assistant") }}<|im_start|>assistant\n{{ end }}{{ end }}"""\n\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n'
        "PARAMETER temperature 0.7\nPARAMETER top_p 0.9\nPARAMETER num_ctx 256\n"
    )


def test_a_template_that_ollama_cannot_have_is_left_to_the_gguf(
    make_directory: Make, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(make_directory("qwen3"), directory)
    (directory / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ loop.index }}{{ m.content }}<|im_end|>{% endfor %}"
    )
    reason = write_modelfile(tmp_path / "m.gguf", directory, tmp_path / "Modelfile")
    assert reason is not None and "more than to put text around each message" in reason
    text = (tmp_path / "Modelfile").read_text()
    assert text.startswith("FROM ./m.gguf\n\n# No TEMPLATE:")
    assert 'PARAMETER stop "<|im_end|>"' in text and 'TEMPLATE "' not in text


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("seedling", "seedling"),
        ("my model (v2)", "my-model-v2"),
        ("小苗", "miao"),
        ("小苗 v2", "v2"),
        ("-x.", "x"),
        ("a" * 99, "a" * 80),
    ],
)
def test_a_name_that_ollama_takes(name: str, called: str) -> None:
    """Ollama's own rule (types/model/name.go), to which a run's name may not keep."""
    assert ollama_name(name) == called
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", called)
