"""Raw objects -> records; the shape of each object is told from its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from miao.corpus.read.asked import answer_key, answer_of, prompt_of, source_of, tools_of
from miao.corpus.read.columns import (
    ANSWER_KEYS,
    CHOSEN_KEYS,
    MEDIA_KEYS,
    QUESTION_KEYS,
    REJECTED_KEYS,
    SYSTEM_KEYS,
    TEXT_KEYS,
    TITLE_KEYS,
    TOOLS_KEYS,
    TURNS_KEYS,
    Row,
    row_of,
)
from miao.corpus.read.marks import tools_within, without_marks
from miao.corpus.read.shapes import KTO_KEYS, desirable, rewritten
from miao.corpus.read.turns import (
    blank,
    first_key,
    named,
    said,
    words,
)
from miao.corpus.records import FIELDS, Conversation, Document, Kind, Message, Preference, Record
from miao.errors import MiaoError, did_you_mean

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
    "preference": (*CHOSEN_KEYS, *REJECTED_KEYS, *_CONVERSATION_KEYS),
}


def shape_of(value: Any, kind: Kind) -> str | None:
    """The keys that make an object a record of this kind: "question/answer"; None: it is none."""
    try:
        return _recognised(value, kind)[0]
    except MiaoError:  # the shape is clear; what stands in it is not right
        return "multiple choice"


def _recognised(value: Any, kind: Kind) -> tuple[str | None, Row]:
    """An object's shape, and its row in the ordinary form of that shape."""
    row = row_of(value)
    text = first_key(row, TEXT_KEYS) if kind == "document" else None
    if not text and (particular := rewritten(row, kind)):
        shape, row = particular
        return shape, row
    if text:
        distilled = rewritten(row, "conversation") if text == "content" else None
        if distilled and distilled[0] == "question/reasoning/content":
            return distilled
        return text, row
    if kind == "preference" and {"chosen", "rejected"} <= row.keys():
        return "chosen/rejected", row
    if kind == "preference" and desirable(row) is None:
        return None, row
    if kind == "preference":
        return (LABELLED if _recognised(unlabelled(row), "conversation")[0] else None), row
    if turns := first_key(row, TURNS_KEYS):
        return turns, row
    question, answer = first_key(row, QUESTION_KEYS), answer_key(row)
    return (f"{question}/{answer}" if question and answer else None), row


def kind_of(value: Any) -> Kind | None:
    """The kind of record that an object is best used as; None: no known shape."""
    if shape_of(value, "preference"):
        return "preference"
    if shape_of(value, "conversation"):
        return "conversation"
    return "document" if shape_of(value, "document") else None


def converted(value: Any, kind: Kind, source: str) -> tuple[Record, str, Row]:
    """An object as a record of this kind, its shape, and the row that it was read from."""
    shape, row = _recognised(value, kind)
    if shape is None:
        raise _unrecognised(value, kind)
    media = first_key(row.origin, MEDIA_KEYS) if kind != "document" else None
    if media and row.origin.peek(media) not in ("", [], {}):
        raise MiaoError(
            f"the record has '{media}', and only text is learned",
            fix=f"drop it, or learn its text alone: --columns unused={media}",
        )
    return _CONVERTERS[kind](row, shape, source), shape, row


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


def _document(row: Row, shape: str, source: str) -> Document:
    key = first_key(row, TEXT_KEYS) if shape in TEXT_KEYS or shape == "段落" else None
    if key:
        text = words(row[key], f"'{key}'")
        title = first_key(row, TITLE_KEYS)
        if title and isinstance(row.peek(title), str) and not blank(row.peek(title)):
            name = row[title].strip()
            text = text if text.lstrip().startswith(name) else f"{name}\n\n{text}"
        return Document(text, source_of(row, source))
    conversation = _conversation(row, shape, source)
    turns = [
        part
        for message in conversation.messages
        for part in (message.reasoning, message.content)
        if part
    ]
    row.read -= set(TOOLS_KEYS)
    row.origin.read -= set(TOOLS_KEYS)
    calls = [message.tool_calls for message in conversation.messages if message.tool_calls]
    if calls:
        row.origin.aside["calls of tools"] = calls
    return Document(words("\n".join(turns), "the turns' text"), conversation.source)


