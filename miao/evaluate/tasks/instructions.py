"""Instructions that a program can verify: lengths, words, formats, the language of an answer.

The kind and the identifiers are those of IFEval (Zhou et al. 2023, arXiv:2311.07911), whose
published file can be read; some are added that Chinese needs. A check sees the answer and the
instruction's settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from miao.corpus.clean.language import check_languages, foreign_share
from miao.corpus.read.readers import read_objects
from miao.errors import MiaoError

Settings = Mapping[str, Any]
Check = Callable[[str, Settings], bool]
_HAN = re.compile("[\u3400-\u9fff]")
_LESS = ("less than", "少于")
_SENTENCE_ENDS = re.compile(r"[.!?]+(?=\s|[\"')\]]|$)|[。！？!?]+")


@dataclass(frozen=True)
class Instructed:
    """A prompt with what can be verified of its answer: names and settings, one for each."""

    id: str
    prompt: str
    names: tuple[str, ...]
    settings: tuple[Settings, ...]


@dataclass(frozen=True)
class Verdict:
    """Which instructions an answer follows; `loose` forgives a first or last line around the answer
    and asterisks in it, as IFEval does."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def read_instructed(path: Path) -> tuple[list[Instructed], list[str]]:
    """The prompts of a file in IFEval's form (key, prompt, instruction_id_list, kwargs), and the
    names of instructions that nothing here can check; their prompts are left out.

    Raises:
        MiaoError: a record of another form, with its line.
    """
    found, unknown = [], []
    for line, record in read_objects(path):
        try:
            names = [str(name) for name in record["instruction_id_list"]]
            given = record.get("kwargs") or [{}] * len(names)
            settings = [{k: v for k, v in (one or {}).items() if v is not None} for one in given]
            prompt = str(record["prompt"])
            one = Instructed(str(record.get("key", line)), prompt, tuple(names), tuple(settings))
        except (KeyError, TypeError, AttributeError) as error:
            raise MiaoError(
                f"not a prompt with instructions: {error!r}",
                where=f"{path}:{line}",
                fix="prompt, instruction_id_list and kwargs are needed, as in IFEval's file",
            ) from error
        if len(settings) != len(names) or not names:
            raise MiaoError("kwargs: one for each instruction", where=f"{path}:{line}")
        if left := [name for name in names if name not in CHECKS]:
            unknown += left
        else:
            found.append(one)
    if not found:
        raise MiaoError("no prompt whose instructions can be checked", where=path)
    return found, unknown


def verify(asked: Instructed, answer: str) -> Verdict:
    """Whether an answer follows each instruction. An empty one follows none.

    Raises:
        MiaoError: settings that an instruction lacks, or that are of the wrong kind.
    """
    lines = answer.split("\n")
    cuts = [answer, *("\n".join(cut).strip() for cut in (lines[1:], lines[:-1], lines[1:-1]))]
    variants = [*cuts, *(cut.replace("*", "") for cut in cuts)]
    pairs = list(zip(asked.names, asked.settings, strict=True))
    strict = tuple(_follows(asked, name, settings, answer) for name, settings in pairs)
    loose = tuple(
        ok or any(_follows(asked, name, settings, text) for text in variants[1:])
        for ok, (name, settings) in zip(strict, pairs, strict=True)
    )
    return Verdict(strict, loose)


def _follows(asked: Instructed, name: str, settings: Settings, text: str) -> bool:
    if not text.strip():
        return False
    try:
        return CHECKS[name](text, {"prompt": asked.prompt} | dict(settings))
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise MiaoError(f"{name}: these settings do not fit: {error!r}", where=asked.id) from error


def _compared(found: int, s: Settings, limit: str, relation: str = "relation") -> bool:
    """`less than` a limit, or at least it; at least where nothing is said."""
    wanted = int(s[limit])
    return found < wanted if s.get(relation) in _LESS else found >= wanted


def is_chinese(text: str) -> bool:
    """Whether more of its letters are Chinese characters than Latin ones; a character counts as
    four letters, about a word."""
    return 4 * len(_HAN.findall(text)) > len(re.findall("[A-Za-z]", text))


def _language(text: str, code: str) -> bool:
    """Chinese and English by their letters, however short; others need a sentence or two."""
    if not any(letter.isalpha() for letter in text):
        return True  # no language to tell, as IFEval counts it
    code = code.split("-")[0]
    if code == "zh" or is_chinese(text):
        return is_chinese(text) and code == "zh"
    try:
        check_languages([code])
        return foreign_share(text, frozenset({code}))[0] < 0.5
    except MiaoError:  # without lingua, Latin languages cannot be told apart
        if code != "en":
            raise
        return True


def _cased(text: str, s: Settings, case: Callable[[str], bool]) -> bool:
    return case(text) and _language(text, "en")


def _keywords(text: str, s: Settings) -> bool:
    return all(re.search(word, text, re.IGNORECASE) for word in s["keywords"])


def _keyword_frequency(text: str, s: Settings) -> bool:
    return _compared(len(re.findall(s["keyword"], text, re.IGNORECASE)), s, "frequency")


