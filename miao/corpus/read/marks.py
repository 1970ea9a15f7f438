"""Turns that are written out in one text: chat templates' marks, and transcripts of talks.

Also what a turn's text holds as marks: calls of tools, their results and descriptions.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from miao.corpus.records import Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    **dict.fromkeys(("user", "human", "instruction", "inst"), "user"),
    **dict.fromkeys(("assistant", "model", "response", "/inst"), "assistant"),
    **dict.fromkeys(("tool", "function response", "observation", "ipython"), "tool"),
}
_MARKS = {
    "ChatML": (r"<\|im_start\|>(\w+)\n", r"<\|im_end\|>"),
    "Llama 3": (
        r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n+",
        r"<\|(?:eot_id|eom_id|end_of_text)\|>",
    ),
    "Gemma": (r"<start_of_turn>(\w+)\n", r"<end_of_turn>"),
    "Zephyr, Phi, GLM": (
        r"<\|(system|user|assistant|observation)\|>:?\n?",
        r"<\|(?:end|endoftext|eot)\|>|</s>",
    ),
    "Llama 2": (r"\[(/?INST)\]", r"</?s>"),
    "Guanaco": (
        r"(?:\A|\n|(?<=\S))### ?(Human|User|Assistant|System|Instruction|Response):",
        r"</s>",
    ),
    "HH-RLHF, BELLE": (r"(?:\A|\n)(Human|Assistant|System):", r"<\|endoftext\|>|</s>"),
    "Vicuna, Glaive": (
        r"(?:\A|\n|</s>| (?=ASS))(USER|ASSISTANT|SYSTEM|FUNCTION RESPONSE):\s",
        r"<\|endoftext\|>|</s>",
    ),
}
"""What begins a turn, with its role, and what may stand at its end: the marks of the usual chat
templates, and the names in transcripts."""
_TURNS = [
    (re.compile(begin, re.ASCII), re.compile(rf"(?:{end})\Z")) for begin, end in _MARKS.values()
]
_BEGINNING = re.compile(r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|\[gMASK\](?:<sop>|sop)?)?")
_LLAMA_SYSTEM = re.compile(r"\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>|<functioncall>\s*(\{.*\})", re.DOTALL)
_RESULT = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)


def written_turns(text: Any) -> list[dict[str, Any]] | None:
    """The turns of a text that is one conversation written out; None: it is not.

    It begins with a mark, and has turns of both sides; the last one may be a mark alone (a
    prompt that is to be answered). `{"role", "content"}` of each.
    """
    if not isinstance(text, str):
        return None
    beginning = _BEGINNING.match(text)
    text = (text[beginning.end() :] if beginning else text).lstrip()
    for mark, end in _TURNS:
        if mark.match(text):
            turns = _turns(text, mark, end)
            roles = [turn["role"] for turn in turns]
            if None not in roles and {"user", "assistant"} <= {*roles} and roles[0] != "tool":
                return [turn for turn in turns if turn["content"]]
    return None


def _turns(text: str, mark: re.Pattern[str], end: re.Pattern[str]) -> list[dict[str, Any]]:
    found = list(mark.finditer(text))
    turns: list[dict[str, Any]] = []
    for match, following in zip(found, [*found[1:], None], strict=True):
        content = text[match.end() : following.start() if following else len(text)]
        content = content.strip()
        while ending := end.search(content):
            content = content[: ending.start()].rstrip()
        if system := _LLAMA_SYSTEM.match(content):
            turns.append({"role": "system", "content": system[1]})
            content = content[system.end() :]
        turns.append({"role": _ROLES.get(match[1].lower()), "content": content})
    return turns


def without_marks(messages: list[Message]) -> list[Message]:
    """Messages whose marked calls (`<tool_call>`, as Hermes writes them) are calls, and whose
    marked results are turns of the tool's; what cannot be read stays text."""
    made: list[Message] = []
    for message in messages:
        if message.role == "assistant" and not message.tool_calls and "call>" in message.content:
            calls = [_value(a or b) for a, b in _CALL.findall(message.content)]
            if calls and all(_is_call(call) for call in calls):
                parts = [part.strip() for part in _CALL.sub("\0", message.content).split("\0")]
                message.content = "\n".join(part for part in parts if part)
                message.tool_calls = [_call(call) for call in calls]
        results = _RESULT.findall(message.content) if message.role == "tool" else []
        if results and not _RESULT.sub("", message.content).strip():
            made += [Message("tool", result.strip()) for result in results]
        else:
            made.append(message)
    return made


def tools_within(messages: list[Message]) -> list[dict[str, Any]]:
    """The tools that a system turn describes in `<tools>`, taken out of it."""
    system = messages[0] if messages and messages[0].role == "system" else None
    for match in _TOOLS.finditer(system.content) if system else ():
        tools = _value(match[1])
        if not isinstance(tools, list):
            tools = [_value(line) for line in match[1].splitlines() if line.strip()]
        if system and tools and all(isinstance(tool, dict) for tool in tools):
            before, after = system.content[: match.start()], system.content[match.end() :]
            system.content = f"{before.rstrip()}\n{after.lstrip()}".strip()
            return tools
    return []


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and bool(value["name"])


def _call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments", call.get("parameters", {}))
    arguments = _value(arguments) if isinstance(arguments, str) else arguments
    return {"name": call["name"], "arguments": arguments if isinstance(arguments, dict) else {}}


def _value(text: str) -> Any:
    """JSON, or (Hermes has both) the same as Python writes it; None: neither."""
    text = text.strip()
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
            json.dumps(value, allow_nan=False)
            return value
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None
