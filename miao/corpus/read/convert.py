"""Raw objects -> records; the shape of each object is told from its keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from miao.corpus.read.shapes import KTO_KEYS, desirable, rewritten, with_aliases
from miao.corpus.read.turns import (
    blank,
    first_key,
    named,
    plain_json,
    present,
    reasoning_of,
    said,
    to_messages,
    words,
)
from miao.corpus.records import FIELDS, Conversation, Document, Kind, Message, Preference, Record
from miao.errors import MiaoError, did_you_mean

# Where several keys of one row are present, the first counts.
TEXT_KEYS = ("text", "content")
TURNS_KEYS = ("messages", "conversations", "conversation")
QUESTION_KEYS = ("instruction", "prompt", "question", "query", "input")
ANSWER_KEYS = ("output", "response", "answer", "completion", "target")
MATERIAL_KEYS = ("input", "context")  # what a question is about, appended to it
SYSTEM_KEYS = ("system", "system_prompt")

EXPECTED: dict[Kind, str] = {
    "document": '{"text": "..."}, {"content": "..."} or any conversation',
    "conversation": '{"messages": [{"role": "user", "content": "..."}, ...]}, {"conversations": '
    '[{"from": "human", "value": "..."}, ...]}, {"instruction": "...", "output": "..."}, '
    '{"question": "...", "answer": "..."} or {"prompt": "...", "response": "..."}',
    "preference": '{"prompt": "...", "chosen": "...", "rejected": "..."}, {"chosen": '
    '[{"role": "user", "content": "..."}, ...], "rejected": [...]} or {"prompt": "...", '
    '"completion": "...", "label": true}',
}
LABELLED = "kto"
"""The shape of a single answer that is labelled as desirable or not."""
_CONVERSATION_KEYS = (*TURNS_KEYS, *QUESTION_KEYS, *ANSWER_KEYS, "history", *SYSTEM_KEYS)
KNOWN_KEYS: dict[Kind, tuple[str, ...]] = {
    "document": (*TEXT_KEYS, *_CONVERSATION_KEYS),
    "conversation": _CONVERSATION_KEYS,
    "preference": ("chosen", "rejected", *_CONVERSATION_KEYS),
}


def shape_of(value: Any, kind: Kind) -> str | None:
    """The keys that make an object a record of this kind: "question/answer"; None: it is none."""
    try:
        return _recognised(value, kind)[0]
    except MiaoError:  # the shape is clear; what stands in it is not right
        return "multiple choice"


def _recognised(value: Any, kind: Kind) -> tuple[str | None, dict[str, Any]]:
    """An object's shape, and its fields in the ordinary form of that shape."""
    fields = fields_of(value)
    if kind == "document" and (text := first_key(fields, TEXT_KEYS)):
        return text, fields
    if particular := rewritten(fields, kind):
        return particular
    if kind == "preference" and {"chosen", "rejected"} <= fields.keys():
        return "chosen/rejected", fields
    if kind == "preference" and desirable(fields) is None:
        return None, fields
    if kind == "preference":
        return (LABELLED if _recognised(unlabelled(fields), "conversation")[0] else None), fields
    if turns := first_key(fields, TURNS_KEYS):
        return turns, fields
    question, answer = first_key(fields, QUESTION_KEYS), first_key(fields, ANSWER_KEYS)
    return (f"{question}/{answer}" if question and answer else None), fields


def kind_of(value: Any) -> Kind | None:
    """The kind of record that an object is best used as; None: no known shape."""
    if shape_of(value, "preference"):
        return "preference"
    if shape_of(value, "conversation"):
        return "conversation"
    return "document" if shape_of(value, "document") else None


def converted(value: Any, kind: Kind, source: str) -> tuple[Record, str]:
    """An object as a record of this kind, and its shape."""
    shape, fields = _recognised(value, kind)
    if shape is None:
        raise _unrecognised(value, kind)
    return _CONVERTERS[kind](fields, shape, source), shape


def to_document(value: Any, source: str = "") -> Document:
    """A text; a conversation becomes its turns' text, one after the other, joined by newlines.

    Raises:
        MiaoError: no text in it; without a place, as from the other converters.
    """
    return cast(Document, converted(value, "document", source)[0])


def to_conversation(value: Any, source: str = "") -> Conversation:
    """Turns (messages, sharegpt, a bare list of turns), or a question and its answer (alpaca, ...).

    Raises:
        MiaoError: no such shape, an unknown role, an empty turn, nothing said by the assistant, or
            an answer that is labelled as undesirable (KTO).
    """
    return cast(Conversation, converted(value, "conversation", source)[0])


