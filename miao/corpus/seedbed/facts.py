"""What a fact of the seedbed is, and how the tables of facts are read (`tables/*/facts.yaml`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, partial

from miao.corpus.seedbed.tables import LANGUAGES, Entry, Language, entries, table
from miao.errors import MiaoError

# The first letter decides between "a" and "an": no subject begins like "hour" or "unit".
_VOWELS = "aeiou"
_SLOTS = ("s", "v", "a", "n", "u")
_NEEDED = ("topic", "title", "facts", "statements", "questions", "heldout")
_OPTIONAL = ("clauses", "indirect", "thing", "follow_up", "counted")
_FEWEST_DISTRACTORS = 3


@dataclass(frozen=True, slots=True)
class Relation:
    """One table of facts (subject -> value) with everything that is ever said about them.

    A value may be followed by `| other wording` that a reply may use as well, and by `~ text` for
    a value which would be just as true and therefore is never offered as a wrong option:
    `steamer | steamship ~ boat`.

    Sentences are templates of `{s}` the subject, `{v}` the value, `{a}` the subject with its
    English article, `{n}` and `{u}` the number and the unit of a `counted` value (`12 months`).
    The first statement is also the full-sentence answer to every question.

    Args:
        questions: phrasings that training shows.
        heldout: phrasings that only evaluation asks; never emitted by a training generator.
        follow_up: how a second question of the same kind is cut short; empty for none.
    """

    name: str
    language: Language
    topic: str
    title: str
    values: dict[str, str]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    heldout: tuple[str, ...]
    follow_up: str
    counted: bool
    where: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact in one language with all its sentences rendered.

    `distractors` are false for this subject; no other value of the relation is missing from them
    but those that are true as well. `accepted` are the wordings of the value that a reply may use.
    """

    topic: str
    language: Language
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


@cache
def relations(language: Language) -> tuple[Relation, ...]:
    """The relations of a language in the order of its table.

    Raises:
        MiaoError: the table is wrong; with the relation and the key.
    """
    frames = table(language, "frames")
    found = entries(language, "facts", _NEEDED, _OPTIONAL)
    return tuple(_relation(name, language, entry, frames) for name, entry in found.items())


def _relation(name: str, language: Language, entry: Entry, frames: Entry) -> Relation:
    framed = [
        frame.format(clauses[i % len(clauses)])
        for key, into in (("clauses", "direct"), ("indirect", "indirect"), ("thing", "thing"))
        if (clauses := entry.lines(key, _SLOTS))
        for i, frame in enumerate(frames.lines(into, ("",)))
    ]
    if not isinstance(counted := entry.values.get("counted", False), bool):
        raise entry.error("not true or false", "counted", "write `counted: true`")
    return Relation(
        name=name,
        language=language,
        topic="".join(entry.lines("topic")),
        title="".join(entry.lines("title")),
        values=entry.mapping("facts"),
        statements=entry.lines("statements", _SLOTS),
        questions=(*framed, *entry.lines("questions", _SLOTS)),
        heldout=entry.lines("heldout", _SLOTS),
        follow_up="".join(entry.lines("follow_up", _SLOTS)),
        counted=counted,
        where=entry.where,
    )


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact, Chinese first, in the order of the tables.

    Raises:
        MiaoError: a table is wrong; with the relation and the key.
    """
    return tuple(
        fact
        for language in LANGUAGES
        for relation in relations(language)
        for fact in build(relation)
    )


def build(relation: Relation) -> list[Fact]:
    """The facts of one relation in the order of its table."""
    parsed = {}
    for subject, text in relation.values.items():
        first, *also = (part.strip() for part in text.split("~"))
        parsed[subject] = tuple(part.strip() for part in first.split("|")), also
    values = list(dict.fromkeys(wordings[0] for wordings, _ in parsed.values()))
    made = []
    for subject, (wordings, also) in parsed.items():
        value = wordings[0]
        if relation.counted and not value[:1].isdigit():
            where, fix = f"{relation.where}.facts", "begin with digits, as in `12 months`"
            raise MiaoError(f"'{value}' has no number, and is counted", where=where, fix=fix)
        others = _other_values(value, values, relation.counted)
        distractors = tuple(other for other in others if other != value and other not in also)
        if len(distractors) < _FEWEST_DISTRACTORS:
            raise MiaoError(
                f"'{subject}: {value}' has {len(distractors)} wrong answers beside it",
                where=f"{relation.where}.facts",
                fix=f"a relation needs {_FEWEST_DISTRACTORS + 1} different values or more",
            )
        say = partial(_render, subject=subject, value=value, language=relation.language)
        made.append(
            Fact(
                topic=relation.topic,
                language=relation.language,
                relation=relation.name,
                subject=subject,
                value=value,
                distractors=distractors,
                accepted=wordings,
                statements=say(relation.statements),
                questions=say(relation.questions),
                heldout=say(relation.heldout),
                follow_up="".join(say((relation.follow_up,))),
            )
        )
    return made


def _number_and_unit(value: str) -> tuple[str, str]:
    match = re.match(r"(\d*) ?(.*)", value)
    assert match is not None
    return match[1], match[2]


def _other_values(value: str, values: list[str], counted: bool) -> list[str]:
    """The values to choose from; a counted value keeps its unit and takes the other numbers."""
    if not counted:
        return values
    number, _ = _number_and_unit(value)
    numbers = dict.fromkeys(_number_and_unit(other)[0] for other in values)
    # Only the number changes, and "1 months" would give itself away.
    return [value.replace(number, other, 1) for other in numbers if other != "1"]


def _render(
    templates: tuple[str, ...], subject: str, value: str, language: Language
) -> tuple[str, ...]:
    number, unit = _number_and_unit(value)
    article = "an" if subject[0].lower() in _VOWELS else "a"
    words = {"s": subject, "v": value, "a": f"{article} {subject}", "n": number, "u": unit}
    rendered = (template.format(**words) for template in templates)
    if language == "zh":
        return tuple(rendered)
    return tuple(text[:1].upper() + text[1:] for text in rendered)
