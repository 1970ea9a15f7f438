"""Conversations made from the user's own text: what is asked is a word, a title or a sentence of
it, and the answer is the text's own next sentences, whole and few enough for a small model."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from miao.corpus.build.output import TEXT, SourceCounts, characters_of
from miao.corpus.seedbed.phrasing import Pattern, one_of, pattern
from miao.corpus.seedbed.tables import Language, both
from miao.corpus.words import NAME, is_chinese, repeated_words
from miao.files import read_jsonl, sha256_of, write_jsonl

WEIGHTS = {"about": 0.4, "go_on": 0.25, "title": 0.3, "any": 0.05}
"""How often each is asked, where the text lets it."""
LENGTHS: dict[Language, tuple[int, int]] = {"zh": (24, 100), "en": (60, 260)}
"""Characters of an answer, fewest and most: about what a small model holds together."""
PER_ANSWER = 400
"""Characters of text for each conversation, so that answers seldom overlap."""
ROUNDS = 8
"""Through all of the text, where it is too little for as many."""
PIECE = 4000
"""Characters of a long document that are looked at together."""
HELD_OUT = 200
"""Conversations from the held-out documents, at most."""
COMMON = 0.5
"""Share of the pieces that say a word again and again, above which none is about it; of small
English words, which are no names, a fifth of that."""
TOPICS = 3
"""Of a piece."""
LONGEST_TITLE = 40
_SENTENCE = re.compile(
    r"[^\n]+?(?:[。！？…]+[”’」』）]*|(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)[.!?]+[\"”’)]*(?=\s|$)|(?=\n|$))"
)
_BEGINS = re.compile(r"[\w“‘「『《\"'(（]")
_NONE = {"Mr", "Mrs", "Dr", "St", "And", "But", "The", "That", "What", "You", "Yes"}
_ENDS = re.compile(r"[。！？…][”’」』）]*$|[.!?][\"”’)]*$")


@dataclass
class Piece:
    """A part of a document."""

    text: str
    begins: bool
    """Its document's first."""
    topics: list[str] = field(default_factory=list)

    @cached_property
    def language(self) -> Language:
        return "zh" if is_chinese(self.text) else "en"

    @cached_property
    def sentences(self) -> list[str]:
        return [match[0].strip() for match in _SENTENCE.finditer(self.text) if match[0].strip()]

    @cached_property
    def title(self) -> str | None:
        """The first line, where it is none of the text's sentences."""
        first, _, rest = self.text.lstrip().partition("\n")
        title = first.strip().strip("#《》 ")
        is_one = self.begins and rest.strip() and not _ENDS.search(title)
        return title if is_one and 0 < len(title) <= LONGEST_TITLE else None

    def answer(self, number: int) -> str | None:
        """Whole sentences from this one on; None: they are no prose, too long or too short."""
        least, most = LENGTHS[self.language]
        said, space = "", "" if self.language == "zh" else " "
        for sentence in self.sentences[number:]:
            if not _is_sentence(sentence) or len(said) + len(sentence) > most:
                break
            said += space * bool(said) + sentence
            if len(said) >= least:
                return said
        return None


def _is_sentence(text: str) -> bool:
    return bool(_BEGINS.match(text) and _ENDS.search(text))


