"""/v1/responses: OpenAI's newer protocol. Nothing is stored: clients send the whole conversation.

A body becomes a chat (`ResponseBody.chat`); the answer's blocks become items.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from miao.engine import Request
from miao.serve.blocks import Block, BlockReply, Kind
from miao.serve.conversation import MAX_MESSAGES, ChatBody, Effort, TemplateOptions
from miao.serve.generation import Growth
from miao.serve.models import Served
from miao.serve.problems import Problem
from miao.serve.protocol import MAX_LOGPROBS, Body, Drawing, JsonObject, Name, Text
from miao.serve.replies import Event

Status = Literal["in_progress", "completed", "incomplete"]
EVENTS: dict[Kind, str] = {
    "text": "response.output_text",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}


class Part(Body):
    type: Literal["input_text", "output_text", "refusal", "reasoning_text", "summary_text"]
    text: Text | None = None
    refusal: Text | None = None
    annotations: list[Any] | None = Field(None, max_length=0)
    logprobs: list[Any] | None = None

    @model_validator(mode="after")
    def _says(self) -> Part:
        if (self.refusal if self.type == "refusal" else self.text) is None:
            raise ValueError(f"a part of type {self.type} must hold its text")
        return self


class Item(Body):
    id: Text | None = None
    status: Status | None = None


class MessageItem(Item):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | list[Part]
    phase: Literal["commentary", "final_answer"] | None = None


class ReasoningItem(Item):
    type: Literal["reasoning"]
    summary: list[Part] = Field(default_factory=list)
    content: list[Part] | None = None
    encrypted_content: None = None


class CallItem(Item):
    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text


class OutputItem(Item):
    type: Literal["function_call_output"]
    call_id: Text
    output: Text | list[Part]


def _kind(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("type", "message"))
    return str(getattr(item, "type", "message"))


AnyItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[OutputItem, Tag("function_call_output")],
    Discriminator(
        _kind,
        custom_error_type="unknown_item",
        custom_error_message="this server knows items of type message, reasoning, function_call "
        "and function_call_output",
    ),
]


class ResponseTool(Body):
    type: Literal["function"]
    name: Name
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ResponseToolChoice(Body):
    type: Literal["function"]
    name: Text


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: Text | None = None
    description: Text | None = None
    schema_: JsonObject | None = Field(None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Body):
    effort: Effort | None = None
    summary: Literal["auto"] | None = None
    """Thoughts come whole, as the content of their item."""


class ResponseStreamOptions(Body):
    include_obfuscation: Literal[False] | None = None


class ResponseBody(Drawing):
    """POST /v1/responses"""

    input: Text | list[AnyItem] = Field(min_length=1)
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: list[ResponseTool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    """There are no encrypted thoughts: who asks for them gets them as they are."""
    stream_options: ResponseStreamOptions | None = None
    chat_template_kwargs: TemplateOptions | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None

    @model_validator(mode="after")
    def _possible(self) -> ResponseBody:
        if isinstance(self.input, list) and len(self.input) > MAX_MESSAGES:
            raise ValueError(f"input: at most {MAX_MESSAGES} items")
        if self.top_logprobs is not None and not self.wants_logprobs:
            raise ValueError("top_logprobs: include message.output_text.logprobs as well")
        return self

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in (self.include or [])

    def chat(self) -> ChatBody:
        """The same as a chat.

        Raises:
            ValidationError: it contradicts itself.
        """
        own: dict[str, Any] = {
            "messages": self._messages(),
            "max_completion_tokens": self.max_output_tokens,
            "parallel_tool_calls": self.parallel_tool_calls,
            "reasoning_effort": self.reasoning and self.reasoning.effort,
            "logprobs": self.wants_logprobs,
            "top_logprobs": self.top_logprobs,
            "tool_choice": self.tool_choice,
            "tools": None,
            "stream_options": None,
        }
        if self.tools:
            own["tools"] = [
                {"type": "function", "function": tool.model_dump(exclude={"type"})}
                for tool in self.tools
            ]
        if isinstance(self.tool_choice, ResponseToolChoice):
            function = {"name": self.tool_choice.name}
            own["tool_choice"] = {"type": "function", "function": function}
        form = self.text and self.text.format
        if form:
            schema = form.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
            own["response_format"] = {"type": form.type, "json_schema": schema or None}
        return ChatBody.of(self, **own)

    def _messages(self) -> list[dict[str, Any]]:
        """The items as messages; what an assistant did in one go is one message."""
        messages: list[dict[str, Any]] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        for item in self.input:
            if isinstance(item, OutputItem):
                output = {"role": "tool", "tool_call_id": item.call_id}
                messages.append(output | {"content": _said(item.output)})
            elif isinstance(item, MessageItem) and item.role != "assistant":
                messages.append({"role": item.role, "content": _said(item.content)})
            elif isinstance(item, MessageItem):
                turn = _turn(messages, ("content", "tool_calls"))
                turn["content"] = _said(item.content)
            elif isinstance(item, ReasoningItem):
                turn = _turn(messages, ("content", "tool_calls", "reasoning_content"))
                turn["reasoning_content"] = _said(item.content or item.summary)
            else:
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                _turn(messages, ()).setdefault("tool_calls", []).append(call)
        return messages


def _turn(messages: list[dict[str, Any]], taken: tuple[str, ...]) -> dict[str, Any]:
    """The assistant's message that an item belongs to: the last, or a new one where that has
    something already that cannot come before it."""
    if not messages or messages[-1]["role"] != "assistant" or messages[-1].keys() & set(taken):
        messages.append({"role": "assistant"})
    return messages[-1]


def _said(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text or part.refusal or "" for part in content)


class ResponseReply(BlockReply):
    """The answer to a `ResponseBody`."""

    prefix = "resp_"

    def __init__(
        self,
        asked: ResponseBody,
        served: Served,
        prompt: list[int],
        requests: list[Request],
        chat: ChatBody,
    ):
        super().__init__(served, prompt, requests, chat)
        self._response, self._events = asked, 0
        self._output: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        """Of the text that is being written."""

    def opening(self) -> list[Event]:
        return [
            self._event("response.created", response=self._body("in_progress")),
            self._event("response.in_progress", response=self._body("in_progress")),
        ]

    def closing(self) -> list[Event]:
        body = self.whole()
        return [self._event(f"response.{body['status']}", response=body)]

    def whole(self) -> dict[str, Any]:
        return self._body("incomplete" if self.requests[0].finish == "length" else "completed")

    def failure(self, problem: Problem) -> list[Event]:
        error = problem.body()["error"]
        body = self._body("failed")
        body["error"] = {"code": error["code"] or "server_error", "message": error["message"]}
        return [self._event("response.failed", response=body)]

    def opened(self, block: Block) -> list[Event]:
        item = self._item(block, "in_progress")
        self._output.append(item)
        self._logprobs = []
        added = self._event("response.output_item.added", output_index=block.index, item=item)
        if block.kind == "call":
            return [added]
        part = self._part(block)
        return [added, self._event("response.content_part.added", **self._place(block), part=part)]

    def grown(self, block: Block, text: str, growth: Growth) -> list[Event]:
        more: dict[str, Any] = {}
        if block.kind == "text":
            gained = self.logprobs(growth.request, growth.first, growth.end) or []
            self._logprobs += gained
            more = {"logprobs": gained}
        return [
            self._event(f"{EVENTS[block.kind]}.delta", **self._place(block), delta=text, **more)
        ]

    def closed(self, block: Block) -> list[Event]:
        said: dict[str, Any] = {"arguments" if block.kind == "call" else "text": block.text}
        if block.kind == "text":
            said["logprobs"] = self._logprobs
        events = [self._event(f"{EVENTS[block.kind]}.done", **self._place(block), **said)]
        if block.kind != "call":
            part = self._part(block)
            events.append(
                self._event("response.content_part.done", **self._place(block), part=part)
            )
        is_cut = self.requests[0].finish == "length"
        item = self._output[block.index] = self._item(
            block, "incomplete" if is_cut else "completed"
        )
        return [
            *events,
            self._event("response.output_item.done", output_index=block.index, item=item),
        ]

    def _event(self, kind: str, **fields: Any) -> Event:
        self._events += 1
        return {"type": kind, "sequence_number": self._events - 1, **fields}

    def _place(self, block: Block) -> dict[str, Any]:
        place = {"item_id": self._id(block), "output_index": block.index}
        return place if block.kind == "call" else place | {"content_index": 0}

    def _id(self, block: Block) -> str:
        prefix = {"text": "msg", "reasoning": "rs", "call": "fc"}[block.kind]
        return f"{prefix}_{self.number.removeprefix(self.prefix)}{block.index}"

    def _part(self, block: Block) -> dict[str, Any]:
        if block.kind == "reasoning":
            return {"type": "reasoning_text", "text": block.text}
        part = {"type": "output_text", "text": block.text, "annotations": []}
        return part | {"logprobs": list(self._logprobs)}

    def _item(self, block: Block, status: Status) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._id(block), "status": status}
        if block.kind == "call":
            call = {"call_id": block.id, "name": block.name, "arguments": block.text}
            return item | {"type": "function_call"} | call
        content = [] if status == "in_progress" else [self._part(block)]
        if block.kind == "reasoning":
            return item | {"type": "reasoning", "summary": [], "content": content}
        return item | {"type": "message", "role": "assistant", "content": content}

    def _body(self, status: str) -> dict[str, Any]:
        asked, options = self._response, self.requests[0].options
        tools = [tool.model_dump() for tool in asked.tools or []]
        form = asked.text and asked.text.format
        usage = self.usage()
        is_cut = status == "incomplete"
        return {
            "id": self.number,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": self.served.name,
            "output": self._output if status != "in_progress" else [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": asked.reasoning.model_dump() if asked.reasoning else {"effort": None},
            "store": False,
            "background": False,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_logprobs": asked.top_logprobs or 0,
            "text": {
                "format": form.model_dump(exclude_none=True, by_alias=True)
                if form
                else {"type": "text"}
            },
            "tool_choice": asked.model_dump(include={"tool_choice"})["tool_choice"] or "auto",
            "tools": tools,
            "truncation": "disabled",
            "metadata": asked.metadata or {},
            "user": asked.user,
            "usage": None
            if status == "in_progress"
            else {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"] | {"cache_write_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": self.thought_tokens},
                "total_tokens": usage["total_tokens"],
            },
        }
