"""What clients send: OpenAI's fields, each honoured or refused, none ignored."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_CHOICES = 16
MAX_STOPS = 16
MAX_LOGPROBS = 20
MAX_DEPTH = 40
"""Of JSON in a request."""
Text = Annotated[str, Field(max_length=2_000_000)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
"""Of a function."""
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Body(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _encodable(cls, value: Any) -> Any:
        """Half a surrogate pair is valid in JSON but in no text."""
        _require_unicode(value)
        return value


def _require_unicode(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError("holds half a surrogate pair, which no encoding has") from error
    elif isinstance(value, dict):
        for key, item in value.items():
            _require_unicode(key)
            _require_unicode(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_unicode(item, depth + 1)


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class StructuredOutputs(Body):
    """The form of an answer, one of them, under vLLM's names."""

    choice: list[Text] | None = Field(None, min_length=1, max_length=1000)
    """One of these texts."""
    regex: Text | None = None
    grammar: Text | None = None
    """Lark, or the EBNF of llama.cpp (GBNF)."""
    json_: dict[str, Any] | None = Field(None, alias="json")
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

    model: str | None = None
    """A name of /v1/models; the served model when it is left out."""
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1)
    """-1 and 0: all."""
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    """Token id -> -100 to 100."""
    seed: int | None = Field(None, ge=-(2**63), le=2**64 - 1)
    stop: Text | list[Text] | None = None
    stream: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    # Labels for whoever runs a server; they say nothing about the answer.
    user: Text | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    service_tier: Literal["auto", "default", "standard_only"] | None = None
    store: Literal[False] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _bias(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token, bias in (value or {}).items():
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise ValueError(f"{token!r} is no token id")
            if not -100 <= bias <= 100:
                raise ValueError(f"the bias of {token} must be from -100 to 100")
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
    guided_json: dict[str, Any] | Text | None = None

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

    model: str | None = None
    input: Text | list[Text] | list[TokenId] | list[list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=2**20)
    user: Text | None = None


def shown(value: float) -> float:
    """A log-probability that JSON can hold."""
    return value if math.isfinite(value) else -9999.0
