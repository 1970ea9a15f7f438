"""Little everyday dialogues between two people, and word lessons between teacher and pupil."""

from __future__ import annotations

import random
from collections.abc import Iterator

from miao.corpus.records import Document
from miao.corpus.seedbed.scenes import scenes
from miao.corpus.seedbed.skills import lesson
from miao.corpus.seedbed.stories import children
from miao.corpus.seedbed.tables import ZH_SHARE, Language, some_language

_LESSON_SHARE = 0.3
_GROWN_UPS: dict[Language, tuple[str, ...]] = {
    "zh": ("妈妈", "爸爸", "奶奶", "爷爷"),
    "en": ("Mother", "Father", "Grandma", "Grandpa"),
}


def documents(rng: random.Random, *, zh_share: float = ZH_SHARE) -> Iterator[Document]:
    """Endless dialogues of two to six lines, each line beginning with its speaker."""
    while True:
        language = some_language(rng, zh_share)
        if rng.random() < _LESSON_SHARE:
            yield Document(_lesson(rng, language), source="dialogues")
            continue
        first, second = rng.sample(children(language), 2)
        slots = {"x": first, "y": second, "adult": rng.choice(_GROWN_UPS[language])}
        text = rng.choice(tuple(scenes("dialogues", language).values())).render(rng, slots, "\n")
        yield Document(text, source="dialogues")


def _lesson(rng: random.Random, language: Language) -> str:
    """One to three questions about words, in the very sentences in which the chat answers them."""
    teacher, colon = ("老师", "：") if language == "zh" else ("Teacher", ": ")
    pupil = rng.choice(children(language))
    return "\n".join(
        f"{teacher}{colon}{ask}\n{pupil}{colon}{reply}"
        for ask, reply in lesson(rng, language, rng.randint(1, 3))
    )