def _forbidden(text: str, s: Settings) -> bool:
    """Latin words are whole words; there is no such thing in Chinese."""
    edge = [r"\b" if word.isascii() else "" for word in s["forbidden_words"]]
    words = zip(edge, s["forbidden_words"], strict=True)
    return not any(re.search(f"{b}{word}{b}", text, re.IGNORECASE) for b, word in words)


def _letters(text: str, s: Settings) -> bool:
    return _compared(text.lower().count(s["letter"].lower()), s, "let_frequency", "let_relation")


def _sentences(text: str, s: Settings) -> bool:
    count = sum(bool(re.search(r"\w", part)) for part in _SENTENCE_ENDS.split(text))
    return _compared(count, s, "num_sentences")


def _paragraphs(text: str, s: Settings) -> bool:
    """Divided by three asterisks, or by the `divider` of the settings."""
    parts = re.split(rf"\s?{re.escape(s.get('divider', '***'))}\s?", text)
    inner = parts[1:-1] if len(parts) > 1 else []
    if any(not part.strip() for part in inner):
        return False
    return sum(bool(part.strip()) for part in parts) == int(s["num_paragraphs"])


def _first_word(text: str, s: Settings) -> bool:
    """Of the n-th of so many paragraphs, which blank lines divide."""
    parts = text.split("\n\n")
    count, nth = sum(bool(part.strip()) for part in parts), int(s["nth_paragraph"])
    if nth > count or not parts[nth - 1].strip():
        return False
    word = parts[nth - 1].split()[0].lstrip("'").lstrip('"').lower()
    first = re.split(r"[.,?!'\"]", word, maxsplit=1)[0]
    return count == int(s["num_paragraphs"]) and first == s["first_word"].lower()


def _postscript(text: str, s: Settings) -> bool:
    marker = s["postscript_marker"]
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(known.get(marker, marker.lower()), text.lower()))


def _bullets(text: str, s: Settings) -> bool:
    """Lines that begin with - or with one asterisk, with text behind it."""
    stars = re.findall(r"^\s*\*[^*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == int(s["num_bullets"])


def _highlights(text: str, s: Settings) -> bool:
    single = [h for h in re.findall(r"\*[^\n*]*\*", text) if h.strip("*").strip()]
    double = [h for h in re.findall(r"\*\*[^\n*]*\*\*", text) if h[2:-2].strip()]
    return len(single) + len(double) >= int(s["num_highlights"])


def _sections(text: str, s: Settings) -> bool:
    return len(re.findall(rf"{s['section_spliter']}\s?\d", text)) >= int(s["num_sections"])


def _json(text: str, s: Settings) -> bool:
    inner = re.sub(r"\A```(json|Json|JSON)?|```\Z", "", text.strip()).strip()
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True


def _two_answers(text: str, s: Settings) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    said = [part.strip() for part in parts if part.strip()]
    return len(said) == 2 and said[0] != said[1]


def _capitals(text: str, s: Settings) -> bool:
    words = re.findall(r"\w+(?:[-'.]\w+)*", text)
    count = sum(word.isupper() for word in words)
    return _compared(count, s, "capital_frequency", "capital_relation")


def _repeats(text: str, s: Settings) -> bool:
    return text.strip().lower().startswith(s["prompt_to_repeat"].strip().lower())


def _ends(text: str, s: Settings) -> bool:
    return text.strip().strip('"').lower().endswith(s["end_phrase"].strip().lower())


def _quoted(text: str, s: Settings, marks: Sequence[str] = ('""', "“”", "「」")) -> bool:
    text = text.strip()
    allowed = marks if s.get("chinese") else marks[:1]
    return len(text) > 1 and text[0] + text[-1] in allowed


def _constrained(text: str, s: Settings) -> bool:
    options = s.get("options", ("My answer is yes.", "My answer is no.", "My answer is maybe."))
    return any(option in text for option in options)


def _title(text: str, s: Settings) -> bool:
    marks = r"《[^\n]+》" if s.get("chinese") else r"<<[^\n]+>>"
    return any(found.strip("<>《》 ") for found in re.findall(marks, text))


CHECKS: dict[str, Check] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": lambda text, s: _language(text, s["language"]),
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, s: _compared(
        len(re.findall(r"\w+", text)), s, "num_words"
    ),
    "length_constraints:number_characters": lambda text, s: _compared(
        len(re.findall(r"\w", text)), s, "num_characters"
    ),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, s: (
        len(re.findall(r"\[.*?\]", text)) >= int(s["num_placeholders"])
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_answers,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:start_checker": lambda text, s: text.strip().startswith(s["start_phrase"]),
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": partial(_cased, case=str.isupper),
    "change_case:english_lowercase": partial(_cased, case=str.islower),
    "punctuation:no_comma": lambda text, s: (
        not re.search("[,，]" if s.get("chinese") else ",", text)
    ),
}
"""By IFEval's names; `number_characters`, `start_checker` and the setting `chinese` are ours."""
