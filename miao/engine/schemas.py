"""JSON schemas as people mean them when they ask for an answer of that form."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from miao.errors import MiaoError

_ONE = ("additionalProperties", "items", "contains", "propertyNames", "not", "if", "then", "else")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_JOINING = {"allOf", "not", "if", "unevaluatedProperties", "dependentSchemas", "$dynamicRef"}
"""Where one of these stands, what an object may hold is said in several places."""

_SILENT = {"type", "title", "description", "$schema", "strict"}
"""Keys of an object's schema that say nothing of what it may hold."""

MAX_PATTERNS = 32
"""In patternProperties: each is compared with each."""
MAX_REFERENCES = 100
"""That lead from one to the next."""
_LARGEST = 9 * 10**18
"""Of an integer without bounds: nearly all of 64 bits."""


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with objects that hold the properties they name and no others, and with integers
    of at most nineteen digits.

    By the standard an object may hold anything beside them unless `additionalProperties` says
    otherwise, and a number may be of any length: a small model made to follow that writes
    properties or digits until its tokens run out. Schemas that join parts (`allOf`, `not`, ...) are
    left as they are.
    """
    found = copy.deepcopy(schema)
    parts = list(_parts(found))
    if any(_JOINING & part.keys() for part in parts):
        return found
    for part in parts:
        _bound(part)
        names = part.get("properties")
        if not isinstance(names, dict) or not names:
            continue
        if part.keys() & {"anyOf", "oneOf", "$ref"}:
            return copy.deepcopy(schema)
        if not part.keys() & {"additionalProperties", "patternProperties"}:
            part["additionalProperties"] = False
    return found


def check(schema: dict[str, Any]) -> None:
    """Raises:
    MiaoError: the schema takes more work than it is worth, or leads back to itself without end,
        so that an answer could only be cut off.
    """
    parts = list(_parts(schema))
    patterns = sum(
        len(found) for part in parts if isinstance(found := part.get("patternProperties"), dict)
    )
    if patterns > MAX_PATTERNS:
        raise MiaoError(f"the schema has {patterns} patternProperties; at most {MAX_PATTERNS}")
    ending: set[int] = set()
    open_parts = parts[::-1]  # what stands inside others first
    for _ in range(MAX_REFERENCES):
        left = []
        for part in open_parts:
            if _ends(part, schema, ending):
                ending.add(id(part))
            else:
                left.append(part)
        if len(left) in (0, len(open_parts)):
            break
        open_parts = left
    if id(schema) not in ending:
        raise MiaoError(
            "nothing finite has the form that the schema asks for ($ref), or its references lead "
            f"from one to the next more than {MAX_REFERENCES} times"
        )


def _ends(part: dict[str, Any], root: dict[str, Any], ending: set[int]) -> bool:
    """Whether something finite has the form, given parts of which that is known."""

    def ends(one: Any) -> bool:
        return not isinstance(one, dict) or id(one) in ending

    needed: list[Any] = []
    if isinstance(reference := part.get("$ref"), str):
        needed.append(_target(root, reference))
    if isinstance(several := part.get("allOf"), list):
        needed += several
    named, required = part.get("properties"), part.get("required")
    if isinstance(named, dict) and isinstance(required, list):
        needed += [named.get(name) for name in required if isinstance(name, str)]
    least = part.get("minItems")
    if isinstance(least, int) and least > 0:
        first = part.get("prefixItems")
        needed += first[:least] if isinstance(first, list) else []
        needed += [part.get("items")] if least > len(first or ()) else []
    choices = [part[key] for key in ("anyOf", "oneOf") if isinstance(part.get(key), list)]
    return all(map(ends, needed)) and all(any(map(ends, found)) for found in choices if found)


def _target(root: dict[str, Any], reference: str) -> Any:
    """The part that a local reference names; None where there is none."""
    found: Any = root
    path = reference.removeprefix("#").split("/")[1:]
    for key in path if reference.startswith("#") else [""]:
        key = key.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return found


def arguments_of(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """The schema of a function's arguments; one that names no parameters has `{}`.

    Args:
        parameters: OpenAI's field: a JSON schema, `{}`, or nothing.
    """
    parameters = parameters or {}
    said = {key for key, value in parameters.items() if value and key not in _SILENT}
    if not said and parameters.get("type", "object") == "object":
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return closed(parameters)


def moved(schema: dict[str, Any], pointer: str) -> dict[str, Any]:
    """The schema as a part of a larger one: references to its own root lead to `pointer`.

    Args:
        pointer: a JSON pointer with its "#", such as "#/properties/arguments".
    """
    found = copy.deepcopy(schema)
    for part in _parts(found):
        reference = part.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            part["$ref"] = pointer + reference[1:]
    return found


def _bound(part: dict[str, Any]) -> None:
    kinds = part.get("type")
    if "integer" not in (kinds if isinstance(kinds, list) else [kinds]):
        return
    limits = [
        part.get(key) for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    ]
    if any(limit is not None and not _is_small(limit) for limit in limits):
        return
    if limits[0] is None and limits[2] is None:
        part["minimum"] = -_LARGEST
    if limits[1] is None and limits[3] is None:
        part["maximum"] = _LARGEST


def _is_small(limit: Any) -> bool:
    return isinstance(limit, int | float) and -_LARGEST < limit < _LARGEST


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all schemas inside it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key in _ONE:
        yield from _parts(schema.get(key))
    for key in _SEVERAL:
        several = schema.get(key)
        for one in several if isinstance(several, list) else ():
            yield from _parts(one)
    for key in _NAMED:
        named = schema.get(key)
        for one in named.values() if isinstance(named, dict) else ():
            yield from _parts(one)