def _document(fields: dict[str, Any], shape: str, source: str) -> Document:
    if shape in TEXT_KEYS:
        return Document(words(fields[shape], f"'{shape}'"), _source(fields, source))
    conversation = _conversation(fields, shape, source)
    turns = [message.content for message in conversation.messages if message.content]
    return Document(words("\n".join(turns), "the turns' text"), conversation.source)


def _conversation(fields: dict[str, Any], shape: str, source: str) -> Conversation:
    if desirable(fields) is False:
        raise MiaoError("the answer is labelled as undesirable", fix="use it for preferences")
    messages = _prompt(fields, (*TURNS_KEYS, *QUESTION_KEYS))
    if not first_key(fields, TURNS_KEYS):
        messages += _answer(fields)
    if not any(message.role == "assistant" for message in messages):
        raise MiaoError("no assistant turn to learn from", fix="add the answer or drop the record")
    return Conversation(messages, _source(fields, source), _tools(fields))


def to_preference(value: Any, source: str = "") -> Preference:
    """A better and a worse way to go on: as strings, or as turns, after a prompt of any shape.

    Turns that both sides begin with belong to the prompt, which need not be given apart then.

    Raises:
        MiaoError: no such shape, no prompt, sides that do not differ or do not answer.
    """
    return cast(Preference, converted(value, "preference", source)[0])


def to_prompt(value: Any) -> list[Message]:
    """What is asked in an object of any shape, up to the last turn of the user, to be answered
    anew; a text alone is a question.

    Raises:
        MiaoError: nothing is asked.
    """
    fields = _recognised(value, "conversation")[1]
    messages = _prompt(fields, (*TURNS_KEYS, *QUESTION_KEYS, *TEXT_KEYS))
    while messages and messages[-1].role != "user":
        messages.pop()
    if not messages:
        keys = ", ".join(f"'{key}'" for key in (*QUESTION_KEYS, "text"))
        raise MiaoError(
            "no question in it",
            fix=f"give it 'messages' or 'conversations' with a turn of the user, or one of {keys}",
        )
    return messages


