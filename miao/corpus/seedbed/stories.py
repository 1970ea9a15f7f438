"""Little stories with a hero, a problem and an ending that follows from it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from miao.corpus.records import Document
from miao.corpus.seedbed.scenes import scenes
from miao.corpus.seedbed.tables import ZH_SHARE, Language, phrases, rows, some_language

_PRONOUNS_ZH = {"it": "它", "he": "他", "she": "她"}
_PRONOUNS_EN = {"he": ("he", "him", "his", "He"), "she": ("she", "her", "her", "She")}
_PLURALS = {
    "mouse": "mice",
    "sheep": "sheep",
    "wolf": "wolves",
    "deer": "deer",
    "fisherman": "fishermen",
}
_FOR_CHILDREN = ("late",)


class _Hero(NamedTuple):
    """What a story can be about as its hero; an animal is "it", in English he or she."""

    zh: str
    measure: str
    en: str
    pronoun: str


@cache
def _heroes() -> tuple[_Hero, ...]:
    return tuple(_Hero(*row) for row in rows("heroes", _Hero._fields))


@cache
def _kinds(language: Language) -> dict[str, tuple[str, str]]:
    """Kinds of heroes: kind -> (measure word, pronoun; "" where he and she both do)."""
    if language == "zh":
        return {hero.zh: (hero.measure, _PRONOUNS_ZH[hero.pronoun]) for hero in _heroes()}
    return {hero.en: ("", hero.pronoun.replace("it", "")) for hero in _heroes()}


@cache
def _animals(language: Language) -> tuple[str, ...]:
    animals = [hero for hero in _heroes() if hero.pronoun == "it"]
    return tuple(hero.zh if language == "zh" else hero.en for hero in animals)


@cache
def topics(language: Language) -> dict[str, tuple[str, ...]]:
    """What a story can be about without naming its hero, and the plots that are about it."""
    found = rows("topics", ("zh", "en", "plots"))
    return {(zh if language == "zh" else en): tuple(plots.split()) for zh, en, plots in found}


@cache
def _names(language: Language) -> dict[str, tuple[str, ...]]:
    """Children's names by the pronoun."""
    he, she = ("他", "她") if language == "zh" else ("he", "she")
    return {he: phrases(language, "people", "boys"), she: phrases(language, "people", "girls")}


@cache
def _plot_names(language: Language, children: bool) -> tuple[str, ...]:
    return tuple(
        name for name in scenes("plots", language) if children or name not in _FOR_CHILDREN
    )


@cache
def children(language: Language) -> tuple[str, ...]:
    """The names of all children who appear in stories and dialogues."""
    return tuple(name for group in _names(language).values() for name in group)


@cache
def subjects(language: Language) -> tuple[str, ...]:
    """What the chat can be asked a story about: kinds of heroes, topics and children's names."""
    return (*_kinds(language), *topics(language), *children(language))


def spoken(rng: random.Random, subject: str, language: Language) -> str:
    """A subject as it stands in a request: "a rabbit" or "rabbits", "小兔子" or "兔子"."""
    if subject not in _kinds(language):
        return subject
    if language == "zh":
        is_little = subject.startswith("小") and subject in _animals("zh")
        return subject[1:] if is_little and rng.random() < 0.3 else subject
    if rng.random() < 0.25:
        return _plural(subject)
    return f"{'an' if subject[0] in 'aeio' else 'a'} {subject}"


def _plural(kind: str) -> str:
    if kind in _PLURALS:
        return _PLURALS[kind]
    if kind.endswith("y") and kind[-2] not in "aeo":
        return f"{kind[:-1]}ies"
    return f"{kind}es" if kind.endswith(("s", "x")) else f"{kind}s"


def _kind_named(subject: str, language: Language) -> str | None:
    """The kind of hero that a subject asks for, also as "cats" or as 猫."""
    kinds = _kinds(language)
    if subject in kinds:
        return subject
    if language == "zh":
        return f"小{subject}" if f"小{subject}" in kinds else None
    return next((kind for kind in kinds if _plural(kind) == subject), None)


def documents(rng: random.Random, *, zh_share: float = ZH_SHARE) -> Iterator[Document]:
    """Endless stories to pretrain on: somewhat more than half have a child as the hero."""
    while True:
        language = some_language(rng, zh_share)
        if rng.random() < 0.55:
            text = _with_child(rng, language, None, None)
        else:
            text = _with_kind(rng, language, rng.choice(tuple(_kinds(language))))
        yield Document(text, source="stories")


def story_about(rng: random.Random, subject: str, language: Language) -> str:
    """A story about a kind of hero ("小猫", "rabbit"), a topic ("友谊", "snow") or a named child.

    A subject that is neither a known kind nor a known topic is taken for the hero's name.
    """
    kind = _kind_named(subject, language)
    if kind is not None:
        return _with_kind(rng, language, kind)
    if subject in topics(language):
        return _with_child(rng, language, None, rng.choice(topics(language)[subject]))
    return _with_child(rng, language, subject, None)


def _with_child(rng: random.Random, language: Language, name: str | None, plot: str | None) -> str:
    by_pronoun = _names(language)
    pronoun = rng.choice(tuple(by_pronoun))
    if name is None:
        name = rng.choice(by_pronoun[pronoun])
    else:
        pronoun = next((p for p, names in by_pronoun.items() if name in names), pronoun)
    friend = rng.choice(children(language))
    while friend == name:
        friend = rng.choice(children(language))
    plot = plot or rng.choice(_plot_names(language, True))
    return _tell(rng, language, plot, name, pronoun, friend)


def _with_kind(rng: random.Random, language: Language, kind: str) -> str:
    """A story whose hero is introduced as a kind of animal or person, often with a name."""
    measure, pronoun = _kinds(language)[kind]
    friend = rng.choice(_animals(language))
    while friend == kind:
        friend = rng.choice(_animals(language))
    plot = rng.choice(_plot_names(language, False))
    home = rng.choice(phrases(language, "people", "homes"))
    is_animal = kind in _animals(language)
    if language == "en":
        pronoun = pronoun or rng.choice(("he", "she"))
        name = rng.choice(phrases("en", "people", "pets") if is_animal else _names("en")[pronoun])
        one = f"little {kind}" if is_animal else kind
        intro = rng.choice(
            (f"Once there was a {one} named {name} {home}.", f"A {one} named {name} lived {home}.")
        )
        return f"{intro} {_tell(rng, 'en', plot, name, pronoun, friend.capitalize())}"
    one = f"一{measure}{kind}"
    intro = rng.choice((f"从前有{one}，住在{home}", f"从前，{home}有{one}", f"从前有{one}"))
    name = kind
    if is_animal and rng.random() < 0.5:
        name = rng.choice(phrases("zh", "people", "pets"))
        intro += f"，名字叫{name}"
    return f"{intro}。{_tell(rng, 'zh', plot, name, pronoun, friend)}"


def _tell(
    rng: random.Random, language: Language, plot: str, hero: str, pronoun: str, friend: str
) -> str:
    scene = scenes("plots", language)[plot]
    slots = {"p": pronoun}
    if language == "en":
        slots = dict(zip(("p", "o", "ps", "P"), _PRONOUNS_EN[pronoun], strict=True))
    slots["t"] = rng.choice(phrases(language, "people", "when"))
    slots["place"] = rng.choice(phrases(language, "people", "places"))
    slots["adult"] = rng.choice(phrases(language, "people", "grown_ups"))
    slots["h"], slots["f"] = hero, friend
    return scene.render(rng, slots, "" if language == "zh" else " ")
