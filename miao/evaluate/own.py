"""What is measured with the user's own held-out text and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from miao.corpus.build.output import TEXT
from miao.corpus.ngrams import Hashes, TextView
from miao.corpus.read.convert import to_conversation
from miao.corpus.records import Message
from miao.engine import SamplingOptions
from miao.errors import MiaoError
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.measure.quality import goes_in_circles, repetition
from miao.evaluate.measure.writing import write
from miao.evaluate.scores import Score, accuracy, mean
from miao.evaluate.tasks.cloze import cloze_items
from miao.files import read_json, read_jsonl, write_jsonl
from miao.model.decoder import Decoder
from miao.rundir import RunDir
from miao.tokenizer import Tokenizer

CLOZE = "cloze.jsonl"
OWN = "own questions"
ABOUT = "text questions"
TALKING = 0.6
"""The temperature of answers about the text, as of `miao chat`: the likeliest words alone go in
circles where a text goes on in many ways."""
SUBJECT, WORDS, ASIDE = "on the subject", "in words of the text", "references, in words of the text"
EMPTY, CIRCLES, REPEATED = "empty answers", "answers in circles", "repeated 4-grams"
MOST_TEXTS = 400
NGRAM, MOST_READ = 3, 1_000_000
"""What counts as words of the text: three characters of Chinese or three English words that stand
there side by side, in its first so many characters."""
MANY = 0.2
"""Share of empty answers, or of those that go in circles, above which a chat babbles."""


@dataclass(frozen=True)
class OwnQuestion:
    """The first question of a conversation, and its answer there."""

    messages: list[Message]
    reference: str
    about: str = ""
    """The word that was asked for, of a question that was made from the text."""

    @property
    def question(self) -> str:
        return self.messages[-1].content


def write_cloze_items(run: RunDir, count: int) -> None:
    """Gaps in the run's held-out documents; none where these are too few or too short."""
    paths = sorted((run.corpus / "pretrain" / "heldout").glob("*.jsonl"))
    records = (record for path in paths for record in islice(read_jsonl(path), MOST_TEXTS))
    try:
        found = cloze_items(record["text"] for record in records)[:count]
    except MiaoError:
        return
    items = [
        {
            "prompt": item["before"],
            "options": [option + item["after"] for option in item["options"]],
            "answer": item["answer"],
            "category": item["kind"],
            "language": item["language"],
        }
        for item in found
    ]
    write_jsonl(run.eval_items / CLOZE, items)


def own_questions(run: RunDir, count: int) -> list[OwnQuestion]:
    """The first turns of the held-out conversations that the user brought."""
    manifest = run.corpus / "manifest.json"
    if not manifest.exists() or read_json(manifest)["origin"].get("sft") != "files":
        return []
    return _questions(run, "conversations", count)


def text_questions(run: RunDir, count: int) -> list[OwnQuestion]:
    """Those that were made from the held-out text (`corpus.text_talks`)."""
    return _questions(run, TEXT, count)


def _questions(run: RunDir, name: str, count: int) -> list[OwnQuestion]:
    path = run.corpus / "sft" / "heldout" / f"{name}.jsonl"
    asked = map(_first_turn, read_jsonl(path))
    return list(islice((one for one in asked if one is not None), count))


def answer_own(
    model: Decoder,
    tokenizer: Tokenizer,
    questions: Sequence[OwnQuestion],
    options: SamplingOptions,
    advance: Advance = nothing,
) -> list[dict[str, Any]]:
    """The chat's answers, beside the references; none to what does not fit its context."""
    room = model.config.context_length - options.max_new_tokens
    encoded = [tokenizer.chat_template.encode_prompt(tokenizer, q.messages) for q in questions]
    fitting = [(q, ids) for q, ids in zip(questions, encoded, strict=True) if len(ids) <= room]
    if not fitting:
        return []
    found = write(model, tokenizer, [ids for _, ids in fitting], options, advance=advance)
    return [
        {"question": q.question, "answer": text.strip(), "reference": q.reference}
        | ({"about": q.about} if q.about else {})
        for (q, _), (text, _) in zip(fitting, found, strict=True)
    ]


def manner_of(texts: Sequence[str], name: str = OWN) -> list[Score]:
    """What babble shows in: empty answers, circles, repetition."""
    if not texts:
        return []
    return [
        accuracy(name, EMPTY, [not text for text in texts]),
        accuracy(name, CIRCLES, [goes_in_circles(text) for text in texts]),
        mean(name, REPEATED, [repetition(text) for text in texts], "share"),
    ]


def tone_of(run: RunDir, replies: Sequence[dict[str, Any]]) -> list[Score]:
    """Whether answers about the text speak of what was asked, and as it does: the share of their
    n-grams that stand in the text that was learned, beside that of the (held-out) references."""
    if not replies:
        return []
    asked = [record for record in replies if record.get("about")]
    scores = [accuracy(ABOUT, SUBJECT, [r["about"] in r["answer"] for r in asked])] if asked else []
    known = _ngrams_of_text(run)
    for category, key in ((WORDS, "answer"), (ASIDE, "reference")):
        grams = [TextView(record[key]).ngrams(NGRAM) for record in replies]
        shares = [
            float((known[np.searchsorted(known, found) % len(known)] == found).mean())
            for found in grams
            if len(found) and len(known)
        ]
        scores += [mean(ABOUT, category, shares, "share")] if shares else []
    return scores


def _ngrams_of_text(run: RunDir) -> Hashes:
    read, found = 0, [np.zeros(0, np.uint64)]
    files = sorted((run.corpus / "pretrain" / "train").glob("*.jsonl"))
    for record in chain.from_iterable(map(read_jsonl, files)):
        read += len(record["text"])
        found.append(TextView(record["text"]).ngrams(NGRAM))
        if read >= MOST_READ:
            break
    return np.unique(np.concatenate(found))


def babble(answers: Sequence[str]) -> str | None:
    """In a few words, in what these answers of a chat are none; None: they are."""
    if not answers:
        return None
    shares = {
        "are empty": sum(not text.strip() for text in answers) / len(answers),
        "go in circles": sum(map(goes_in_circles, answers)) / len(answers),
    }
    found = [f"{share:.0%} {what}" for what, share in shares.items() if share > MANY]
    return " and ".join(found) or None


def _first_turn(record: dict[str, Any]) -> OwnQuestion | None:
    messages = to_conversation(record).messages
    for number, message in enumerate(messages):
        if message.role == "assistant":
            before = messages[:number]
            asks = bool(before) and before[-1].role == "user"
            about = str(record.get("about", ""))
            return OwnQuestion(before, message.content, about) if asks else None
    return None
