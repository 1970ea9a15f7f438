"""The letter that a text settles on, of the options of a question; Chinese and English.

The text is read clause by clause. A letter that stands alone is chosen ("所以选B", "I believe
it's C"), judged right or wrong ("C项错误", "D is correct"), excluded ("排除A", "not B"), or only
mentioned. What is asked or supposed ("选A吗？", "if it were B") is none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

Said = Literal["chosen", "right", "wrong", "mentioned"]

_NEAR = 60
"""Characters before and after a letter that say something of it."""
_WIDE = {ord("Ａ") + n: ord("A") + n for n in range(26)}
_THINKING = re.compile(r".*</think>", re.DOTALL)
_BOXED = re.compile(r"\\boxed\{\W{0,9}(?:text\w{0,9}\{)?\W{0,9}([A-Za-z])\W{0,9}\}")
_LABEL = re.compile(r"^(\W{0,3}[A-Z])\s*[.．、)）:：]\s*(?=[^\sA-Z]|[A-Z][A-Za-z])", re.MULTILINE)
_NEXT_QUESTION = re.compile(r"\n *(?:Question|Q|问题|题目) ?[:：].*", re.DOTALL)
_REPEATED = re.compile(r"(?<![A-Za-z])([A-Z])\1+(?![A-Za-z])")
_CLAUSE = re.compile(r"([,，。．;；!！?？…\n]+|\.(?=\s|$))")

_OPEN = (
    r"[\s:：是为的应该就乃(（\[【{\"“'「]{0,9}(?:选?项|option|choice|statement)?"
    r"[\s:：(（\[【\"“'「]{0,9}\Z"
)
_CHOSEN = re.compile(
    r"(?:答案.{0,4}|选择?(?!项)|选项[是为:：]|应为|^是|[^不]是|】|唯有"
    r"|\b(?:answer|choice|option|response)\b.{0,24}(?:\bis|\bbe|[:=]|->)(?: the)?|\banswer"
    r"|\b(?:it|that|this)(?: is|['’]s)|(?:must|has to|have to|should|would) be|\bnot\b.{0,12}\bbut"
    r"|\b(?:choose|chose|pick|picked|select|selected|opt for|leaves(?: us with)?"
    r"|go(?:ing)? (?:with|for)|went with))" + _OPEN,
    re.IGNORECASE,
)
_EXCLUDED = re.compile(
    r"(?:排除了?|不.{0,3}选择?|别选|不[会能可]*是|并非是?|而非|除了?|除去|除外|剔除|去掉|不考虑"
    r"|[人学]会?选择?|[误错]选|\bnot|n['’]t(?: be)?|cannot(?: be)?|\brul\w+ out|\beliminat\w+"
    r"|\bexclud\w+|\bdiscard\w+|\breject\w+|rather than|instead of|\bexcept(?: for)?|\bneither"
    r"|\bnone of|\bpeople \w+|\bstudents \w+|\bmistakenly \w+)(?: either)?(?: the)?s?" + _OPEN,
    re.IGNORECASE,
)
_WRONG = re.compile(
    r"不|错|有误|排除|无关|矛盾|过于|无法|假|没有|\b(?:not|wrong|incorrect|false|out|irrelevant|invalid"
    r"|impossible|eliminated|excluded|never|neither|misconception|tempting)\b|n['’]t\b",
    re.IGNORECASE,
)
_RIGHT = re.compile(
    r"正确|对的|对\Z|符合|成立|最佳|合适|准确|合理"
    r"|\b(?:correct|right|true|best|better|answer|it is|accurate|yes)\b",
    re.IGNORECASE,
)
_LISTED = re.compile(
    r"(?<![A-Za-z0-9])([A-Z])\s*[,，]\s*"
    r"(?:(?:and|or|nor) (?=[A-Z]\b)|(?=[A-Z]\s*(?:[,，、和与或都均]|and|or|nor)))"
)
_IDLE = re.compile(
    r"选?项|综上所述|因此|所以|故|\b(?:option|choice|hence|therefore|thus|so)\b", re.I
)
_SUPPOSED = re.compile(
    r"如果|假如|假设|若|要是|乍一看|起初|\b(?:if|suppose|assum\w+|at first|initially|thought|could|"
    r"might|may)\b",
    re.IGNORECASE,
)
_ARTICLE = re.compile(
    r" (?!is|was|are|and|or|nor|because|since|as|it|does|can|seems|looks|would|has|fits|makes|over"
    r"|than|while|though|if|here|be|in|for|from|with|over)[a-z]"
)


class _Mention(NamedTuple):
    letters: str
    said: Said


def option(text: str, letters: str) -> str | None:
    """The option that a text settles on; None: on no single one.

    The last choice counts, for texts correct themselves. Where none is made: the one option that is
    judged right (or the one judged wrong, where all others are right), else the one that the text
    begins with, the only one that is not ruled out, or the only one mentioned.

    Args:
        letters: of the question's options, such as "ABCD"; other letters are never found.
    """
    if not letters:
        return None
    text = _NEXT_QUESTION.sub("", _THINKING.sub("", text.translate(_WIDE)).strip())
    text = _LISTED.sub(r"\1、", _REPEATED.sub(r"\1", text))
    text = _LABEL.sub(r"\1: ", _BOXED.sub(r" answer is \1 ", text.replace("*", "")))
    found = list(_mentions(text, letters))
    if chosen := [m.letters for m in found if m.said == "chosen"]:
        return chosen[-1]
    right, wrong = (
        {c for m in found if m.said == s for c in m.letters} for s in ("right", "wrong")
    )
    every = set(letters)
    begins = re.match(r"\W{0,3}([A-Z]): ", text)
    labels = re.findall(r"^\W{0,3}([A-Z]): ", text, re.MULTILINE)
    candidates = [
        right - wrong,
        wrong if len(right - wrong) == len(every) - 1 else set(),
        {begins[1]} & every - wrong if begins and len(labels) == 1 else set(),
        every - wrong,
        {c for m in found for c in m.letters} - wrong,
    ]
    return next((one.pop() for one in candidates if len(one) == 1), None)


def _mentions(text: str, letters: str) -> Iterator[_Mention]:
    """The letters that stand alone, in order, and what is said of them."""
    alone, small = _patterns(letters)
    pieces = [*_CLAUSE.split(text), ""]
    for clause, end in zip(pieces[::2], pieces[1::2], strict=True):
        if re.search("[?？]", end) or clause.rstrip().endswith(("吗", "么", "呢")):
            continue
        matches = list(alone.finditer(clause)) or list(small.finditer(clause))
        for match, following in zip(matches, [*matches[1:], None], strict=False):
            before = clause[max(0, match.start() - _NEAR) : match.start()]
            end_of_this = following.start() if following else match.end() + _NEAR
            after = clause[match.end() : min(end_of_this, match.end() + _NEAR)]
            is_small = match[0].islower()
            named = "".join(c for c in (match[0].upper() if is_small else match[0]) if c in letters)
            if said := _said(before, after, named, is_small):
                yield _Mention(named, said)


def _said(before: str, after: str, named: str, is_small: bool) -> Said | None:
    """What a clause says of the letters between its two parts; None: nothing."""
    if _EXCLUDED.search(before):
        return "wrong"
    if _SUPPOSED.search(before):
        return None
    bare = not re.search(r"\w", _IDLE.sub("", before) + _IDLE.sub("", after))
    denied = re.match(
        r"(?:选?项)?就?是?(?:不(?!是)|错|的)| (?:is|are|was)(?:n['’]t| not| wrong)", after
    )
    if len(named) == 1 and (bare or (_CHOSEN.search(before) and not denied)):
        return "chosen"
    if is_small or named == "I" or (named == "A" and _ARTICLE.match(after)):
        return None
    wrong, right = _WRONG.search(after), _RIGHT.search(after)
    if wrong and (not right or wrong.start() <= right.start()):
        return "wrong"
    return "right" if right else "mentioned"


@lru_cache(maxsize=64)
def _patterns(letters: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Letters that stand alone, together where they are listed; and in small print."""
    one = rf"(?<![A-Za-z0-9])[{re.escape(letters)}](?![A-Za-z0-9'’+#])"
    joint = r"(?:选?项)?[)）]?\s*(?:and|or|nor|&|/|、|和|与|及|或|跟)\s*[(（]?"
    small = rf"(?<![A-Za-z0-9'’])[{re.escape(letters.lower())}](?=\W*\Z)"
    return re.compile(rf"{one}(?:{joint}{one})*"), re.compile(small)
