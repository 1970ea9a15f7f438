"""What a page knows: the model's numbers as bytes, and everything else as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from miao.engine.packed import whole_rows
from miao.errors import MiaoError
from miao.files import read_json
from miao.model import Decoder, ModelConfig, count_parameters, load_model
from miao.model.latent_attention import LatentAttention
from miao.ops.rope_scaling import scaled_frequencies
from miao.tokenizer import Tokenizer
from miao.tokenizer.spec import is_control

MOST_PARAMETERS = {"page": 100_000_000, "folder": 500_000_000}
"""A page is one text in the memory of a browser, several times over while it is opened; the parts
of a folder are read one by one."""
ALIGNMENT = 4
PageType = Literal["int8", "float16"]
LATENT_SIZES = ["kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"]
EXPERT_SIZES = [
    *("num_experts", "num_experts_per_tok", "moe_intermediate_size", "n_shared_experts"),
    *("scoring_func", "norm_topk_prob", "n_group", "topk_group", "routed_scaling_factor"),
]
SAMPLING: dict[str, float] = {"temperature": 0.7, "top_k": 0, "top_p": 0.9}
SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What the library means by \\s; JavaScript has U+FEFF among them, and lacks U+0085."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Contents:
    """settings: what is said of the model, as JSON; weights: the numbers that it points into."""

    settings: dict[str, Any]
    weights: bytes


def read_contents(directory: Path, dtype: PageType = "int8", kind: str = "page") -> Contents:
    """A model directory as a page, or a folder, holds it.

    Raises:
        MiaoError: see `require_page`; a tokenizer that is not byte-level BPE; numbers that are not
            finite, or too large for float16.
    """
    model, tokenizer = load_model(directory), Tokenizer.from_directory(directory)
    c = model.config
    require_page(c, str(directory), kind)
    if tokenizer.vocab_size > c.vocab_size:
        raise MiaoError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {c.vocab_size}",
            where=directory,
            fix="put the tokenizer of this model beside it",
        )
    listed, weights = _pack(model, dtype, directory)
    frequencies, factor = scaled_frequencies(c.rope_dim, c.rope_theta, c.rope_scaling)
    sizes = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"]
    sizes += ["num_attention_heads", "num_key_value_heads", "rms_norm_eps"]
    attention, scale = model.model.layers[0].self_attn, {}
    if isinstance(attention, LatentAttention):
        sizes += LATENT_SIZES
        scale = {"score_scale": attention.scale}
    sizes += EXPERT_SIZES if c.num_experts else []
    template = tokenizer.chat_template if tokenizer.has_chat_template else None
    settings = {
        "config": {name: getattr(c, name) for name in sizes}
        | {"frequencies": frequencies.tolist(), "attention_factor": factor}
        | {"context": c.context_length, "tokens": c.tokens}
        | scale,
        "tensors": listed,
        "dtype": dtype,
        "tokenizer": tokenizer_facts(tokenizer),
        "template": template.source if template else None,
        "special": template.special_tokens if template else {},
        "stop_ids": list(tokenizer.stop_ids),
        "sampling": _sampling(directory, c),
    }
    return Contents(settings, weights)


def require_page(config: ModelConfig, where: str, kind: str = "page") -> None:
    """Raises:
    MiaoError: a model that no page can hold or compute.
    """
    otherwise = "export it with --to gguf or --to hf, or serve it: miao serve MODEL"
    reason = None
    if (config.rope_scaling or {}).get("rope_type") == "dynamic":
        reason = "pages have no rope scaling 'dynamic': its angles depend on what is read at once"
    elif (total := count_parameters(config).total) > (most := MOST_PARAMETERS[kind]):
        reason = (
            f"a {kind} of {total / 1e6:.0f} million parameters is too much for a phone's browser "
            f"(at most {most // 10**6} million)"
        )
        if total <= MOST_PARAMETERS["folder"]:
            otherwise = (
                "export it with --to folder, for a static host: its weights lie in parts, which a "
                f"browser reads one by one; or {otherwise}"
            )
    if reason:
        raise MiaoError(reason, where=where, fix=otherwise)


def rounded(model: Decoder, dtype: PageType = "int8") -> Decoder:
    """The decoder with every matrix as a page keeps it, the embedding included: what a page
    computes with, for other programs to compute."""
    for name, parameter in model.named_parameters():
        if _is_packed(name, parameter):
            numbers, scale_o = whole_rows(parameter.detach())
            whole = numbers.float() * scale_o[..., None]
            parameter.data = whole if dtype == "int8" else parameter.data.half().float()
    return model


def _is_packed(name: str, values: Tensor) -> bool:
    """Matrices; not a router's, where a near tie decides an expert."""
    return values.ndim >= 2 and not name.endswith(".mlp.gate.weight")


