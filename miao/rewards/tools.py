"""Tools that answer the assistant's calls while it generates, so that it may go on from them."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from miao.corpus.seedbed.calculator import SCHEMA
from miao.errors import MiaoError, first_line
from miao.own_code import load_object

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_SIGNS = {ord("×"): "*", ord("÷"): "/", ord("^"): "**", ord(","): "", ord("−"): "-"}
LONGEST_EXPRESSION, LARGEST = 200, 1e15
ERROR = "error: "


class Environment(Protocol):
    """What the assistant talks to between its turns."""

    @property
    def tools(self) -> list[dict[str, Any]]:
        """JSON schemas of what it may call; shown to it before the first turn."""
        ...

    def respond(self, turn: str, record: dict[str, Any]) -> list[str] | None:
        """The results of the calls in a turn of the assistant; None: it made none and is done."""
        ...


class Calculator:
    """Answers calls of `calculator` with the value of an expression."""

    tools: ClassVar[list[dict[str, Any]]] = [SCHEMA]

    def respond(self, turn: str, record: dict[str, Any]) -> list[str] | None:
        calls = _CALL.findall(turn)
        return [self._answer(call) for call in calls] if calls else None

    @staticmethod
    def _answer(call: str) -> str:
        try:
            parsed = json.loads(call)
            if parsed["name"] != "calculator":
                return f"{ERROR}there is no tool {parsed['name']!r}"
            arguments = parsed["arguments"]
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
            return calculate(str(arguments["expression"]))
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            return f"{ERROR}not a call of calculator ({type(error).__name__})"


def calculate(expression: str) -> str:
    """The value of numbers, + - * / // % ** and brackets (× ÷ ^ too), or `error: ...`.

    The text is parsed, never run; its length and its numbers are bounded.
    """
    text = expression.translate(_SIGNS)
    if len(text) > LONGEST_EXPRESSION:
        return f"{ERROR}longer than {LONGEST_EXPRESSION} characters"
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body)
    except ZeroDivisionError:
        return f"{ERROR}division by zero"
    except (SyntaxError, ValueError, RecursionError, OverflowError, MemoryError) as error:
        return f"{ERROR}{first_line(error)}"
    return str(int(value)) if value == int(value) else f"{value:.10g}"


_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def _value(node: ast.expr) -> float:
    value: Any
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        value = -value if isinstance(node.op, ast.USub) else value
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and abs(right) > 64:
            raise ValueError("the exponent is too large")
        value = _OPERATIONS[type(node.op)](left, right)
    else:
        raise ValueError("only numbers, + - * / // % ** and brackets")
    if isinstance(value, complex) or not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError("the number is too large")
    return value


ENVIRONMENTS: dict[str, Callable[[], Environment]] = {"calculator": Calculator}


def load_environment(name: str | None) -> Environment | None:
    """The environment that a recipe names: built in, or the user's class as `module:Class`.

    Raises:
        MiaoError: there is none of that name, or it lacks `tools` or `respond`.
    """
    if name is None:
        return None
    made: Any = ENVIRONMENTS.get(name) or load_object(name, "grpo.environment", ENVIRONMENTS)
    try:
        environment: Environment = made() if isinstance(made, type) else made
        is_one = isinstance(environment.tools, list) and callable(environment.respond)
    except Exception as error:
        raise MiaoError(
            f"'{name}' is no environment: {first_line(error)}",
            where="grpo.environment",
            fix="name a class with `tools` (a list of schemas) and `respond(turn, record)`",
        ) from error
    if not is_one:
        raise MiaoError(
            f"'{name}' is no environment",
            where="grpo.environment",
            fix="`tools` is a list of schemas, `respond` a function",
        )
    return environment
