"""Compares a GGUF in llama.cpp with what Miao itself computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from miao.export.gguf.file import FileType
from miao.export.parity.compare import Finding, compare_answers, compare_encodings, compare_logits
from miao.export.parity.reference import ANSWER, Answer, Reference

_F32_TOLERANCE = 5e-4
"""As in `miao.export.parity`, of llama.cpp's arithmetic."""
_OFF: dict[FileType, float] = {"f16": 0.02, "q8_0": 0.15, "q4_0": 0.7}
"""How far logits may be off at the median token, as a share of their own size. A model of 2.4M
weights is off by 0.001, 0.02 and 0.23; a wrong layout by one or more."""


def has_llama_cpp() -> bool:
    """Whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def check_with_llama_cpp(path: Path, file_type: FileType, reference: Reference) -> list[Finding]:
    """Loads a GGUF in llama.cpp and compares. Smaller types than f32 compute something else by
    design: there the size of the difference must be in proportion, and answers are only counted.
    """
    from llama_cpp import GGML_TYPE_F32, Llama

    longest = max([len(reference.ids), *(len(a.prompt_ids) + ANSWER for a in reference.answers)])
    try:
        llama = Llama(
            str(path),
            n_ctx=longest + 1,
            n_batch=longest + 1,
            logits_all=True,
            type_k=GGML_TYPE_F32,
            type_v=GGML_TYPE_F32,
            verbose=False,
        )
    except Exception as error:
        return [Finding("model", f"cannot be loaded: {error}", False)]

    def encode(text: str) -> list[int]:
        return llama.tokenize(text.encode(), add_bos=False, special=True)

    def generate(answer: Answer) -> list[int]:
        llama.reset()
        ids: list[int] = []
        for id in llama.generate(answer.prompt_ids, temp=0.0, repeat_penalty=1.0):
            ids.append(id)
            if len(ids) == len(answer.ids):
                break
        return ids

    # llama.cpp never normalises; the export has said so where the tokenizer does.
    findings = list(compare_encodings(reference, encode, may_normalise=True))
    llama.eval(reference.ids)
    logits_tv = np.array(llama.scores[: len(reference.ids)], dtype=np.float32)
    stop = llama.token_eos() in reference.stop_ids
    findings.append(Finding("stop token", str(llama.token_eos()), stop))
    if file_type == "f32":
        findings.append(compare_logits(reference, logits_tv, _F32_TOLERANCE))
        findings.append(compare_answers(reference, generate, tie=2 * _F32_TOLERANCE))
        return findings
    findings.append(_proportion(reference, logits_tv, _OFF[file_type]))
    answers = compare_answers(reference, generate)
    measured = answers.measured.split(", not after")[0]
    findings.append(Finding("greedy answers", f"{measured}; need not be", True))
    return findings


def _proportion(reference: Reference, logits_tv: np.ndarray, limit: float) -> Finding:
    truth = reference.logits_tv
    if logits_tv.shape != truth.shape:
        return Finding("logits", f"{logits_tv.shape} instead of {truth.shape}", False)
    # The median: where a router chooses other experts, the logits are quite others.
    off = np.linalg.norm(logits_tv - truth, axis=1) / np.linalg.norm(truth, axis=1)
    share = float(np.median(off))
    return Finding("logits", f"{share:.2%} off at the median token", share <= limit)
