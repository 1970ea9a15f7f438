"""Chat templates that behave as those of well-known public models do for plain conversations:
written anew, as short as their behaviour allows; and what a conversation becomes in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from miao.tokenizer import Tokenizer

_CHATML = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_EACH = "{% for m in messages %}"
_IM_OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
)
_THOUGHT = """
{%- set content, thought = m.content, m.reasoning_content or '' %}
{%- if '</think>' in content and not thought %}
    {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
    {%- set content = content.split('</think>')[-1].lstrip('\n') %}
{%- endif %}"""
_IM = ("<|im_start|>", "<|im_end|>")
_HEADER = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@dataclass(frozen=True)
class PublicTemplate:
    """`learned` and `prompt`: of the user's 问1, the assistant's A1, 问2 and A2; what is learned in
    ⟦⟧. `system`: the prompt of 系统 and 问1, None where the model knows no such role."""

    source: str
    controls: tuple[str, ...]
    eos: str
    learned: str
    prompt: str
    system: str | None
    bos: str = ""
    stops: tuple[str, ...] = ()
    """Further tokens that its generation_config.json ends an answer with."""
    in_ollama: bool = True
    """Whether text around each message is all that there is to it."""

    def tokenizer(self, plain: Tokenizer) -> Tokenizer:
        """The plain one with the tokens and the template of this model."""
        spec = plain.spec()
        known = {token["content"]: token for token in spec["added_tokens"]}
        first = plain.vocab_size
        for text in dict.fromkeys([*self.controls, *filter(None, [self.bos, self.eos])]):
            if text not in known:
                like = next(iter(known.values()))
                spec["added_tokens"].append({**like, "content": text, "id": first})
                first += 1
        ids = {token["content"]: token["id"] for token in spec["added_tokens"]}
        if self.bos:
            sequence = [{"SpecialToken": {"id": self.bos, "type_id": 0}}, _SEQUENCE]
            spec["post_processor"] = {
                "type": "TemplateProcessing",
                "single": sequence,
                "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    self.bos: {"id": self.bos, "ids": [ids[self.bos]], "tokens": [self.bos]}
                },
            }
        made = plain.with_spec(spec)
        config = {"eos_token": self.eos, "chat_template": self.source}
        config |= {"bos_token": self.bos} if self.bos else {}
        return Tokenizer(made._backend, config, stop_ids=[ids[stop] for stop in self.stops])

    def save(self, plain: Tokenizer, directory: Path) -> Tokenizer:
        """Puts the tokenizer beside a model, as the model's makers do."""
        tokenizer = self.tokenizer(plain)
        tokenizer.save(directory)
        ends = [tokenizer.token_to_id(text) for text in (self.eos, *self.stops)]
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        return Tokenizer.from_directory(directory)


_SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}


def _im(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def _chatml(begin: str = "", default: str = "", bos: str = "", **more: object) -> PublicTemplate:
    """ChatML with text before a conversation that has no system message."""
    before = bos + (_im("system", default) if default else "")
    asked = before + _im("user", "问1") + "<|im_start|>assistant\n"
    return PublicTemplate(
        source=("{{ bos_token }}" if bos else "")
        + begin
        + _EACH
        + _CHATML
        + "{% endfor %}"
        + _IM_OPEN,
        controls=_IM,
        eos="<|im_end|>",
        learned=f"{asked}⟦A1<|im_end|>⟧\n{_im('user', '问2')}<|im_start|>assistant\n⟦A2<|im_end|>⟧\n",
        prompt=f"{asked}A1<|im_end|>\n{_im('user', '问2')}<|im_start|>assistant\n",
        system=bos + _im("system", "系统") + _im("user", "问1") + "<|im_start|>assistant\n",
        bos=bos,
        **more,  # type: ignore[arg-type]
    )


def _default(text: str) -> str:
    return (
        "{% if messages[0].role != 'system' %}"
        + "{{ '<|im_start|>system\n"
        + text
        + "<|im_end|>\n' }}{% endif %}"
    )


def _llama3(first: str, learned_system: str, **more: object) -> PublicTemplate:
    def turn(role: str, text: str = "") -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}"

    begin = "<|begin_of_text|>" + learned_system
    asked = begin + turn("user", "问1<|eot_id|>") + turn("assistant")
    asked_again = turn("user", "问2<|eot_id|>") + turn("assistant")
    written = "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    return PublicTemplate(
        source="{{ bos_token }}" + first + _EACH + written + "{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        controls=_HEADER,
        eos="<|eot_id|>",
        bos="<|begin_of_text|>",
        learned=f"{asked}⟦A1<|eot_id|>⟧{asked_again}⟦A2<|eot_id|>⟧",
        prompt=f"{asked}A1<|eot_id|>{asked_again}",
        **(
            {
                "system": "<|begin_of_text|>"
                + turn("system", "系统<|eot_id|>")
                + turn("user", "问1<|eot_id|>")
                + turn("assistant")
            }
            | more
        ),  # type: ignore[arg-type]
    )