def unlabelled(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without KTO's label."""
    return {key: value for key, value in fields.items() if key not in KTO_KEYS}


def _single(fields: dict[str, Any], source: str) -> Preference:
    """A single answer, labelled (KTO) or with an empty other side (as Miao writes it)."""
    good = desirable(fields)
    if good is None:
        good = fields["rejected"] == []
        prompt = _prompt(fields, (*QUESTION_KEYS, *TURNS_KEYS))
        answer = said(fields["chosen" if good else "rejected"], "the answer")
    else:
        turns = cast(Conversation, converted(unlabelled(fields), "conversation", source)[0])
        prompt, answer = turns.messages[:-1], turns.messages[-1:]
        source = turns.source
    if answer[0].role != "assistant" or not any(m.role == "user" for m in prompt):
        raise MiaoError("a labelled answer must follow a prompt", fix="mend or drop the record")
    sides = (answer, []) if good else ([], answer)
    return Preference(prompt, *sides, _source(fields, source))


def _preference(fields: dict[str, Any], shape: str, source: str) -> Preference:
    if shape == LABELLED or ([] in (fields["chosen"], fields["rejected"])):
        return _single(fields, source)
    chosen, rejected = (said(fields[key], f"'{key}'") for key in ("chosen", "rejected"))
    if chosen == rejected:
        raise MiaoError("'chosen' and 'rejected' are the same", fix="drop the record")
    given = _prompt(fields, (*QUESTION_KEYS, *TURNS_KEYS))
    if given in (chosen, rejected):  # some data repeat one side as `messages`
        given = []
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = _joined(given, chosen[:shared])
    chosen, rejected = chosen[shared:], rejected[shared:]
    if all(message.role == "system" for message in prompt):
        keys = ", ".join(f"'{key}'" for key in QUESTION_KEYS)
        raise MiaoError("no prompt before 'chosen' and 'rejected'", fix=f"give it as one of {keys}")
    if not chosen or not rejected:
        raise MiaoError("one side is only the beginning of the other", fix="drop the record")
    if not chosen[0].role == rejected[0].role == "assistant":
        raise MiaoError(
            "'chosen' and 'rejected' do not answer the same turn",
            fix="they may differ only from an assistant's turn on",
        )
    return Preference(prompt, chosen, rejected, _source(fields, source))


_CONVERTERS: dict[Kind, Callable[[dict[str, Any], str, str], Record]] = {
    "document": _document,
    "conversation": _conversation,
    "preference": _preference,
}


def _joined(given: list[Message], shared: list[Message]) -> list[Message]:
    """One prompt from the one given apart and the turns that both sides begin with."""
    if not shared or given[-len(shared) :] == shared:
        return given
    if not given or shared[: len(given)] == given or shared[-len(given) :] == given:
        return shared
    goes_on = (given[-1].role == "user") != (shared[0].role == "user")
    if shared[0].role == "system" or shared[0] in given or not goes_on:
        raise MiaoError(
            "the prompt is not the one that 'chosen' and 'rejected' begin with",
            fix="make them equal, or leave one of them out",
        )
    return given + shared


def _prompt(fields: dict[str, Any], keys: Sequence[str]) -> list[Message]:
    """The turns under the first of these keys, or the history and the question there.

    A system text that stands apart comes before them, unless they begin with one.
    """
    key = first_key(fields, keys)
    messages: list[Message] = []
    if key and (key in TURNS_KEYS or isinstance(fields[key], list)):
        messages = to_messages(fields[key], f"'{key}'")
    elif key:
        messages = [*_history(fields), Message("user", _question(fields, key))]
    system = first_key(fields, SYSTEM_KEYS)
    if system and not blank(fields[system]) and not (messages and messages[0].role == "system"):
        messages.insert(0, Message("system", words(fields[system], f"'{system}'")))
    return messages


def _question(fields: dict[str, Any], key: str) -> str:
    keys = [key, *(extra for extra in MATERIAL_KEYS if extra in fields and extra != key)]
    parts = [words(fields[part], f"'{part}'") for part in keys if not blank(fields[part])]
    return words("\n".join(parts), f"'{key}'")


def _answer(fields: dict[str, Any]) -> list[Message]:
    key = first_key(fields, ANSWER_KEYS)
    assert key is not None
    messages = said(fields[key], f"'{key}'")
    if messages[0].role == "assistant" and not messages[0].reasoning:
        messages[0].reasoning = reasoning_of(fields, "the answer")
    return messages


def _history(fields: dict[str, Any]) -> list[Message]:
    """Alpaca's earlier rounds, `[[question, answer], ...]`, or turns."""
    rounds = fields.get("history", [])
    if isinstance(rounds, str):  # in a cell of a table
        rounds = [] if blank(rounds) else plain_json(rounds, "'history'")
    rounds = rounds if isinstance(rounds, list) else [rounds]
    if rounds and all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in rounds):
        return to_messages(rounds, "'history'")
    messages = []
    for number, pair in enumerate(rounds, 1):
        where = f"round {number} of 'history'"
        if not isinstance(pair, list) or len(pair) != 2:
            raise MiaoError(f"{where} is no pair", fix="write it as [question, answer]")
        messages.append(Message("user", words(pair[0], where)))
        messages.append(Message("assistant", words(pair[1], where)))
    return messages


def _tools(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The descriptions of tools, beside the turns or (some data have them there) in the first."""
    tools = fields.get("tools", "")
    if turns := first_key(fields, TURNS_KEYS):
        listed = fields[turns] if isinstance(fields[turns], list) else [None]
        tools = tools or present(listed[0]).get("tools", "")
    tools = [] if blank(tools) else plain_json(tools, "'tools'")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise MiaoError(f"'tools' is {named(tools)}", fix="it must be a list of JSON schemas")
    return tools


def _source(fields: dict[str, Any], default: str) -> str:
    value = fields.get("source", "")
    return default if blank(value) else words(value, "'source'")


def fields_of(value: Any) -> dict[str, Any]:
    """An object's fields that are not null; a bare list is one of turns."""
    return {TURNS_KEYS[0]: value} if isinstance(value, list) else with_aliases(present(value))


def _unrecognised(value: Any, kind: Kind) -> MiaoError:
    """Says what was found instead, and which key was probably meant."""
    expected = f"expected is {EXPECTED[kind]}"
    if not isinstance(value, dict):
        return MiaoError(f"{named(value)} is no {kind}", fix=expected)
    keys = [key[:40] for key in value if isinstance(key, str)]
    shown = [repr(key) + (" (null)" if value.get(key, 0) is None else "") for key in keys[:8]]
    what = f"no {kind} in these keys: {', '.join(shown) or 'none'}{', ...' if keys[8:] else ''}"
    if looks := kind_of(value):
        return MiaoError(what, fix=f"it is a {looks}: name it under corpus.{FIELDS[looks]}")
    unknown = [key for key in keys[:100] if key not in KNOWN_KEYS[kind]]
    meant = [f"'{key}': {hint}" for key in unknown if (hint := did_you_mean(key, KNOWN_KEYS[kind]))]
    return MiaoError(what, fix="; ".join([*meant[:3], expected]))