def _conversation(row: Row, shape: str, source: str) -> Conversation:
    if desirable(row) is False:
        raise MiaoError("the answer is labelled as undesirable", fix="use it for preferences")
    messages = prompt_of(row, (*TURNS_KEYS, *QUESTION_KEYS))
    if not first_key(row, TURNS_KEYS):
        messages += answer_of(row)
    if not any(message.role == "assistant" for message in messages):
        raise MiaoError("no assistant turn to learn from", fix="add the answer or drop the record")
    messages, tools = _with_tools(row, messages)
    return Conversation(messages, source_of(row, source), tools)


def _with_tools(row: Row, messages: list[Message]) -> tuple[list[Message], list[dict[str, Any]]]:
    """The messages without what their system turn says of tools, and the tools."""
    given = tools_of(row)
    tools = tools_within(messages) or given
    return [message for message in messages if message.role != "system" or message.content], tools


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
    row = _recognised(value, "conversation")[1]
    messages = prompt_of(row, (*TURNS_KEYS, *QUESTION_KEYS, *TEXT_KEYS))
    while messages and messages[-1].role != "user":
        messages.pop()
    if not messages:
        keys = ", ".join(f"'{key}'" for key in (*QUESTION_KEYS, "text"))
        raise MiaoError(
            "no question in it",
            fix=f"give it 'messages' or 'conversations' with a turn of the user, or one of {keys}",
        )
    return messages


def unlabelled(row: Row) -> Row:
    """The row without KTO's label; what is read of it is read of the row."""
    other = Row({key: value for key, value in row.items() if key not in KTO_KEYS}, row.origin)
    other.taken = frozenset(other)
    return other


def _single(row: Row, source: str) -> Preference:
    """A single answer, labelled (KTO) or with an empty other side (as Miao writes it)."""
    good = desirable(row)
    if good is None:
        good = row["rejected"] == []
        prompt, tools = _with_tools(row, prompt_of(row, (*QUESTION_KEYS, *TURNS_KEYS)))
        answer = without_marks(said(row["chosen" if good else "rejected"], "the answer"))
        row.read.add("chosen")
    else:
        row.read.update(KTO_KEYS)
        shape, other = _recognised(unlabelled(row), "conversation")
        assert shape is not None
        turns = _conversation(other, shape, source)
        prompt, answer, tools = turns.messages[:-1], turns.messages[-1:], turns.tools
        source = turns.source
    if answer[0].role != "assistant" or not any(m.role == "user" for m in prompt):
        raise MiaoError("a labelled answer must follow a prompt", fix="mend or drop the record")
    sides = (answer, []) if good else ([], answer)
    return Preference(prompt, *sides, source_of(row, source), tools)


def _preference(row: Row, shape: str, source: str) -> Preference:
    if shape == LABELLED or ([] in (row["chosen"], row["rejected"])):
        return _single(row, source)
    chosen, rejected = (without_marks(said(row[key], f"'{key}'")) for key in ("chosen", "rejected"))
    if chosen == rejected:
        raise MiaoError("'chosen' and 'rejected' are the same", fix="drop the record")
    given = prompt_of(row, (*QUESTION_KEYS, *TURNS_KEYS))
    if given in (chosen, rejected):  # some data repeat one side as `messages`
        given = []
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    prompt, tools = _with_tools(row, _joined(given, chosen[:shared]))
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
    return Preference(prompt, chosen, rejected, source_of(row, source), tools)


_CONVERTERS: dict[Kind, Callable[[Row, str, str], Record]] = {
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
