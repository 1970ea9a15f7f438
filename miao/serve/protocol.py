"""What clients send: OpenAI's fields, each honoured or refused, none ignored."""

from __future__ import annotations

import json
import math
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from miao.serve.invalid import HALF_A_PAIR

MAX_CHOICES = 16
MAX_STOPS = 16
MAX_LOGPROBS = 20
MAX_DEPTH = 40
"""Of JSON in a request."""
MAX_SHOWN = 3
"""Of several names that are wrong."""
Text = Annotated[str, Field(max_length=2_000_000)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
"""Of a function."""
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


def _fail_fast(schema: Any) -> None:
    """Makes every list of pydantic's own form of a class end at its first error."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for part in schema.values():
            _fail_fast(part)
    elif isinstance(schema, list):
        for part in schema:
            _fail_fast(part)


class Body(BaseModel):
    """Unknown fields are refused. However much is wrong with a body, what is said of it stays
    short: of a list only the first wrong entry, of an object only the first unknown fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _few_unknown(cls, given: Any) -> Any:
        if not isinstance(given, dict) or len(given) <= len(cls.model_fields):
            return given
        known = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = islice((name for name in given if name not in known), MAX_SHOWN)
        return {name: given[name] for name in [*(known & given.keys()), *unknown]}


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Half a surrogate pair is valid in JSON but in no text."""
    layer: list[Any] = [value]
    for _ in range(MAX_DEPTH + 2):
        below: list[Any] = []
        for one in layer:
            if isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
            else:
                try:
                    one.encode()
                except UnicodeEncodeError as error:
                    raise ValueError(HALF_A_PAIR) from error
        layer = [one for one in below if isinstance(one, dict | list | str)]
        if not layer:
            return value
    raise ValueError(f"is nested more than {MAX_DEPTH} deep")


JsonObject = Annotated[dict[str, Any], AfterValidator(_plain)]
"""Anything that JSON can hold."""


class StreamOptions(Body):
    include_usage: bool = False
    continuous_usage_stats: Literal[False] = False
    include_obfuscation: Literal[False] = False


class StructuredOutputs(Body):
    """The form of an answer, one of them, under vLLM's names."""

    choice: list[Text] | None = Field(None, min_length=1, max_length=1000)
    """One of these texts."""
    regex: Text | None = None
    grammar: Text | None = None
    """Lark, or the EBNF of llama.cpp (GBNF)."""
    json_: JsonObject | None = Field(None, alias="json")
    """A schema, which may come written out as text."""
    json_object: Literal[True] | None = None

    @field_validator("json_", mode="before")
    @classmethod
    def _schema(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError) as error:
            raise ValueError("is no JSON") from error

    @field_validator("choice")
    @classmethod
    def _texts(cls, value: list[str] | None) -> list[str] | None:
        if value and "" in value:
            raise ValueError("must not hold an empty text")
        return value

    @model_validator(mode="after")
    def _one(self) -> StructuredOutputs:
        if sum(value is not None for value in self.__dict__.values()) != 1:
            raise ValueError("give one of choice, regex, grammar, json, json_object")
        return self


class Drawing(Body):
    """What all protocols have in common: the model, how its tokens are drawn, labels."""

    model: Text | None = None
    """A name of /v1/models; the served model when it is left out."""
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1)
    """-1 and 0: all."""
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Any] | None = None
    """Token id -> -100 to 100."""
    seed: int | None = Field(None, ge=-(2**63), le=2**64 - 1)
    stop: Text | list[Text] | None = None
    stream: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    # Labels for whoever runs a server; they say nothing about the answer.
    user: Text | None = None
    metadata: JsonObject | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    service_tier: Literal["auto", "default", "standard_only"] | None = None
    store: Literal[False] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _bias(cls, value: dict[str, Any] | None) -> dict[str, float] | None:
        wrong = [t for t in value or {} if not (t.isascii() and t.isdigit() and len(t) < 10)]
        if wrong:
            shown = ", ".join(map(repr, wrong[:MAX_SHOWN]))
            raise ValueError(f"{shown} {'is' if len(wrong) == 1 else 'are'} no token id")
        for token, bias in (value or {}).items():
            if isinstance(bias, bool) or not isinstance(bias, int | float) or not abs(bias) <= 100:
                raise ValueError(f"the bias of {token} must be a number from -100 to 100")
        return value

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if "" in ([value] if isinstance(value, str) else value or []):
            raise ValueError("must not hold an empty text")
        if isinstance(value, list) and len(value) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} texts")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Sampling(Drawing):
    """What chat and plain completions have in common."""

    max_tokens: int | None = Field(None, ge=-1, le=2**31 - 1)
    """-1: to the end of the context."""
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream_options: StreamOptions | None = None
    # The names of vLLM before 0.12.
    guided_choice: list[Text] | None = Field(None, max_length=1000)
    guided_regex: Text | None = None
    guided_grammar: Text | None = None
    guided_json: JsonObject | Text | None = None

    @field_validator("max_tokens", "max_completion_tokens", check_fields=False)
    @classmethod
    def _some_tokens(cls, value: int | None) -> int | None:
        if value == 0 and cls is not CompletionBody:
            raise ValueError("must be positive, or -1 for all that the context has room for")
        return value

    @model_validator(mode="after")
    def _form(self) -> Sampling:
        older = {
            name: value
            for name in ("choice", "regex", "grammar", "json")
            if (value := getattr(self, f"guided_{name}")) is not None
        }
        if older and self.structured_outputs is not None:
            raise ValueError("structured_outputs: not together with guided_*")
        if older:
            self.structured_outputs = StructuredOutputs(**older)
        return self

    @model_validator(mode="after")
    def _streaming(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only together with stream: true")
        return self

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionBody(Sampling):
    """POST /v1/completions"""

    prompt: Text | list[Text] | list[TokenId] | list[list[TokenId]] = Field(max_length=2_000_000)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    suffix: Literal[""] | None = None
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)

    @model_validator(mode="after")
    def _possible(self) -> CompletionBody:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of: must be n, if it is given")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 only together with echo")
        return self

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt are wanted too."""
        return bool(self.echo) and self.logprobs is not None


class EmbeddingBody(Body):
    """POST /v1/embeddings"""

    model: Text | None = None
    input: Text | list[Text] | list[TokenId] | list[list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=2**20)
    user: Text | None = None


def shown(value: float) -> float:
    """A log-probability that JSON can hold."""
    return value if math.isfinite(value) else -9999.0
