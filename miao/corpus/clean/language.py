"""Language identification with lingua, whose models come with the package."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from miao.errors import MiaoError, did_you_mean

NAMES = {
    "zh": "CHINESE", "en": "ENGLISH", "ja": "JAPANESE", "ko": "KOREAN", "fr": "FRENCH",
    "de": "GERMAN", "es": "SPANISH", "ru": "RUSSIAN", "pt": "PORTUGUESE", "it": "ITALIAN",
    "vi": "VIETNAMESE", "ar": "ARABIC", "nl": "DUTCH", "id": "INDONESIAN", "tr": "TURKISH",
}  # fmt: skip
"""The languages told apart: more would cost memory and certainty."""
SAMPLE = 400  # characters from the middle of a text
_KANA, _HAN = re.compile("[\u3040-\u30ff]"), re.compile("[\u4e00-\u9fff]")
FEW_KANA = 0.2
"""Japanese prose has more kana than this among its kana and ideographs; a Chinese text on Japan has
fewer, and lingua calls it Japanese for a single name."""


@cache
def _detector() -> tuple[Any, dict[Any, str]]:
    try:
        import lingua
    except ImportError as error:
        raise MiaoError(
            "--corpus.clean.languages needs lingua",
            where="corpus.clean.languages",
            fix="pip install 'miaolm[data]', or use --corpus.clean.min_chinese",
        ) from error
    known = {getattr(lingua.Language, name): code for code, name in NAMES.items()}
    return lingua.LanguageDetectorBuilder.from_languages(*known).build(), known


def check_languages(codes: list[str]) -> None:
    """Raises:
    MiaoError: a code that is not known, or lingua is missing.
    """
    for code in codes:
        if code not in NAMES:
            raise MiaoError(
                f"'{code}' is no language that can be told apart",
                where="corpus.clean.languages",
                fix=did_you_mean(code, NAMES) or f"known are {', '.join(NAMES)}",
            )
    _detector()


def language_confidences(text: str) -> dict[str, float]:
    """Language code -> probability, the likeliest first; {} for a text without letters."""
    detector, known = _detector()
    begin = max(0, (len(text) - SAMPLE) // 2)
    sample = text[begin : begin + SAMPLE]
    kana, han = len(_KANA.findall(sample)), len(_HAN.findall(sample))
    if kana < FEW_KANA * (kana + han):
        sample = _KANA.sub("", sample)
    values = detector.compute_language_confidence_values(sample)
    return {known[value.language]: value.value for value in values if value.value > 0}
