"""The chat templates of well-known public models through everything that talks in them: the mask
of SFT, the server, GGUF, Ollama."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from miao.corpus.records import Conversation, Message
from miao.engine import Runner, SamplingOptions, Scheduler
from miao.errors import MiaoError
from miao.export.gguf.file import write_gguf
from miao.export.ollama import write_modelfile
from miao.model import Decoder, save_model
from miao.tokenizer import Tokenizer
from miao.tokenizer.template import ChatTemplate
from tests.public_templates import PUBLIC_TEMPLATES, PublicTemplate

ASKED = [Message("user", "问1"), Message("assistant", "A1"), Message("user", "问2")]
TALK = [*ASKED, Message("assistant", "A2")]
every_template = pytest.mark.parametrize(
    "public", PUBLIC_TEMPLATES.values(), ids=list(PUBLIC_TEMPLATES)
)


@every_template
def test_sft_learns_what_the_assistant_says(public: PublicTemplate, tokenizer: Tokenizer) -> None:
    own = public.tokenizer(tokenizer)
    ids, mask = own.chat_template.encode(own, Conversation(TALK))
    assert own.decode(ids, skip_special_tokens=False) == re.sub("[⟦⟧]", "", public.learned)
    stretches = re.findall("⟦(.*?)⟧", public.learned, flags=re.DOTALL)
    runs = [list(run) for run in _runs(ids, mask)]
    assert [own.decode(run, skip_special_tokens=False) for run in runs] == stretches
    assert all(run[-1] in own.stop_ids for run in runs), "every answer learns to end"


def _runs(ids: list[int], mask: list[bool]) -> list[list[int]]:
    runs: list[list[int]] = []
    for number, (id, learned) in enumerate(zip(ids, mask, strict=True)):
        if learned and (number == 0 or not mask[number - 1]):
            runs.append([])
        if learned:
            runs[-1].append(id)
    return runs


@every_template
def test_what_is_learned_goes_on_from_what_is_served(
    public: PublicTemplate, tokenizer: Tokenizer
) -> None:
    own = public.tokenizer(tokenizer)
    prompt = own.chat_template.encode_prompt(own, ASKED)
    assert own.decode(prompt, skip_special_tokens=False) == public.prompt
    short = own.chat_template.encode_prompt(own, ASKED[:1])
    ids, mask = own.chat_template.encode(own, Conversation(TALK[:2]))
    assert ids[: len(short)] == short
    assert mask == [False] * len(short) + [True] * mask.count(True) + [False] * (
        len(mask) - len(short) - mask.count(True)
    )
    system = [Message("system", "系统"), ASKED[0]]
    found = own.chat_template.encode_prompt(own, system)
    assert own.decode(found, skip_special_tokens=False) == public.system


@every_template
def test_the_server_answers_and_ends(
    public: PublicTemplate, tokenizer: Tokenizer, make_model: Callable[..., Decoder]
) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from miao.serve.app import create_app
    from miao.serve.models import Served

    own = public.tokenizer(tokenizer)
    model = make_model(vocab_size=own.vocab_size, max_position_embeddings=128)
    scheduler = Scheduler(Runner(model, 2, 128), frozenset(own.stop_ids))
    served = Served("tiny", own, scheduler, SamplingOptions())
    messages = [{"role": message.role, "content": message.content} for message in ASKED]
    with testclient.TestClient(create_app([served]), base_url="http://localhost") as client:
        for stop in own.stop_ids:
            body = {"model": "tiny", "messages": messages, "logit_bias": {str(stop): 100}}
            answer = client.post("/v1/chat/completions", json=body).json()
            assert answer["usage"]["prompt_tokens"] == len(
                own.encode(public.prompt, allow_special=True)
            )
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert not answer["choices"][0]["message"]["content"]


@every_template
def test_gguf_and_ollama_talk_alike(
    public: PublicTemplate,
    tokenizer: Tokenizer,
    make_model: Callable[..., Decoder],
    tmp_path: Path,
) -> None:
    save_model(make_model(vocab_size=384), tmp_path / "model")
    own = public.save(tokenizer, tmp_path / "model")
    write_gguf(tmp_path / "model", tmp_path / "m.gguf", "f32")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    value = {name.removeprefix("tokenizer."): field.contents() for name, field in fields.items()}
    inside = ChatTemplate(value["chat_template"], own.chat_template.special_tokens)
    assert inside.render(ASKED, add_generation_prompt=True) == public.prompt
    tokens = value["ggml.tokens"]
    assert tokens[value["ggml.eot_token_id"]] == own.end_of_turn
    assert value["ggml.add_bos_token"] == bool(public.bos)
    if public.bos:
        assert tokens[value["ggml.bos_token_id"]] == public.bos

    reason = write_modelfile(tmp_path / "m.gguf", tmp_path / "model", tmp_path / "Modelfile")
    text = (tmp_path / "Modelfile").read_text(encoding="utf-8")
    for stop in (public.eos, *public.stops):
        assert f'PARAMETER stop "{stop}"' in text
    template = re.search('TEMPLATE """(.*)"""', text, flags=re.DOTALL)
    assert (template is not None) == public.in_ollama == (reason is None)
    if template:
        said = [(message.role, message.content) for message in ASKED]
        assert public.bos + in_go(template[1], said) == public.prompt
        said = [("system", "系统"), said[0]]
        assert public.bos + in_go(template[1], said) == public.system


def in_go(template: str, messages: list[tuple[str, str]]) -> str:
    """What Go's text/template makes of the few forms that a Modelfile of ours has."""
    begin = "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    assert template.startswith(begin)
    body = template.removeprefix(begin).removesuffix("{{ end }}")
    pieces = re.split(r"(\{\{.*?\}\})", body)
    return "".join(_turn(pieces, number, messages) for number in range(len(messages)))


def _turn(pieces: list[str], number: int, messages: list[tuple[str, str]]) -> str:
    role, content = messages[number]
    last = number == len(messages) - 1
    states: list[list[bool]] = []
    """Of each open `if`: whether this branch is written, and whether one was."""
    text = ""
    for piece in pieces:
        if not piece.startswith("{{"):
            text += piece * all(shown for shown, _ in states)
            continue
        words = piece[3:-3]
        if words == ".Content":
            text += content * all(shown for shown, _ in states)
        elif words == "end":
            states.pop()
        elif words.startswith("else if "):
            holds = not states[-1][1] and _holds(words[8:], role, number, last)
            states[-1] = [holds, states[-1][1] or holds]
        else:
            holds = _holds(words.removeprefix("if "), role, number, last)
            states.append([holds, holds])
    return text


def _holds(test: str, role: str, number: int, last: bool) -> bool:
    found: dict[str, Any] = {
        "not $last": not last,
        'and $last (ne .Role "assistant")': last and role != "assistant",
        'and (eq $i 0) (ne .Role "system")': number == 0 and role != "system",
    } | {f'eq .Role "{each}"': role == each for each in ("system", "user", "assistant")}
    return bool(found[test])


def test_a_prompt_that_no_conversation_goes_on_from_is_refused(tokenizer: Tokenizer) -> None:
    """R1's distillates open every answer with a thought, and leave it out of conversations."""
    public = PUBLIC_TEMPLATES["DeepSeek-V3"]
    source = public.source.replace("{{ '<｜Assistant｜>' }}", "{{ '<｜Assistant｜><think>\\n' }}")
    assert source != public.source
    own = PublicTemplate(**vars(public) | {"source": source}).tokenizer(tokenizer)
    with pytest.raises(MiaoError, match="does not go on from its prompt, which ends in"):
        own.chat_template.encode(own, Conversation(TALK))
