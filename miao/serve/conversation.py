"""A conversation as clients send it: messages, functions, and what the answer is to be."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from miao.serve.protocol import MAX_LOGPROBS, Body, JsonObject, Name, Sampling, Text, TokenId

MAX_MESSAGES = 10_000
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


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
    name: Name
    description: Text | None = None
    parameters: JsonObject | None = None
    """A JSON schema."""
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: Text


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    name: Text | None = None
    description: Text | None = None
    schema_: JsonObject = Field(alias="schema")
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

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
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
    reasoning_effort: Effort | None = None
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

    @classmethod
    def of(cls, body: Body, **own: Any) -> ChatBody:
        """The chat that another protocol's body means: the fields that both have, and `own`.

        Raises:
            ValidationError: it contradicts itself.
        """
        shared = body.model_fields_set & cls.model_fields.keys() - own.keys()
        return cls(**{name: getattr(body, name) for name in shared}, **own)

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


class TokenizeBody(Body):
    """POST /tokenize, in vLLM's form: the ids of a prompt, or of a conversation."""

    model: Text | None = None
    prompt: Text | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=MAX_MESSAGES)
    add_special_tokens: bool | None = None
    """Of a prompt: that it begins a document (the default), as in /v1/completions."""
    return_token_strs: bool | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    chat_template_kwargs: TemplateOptions | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @model_validator(mode="after")
    def _one(self) -> TokenizeBody:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt: give it or messages, one of them")
        if self.messages is None and (set(self.model_fields_set) & _OF_MESSAGES):
            raise ValueError("messages: tools and the template's options go with them")
        if self.messages is not None and self.add_special_tokens:
            raise ValueError("add_special_tokens: the chat template writes them")
        return self


_OF_MESSAGES = {"tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"}


class DetokenizeBody(Body):
    """POST /detokenize"""

    model: Text | None = None
    tokens: list[TokenId] = Field(max_length=2_000_000)
