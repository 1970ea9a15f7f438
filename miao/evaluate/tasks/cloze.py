"""Cloze questions from one's own held-out texts: a word is left out, and has to be told from others
of its kind in the same text.

An option that has been read before is likelier for that alone. So either all options of a question
stand in the text before the gap, or none of them does.
"""

from __future__ import annotations

import csv
import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import zip_longest
from typing import Any

from miao.corpus.words import HAN, NAME, WORD, is_chinese, repeated_words
from miao.errors import MiaoError

KINDS = ("name", "number", "idiom", "rare")
SHORTEST = 200
"""Characters that a text needs."""
BEFORE = {"zh": 300, "en": 900}
"""Characters that are shown before the gap, at most; at least a tenth of them."""
AFTER = 80
OPTIONS = 4
PER_TEXT = 6
FEWEST = 20
"""Questions below which a file of them says nothing."""
COMMON = 0.05
"""Share of the texts that have a word, above which it is not rare."""
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟"
    "姜崔谭陆范汪廖石金韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常汤欧阳司马诸葛"
)
_PLACES = "省市县区镇乡村山河江湖海岛州城路街桥寺国"
_NUMBER = re.compile(r"(?<![\d.,])\d[\d,.]*(?<![,.])(?![\d])")
_TITLE = re.compile(rf"(?<=《)[{HAN}]{{2,8}}(?=》)")
_END = re.compile(r"[。！？\n]|[.!?](?=\s|$)")


@dataclass(frozen=True)
class Gap:
    """A place that can be left out; only gaps of the same kind and form stand for each other."""

    start: int
    text: str
    kind: str
    form: str


def cloze_items(
    texts: Iterable[str], seed: int = 0, per_text: int = PER_TEXT
) -> list[dict[str, Any]]:
    """Questions with `before`, `options`, `answer` (a number), `after`, `kind`, `language` and
    `cluster` (which text).

    Raises:
        MiaoError: too little text for `FEWEST` questions.
    """
    whole = [text.strip() for text in texts]
    long_enough = [text for text in whole if len(text) >= SHORTEST]
    languages = ["zh" if is_chinese(text) else "en" for text in long_enough]
    spread = _spread(long_enough, languages)
    most = max(COMMON * len(long_enough), 1)
    found: list[dict[str, Any]] = []
    for text, language in zip(long_enough, languages, strict=True):
        name = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]
        rng = random.Random(f"{seed}/{name}")
        rare = {word for word in repeated_words(text, language == "zh") if spread[word] <= most}
        for item in _of_text(text, language, rare, per_text, rng):
            found.append(item | {"language": language, "cluster": name})
    if len(found) < FEWEST:
        raise MiaoError(
            f"these texts give {len(found)} cloze questions, fewer than {FEWEST}: of {len(whole)} "
            f"texts {len(long_enough)} have {SHORTEST} characters or more",
            fix="name more held-out text, or longer texts",
        )
    return found


def _of_text(
    text: str, language: str, rare: set[str], per_text: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """At most `per_text` questions, the kinds in turn, whose gaps are in different sentences."""
    gaps = list(_gaps(text, language, rare))
    by_kind = []
    for kind in KINDS:
        own = [gap for gap in gaps if gap.kind == kind]
        rng.shuffle(own)
        by_kind.append(own)
    taken: set[int] = set()
    for gap in (gap for row in zip_longest(*by_kind) for gap in row if gap is not None):
        if len(taken) == per_text:
            return
        first = max(gap.start - BEFORE[language], 0)
        before, end = text[first : gap.start], _END.search(text, gap.start + len(gap.text))
        stop = end.end() if end else len(text)
        if len(before) < BEFORE[language] // 10 or stop in taken or stop - gap.start > 2 * AFTER:
            continue
        others = _others(gap, gaps, before)
        if not others:
            continue
        taken.add(stop)
        options = rng.sample(others, min(OPTIONS - 1, len(others)))
        options.insert(rng.randrange(len(options) + 1), gap.text)
        yield {
            "kind": gap.kind,
            "before": before,
            "options": options,
            "answer": options.index(gap.text),
            "after": text[gap.start + len(gap.text) : stop].rstrip("\n"),
        }


def _others(gap: Gap, gaps: Sequence[Gap], before: str) -> list[str]:
    """What else could stand in the gap: of its kind and form, read before if and only if it was."""
    known = gap.text in before
    texts = dict.fromkeys(g.text for g in gaps if (g.kind, g.form) == (gap.kind, gap.form))
    if gap.kind == "idiom":
        texts |= dict.fromkeys(_idioms())
    return [
        other
        for other in texts
        if other not in gap.text and gap.text not in other and (other in before) == known
    ]


def _gaps(text: str, language: str, rare: set[str]) -> Iterator[Gap]:
    for match in _NUMBER.finditer(text):
        unit = text[match.end() : match.end() + 1]
        form = f"{len(match[0])}{unit if unit in '年月日%％元米岁人' else ''}"
        yield Gap(match.start(), match[0], "number", form)
    if language == "en":
        for match in NAME.finditer(text):
            yield Gap(match.start(), match[0], "name", str(match[0].count(" ")))
        for match in WORD.finditer(text):
            if match[0] in rare:
                yield Gap(match.start(), match[0], "rare", match[0][-2:])
        return
    for match in _TITLE.finditer(text):
        yield Gap(match.start(), match[0], "name", "title")
    idioms = {idiom: "" for idiom in _idioms() if idiom in text}
    for words, kind in ((idioms, "idiom"), (_zh_names(rare), "name"), (rare, "rare")):
        for word in words:
            if kind == "rare" and (word in idioms or word in _zh_names({word})):
                continue
            form = _zh_names({word}).get(word, "") if kind == "name" else str(len(word))
            for match in re.finditer(re.escape(word), text):
                yield Gap(match.start(), word, kind, form)


def _zh_names(words: Iterable[str]) -> dict[str, str]:
    """Those that look like names of people or places, with what they look like."""
    forms = {}
    for word in words:
        if word[0] in _SURNAMES and len(word) in (2, 3):
            forms[word] = f"person {len(word)}"
        elif word[-1] in _PLACES and len(word) > 1:
            forms[word] = f"place {len(word)}"
    return forms


def _spread(texts: Sequence[str], languages: Sequence[str]) -> Mapping[str, int]:
    """In how many of the texts each word comes more than once."""
    spread: Counter[str] = Counter()
    for text, language in zip(texts, languages, strict=True):
        spread.update(repeated_words(text, language == "zh").keys())
    return spread


@cache
def _idioms() -> tuple[str, ...]:
    path = resources.files(__package__) / "texts" / "idioms.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return tuple(row["idiom"] for row in rows)
