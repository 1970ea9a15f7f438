"""What a `tokenizer.json` says."""

from __future__ import annotations

from typing import Any

from miao.errors import MiaoError


def is_control(token: dict[str, Any]) -> bool:
    """Added tokens that steer the model; runs of spaces, which some families add too, do not."""
    content: str = token["content"]
    return token["special"] or (content.startswith("<") and content.endswith(">"))


def ordinary_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """The same vocabulary for ordinary text."""
    added = spec["added_tokens"]
    if spec["model"]["type"] != "Unigram":
        plain = [{**token, "special": is_control(token)} for token in added]
        return {**spec, "added_tokens": plain}
    # Here any piece is found in a text, control tokens too; but for a piece with a space in it,
    # since spaces have become something else by then.
    controls = {token["content"] for token in added if is_control(token)}
    pieces = [[f" {p}" if p in controls else p, score] for p, score in spec["model"]["vocab"]]
    others = [token for token in added if not is_control(token)]
    return {**spec, "added_tokens": others, "model": {**spec["model"], "vocab": pieces}}


def decoding_steps(spec: dict[str, Any]) -> list[str]:
    """The types of the decoder's steps.

    Raises:
        MiaoError: the vocabulary does not hold all bytes.
    """
    decoder = spec.get("decoder") or {}
    steps = [step.get("type", "") for step in decoder.get("decoders", [decoder])]
    model = spec["model"]
    with_bytes = model.get("byte_fallback") and "ByteFallback" in steps
    if not (model.get("type") == "BPE" and "ByteLevel" in steps) and not with_bytes:
        raise MiaoError(
            "this is not a byte-level BPE tokenizer (nor a sentencepiece one with byte pieces), "
            "the only kinds that Miao reads",
            fix="choose a model that has one: Qwen, Llama 3, DeepSeek, SmolLM, GPT-2, ...",
        )
    return steps