_DATED = """
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if system %}{% set messages = messages[1:] %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' }}
{{- strftime_now('%Y')[:2] + '\\n\\n' + system + '<|eot_id|>' }}"""
_QWEN3 = (
    "{%- set ns = namespace(last=-1) %}"
    + _EACH
    + """
{%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}"""
    + _THOUGHT
    + """
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
)
_MINIMIND = (
    _EACH
    + """
    {%- if m.role == 'assistant' %}"""
    + _THOUGHT
    + """
        {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {{- content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n<think>\\n' }}
    {%- if not open_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""
)
_MISTRAL = (
    """
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if system %}{% set messages = messages[1:] %}{% endif %}
{{- bos_token }}"""
    + _EACH
    + _ALTERNATE
    + """
    {%- if m.role == 'user' %}
        {{- '[INST] ' + (system + '\\n\\n' if system and loop.last else '') + m.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + m.content + eos_token }}
    {%- endif %}
{%- endfor %}"""
)
_GLM4 = (
    "[gMASK]<sop>"
    + _EACH
    + "{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    + ("{% if add_generation_prompt %}<|assistant|>{% endif %}")
)
_GLM45 = (
    "[gMASK]<sop>{%- set ns = namespace(last=-1) %}"
    + _EACH
    + """
{%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {{- '<|' + m.role + '|>\\n' }}
    {%- if m.role == 'assistant' %}"""
    + _THOUGHT
    + """
        {{- '<think>' + (thought.strip() if loop.index0 > ns.last else '') + '</think>\\n' }}
        {{- content.strip() }}
    {%- else %}
        {{- m.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
)
_DEEPSEEK = (
    """
{%- set ns = namespace(system='') %}"""
    + _EACH
    + """
{%- if m.role == 'system' %}{% set ns.system = m.content %}{% endif %}{% endfor %}
{{- bos_token + ns.system }}"""
    + _EACH
    + """
{%- if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% endif %}
{%- if m.role == 'assistant' %}
    {{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""
)
_GEMMA = (
    """
{%- set system = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' %}
{%- if system %}{% set messages = messages[1:] %}{% endif %}
{{- bos_token }}"""
    + _EACH
    + _ALTERNATE
    + """
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}
{{- (system if loop.first else '') + m.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
)
_PHI3 = (
    _EACH
    + """
{%- if m.role == 'assistant' %}{{ m.content + '<|end|>\\n' }}
{%- elif m.role == 'user' %}{{ '<|user|>\\n' + m.content + '<|end|>\\n<|assistant|>\\n' }}
{%- else %}{{ '<|system|>\\n' + m.content + '<|end|>\\n' }}{% endif %}
{%- endfor %}"""
)
_PHI4 = (
    _EACH
    + "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    + ("{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}")
)
_PHI_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_SMOLLM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
_GEMMA_1 = "<bos><start_of_turn>user\n问1<end_of_turn>\n<start_of_turn>model\n"
_GEMMA_2 = "<end_of_turn>\n<start_of_turn>user\n问2<end_of_turn>\n<start_of_turn>model\n"

_PLAIN = _chatml()
PUBLIC_TEMPLATES: dict[str, PublicTemplate] = {
    "ChatML": _PLAIN,
    "Qwen2.5": _chatml(_default(_QWEN), _QWEN, stops=("<|endoftext|>",)),
    "Qwen3": PublicTemplate(
        source=_QWEN3,
        controls=(*_IM, "<think>", "</think>"),
        eos="<|im_end|>",
        learned=_PLAIN.learned.replace("⟦A2", "⟦<think>\n\n</think>\n\nA2"),
        prompt=_PLAIN.prompt,
        system=_PLAIN.system,
    ),
    "Llama 3": _llama3("", ""),
    "Llama 3.2": _llama3(
        _DATED,
        "<|start_header_id|>system<|end_header_id|>\n\nToday Date: 20\n\n<|eot_id|>",
        system="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 20\n\n"
        "系统<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n问1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        in_ollama=False,
    ),
    "Mistral": PublicTemplate(
        source=_MISTRAL,
        controls=("[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        learned="<s>[INST] 问1[/INST]⟦ A1</s>⟧[INST] 问2[/INST]⟦ A2</s>⟧",
        prompt="<s>[INST] 问1[/INST] A1</s>[INST] 问2[/INST]",
        system="<s>[INST] 系统\n\n问1[/INST]",
        in_ollama=False,
    ),
    "GLM-4": PublicTemplate(
        source=_GLM4,
        controls=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        eos="<|endoftext|>",
        stops=("<|user|>",),
        learned="[gMASK]<sop><|user|>\n问1<|assistant|>⟦\nA1<|user|>⟧\n问2<|assistant|>⟦\nA2"
        "<|endoftext|>⟧",
        prompt="[gMASK]<sop><|user|>\n问1<|assistant|>\nA1<|user|>\n问2<|assistant|>",
        system="[gMASK]<sop><|system|>\n系统<|user|>\n问1<|assistant|>",
    ),
    "GLM-4.5": PublicTemplate(
        source=_GLM45,
        controls=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        eos="<|endoftext|>",
        stops=("<|user|>",),
        learned="[gMASK]<sop><|user|>\n问1<|assistant|>⟦\n<think></think>\nA1<|user|>⟧\n问2"
        "<|assistant|>⟦\n<think></think>\nA2<|endoftext|>⟧",
        prompt="[gMASK]<sop><|user|>\n问1<|assistant|>\n<think></think>\nA1<|user|>\n问2"
        "<|assistant|>",
        system="[gMASK]<sop><|system|>\n系统<|user|>\n问1<|assistant|>",
    ),
    "DeepSeek-V3": PublicTemplate(
        source=_DEEPSEEK,
        controls=("<｜User｜>", "<｜Assistant｜>"),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        learned="<｜begin▁of▁sentence｜><｜User｜>问1<｜Assistant｜>⟦A1<｜end▁of▁sentence｜>⟧"
        "<｜User｜>问2<｜Assistant｜>⟦A2<｜end▁of▁sentence｜>⟧",
        prompt="<｜begin▁of▁sentence｜><｜User｜>问1<｜Assistant｜>A1<｜end▁of▁sentence｜>"
        "<｜User｜>问2<｜Assistant｜>",
        system="<｜begin▁of▁sentence｜>系统<｜User｜>问1<｜Assistant｜>",
    ),
    "Gemma": PublicTemplate(
        source=_GEMMA,
        controls=("<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        learned=f"{_GEMMA_1}⟦A1<end_of_turn>⟧{_GEMMA_2.removeprefix('<end_of_turn>')}"
        "⟦A2<end_of_turn>⟧\n",
        prompt=f"{_GEMMA_1}A1{_GEMMA_2}",
        system=_GEMMA_1.replace("问1", "系统\n\n问1"),
        in_ollama=False,
    ),
    "Phi-3": PublicTemplate(
        source=_PHI3,
        controls=_PHI_TOKENS,
        eos="<|endoftext|>",
        stops=("<|end|>",),
        learned="<|user|>\n问1<|end|>\n<|assistant|>\n⟦A1<|end|>⟧\n<|user|>\n问2<|end|>\n"
        "<|assistant|>\n⟦A2<|end|>⟧\n",
        prompt="<|user|>\n问1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\n问2<|end|>\n"
        "<|assistant|>\n",
        system="<|system|>\n系统<|end|>\n<|user|>\n问1<|end|>\n<|assistant|>\n",
    ),
    "Phi-4-mini": PublicTemplate(
        source=_PHI4,
        controls=_PHI_TOKENS,
        eos="<|endoftext|>",
        stops=("<|end|>",),
        learned="<|user|>问1<|end|><|assistant|>⟦A1<|end|>⟧<|user|>问2<|end|><|assistant|>"
        "⟦A2<|end|>⟧<|endoftext|>",
        prompt="<|user|>问1<|end|><|assistant|>A1<|end|><|user|>问2<|end|><|assistant|>",
        system="<|system|>系统<|end|><|user|>问1<|end|><|assistant|>",
    ),
    "SmolLM2": _chatml(_default(_SMOLLM), _SMOLLM),
    "MiniMind": PublicTemplate(
        source=_MINIMIND,
        controls=(*_IM, "<think>", "</think>"),
        eos="<|im_end|>",
        learned=_PLAIN.learned.replace("⟦", "<think>\n\n</think>\n\n⟦"),
        prompt=_PLAIN.prompt.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n"),
        system=str(_PLAIN.system) + "<think>\n\n</think>\n\n",
    ),
    "Yi": _chatml(stops=("<|endoftext|>",)),
    "InternLM2": _chatml(bos="<s>", stops=("<|endoftext|>",)),
}
