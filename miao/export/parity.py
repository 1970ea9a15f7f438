"""Compares an exported model with what Miao itself computes.

    python -m miao.export.parity DIRECTORY                   in the installed transformers
    python -m miao.export.parity DIRECTORY --server URL      in a running vLLM server
    python -m miao.export.parity DIRECTORY --write FILE      only writes what Miao computes
    python -m miao.export.parity DIRECTORY --reference FILE  compares with what was written

With `--reference` nothing of Miao computes: that works in the environment of another program.
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miao.errors import MiaoError, first_line
from miao.export.origin import MARK
from miao.export.reference import CONVERSATIONS, Answer, Reference, reference_of
from miao.provenance import installed_version

TOLERANCE = 1e-4
"""Largest difference of two logits, as a share of the largest logit (or of 1)."""


@dataclass(frozen=True)
class Finding:
    """One comparison, and how it came out."""

    what: str
    measured: str
    passed: bool


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


def compare_logits(
    reference: Reference, logits_tv: np.ndarray, tolerance: float = TOLERANCE
) -> Finding:
    """The largest difference of any logit after any token of the text."""
    truth = reference.logits_tv
    if logits_tv.shape != truth.shape:
        return Finding("logits", f"{logits_tv.shape} instead of {truth.shape}", False)
    largest, difference = float(np.abs(truth).max()), float(np.abs(logits_tv - truth).max())
    measured = f"differ by at most {difference:.1e} (largest {largest:.1f}; {len(truth)} tokens)"
    return Finding("logits", measured, difference <= tolerance * max(1.0, largest))


def compare_encodings(
    reference: Reference, encode: Callable[[str], list[int]], may_normalise: bool = False
) -> Iterator[Finding]:
    """Token ids of texts in many scripts, and of the prompts.

    Args:
        may_normalise: one of both, the program or the model's tokenizer here, is known to bring
            text into Unicode's form NFC first; texts that are not in it may have other ids then,
            which is said.
    """
    wrong = [text for text, ids in reference.encodings.items() if encode(text) != ids]
    changed = [t for t in wrong if may_normalise and _by_normalising(t, reference, encode)]
    measured = f"of {_all_but(wrong, reference.encodings)} texts equal"
    if changed:
        measured += f", {len(changed)} normalised (NFC) by one of both"
    if wrong := [text for text in wrong if text not in changed]:
        measured += f", not of {wrong[0][:30]!r}"
    yield Finding("token ids", measured, not wrong)
    wrong = [each.prompt for each in reference.answers if encode(each.prompt) != each.prompt_ids]
    measured = f"of {_all_but(wrong, reference.answers)} prompts equal"
    yield Finding("prompt ids", measured, not wrong)


def compare_answers(
    reference: Reference,
    generate: Callable[[Answer], list[int]],
    what: str = "greedy answers",
    tie: float = 2 * TOLERANCE,
) -> Finding:
    """Continuations, token by token; they may part where two tokens were equally likely.

    Args:
        generate: the ids of an answer with its stop token, as many as the answer has.
        tie: tokens whose logits are closer than this, as a share of the largest logit, count as
            equally likely.
    """
    tie *= max(1.0, float(np.abs(reference.logits_tv).max()))
    equal, ties, wrong = 0, 0, []
    for answer in reference.answers:
        ids = generate(answer)
        if ids == answer.ids:
            equal += 1
            continue
        length = min(len(ids), len(answer.ids))
        part = next((i for i in range(length) if ids[i] != answer.ids[i]), length)
        if part < len(answer.gaps) and answer.gaps[part] <= tie:
            ties += 1
        else:
            wrong.append(f"{answer.prompt[-20:]!r} at token {part + 1}")
    count = sum(len(answer.ids) for answer in reference.answers)
    measured = f"{equal} of {len(reference.answers)} equal ({count} tokens)"
    if ties:
        measured += f", {ties} part at a tie"
    if wrong:
        measured += f", not after {wrong[0]}"
    return Finding(what, measured, not wrong)


def print_findings(title: str, findings: Sequence[Finding]) -> None:
    """A table of comparisons."""
    from miao.console import print_table

    rows = [[f.what, f.measured, "ok" if f.passed else "DIFFERS"] for f in findings]
    print_table(title, ["", "measured", ""], rows, right_from=3)


def require_passed(findings: Sequence[Finding], where: Path, program: str) -> None:
    """Raises:
    MiaoError: a comparison failed; names all that did.
    """
    if failed := [f"{f.what} ({f.measured})" for f in findings if not f.passed]:
        raise MiaoError(
            f"in {program} the exported model is not the same: {'; '.join(failed)}",
            where=where,
            fix="do not use this export; please report it, with the table above",
        )


def _compare_decoding(reference: Reference, tokenizer: Any) -> Finding:
    settings = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    wrong = [
        text
        for text, ids in reference.encodings.items()
        if tokenizer.decode(ids, **settings) != reference.decodings[text]
    ]
    measured = f"of {_all_but(wrong, reference.encodings)} texts equal"
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
    measured = f"{_all_but(wrong, reference.conversations)} conversations rendered alike"
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


def _by_normalising(text: str, reference: Reference, encode: Callable[[str], list[int]]) -> bool:
    """Whether ids differ only because the text is normalised there and not here, or here only."""
    composed = unicodedata.normalize("NFC", text)
    ids = encode(composed)
    return composed != text and ids in (encode(text), reference.encodings[text])


def _refusal(what: str, error: Exception) -> Finding:
    return Finding(what, f"cannot be loaded: {first_line(error)}", False)


def _all_but(wrong: Sequence[Any], every: Any) -> str:
    return f"all {len(every)}" if not wrong else f"{len(every) - len(wrong)} of {len(every)}"


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


def main(words: Sequence[str] | None = None) -> int:
    """The command line above; 2 where something differs."""
    parser = argparse.ArgumentParser(
        prog="python -m miao.export.parity",
        description="Compares an exported model with what Miao computes.",
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--reference", type=Path, help="what --write wrote (default: compute it)")
    parser.add_argument("--write", type=Path, help="write what Miao computes to this file")
    parser.add_argument("--server", help="compare in a vLLM server: http://localhost:8000")
    options = parser.parse_args(words)
    try:
        load = options.reference is None
        reference = reference_of(options.directory) if load else Reference.load(options.reference)
        if options.write:
            reference.save(options.write)
            return 0
        program = f"transformers {transformers_version()}"
        if options.server:
            from miao.export.parity_server import check_with_server

            program = f"the server {options.server}"
            findings = check_with_server(options.server, reference)
        else:
            own = (options.directory / MARK).exists()
            findings = check_with_transformers(options.directory, reference, own)
        print_findings(f"{options.directory} in {program}", findings)
        require_passed(findings, options.directory, program)
    except MiaoError as error:
        print(f"miao: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
