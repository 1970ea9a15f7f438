"""What is measured with the user's own held-out text and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

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
EMPTY, CIRCLES, REPEATED = "empty answers", "answers in circles", "repeated 4-grams"
MOST_TEXTS = 400
MANY = 0.2
"""Share of empty answers, or of those that go in circles, above which a chat babbles."""


@dataclass(frozen=True)
class OwnQuestion:
    """The first question of a conversation, and its answer there."""

    messages: list[Message]
    reference: str

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
    path = run.corpus / "sft" / "heldout" / "conversations.jsonl"
    asked = map(_first_turn, read_jsonl(path))
    return list(islice((one for one in asked if one is not None), count))


def answer_own(
    model: Decoder,
    tokenizer: Tokenizer,
    questions: Sequence[OwnQuestion],
    max_new_tokens: int,
    advance: Advance = nothing,
) -> list[dict[str, Any]]:
    """The chat's answers, beside the references; none to what does not fit its context."""
    room = model.config.context_length - max_new_tokens
    encoded = [tokenizer.chat_template.encode_prompt(tokenizer, q.messages) for q in questions]
    fitting = [(q, ids) for q, ids in zip(questions, encoded, strict=True) if len(ids) <= room]
    if not fitting:
        return []
    options = SamplingOptions(temperature=0.0, max_new_tokens=max_new_tokens)
    found = write(model, tokenizer, [ids for _, ids in fitting], options, advance=advance)
    return [
        {"question": q.question, "answer": text.strip(), "reference": q.reference}
        for (q, _), (text, _) in zip(fitting, found, strict=True)
    ]


def manner_of(texts: Sequence[str]) -> list[Score]:
    """What babble shows in: empty answers, circles, repetition."""
    if not texts:
        return []
    return [
        accuracy(OWN, EMPTY, [not text for text in texts]),
        accuracy(OWN, CIRCLES, [goes_in_circles(text) for text in texts]),
        mean(OWN, REPEATED, [repetition(text) for text in texts], "share"),
    ]


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
            return OwnQuestion(before, message.content) if asks else None
    return None