def talks_about(
    texts: Iterable[str], count: int, rng: random.Random, unseen: bool = False
) -> list[dict[str, Any]]:
    """Different conversations in their JSON form; `about` is the word that was asked for, where it
    was one.

    Args:
        texts: documents. count: how many are wanted; fewer come of little text.
        unseen: in the phrasings that are kept for evaluation.
    """
    pieces = [piece for text in texts for piece in _pieces(text)]
    rng.shuffle(pieces)
    _find_topics(pieces[: 4 * count])
    found: dict[str, dict[str, Any]] = {}
    for _ in range(ROUNDS):
        before = len(found)
        for piece in pieces:
            for _ in range(max(1, len(piece.text) // PER_ANSWER)):
                if len(found) == count:
                    return list(found.values())
                if (made := _talk(piece, rng, unseen)) is not None:
                    found.setdefault(str(made["messages"]), made)
        if len(found) == before:
            break
    return list(found.values())


def topics_of(texts: Iterable[str], count: int) -> list[str]:
    """The words that most of some pieces of text are about, the commonest first."""
    pieces = [piece for text in texts for piece in _pieces(text)]
    _find_topics(pieces)
    spread = Counter(topic for piece in pieces for topic in piece.topics)
    ranked = sorted(spread, key=lambda topic: ("a" <= topic[0] <= "z", -spread[topic]))
    return ranked[:count]


@cache
def _frames(kind: str, language: Language, unseen: bool) -> tuple[Pattern, ...]:
    table = both("own_text", ("asks", "unseen"))[kind][language]
    return tuple(map(pattern, table.lines("unseen" if unseen else "asks", {"what"})))


def ask(kind: str, language: Language, what: str, rng: random.Random, unseen: bool = False) -> str:
    """A question about `what`, in one of many ways."""
    return one_of(rng, _frames(kind, language, unseen)).replace("{what}", what)


def write_talks(corpus: Path, count: int, seed: int) -> dict[str, Any]:
    """Writes sft/train/text.jsonl and sft/heldout/text.jsonl below a corpus whose documents are
    there: each side from the documents of its own; `counts`, and `sha256` of each file."""
    counts, digests = SourceCounts(), {}
    for side in ("train", "heldout"):
        paths = sorted((corpus / "pretrain" / side).glob("*.jsonl"))
        rng, wanted = random.Random(f"{seed}/own text/{side}"), count
        if side == "heldout":
            wanted = min(HELD_OUT, max(count // 20, 10)) if count else 0
        texts = _some_texts(paths, wanted * PER_ANSWER * 2, rng)
        made = talks_about(texts, wanted, rng, side == "heldout")
        if made:
            path = corpus / "sft" / side / f"{TEXT}.jsonl"
            write_jsonl(path, made)
            digests[f"sft/{side}/{path.name}"] = sha256_of(path)
            setattr(counts, side, len(made))
            counts.characters += sum(map(characters_of, made))
    return {"counts": counts, "sha256": digests}


def _some_texts(paths: Sequence[Path], characters: float, rng: random.Random) -> Iterator[str]:
    """Documents of all files, by chance, up to so many characters, about."""
    there = sum(path.stat().st_size for path in paths)
    share = 4 * characters / max(there, 1)  # characters are up to four bytes
    for path in paths:
        for record in read_jsonl(path):
            if rng.random() < share:
                yield record["text"]


def _pieces(text: str) -> Iterator[Piece]:
    for start in range(0, len(text), PIECE):
        yield Piece(text[start : start + PIECE], start == 0)


def _find_topics(pieces: Sequence[Piece]) -> None:
    """Words that a piece says again and again, and few others do."""
    found = []
    for piece in pieces:
        words = repeated_words(piece.text, piece.language == "zh")
        if piece.language == "en":
            words += Counter(
                match[0] for match in NAME.finditer(piece.text) if match[0] not in _NONE
            )
        found.append({word: n for word, n in words.items() if n > 1})
    spread = Counter(word for words in found for word in words)
    most = max(COMMON * len(pieces), 2)
    for piece, said in zip(pieces, found, strict=True):
        own = {
            word: n * math.log(2 * len(pieces) / spread[word])
            for word, n in said.items()
            if n > 2 and spread[word] <= (max(most / 5, 2) if "a" <= word[0] <= "z" else most)
        }
        piece.topics = sorted(own, key=own.__getitem__, reverse=True)[:TOPICS]


def _talk(piece: Piece, rng: random.Random, unseen: bool) -> dict[str, Any] | None:
    (kind,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    if kind == "title" and piece.title is None:
        kind = "about"
    about = rng.choice(piece.topics) if kind == "about" and piece.topics else None
    if kind == "about" and about is None:
        kind = "go_on"
    sentences = piece.sentences
    places: Sequence[int] = range(1, len(sentences))
    if about is not None:
        places = [n for n in range(len(sentences)) if about in sentences[n]]
    if not places:
        return None
    number = 1 if kind == "title" else rng.choice(places)
    answer = piece.answer(number)
    if answer is None:
        return None
    what = {"about": about, "title": piece.title, "go_on": sentences[number - 1]}.get(kind) or ""
    if kind == "go_on" and not (_is_sentence(what) and len(what) <= LENGTHS[piece.language][1]):
        return None
    question = ask(kind, piece.language, what, rng, unseen)
    turns = [("user", question), ("assistant", answer)]
    made: dict[str, Any] = {"messages": [{"role": r, "content": c} for r, c in turns]}
    return made | {"source": TEXT} | ({"about": about} if about else {})
