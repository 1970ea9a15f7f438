"""An exported model in the installed transformers, compared with what Miao computes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miao.errors import first_line
from miao.export.parity.compare import (
    Finding,
    all_but,
    compare_answers,
    compare_encodings,
    compare_logits,
)
from miao.export.parity.reference import CONVERSATIONS, Answer, Reference
from miao.provenance import installed_version


def check_with_transformers(
    directory: Path, reference: Reference, own: bool = True
) -> list[Finding]:
    """Loads a directory in the installed transformers, in float32 on the CPU, and compares.

    What cannot even be loaded is a finding too, not an error.

    Args:
        own: Miao wrote it, and must have named every token that it stops at; of others it may
            know more ends than they name.
    """
    import torch
    import transformers

    with quiet():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except Exception as error:  # of any kind, from any depth
            return [_refusal("tokenizer", error)]
        findings = [
            *compare_encodings(
                reference,
                lambda text: _encode(tokenizer, text),
                # transformers 5 takes this class, which normalises, for whatever Qwen2 brings.
                may_normalise=type(tokenizer).__name__ == "Qwen2Tokenizer",
            ),
            _compare_decoding(reference, tokenizer),
            _compare_conversations(reference, tokenizer),
        ]
        try:
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                directory, dtype=torch.float32, output_loading_info=True, local_files_only=True
            )
        except Exception as error:
            return [*findings, _refusal("model", error)]
        model, loading = loaded[0].eval(), loaded[1]
        findings.append(_compare_names(model, loading))
        with torch.inference_mode():
            logits_tv = model(torch.tensor([reference.ids])).logits[0].numpy()
        findings.append(compare_logits(reference, logits_tv))
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        findings.append(_compare_stops(reference, ends, own))
        findings.append(compare_answers(reference, lambda answer: _generate(model, answer)))
    return findings


def transformers_version() -> str | None:
    """The installed version, or None."""
    return installed_version("transformers")


def _compare_decoding(reference: Reference, tokenizer: Any) -> Finding:
    settings = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    wrong = [
        text
        for text, ids in reference.encodings.items()
        if tokenizer.decode(ids, **settings) != reference.decodings[text]
    ]
    measured = f"of {all_but(wrong, reference.encodings)} texts equal"
    return Finding("decoding", measured, not wrong)


def _compare_conversations(reference: Reference, tokenizer: Any) -> Finding:
    wrong, refused = [], 0
    for name, expected in reference.conversations.items():
        try:
            rendered = tokenizer.apply_chat_template(**_arguments(name), tokenize=False)
        except Exception:  # jinja2's, ValueError: whatever a template or its absence brings about
            rendered = None
        refused += expected is None
        if rendered != expected:
            wrong.append(name)
    measured = f"{all_but(wrong, reference.conversations)} conversations rendered alike"
    if refused:
        measured += f" ({refused} of them refused by both)"
    if wrong:
        measured += f", not: {', '.join(wrong)}"
    return Finding("chat template", measured, not wrong)


def _arguments(name: str) -> dict[str, Any]:
    arguments = dict(CONVERSATIONS[name])
    arguments["conversation"] = arguments.pop("messages")
    return arguments


def _compare_names(model: Any, loading: dict[str, Any]) -> Finding:
    wrong = [f"{kind[:-5]}: {sorted(names)[0]}" for kind, names in loading.items() if names]
    count = sum(parameter.numel() for parameter in model.parameters())
    measured = f"{count:,} loaded as {type(model).__name__}"
    return Finding("weights", ", ".join([measured, *map(str, wrong)]), not wrong)


def _compare_stops(reference: Reference, ends: set[Any], own: bool) -> Finding:
    ours = set(reference.stop_ids)
    if not own and ends and ends < ours:
        more = f"{sorted(ends)}; Miao also stops at {sorted(ours - ends)}"
        return Finding("stop tokens", more, True)
    measured = f"{sorted(ours)}" if ends == ours else f"{ends} instead of {ours}"
    return Finding("stop tokens", measured, ends == ours)


def _encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _generate(model: Any, answer: Answer) -> list[int]:
    import torch

    prompt_bt = torch.tensor([answer.prompt_ids])
    with torch.inference_mode():
        generated = model.generate(
            prompt_bt,
            attention_mask=torch.ones_like(prompt_bt),
            max_new_tokens=len(answer.ids),
            do_sample=False,
            repetition_penalty=1.0,
            temperature=None,
            top_p=None,
            top_k=None,
        )
    return generated[0, len(answer.prompt_ids) :].tolist()


def _refusal(what: str, error: Exception) -> Finding:
    return Finding(what, f"cannot be loaded: {first_line(error)}", False)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers, whose words are not for our users."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
