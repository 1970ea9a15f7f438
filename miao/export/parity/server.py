"""Compares a model behind vLLM's OpenAI interface with what Miao itself computes."""

from __future__ import annotations

from typing import Any

import numpy as np

from miao.errors import MiaoError
from miao.export.parity.compare import TOLERANCE, Finding, compare_answers, compare_encodings
from miao.export.parity.reference import Answer, Reference
from miao.openai_api import NoAnswer, Unreachable, ask, base_url

_TIMEOUT = 300.0
_READ = 128
"""Tokens whose log-probabilities are compared."""


def check_with_server(url: str, reference: Reference) -> list[Finding]:
    """Asks the first model of a vLLM server for token ids, log-probabilities and answers.

    Raises:
        MiaoError: there is no server, or it refuses a request.
    """
    url = base_url(url).removesuffix("/v1")
    model = _ask(url, "/v1/models")["data"][0]["id"]

    def encode(text: str) -> list[int]:
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return _ask(url, "/tokenize", body)["tokens"]

    def generate(answer: Answer) -> list[int]:
        body = {
            "model": model,
            "prompt": answer.prompt_ids,
            "max_tokens": len(answer.ids),
            "temperature": 0,
            "repetition_penalty": 1.0,
            "return_token_ids": True,
        }
        return _ask(url, "/v1/completions", body)["choices"][0]["token_ids"]

    return [
        *compare_encodings(reference, encode, may_normalise=True),
        _compare_logprobs(url, model, reference),
        compare_answers(reference, generate),
        _compare_chats(url, model, reference),
    ]


def _compare_logprobs(url: str, model: str, reference: Reference) -> Finding:
    ids = reference.ids[:_READ]
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    (choice,) = _ask(url, "/v1/completions", body)["choices"]
    theirs = [
        at[str(id)]["logprob"]
        for id, at in zip(ids[1:], choice["prompt_logprobs"][1:], strict=True)
    ]
    logits_tv = reference.logits_tv[: len(ids) - 1].astype(np.float64)
    total = np.log(np.exp(logits_tv - logits_tv.max(axis=1, keepdims=True)).sum(axis=1))
    total += logits_tv.max(axis=1)
    ours = logits_tv[np.arange(len(ids) - 1), ids[1:]] - total
    difference = float(np.abs(ours - np.array(theirs)).max())
    limit = 2 * TOLERANCE * max(1.0, float(np.abs(logits_tv).max()))
    measured = f"differ by at most {difference:.1e} ({len(theirs)} tokens)"
    return Finding("log-probabilities", measured, difference <= limit)


def _compare_chats(url: str, model: str, reference: Reference) -> Finding:
    """Questions as a client asks them: the server renders the conversation and decodes."""
    asked = [answer for answer in reference.answers if answer.question is not None]
    wrong = []
    for answer in asked:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": answer.question}],
            "max_tokens": len(answer.ids),
            "temperature": 0,
            "repetition_penalty": 1.0,
            "return_token_ids": True,
        }
        (choice,) = _ask(url, "/v1/chat/completions", body)["choices"]
        # Programs differ in what they show of a character that was cut in two.
        said = (choice["message"]["content"] or "") == answer.text or "\ufffd" in answer.text
        if choice["token_ids"] != answer.ids or not said:
            wrong.append(answer.question)
    measured = f"{len(asked) - len(wrong)} of {len(asked)} answers equal"
    return Finding("chat", measured + (f", not to {wrong[0]!r}" if wrong else ""), not wrong)


def _ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    try:
        return ask(url + path, body, timeout=_TIMEOUT)
    except NoAnswer as error:
        fix = "is vLLM running there?" if isinstance(error, Unreachable) else None
        raise MiaoError(str(error), where=url + path, fix=fix) from error
