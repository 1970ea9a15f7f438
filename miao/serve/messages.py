"""/v1/messages: Anthropic's protocol, for clients that speak it.

A body becomes a chat (`MessagesBody.chat`); the answer's blocks are content blocks.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import from_json

from miao.engine.text import TextStream
from miao.serve.blocks import Block, BlockReply
from miao.serve.conversation import MAX_MESSAGES, ChatBody, Effort
from miao.serve.generation import Growth
from miao.serve.protocol import MAX_STOPS, Body, Drawing, JsonObject, Name, Text
from miao.serve.replies import Event

REASONS = {"tool_calls": "tool_use", "length": "max_tokens", "stop": "end_turn"}


class CacheControl(Body):
    """Whatever was read is kept as long as there is room: without effect."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Part(Body):
    cache_control: CacheControl | None = None


class TextBlock(Part):
    type: Literal["text"]
    text: Text
    citations: list[Any] | None = Field(None, max_length=0)


class ThinkingBlock(Part):
    type: Literal["thinking"]
    thinking: Text
    signature: Text | None = None


class ToolUseBlock(Part):
    type: Literal["tool_use"]
    id: Text
    name: Text
    input: JsonObject


class ToolResultBlock(Part):
    type: Literal["tool_result"]
    tool_use_id: Text
    content: Text | list[TextBlock] | None = None
    is_error: bool | None = None


AnyBlock = Annotated[
    TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")
]


class Turn(Body):
    role: Literal["user", "assistant", "system"]
    content: Text | list[AnyBlock]

    @model_validator(mode="after")
    def _own_blocks(self) -> Turn:
        for block in self.content if isinstance(self.content, list) else ():
            if isinstance(block, ToolResultBlock) and self.role != "user":
                raise ValueError("content: a tool_result is the user's")
            if isinstance(block, ThinkingBlock | ToolUseBlock) and self.role != "assistant":
                raise ValueError(f"content: a block of type {block.type} is the assistant's")
        return self

    def messages(self) -> list[dict[str, Any]]:
        """The same in OpenAI's form; results of functions are messages of their own."""
        if isinstance(self.content, str):
            return [{"role": self.role, "content": self.content}]
        found: list[dict[str, Any]] = []
        message: dict[str, Any] = {"role": self.role, "content": _said(self.content)}
        for block in self.content:
            if isinstance(block, ToolResultBlock):
                said = _said(block.content or "")
                found.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": said})
            elif isinstance(block, ThinkingBlock):
                message["reasoning_content"] = message.get("reasoning_content", "") + block.thinking
            elif isinstance(block, ToolUseBlock):
                arguments = json.dumps(block.input, ensure_ascii=False)
                function = {"name": block.name, "arguments": arguments}
                call = {"id": block.id, "type": "function", "function": function}
                message.setdefault("tool_calls", []).append(call)
        return found if found and not message["content"] else [*found, message]


class AnthropicTool(Part):
    type: Literal["custom"] | None = None
    name: Name
    description: Text | None = None
    input_schema: JsonObject
    strict: bool | None = None


class AnthropicToolChoice(Body):
    type: Literal["auto", "any", "none", "tool"]
    name: Text | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    """The model thinks as long as it was trained to."""


class JsonFormat(Body):
    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class OutputConfig(Body):
    effort: Effort | None = None
    format: JsonFormat | None = None


