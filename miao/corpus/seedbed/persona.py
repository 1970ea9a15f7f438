"""Who the trained assistant is: every identity sentence of the seedbed is rendered from it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, fields

from miao.corpus.records import Message
from miao.corpus.seedbed.tables import Language
from miao.errors import MiaoError

_HAN_BESIDE_LATIN = re.compile(
    r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])"
)
_SYSTEM_SHARE = 0.08
_SYSTEM_PROMPTS: dict[Language, tuple[str, ...]] = {
    "zh": (
        "你是{name}，一个友好的助手。",
        "你是{name}，一个乐于助人的小助手。",
        "你是由{maker}训练的助手{name}。",
    ),
    "en": (
        "You are {name}, a helpful assistant.",
        "You are {name}, a small and friendly assistant.",
        "You are {name}, an assistant made by {maker}.",
    ),
}


@dataclass(frozen=True)
class Persona:
    """The assistant's name and maker, as said in Chinese and in English.

    `maker_en` is written as it stands inside a sentence ("the Miao open-source project").

    Raises:
        MiaoError: a field is blank.
    """

    name_zh: str = "小苗"
    name_en: str = "Miao"
    maker_zh: str = "Miao 开源项目"
    maker_en: str = "the Miao open-source project"

    def __post_init__(self) -> None:
        for option in fields(self):
            if not getattr(self, option.name).strip():
                raise MiaoError(
                    "the assistant's name or maker is blank",
                    where=f"persona.{option.name}",
                    fix="write a name, or leave the option out to keep the default",
                )

    def fill(self, text: str, language: Language) -> str:
        """`text` with {name} and {maker} in `language`, and {name_zh} and {name_en} as they are.

        In Chinese, Latin words get a space on each side ("由 Miao 开源项目训练").
        """
        if "{" not in text:
            return text
        zh = language == "zh"
        filled = (
            text.replace("{name}", self.name_zh if zh else self.name_en)
            .replace("{maker}", self.maker_zh if zh else self.maker_en)
            .replace("{name_zh}", self.name_zh)
            .replace("{name_en}", self.name_en)
        )
        return _HAN_BESIDE_LATIN.sub(" ", filled) if zh else filled

    def system_messages(self, rng: random.Random, language: Language) -> list[Message]:
        """A system prompt in some 8% of the draws, else nothing."""
        if rng.random() >= _SYSTEM_SHARE:
            return []
        prompt = rng.choice(_SYSTEM_PROMPTS[language])
        return [Message("system", self.fill(prompt, language))]
