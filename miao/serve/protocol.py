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


class Sampling(Body):
    """What chat and plain completions have in common."""

    model: str | None = None
    """A name of /v1/models; the served model when it is left out."""
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1)
    """-1 and 0: all."""
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    """Token id -> -100 to 100."""
    max_tokens: int | None = Field(None, ge=-1, le=2**31 - 1)
    """-1: to the end of the context."""
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), le=2**64 - 1)
    stop: Text | list[Text] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs | None = None
    # The names of vLLM before 0.12.
    guided_choice: list[Text] | None = Field(None, max_length=1000)
    guided_regex: Text | None = None
    guided_grammar: Text | None = None
    guided_json: dict[str, Any] | Text | None = None
    # Labels for whoever runs a server; they say nothing about the answer.
    user: Text | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None

    @field_validator("max_tokens", "max_completion_tokens", check_fields=False)
    @classmethod
    def _some_tokens(cls, value: int | None) -> int | None:
        if value == 0 and cls is not CompletionBody:
            raise ValueError("must be positive, or -1 for all that the context has room for")
        return value

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
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(Body):
    type: Literal["text", "refusal"]
    text: Text | None = None
    refusal: Text | None = None

    @model_validator(mode="after")
    def _has_text(self) -> TextPart:
        if (self.text if self.type == "text" else self.refusal) is None:
            raise ValueError(f"a part of type {self.type} must hold it")
        return self


class FunctionCall(Body):
    name: Text
    arguments: Text


class ToolCall(Body):
    id: Text | None = None
    index: int | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    """A text, or parts of type text; images and sound are refused."""
    reasoning_content: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None
    name: Text | None = None
    """What the client calls the speaker; the chat template has no place for it."""
    refusal: Text | None = None
    # The official client sends back what it got.
    audio: None = None
    annotations: list[Any] | None = Field(None, max_length=0)
    function_call: None = None

    @model_validator(mode="after")
    def _has_content(self) -> ChatMessage:
        if self.role != "assistant" and self.content is None:
            raise ValueError("content: is missing")
        if self.role != "assistant" and (self.tool_calls or self.reasoning_content):
            raise ValueError("tool_calls and reasoning_content: only an assistant has them")
        return self

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or part.refusal or "" for part in self.content)
        return self.content or self.refusal or ""


class Function(Body):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema: with type json_schema, and only there")
        return self


class TemplateOptions(Body):
    enable_thinking: bool | None = None


class ChatBody(Sampling):
    """POST /v1/chat/completions"""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(None, ge=-1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    """False: at most one call."""
    enable_thinking: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    """none: no thinking. The other degrees mean that the model may think."""
    modalities: list[Literal["text"]] | None = None
    continue_final_message: bool | None = None
    """The answer goes on where the last message, an assistant's, ends."""
    add_generation_prompt: bool | None = None
    """False: the conversation ends as it is, without the opening of the assistant's turn."""

    @model_validator(mode="after")
    def _consistent(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: only together with logprobs: true")
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("max_tokens and max_completion_tokens: give one of them")
        names = [tool.function.name for tool in self.tools or []]
        if len(set(names)) < len(names):
            raise ValueError("tools: two functions have the same name")
        choice = self.tool_choice
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise ValueError(f"tool_choice: there is no tool {choice.function.name!r}")
        if choice == "required" and not names:
            raise ValueError("tool_choice: 'required', but there are no tools")
        formed = self.response_format is not None and self.response_format.type != "text"
        if self.forced_tools and (formed or self.structured_outputs):
            name = "response_format" if formed else "structured_outputs"
            raise ValueError(f"{name}: not together with a tool_choice that forces a call")
        if formed and self.structured_outputs:
            raise ValueError("structured_outputs: not together with response_format")
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise ValueError("continue_final_message: not with add_generation_prompt: true")
            if self.messages[-1].role != "assistant" or self.messages[-1].tool_calls:
                raise ValueError("continue_final_message: the last message is no assistant's text")
        return self

    @property
    def offers_tools(self) -> bool:
        """Whether the model may call functions."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def forced_tools(self) -> list[Function]:
        """The functions of which one must be called."""
        functions = [tool.function for tool in self.tools or []]
        if isinstance(self.tool_choice, NamedTool):
            return [f for f in functions if f.name == self.tool_choice.function.name]
        return functions if self.tool_choice == "required" else []

    @property
    def thinking(self) -> bool | None:
        """The thinking switch, in any of the ways that clients spell it."""
        if self.enable_thinking is not None:
            return self.enable_thinking
        if self.chat_template_kwargs and self.chat_template_kwargs.enable_thinking is not None:
            return self.chat_template_kwargs.enable_thinking
        return None if self.reasoning_effort is None else self.reasoning_effort != "none"


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
