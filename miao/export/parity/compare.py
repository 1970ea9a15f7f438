"""What is compared of two programs that load one model: ids, logits, answers; and the table."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miao.errors import MiaoError
from miao.export.parity.reference import Answer, Reference

TOLERANCE = 1e-4
"""Largest difference of two logits, as a share of the largest logit (or of 1)."""


@dataclass(frozen=True)
class Finding:
    """One comparison, and how it came out."""

    what: str
    measured: str
    passed: bool


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
    measured = f"of {all_but(wrong, reference.encodings)} texts equal"
    if changed:
        measured += f", {len(changed)} normalised (NFC) by one of both"
    if wrong := [text for text in wrong if text not in changed]:
        measured += f", not of {wrong[0][:30]!r}"
    yield Finding("token ids", measured, not wrong)
    wrong = [each.prompt for each in reference.answers if encode(each.prompt) != each.prompt_ids]
    measured = f"of {all_but(wrong, reference.answers)} prompts equal"
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


def all_but(wrong: Sequence[Any], every: Any) -> str:
    return f"all {len(every)}" if not wrong else f"{len(every) - len(wrong)} of {len(every)}"


def _by_normalising(text: str, reference: Reference, encode: Callable[[str], list[int]]) -> bool:
    """Whether ids differ only because the text is normalised there and not here, or here only."""
    composed = unicodedata.normalize("NFC", text)
    ids = encode(composed)
    return composed != text and ids in (encode(text), reference.encodings[text])