def _pack(model: Decoder, dtype: PageType, where: Path) -> tuple[list[dict[str, Any]], bytes]:
    """The list of the tensors and their bytes: float32 vectors and scales, then the matrices."""
    small, large = bytearray(), bytearray()
    listed: list[dict[str, Any]] = []
    biases = [each for each in model.named_buffers() if each[0].endswith("correction_bias")]
    for name, parameter in (*model.named_parameters(), *biases):
        values = parameter.detach().float().contiguous()
        values = values.flatten(0, -2) if values.ndim > 2 else values  # experts on each other
        if not bool(values.isfinite().all()):
            raise MiaoError(f"{name} holds values that are not finite", where=where)
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "type": "float32"}
        listed.append(entry)
        if not _is_packed(name, values):
            entry["at"] = _append(small, values)
            continue
        entry["type"] = dtype
        if dtype == "int8":
            values, scale_o = whole_rows(values)
            entry["scale_at"] = _append(small, scale_o)
        elif float(values.abs().max()) > torch.finfo(torch.float16).max:
            raise MiaoError(f"{name} is too large for float16", where=where, fix="use int8")
        else:
            values = values.half()
        entry["at"] = _append(large, values)
    for entry in listed:
        if entry["type"] == dtype:
            entry["at"] += len(small)
    return listed, bytes(small + large)


def _append(memory: bytearray, values: Tensor) -> int:
    at = len(memory)
    memory += values.numpy().tobytes()
    memory += bytes(-len(memory) % ALIGNMENT)
    return at


def _sampling(directory: Path, config: ModelConfig) -> dict[str, float]:
    """The model's own settings, as far as it brings any."""
    file = directory / "generation_config.json"
    own = read_json(file) if file.is_file() else {}
    named = {name: own[name] for name in ("temperature", "top_k", "top_p") if own.get(name)}
    named |= {"repetition_penalty": own.get("repetition_penalty") or 1.0}
    return SAMPLING | named | {"max_new_tokens": min(512, max(1, config.context_length // 2))}


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer as `tokenizer.js` reads it.

    Raises:
        MiaoError: something in it that the page does not know.
    """
    spec = tokenizer.spec()
    model = spec["model"]
    if model["type"] != "BPE" or not tokenizer.is_byte_level:
        raise _unknown("a vocabulary of sentencepiece")
    normalize = _normalizer(spec.get("normalizer"))
    letters: list[str | None] = [None] * tokenizer.vocab_size
    for token, id in model["vocab"].items():
        letters[id] = token
    ids = model["vocab"]
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    added = [{k: t[k] for k in ("content", "id", "special")} for t in spec["added_tokens"]]
    for token in spec["added_tokens"]:
        if not is_control(token) and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            raise _unknown(f"the added token {token['content']!r} with spaces around it")
    return {
        "vocab": letters,
        "merges": [ids[side] for pair in pairs for side in pair],
        "patterns": [javascript_pattern(pattern) for pattern in _patterns(spec)],
        "normalize": normalize,
        "ignore_merges": bool(model.get("ignore_merges")),
        "controls": [t for t in added if is_control(t)],
        "plain": [t for t in added if not is_control(t)],
        "document_start": list(tokenizer.document_start),
    }


def _unknown(what: str) -> MiaoError:
    return MiaoError(
        f"pages cannot tokenise with {what}",
        where="tokenizer.json",
        fix="export with --to gguf or --to hf",
    )


def _normalizer(entry: dict[str, Any] | None) -> str | None:
    if entry is None:
        return None
    if entry["type"] not in ("NFC", "NFKC", "NFD", "NFKD"):
        raise _unknown(f"the normalizer {entry['type']}")
    return str(entry["type"])


def _patterns(spec: dict[str, Any]) -> list[str]:
    first = spec.get("pre_tokenizer") or {}
    steps = first.get("pretokenizers", [first])
    patterns = []
    for step in steps:
        kind = step.get("type")
        if kind == "ByteLevel" and not step.get("add_prefix_space"):
            patterns += [GPT2] if step.get("use_regex", True) else []
        elif kind == "Split" and step["behavior"] == "Isolated" and not step.get("invert"):
            pattern = step["pattern"]
            patterns.append(pattern.get("Regex") or re.escape(pattern["String"]))
        else:
            raise _unknown(f"the pre-tokenizer {kind}")
    return patterns


def javascript_pattern(pattern: str) -> str:
    """The library's regular expression as JavaScript's, which has no (?i:...), and other spaces.

    Raises:
        MiaoError: a part of it that has no such form here.
    """
    result, is_class, depth, loose = "", False, 0, 0
    for part in re.findall(r"\(\?i:|\(\?[:=!]|\\[pPux]\{[^}]*\}|\\.|.", pattern, flags=re.DOTALL):
        if part == "[" and not is_class:
            is_class = True
        elif part == "]":
            is_class = False
        elif part == "\\s":
            part = SPACES if is_class else f"[{SPACES}]"
        elif part == "\\S":
            if is_class:
                raise _unknown("the pattern \\S within brackets")
            part = f"[^{SPACES}]"
        elif part.startswith("(") and not is_class:
            depth += 1
            if part == "(?i:":
                part, loose = "(?:", depth
        elif part == ")" and not is_class:
            loose = 0 if loose == depth else loose
            depth -= 1
        elif part == "'":
            pass
        elif loose and not is_class and part.isalpha():
            part = f"[{_cases(part)}]"
        result += part
    return result


def _cases(letter: str) -> str:
    """A letter and what counts as the same."""
    return letter.lower() + letter.upper() + {"s": "ſ", "k": "\u212a"}.get(letter.lower(), "")
