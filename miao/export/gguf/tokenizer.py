"""A byte-level BPE tokenizer as llama.cpp wants it: tokens, their types, merges and the split."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import tokenizers

from miao.errors import MiaoError
from miao.files import read_json
from miao.tokenizer.tokenizer import Tokenizer, token_text
from miao.tokenizer.train import QWEN2_PATTERN

_SINGLE_DIGITS = r"\p{N}"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_THREE_DIGITS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# The patterns that cut text before BPE, one after another, and whether whole words that are
# tokens skip the merges: what llama.cpp calls each. (Not gpt-4o: llama.cpp's version of it cuts
# combining marks elsewhere, still in b11549: Hindi, Tamil, Thai, points in Hebrew and Arabic.)
SPLITS: dict[tuple[tuple[str, ...], bool], str] = {
    ((QWEN2_PATTERN,), False): "qwen2",
    ((_THREE_DIGITS,), True): "llama-bpe",
    ((_THREE_DIGITS,), False): "smaug-bpe",
    ((_GPT2,), False): "gpt-2",
    ((_SINGLE_DIGITS, _GPT2), False): "smollm",
    ((r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK3), False): "deepseek-v3",
    ((_QWEN35,), False): "qwen35",
}

# llama.cpp stops at these wherever they stand in a vocabulary.
_KNOWN_ENDS = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>")


def tokenizer_settings(directory: Path, vocab_size: int) -> tuple[dict[str, Any], list[str]]:
    """What a GGUF says of the tokenizer in a model directory.

    Args:
        vocab_size: rows of the model's embedding; those without a token are named as unused.

    Returns:
        arguments of `GGUFWriter.add_<key>`, and notes for the user.

    Raises:
        MiaoError: llama.cpp would cut or merge text in another way.
    """
    tokenizer = Tokenizer.from_directory(directory)
    file = directory / "tokenizer.json"
    spec = read_json(file)
    if tokenizer.vocab_size > vocab_size:
        raise MiaoError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {vocab_size} embeddings",
            where=file,
            fix="put the tokenizer of this model beside it",
        )
    pattern = _split_name(spec, file)
    added = {token["id"]: token for token in spec["added_tokens"]}
    tokens, types = _tokens(tokenizer, added, vocab_size)
    begins, ends = adds_ends(directory)
    settings: dict[str, Any] = {
        "tokenizer_model": "gpt2",
        "tokenizer_pre": pattern,
        "token_list": tokens,
        "token_types": types,
        "token_merges": [_merge(pair) for pair in spec["model"]["merges"]],
        "add_bos_token": begins,
        "add_eos_token": ends,
        "add_space_prefix": False,
    }
    settings |= _special_ids(tokenizer, directory)
    with suppress(MiaoError):  # a base model has no chat template
        settings["chat_template"] = _without_generation_tags(tokenizer.chat_template.source)
    return settings, _notes(tokenizer, spec, settings)


def _split_name(spec: dict[str, Any], file: Path) -> str:
    """llama.cpp's name for how the text is cut before the merges."""
    model = spec["model"]
    key = tuple(_patterns(spec.get("pre_tokenizer"))), bool(model.get("ignore_merges"))
    odd = [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if odd or key not in SPLITS:
        raise MiaoError(
            f"llama.cpp does not know this tokenizer's way of cutting text ({odd or key[0]})",
            where=file,
            fix="known: " + ", ".join(SPLITS.values()) + "; `miao tokenizer` trains a qwen2 one",
        )
    return SPLITS[key]


def _patterns(step: dict[str, Any] | None) -> list[str]:
    """The regular expressions that a pre-tokenizer isolates, in order."""
    step = step or {}
    match step.get("type"):
        case "Sequence":
            return [pattern for inner in step["pretokenizers"] for pattern in _patterns(inner)]
        case "Split" if step.get("behavior") == "Isolated" and not step.get("invert"):
            return [step["pattern"].get("Regex") or step["pattern"].get("String")]
        case "Digits" if step.get("individual_digits"):
            return [_SINGLE_DIGITS]
        case "ByteLevel" if not step.get("add_prefix_space"):
            return [_GPT2] if step.get("use_regex", True) else []
    return [f"a step of type {step.get('type')}"]


def _tokens(
    tokenizer: Tokenizer, added: dict[int, dict[str, Any]], vocab_size: int
) -> tuple[list[str], list[int]]:
    from gguf import TokenType

    tokens, types = [], []
    for id in range(vocab_size):
        token = tokenizer.id_to_token(id)
        kind = TokenType.NORMAL
        if token is None:
            token, kind = f"[PAD{id}]", TokenType.UNUSED
        elif id in added:
            kind = TokenType.CONTROL if added[id]["special"] else TokenType.USER_DEFINED
        tokens.append(token)
        types.append(int(kind))
    return tokens, types


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def adds_ends(directory: Path) -> tuple[bool, bool]:
    """Whether the tokenizer of a model directory itself puts a token before and after a text."""
    file = directory / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(file))
    bare = backend.encode("a", add_special_tokens=False).ids
    ids = backend.encode("a", add_special_tokens=True).ids
    for begins in (False, True):
        for ends in (False, True):
            if ids[begins : len(ids) - ends] == bare:
                return begins, ends
    raise MiaoError(
        "llama.cpp adds at most one token before and one after a text; this tokenizer adds more",
        where=file,
    )


def _special_ids(tokenizer: Tokenizer, directory: Path) -> dict[str, int]:
    ids = {}
    file = directory / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    for role in ("bos", "eos", "pad", "unk"):
        text = token_text(config.get(f"{role}_token"))
        id = None if text is None else tokenizer.token_to_id(text)
        if id is not None:
            ids[f"{role}_token_id"] = id
    ids.setdefault("eos_token_id", tokenizer.end_of_turn_id)
    ids["eot_token_id"] = tokenizer.end_of_turn_id
    return ids


def _without_generation_tags(template: str) -> str:
    """The same template without transformers' {% generation %} tags (they show a trainer what is
    learnt), which not every reader of GGUF knows."""
    template = re.sub(r"({%-?\s*)generation(\s*-?%})", r"\1if true\2", template)
    return re.sub(r"({%-?\s*)endgeneration(\s*-?%})", r"\1endif\2", template)


def _notes(tokenizer: Tokenizer, spec: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    notes = []
    if spec.get("normalizer"):
        kind = spec["normalizer"].get("type")
        notes.append(
            f"llama.cpp does not normalise text ({kind}): unusual spellings get other tokens"
        )
    if any(token["lstrip"] or token["rstrip"] for token in spec["added_tokens"]):
        notes.append("llama.cpp keeps the spaces around control tokens that this tokenizer drops")
    ends = {settings["eos_token_id"], settings["eot_token_id"]}
    others = [tokenizer.id_to_token(id) for id in tokenizer.stop_ids if id not in ends]
    if unknown := [token for token in others if token not in _KNOWN_ENDS]:
        notes.append(f"llama.cpp will not stop at {', '.join(map(str, unknown))} by itself")
    return notes
