"""Answers that must have a form: JSON, JSON of a schema, or a call of a function."""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from miao.engine.schemas import arguments_of, closed, moved
from miao.errors import MiaoError, first_line, install_hint
from miao.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


class Grammars:
    """Makes constraints for one tokenizer, with llguidance.

    Args:
        vocab_size: how many logits the model has (it may have more than the tokenizer tokens).
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        self._tokenizer, self._vocab_size = tokenizer, vocab_size

    def json(self, schema: dict[str, Any] | None = None) -> GrammarConstraint:
        """Any JSON object, or what a JSON schema allows (see `schemas.closed`).

        Raises:
            MiaoError: a schema that is none, or says what cannot be enforced.
        """
        from llguidance import LLMatcher

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
        alternatives: list[dict[str, Any]] = []
        for number, tool in enumerate(tools):
            place = "#" if len(tools) == 1 else f"#/anyOf/{number}"
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
        from llguidance import LLMatcher

        try:
            matcher = LLMatcher(self._backend, make(*arguments, **options), log_level=0)
            if matcher.is_error():
                raise ValueError(matcher.get_error())
        except (ValueError, TypeError, RuntimeError) as error:
            reason = first_line(error)
            raise MiaoError(f"the form asked for cannot be enforced: {reason}") from error
        return GrammarConstraint(matcher, self._vocab_size)

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
    """One answer's place in its grammar (`Constraint` of the scheduler)."""

    def __init__(self, matcher: LLMatcher, vocab_size: int):
        self._matcher, self._vocab_size = matcher, vocab_size

    def allowed(self, logits_v: Tensor) -> Tensor:
        """The logits with everything that the grammar forbids at -inf."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(bool)
        return logits_v.masked_fill(~torch.from_numpy(mask).to(logits_v.device), float("-inf"))

    def accept(self, token: int) -> bool:
        """Takes note of a token; True when the form is complete and nothing may follow."""
        return not self._matcher.consume_token(token) or self._matcher.is_stopped()