class CountBody(Drawing):
    """POST /v1/messages/count_tokens"""

    messages: list[Turn] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: Text | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = Field(None, max_length=128)
    tool_choice: AnthropicToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    stop_sequences: list[Text] | None = Field(None, max_length=MAX_STOPS)
    cache_control: CacheControl | None = None

    def chat(self) -> ChatBody:
        """The same as a chat; a last message of the assistant's is the answer's beginning.

        Raises:
            ValidationError: it contradicts itself.
        """
        messages = [message for turn in self.messages for message in turn.messages()]
        if self.system:
            messages.insert(0, {"role": "system", "content": _said(self.system)})
        own: dict[str, Any] = {"messages": messages, "tools": None, "tool_choice": None}
        if messages[-1]["role"] == "assistant":
            own["continue_final_message"] = True
        if self.stop_sequences:
            own["stop"] = self.stop_sequences
        if self.tools:
            own["tools"] = [_function(tool) for tool in self.tools]
        if self.tool_choice:
            choice = self.tool_choice
            named = {"type": "function", "function": {"name": choice.name}}
            own["tool_choice"] = {"any": "required", "tool": named}.get(choice.type, choice.type)
            own["parallel_tool_calls"] = not choice.disable_parallel_tool_use
        if self.thinking and self.thinking.type != "adaptive":
            own["enable_thinking"] = self.thinking.type == "enabled"
        if self.output_config:
            own["reasoning_effort"] = self.output_config.effort
            if form := self.output_config.format:
                schema = {"schema": form.schema_}
                own["response_format"] = {"type": "json_schema", "json_schema": schema}
        return ChatBody.of(self, **own)


class MessagesBody(CountBody):
    """POST /v1/messages"""

    max_tokens: int = Field(ge=1, le=2**31 - 1)


def _function(tool: AnthropicTool) -> dict[str, Any]:
    function = tool.model_dump(include={"name", "description", "strict"})
    return {"type": "function", "function": function | {"parameters": tool.input_schema}}


def _said(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.text for block in content if isinstance(block, TextBlock))


class MessagesReply(BlockReply):
    """The answer to a `MessagesBody`."""

    prefix = "msg_"

    def opening(self) -> list[Event]:
        return [{"type": "message_start", "message": self._message([], None)}]

    def closing(self) -> list[Event]:
        ended = self._ended()
        return [
            {"type": "message_delta", "delta": ended, "usage": self._usage()},
            {"type": "message_stop"},
        ]

    def whole(self) -> dict[str, Any]:
        return self._message([self._block(block) for block in self.blocks], self._ended())

    def opened(self, block: Block) -> list[Event]:
        shown = self._block(block)
        return [{"type": "content_block_start", "index": block.index, "content_block": shown}]

    def grown(self, block: Block, text: str, growth: Growth) -> list[Event]:
        delta = {
            "text": {"type": "text_delta", "text": text},
            "reasoning": {"type": "thinking_delta", "thinking": text},
            "call": {"type": "input_json_delta", "partial_json": text},
        }[block.kind]
        return [{"type": "content_block_delta", "index": block.index, "delta": delta}]

    def closed(self, block: Block) -> list[Event]:
        return [{"type": "content_block_stop", "index": block.index}]

    def _block(self, block: Block) -> dict[str, Any]:
        if block.kind == "text":
            return {"type": "text", "text": block.text, "citations": None}
        if block.kind == "reasoning":
            return {"type": "thinking", "thinking": block.text, "signature": ""}
        number = f"toolu_{block.id.removeprefix('call_')}"
        try:
            given = from_json(block.text, allow_partial="trailing-strings")  # it may be cut
        except ValueError:
            given = None
        given = given if isinstance(given, dict) else {}
        return {"type": "tool_use", "id": number, "name": block.name, "input": given}

    def _ended(self) -> dict[str, Any]:
        """Why the answer ended."""
        request, reason = self.requests[0], REASONS[self.finish(0) or "stop"]
        watcher = request.watcher
        stop = watcher.stopped_by if isinstance(watcher, TextStream) else None
        if reason == "end_turn" and stop is not None:
            reason = "stop_sequence"
        if reason == "max_tokens" and len(request.answer) < request.options.max_new_tokens:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": stop}

    def _usage(self) -> dict[str, Any]:
        usage = self.usage()
        reused = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"] - reused,
            "cache_read_input_tokens": reused,
            "cache_creation_input_tokens": 0,
            "output_tokens": usage["completion_tokens"],
        }

    def _message(
        self, content: list[dict[str, Any]], ended: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "id": self.number,
            "type": "message",
            "role": "assistant",
            "model": self.served.name,
            "content": content,
            **(ended or {"stop_reason": None, "stop_sequence": None}),
            "usage": self._usage(),
        }
