"""The rules that the options switch on, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from miao.corpus.clean import checks, edits, web
from miao.corpus.clean.columns import lines_of
from miao.corpus.clean.language import check_languages, foreign_share
from miao.corpus.clean.own import editor, keeper
from miao.corpus.clean.personal import MASKERS
from miao.corpus.ngrams import TextView, language_of
from miao.errors import MiaoError, did_you_mean
from miao.options import read_yaml
from miao.recipe.cleaning import CleanOptions


@cache
def reasons() -> dict[str, dict[str, str]]:
    """Name of every rule -> why it exists, in both languages ("zh", "en"). Shown in the report."""
    return read_yaml(Path(__file__).with_name("reasons.yaml"))


OWN = "own rule"


@dataclass(frozen=True)
class Edit:
    """A rule that changes texts."""

    name: str
    apply: Callable[[str], str]
    acts_on: str = ""
    """Characters (those of a regular expression's class) without which it does nothing."""


@dataclass(frozen=True)
class Check:
    """A rule that judges texts: what it found (a measured value, words), None when all is well."""

    name: str
    judge: Callable[[TextView], str | None]


def edits_of(options: CleanOptions) -> list[Edit]:
    """The edits that are switched on.

    Raises:
        MiaoError: an unknown kind of personal data, or a library that is missing.
    """
    chosen = [
        (options.mojibake, "mojibake", edits.repair_mojibake, ""),
        (options.html, "html", edits.strip_html, "<&"),
        (options.unicode, "unicode", edits.normalise_unicode, edits.ODD + edits.COMPOSED),
        (options.controls, "controls", edits.remove_controls, edits.CONTROLS + edits.PRIVATE),
        (options.halfwidth, "halfwidth", edits.narrow_width, edits.FULL_WIDTH),
        (options.simplify, "simplify", edits.simplify_chinese, ""),
        (options.boilerplate, "boilerplate", edits.remove_boilerplate, ""),
        (web.with_published(options.web)[0].whole_lines, "whole lines", web.whole_lines, ""),
    ]
    rules = [Edit(name, apply, acts_on) for wanted, name, apply, acts_on in chosen if wanted]
    for kind in options.personal:
        if kind not in MASKERS:
            raise MiaoError(
                f"'{kind}' is no kind of personal data",
                where="corpus.clean.personal",
                fix=did_you_mean(kind, MASKERS) or f"known are {', '.join(MASKERS)}",
            )
    rules += [Edit(kind, mask) for kind, mask in MASKERS.items() if kind in options.personal]
    rules += [Edit(OWN, editor(name)) for name in options.edit_functions]
    if options.whitespace:  # last: what others took out leaves gaps
        rules.append(Edit("whitespace", edits.tidy_whitespace))
    for rule in rules:
        rule.apply("一 \u00e4\u00b8")  # a missing library shows now, not in the middle
    return rules


def common_checks(options: CleanOptions) -> list[Check]:
    """Checks of the text of any record."""
    rules = [
        _above("broken", checks.broken_share, options.max_broken),
        _above("garbled", checks.garbled_share, options.max_garbled),
    ]
    if options.min_chinese is not None:
        limit = 1 - options.min_chinese + 1e-9
        rules.append(_above("chinese share", checks.chinese_shortage, limit))
    if options.languages:
        check_languages(options.languages)
        rules.append(Check("language", _language_judge(options)))
    if options.blocklists:
        rules.append(Check("blocklist", _blocklist_judge(options)))
    if options.classifier:
        rules.append(Check("classifier", _classifier_judge(options.classifier, options.min_score)))
    rules += [Check(OWN, keeper(name)) for name in options.keep_functions]
    return [rule for rule in rules if rule]


def document_checks(options: CleanOptions) -> list[Check]:
    """Checks of documents only: a short answer or a table in a conversation is no fault.

    Raises:
        MiaoError: lengths for a language that is none of zh, en, other.
    """
    for language in options.min_characters:
        if language not in ("zh", "en", "other"):
            raise MiaoError(
                f"'{language}' is none of zh, en, other", where="corpus.clean.min_characters"
            )
    rules: list[Check | None] = [Check("empty", _empty)]
    if options.min_characters:
        rules.append(Check("too short", _too_short_judge(options.min_characters)))
    if options.max_characters is not None:
        rules.append(Check("too long", _too_long_judge(options.max_characters)))
    limits, repeated_lines = web.with_published(options.web)
    if options.max_repeated_lines is not None:
        repeated_lines = options.max_repeated_lines
    rules += [
        _above("one character", checks.one_character_share, options.max_one_character),
        _above("symbols", checks.symbol_share, options.max_symbols),
        _above("digits", checks.digit_share, options.max_digits),
        _above("repeated lines", checks.repeated_line_share, repeated_lines),
        _above("repeated n-grams", checks.repeated_ngram_share, options.max_repeated_ngrams),
        *(Check(name, judge) for name, judge in web.web_checks(limits)),
    ]
    return [rule for rule in rules if rule]


def _above(name: str, measure: Callable[[TextView], float], limit: float | None) -> Check | None:
    return None if limit is None else Check(name, checks.limited(measure, None, limit))


def _empty(view: TextView) -> str | None:
    return None if checks.has_words(view) else "nothing is left of it"


def _too_short_judge(limits: dict[str, int]) -> Callable[[TextView], str | None]:
    def judge(view: TextView) -> str | None:
        language = language_of(view)
        limit = limits.get(language, 0)
        return f"{len(view.text)} characters ({language})" if len(view.text) < limit else None

    return judge


def _too_long_judge(limit: int) -> Callable[[TextView], str | None]:
    return lambda view: f"{len(view.text)} characters" if len(view.text) > limit else None


def _language_judge(options: CleanOptions) -> Callable[[TextView], str | None]:
    wanted = frozenset(options.languages)

    def judge(view: TextView) -> str | None:
        share, language = foreign_share(view.text, wanted)
        return f"{share:.0%} of it {language}" if share > options.max_foreign else None

    return judge


def _classifier_judge(directory: str, least: float) -> Callable[[TextView], str | None]:
    from miao.corpus.clean.classifier import Classifier

    classifier = Classifier(directory)

    def judge(view: TextView) -> str | None:
        score = classifier.score(view)
        return f"its score is {score:.3f}" if score < least else None

    return judge


def _blocklist_judge(options: CleanOptions) -> Callable[[TextView], str | None]:
    blocklist = checks.Blocklist(lines_of(options.blocklists))

    def judge(view: TextView) -> str | None:
        found = blocklist.found(view)
        if len(found) <= options.max_blocked:
            return None
        return f"{len(found)}: {', '.join(sorted(set(found))[:5])}"

    return judge
