"""Answers that must have a form: JSON, JSON of a schema, or a call of a function.

A form comes from whoever asks, so its cost is bounded: its size, the work of its compilation and of
every step (llguidance gives up beyond `FUEL`). What a step costs is spent beside the engine, in
threads of its own (llguidance works without Python's lock); compiled forms are kept.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import sys
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from miao.engine.schemas import arguments_of, check, closed, moved
from miao.errors import MiaoError, first_line, install_hint
from miao.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_FORM = 100_000
"""Characters of a form."""
KEPT_FORMS = 32
THREADS = 2
"""For each kind of work."""
STACK = 256 * 2**20
"""Bytes of address space that a thread's stack may take."""
FUEL: dict[str, Any] = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 100_000,
}
"""llguidance's units of work; tenths of a second each."""


class Grammars:
    """Makes constraints for one tokenizer, with llguidance.

    Args:
        vocab_size: how many logits the model has (it may have more than the tokenizer tokens).
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._kept: OrderedDict[str, GrammarConstraint] = OrderedDict()
        self._lock = threading.Lock()

    def json(self, schema: dict[str, Any] | None = None) -> GrammarConstraint:
        """Any JSON object, or what a JSON schema allows (see `schemas.closed`).

        Raises:
            MiaoError: a schema that is none, or says what cannot be enforced.
        """
        from llguidance import LLMatcher

        _written(schema)
        check(schema or {})
        schema = {"type": "object"} if schema is None else closed(schema)
        return self._constraint(
            LLMatcher.grammar_from_json_schema, schema, overrides={"whitespace_flexible": False}
        )

    def choice(self, texts: list[str]) -> GrammarConstraint:
        """One of these texts."""
        from llguidance import LLMatcher

        lark = "start: " + " | ".join(map(json.dumps, dict.fromkeys(texts)))
        return self._constraint(LLMatcher.grammar_from_lark, lark)

    def regex(self, pattern: str) -> GrammarConstraint:
        """A text that a regular expression matches whole.

        Raises:
            MiaoError: an expression that is none, or has what cannot be enforced.
        """
        from llguidance import LLMatcher

        return self._constraint(LLMatcher.grammar_from_regex, pattern)

    def grammar(self, text: str) -> GrammarConstraint:
        """A text of a context-free grammar.

        Args:
            text: Lark as llguidance has it, or llama.cpp's EBNF (GBNF).

        Raises:
            MiaoError: a grammar that is none.
        """
        from llguidance import grammar_from

        return self._constraint(grammar_from, "grammar", text)

    def tool_calls(self, tools: list[dict[str, Any]]) -> GrammarConstraint:
        """One call of one of these functions, in the words of the chat template.

        Args:
            tools: OpenAI's function objects: name and, as a JSON schema, parameters.

        Raises:
            MiaoError: see `json`; or the tokenizer has no tokens for calls.
        """
        from llguidance import LLMatcher

        begin, end = (self._tokenizer.token_to_id(t) for t in ("<tool_call>", "</tool_call>"))
        if begin is None or end is None:
            raise MiaoError("this model's tokenizer knows no <tool_call>")
        _written(tools)
        alternatives: list[dict[str, Any]] = []
        for number, tool in enumerate(tools):
            place = "#" if len(tools) == 1 else f"#/anyOf/{number}"
            check(tool.get("parameters") or {})
            parameters = arguments_of(tool.get("parameters"))
            properties = {
                "name": {"const": tool["name"]},
                "arguments": moved(parameters, f"{place}/properties/arguments"),
            }
            alternatives.append(
                {
                    "type": "object",
                    "properties": properties,
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                }
            )
        call: dict[str, Any] = (
            alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
        )
        spaces = {"item_separator": ", ", "key_separator": ": "}
        call["x-guidance"] = {"whitespace_flexible": False, **spaces}
        lark = f'start: <[{begin}]> "\\n" call "\\n" <[{end}]>\ncall: %json {json.dumps(call)}\n'
        return self._constraint(LLMatcher.grammar_from_lark, lark)

    def _constraint(self, make: Any, *arguments: Any, **options: Any) -> GrammarConstraint:
        """A constraint of the grammar that `make` makes; one that is known is not compiled again.

        Raises:
            MiaoError: it is too large, or cannot be enforced.
        """
        key = f"{make.__name__} {_written(arguments)}"
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        if kept is None:
            kept = self._compiled(make, *arguments, **options)
            with self._lock:
                self._kept[key] = kept
                while len(self._kept) > KEPT_FORMS:
                    self._kept.popitem(last=False)
        return kept.copy()

    def _compiled(self, make: Any, *arguments: Any, **options: Any) -> GrammarConstraint:
        from llguidance import LLMatcher, LLParserLimits

        def compiled() -> LLMatcher:
            limits = LLParserLimits(**FUEL)
            grammar = make(*arguments, **options)
            return LLMatcher(self._backend, grammar, log_level=0, limits=limits)

        try:
            matcher = _threads("compile").submit(compiled).result()
        except (ValueError, TypeError, RuntimeError) as error:
            raise _refusal(first_line(error)) from error
        constraint = GrammarConstraint(matcher, self._vocab_size)
        constraint.check()
        return constraint

    @cached_property
    def _backend(self) -> LLTokenizer:
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise MiaoError(
                "answers in a given form need the 'llguidance' package",
                fix=install_hint("serve"),
            ) from error
        with tempfile.TemporaryDirectory() as directory:
            self._tokenizer.save(Path(directory))
            return LLTokenizer(
                str(Path(directory) / "tokenizer.json"),
                n_vocab=self._vocab_size,
                eos_token=sorted(self._tokenizer.stop_ids),
            )


class GrammarConstraint:
    """One answer's place in its grammar (`Constraint` of the scheduler). What may come next is
    worked out beside the engine, as soon as the place is known."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, known: Future[Tensor] | None = None):
        self._matcher, self._vocab_size = matcher, vocab_size
        self._forbidden = known or _threads("step").submit(self._look_ahead)

    def copy(self) -> GrammarConstraint:
        """Another answer at the same place."""
        return GrammarConstraint(self._matcher.deep_copy(), self._vocab_size, self._forbidden)

    def check(self) -> None:
        """Raises:
        MiaoError: nothing has this form, or it is too complex.
        """
        self._forbidden.result()

    @property
    def is_ready(self) -> bool:
        return self._forbidden.done()

    def wait(self, seconds: float) -> None:
        concurrent.futures.wait([self._forbidden], seconds)

    def allowed(self, logits_v: Tensor) -> Tensor:
        """The logits with everything that the grammar forbids at -inf.

        Raises:
            MiaoError: see `check`.
        """
        forbidden_v = self._forbidden.result()
        return logits_v.masked_fill(forbidden_v.to(logits_v.device), float("-inf"))

    def accept(self, token: int) -> bool:
        """Takes note of a token; True when the form is complete and nothing may follow.

        Raises:
            MiaoError: see `check`.
        """
        self.check()  # whoever looks ahead must have done so
        is_taken = self._matcher.consume_token(token)
        self._raise_errors()
        if not is_taken or self._matcher.is_stopped():
            return True
        self._forbidden = _threads("step").submit(self._look_ahead)
        return False

    def _look_ahead(self) -> Tensor:
        self._raise_errors()
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._raise_errors()
        mask = np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(bool)
        if not mask.any():
            raise _refusal("nothing has it")
        return ~torch.from_numpy(mask)

    def _raise_errors(self) -> None:
        if self._matcher.is_error():
            reason = first_line(ValueError(self._matcher.get_error()))
            raise _refusal("nothing has it" if reason == "NoExtensionBias" else reason)


def _written(form: Any) -> str:
    """Raises:
    MiaoError: it is too large.
    """
    text = json.dumps(form)
    if len(text) > MAX_FORM:
        raise MiaoError(
            f"the form asked for has {len(text)} characters; at most {MAX_FORM} are taken"
        )
    return text


def _refusal(reason: str) -> MiaoError:
    return MiaoError(f"the form asked for cannot be enforced: {reason}")


@cache
def _threads(work: str) -> ThreadPoolExecutor:
    """Threads for one kind of work, with stacks for rules that lead from one to the next thousands
    of times: llguidance calls itself at each, and the end of a stack is the end of the process."""
    pool = ThreadPoolExecutor(THREADS, f"miao-grammar-{work}", _yield_to_others)
    all_there = threading.Barrier(THREADS)
    before = threading.stack_size(STACK)
    try:
        concurrent.futures.wait([pool.submit(all_there.wait) for _ in range(THREADS)])
    finally:
        threading.stack_size(before)
    return pool


def _yield_to_others() -> None:
    if sys.platform == "linux":
        os.nice(10)  # of this thread alone; the engine's go first
