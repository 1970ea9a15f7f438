"""What a fact of the seedbed is, and how the tables of facts are read."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The first letter decides between "a" and "an": no subject begins like "hour" or "unit".
_VOWELS = "aeiou"


@dataclass(frozen=True, slots=True)
class Relation:
    """One table of facts (subject -> value) with everything that is ever said about them.

    `table` reads `subject=value; subject=value`. A value may be followed by `|other wording` that
    a reply may use as well, and by `~text` for a value which would be just as true and therefore
    is never offered as a wrong option: `ship=steamer|steamship~boat`.

    Sentences are templates of `{s}` the subject, `{v}` the value, `{a}` the subject with its
    English article, `{n}` and `{u}` the number and the unit of a `counted` value (`12 months`).
    The first statement is also the full-sentence answer to every question.

    Args:
        questions: phrasings that training shows.
        heldout: phrasings that only evaluation asks; never emitted by a training generator.
        follow_up: how a second question of the same kind is cut short; empty for none.
    """

    name: str
    topic: str
    title: str
    table: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    heldout: tuple[str, ...]
    follow_up: str = ""
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact in one language with all its sentences rendered.

    `distractors` are false for this subject; no other value of the relation is missing from them
    but those that are true as well. `accepted` are the wordings of the value that a reply may use.
    """

    topic: str
    language: str
    relation: str
    subject: str
    value: str
    distractors: tuple[str, ...]
    accepted: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    heldout: tuple[str, ...]
    follow_up: str

    @property
    def sentence(self) -> str:
        """The fact as one full sentence, the answer that a chat gives."""
        return self.statements[0]


def build(relation: Relation, language: str) -> list[Fact]:
    """The facts of one relation in the order of its table."""
    rows = [_row(entry) for entry in relation.table.split(";") if entry.strip()]
    values = list(dict.fromkeys(wordings[0] for _, wordings, _ in rows))
    return [
        Fact(
            topic=relation.topic,
            language=language,
            relation=relation.name,
            subject=subject,
            value=wordings[0],
            distractors=_distractors(wordings[0], also, values, relation.counted),
            accepted=wordings,
            statements=_render(relation.statements, subject, wordings[0], language),
            questions=_render(relation.questions, subject, wordings[0], language),
            heldout=_render(relation.heldout, subject, wordings[0], language),
            follow_up="".join(_render((relation.follow_up,), subject, wordings[0], language)),
        )
        for subject, wordings, also in rows
    ]


def _row(entry: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    subject, _, rest = (part.strip() for part in entry.partition("="))
    value, *also = (part.strip() for part in rest.split("~"))
    assert subject and value, f"not 'subject=value': {entry!r}"
    return subject, tuple(value.split("|")), tuple(also)


def _number_and_unit(value: str) -> tuple[str, str]:
    match = re.match(r"(\d*) ?(.*)", value)
    assert match is not None
    return match[1], match[2]


def _distractors(
    value: str, also: tuple[str, ...], values: list[str], counted: bool
) -> tuple[str, ...]:
    """The other values; a counted value keeps its unit and takes the other numbers instead."""
    if counted:
        number, _ = _number_and_unit(value)
        numbers = dict.fromkeys(_number_and_unit(other)[0] for other in values)
        # Only the number changes, and "1 months" would give itself away.
        values = [value.replace(number, other, 1) for other in numbers if other != "1"]
    return tuple(other for other in values if other != value and other not in also)


def _render(templates: tuple[str, ...], subject: str, value: str, language: str) -> tuple[str, ...]:
    number, unit = _number_and_unit(value)
    article = "an" if subject[0].lower() in _VOWELS else "a"
    words = {"s": subject, "v": value, "a": f"{article} {subject}", "n": number, "u": unit}
    rendered = (template.format(**words) for template in templates)
    if language == "zh":
        return tuple(rendered)
    return tuple(text[:1].upper() + text[1:] for text in rendered)
