"""How a model writes, without a judge: does it repeat itself, end, keep to a language,
do as it is told, and say the same when it is asked again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miao.corpus.records import Message
from miao.engine import SamplingOptions
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.measure.writing import write
from miao.evaluate.scores import Score, accuracy, mean
from miao.evaluate.tasks.extract import last_number
from miao.evaluate.tasks.generated import generated
from miao.evaluate.tasks.instructions import Instructed, is_chinese, verify
from miao.model.decoder import Decoder
from miao.tokenizer import Tokenizer

NAME = "writing"
NGRAM = 4
LOOP = 3
"""So many times the same at the end of a text: it goes in circles."""
SAME = "said again"
SUMS = 10
"""Sums of each language that are asked several times."""
NOTHING = {True: "好的。", False: "Okay."}
"""Answers that say nothing."""
_UNIT = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")
_END = re.compile(r"[.!?。！？…~～][\"'”’」』）)*\s]*$|[`}\]|]\s*$")


@dataclass(frozen=True)
class Written:
    """A prompt, the answer and whether it ended by itself. `chat`: asked as a turn of the user."""

    prompt: str
    answer: str
    ended: bool
    chat: bool = True

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def units(text: str) -> list[str]:
    """Chinese characters, words of other scripts, and marks."""
    return _UNIT.findall(text)


def repetition(text: str, n: int = NGRAM) -> float:
    """The share of n-grams that stood before in the text; 0 for a text without one."""
    parts = units(text)
    grams = [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def goes_in_circles(text: str) -> bool:
    """Whether it ends with the same again, `LOOP` times and at least eight units in all."""
    parts = units(text)
    for period in range(1, len(parts) // LOOP + 1):
        tail = parts[-period * LOOP :]
        if tail == tail[:period] * LOOP and (period * LOOP >= 8 or len(set(parts[-8:])) == 1):
            return len(parts) >= 8
    return False


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of all texts over their number (Li et al. 2016, arXiv:1510.03055)."""
    grams = [tuple(p[i : i + n]) for p in map(units, texts) for i in range(len(p) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def ends_properly(one: Written) -> bool:
    """By itself, and with a mark that ends a sentence, a bracket or code."""
    return one.ended and bool(_END.search(one.answer))


def in_language(one: Written) -> bool:
    """Chinese answers to Chinese, others to others; an answer without letters is in neither."""
    letters = any(letter.isalpha() for letter in one.answer)
    return letters and is_chinese(one.answer) == is_chinese(one.prompt)


def ask_in_chat(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: SamplingOptions,
    advance: Advance = nothing,
) -> list[Written]:
    """Each as the only turn of a conversation.

    Raises:
        MiaoError: the model has no chat template.
    """
    encoded = [
        tokenizer.chat_template.encode_prompt(tokenizer, [Message("user", prompt)])
        for prompt in prompts
    ]
    found = write(model, tokenizer, encoded, options, advance=advance)
    return [Written(p, text.strip(), e) for p, (text, e) in zip(prompts, found, strict=True)]


def chat_answers(
    model: Decoder,
    tokenizer: Tokenizer,
    questions: Sequence[str],
    max_new_tokens: int,
    advance: Advance = nothing,
) -> list[str]:
    """The greedy answers of `ask_in_chat` alone."""
    options = SamplingOptions(temperature=0.0, max_new_tokens=max_new_tokens)
    return [one.answer for one in ask_in_chat(model, tokenizer, questions, options, advance)]


def continue_texts(
    model: Decoder, tokenizer: Tokenizer, texts: Sequence[str], options: SamplingOptions
) -> list[Written]:
    """What a model without a chat writes."""
    encoded = [[*tokenizer.document_start, *tokenizer.encode(text)] for text in texts]
    found = write(model, tokenizer, encoded, options)
    return [Written(t, said, e, False) for t, (said, e) in zip(texts, found, strict=True)]


def manner(written: Sequence[Written]) -> list[Score]:
    """Repetition, variety, ends and language of answers or of continuations, over all and each
    language of the prompts."""
    kind = "answers" if written[0].chat else "continuations"
    texts = [one.answer for one in written]
    scores = [
        accuracy(NAME, f"{kind}: not empty", [bool(text) for text in texts]),
        accuracy(NAME, f"{kind}: end properly", [ends_properly(one) for one in written]),
        accuracy(NAME, f"{kind}: in circles", [goes_in_circles(text) for text in texts]),
        mean(NAME, f"{kind}: repeated 4-grams", [repetition(text) for text in texts], "share"),
    ]
    scores += [
        Score(NAME, f"{kind}: distinct {n}-grams", len(texts), distinct(texts, n), unit="share")
        for n in (1, 2, 3)
    ]
    for name, chinese in (("Chinese", True), ("English", False)):
        mine = [in_language(one) for one in written if is_chinese(one.prompt) == chinese]
        scores += [accuracy(NAME, f"{kind}: {name} to {name}", mine)] if mine else []
    return scores


def obedience(asked: Sequence[Instructed], answers: Sequence[str]) -> list[Score]:
    """Prompts whose instructions are all followed, and single instructions, strictly and loosely as
    IFEval counts; Chinese and English prompts apart where there are both. Their chance is what one
    gets who always says the same word of consent."""
    verdicts = [verify(one, answer) for one, answer in zip(asked, answers, strict=True)]
    constant = [verify(one, NOTHING[is_chinese(one.prompt)]).strict for one in asked]
    chance = sum(map(all, constant)) / len(asked)
    scores = []
    for way in ("strict", "loose"):
        found = [getattr(verdict, way) for verdict in verdicts]
        whole_ones = [all(one) for one in found]
        scores.append(accuracy(NAME, f"prompts followed, {way}", whole_ones, chance))
        single = [ok for one in found for ok in one]
        scores.append(accuracy(NAME, f"instructions followed, {way}", single))
    for name, chinese in (("Chinese", True), ("English", False)):
        mine = [n for n, one in enumerate(asked) if is_chinese(one.prompt) == chinese]
        if mine and len(mine) < len(asked):
            followed = [all(verdicts[n].strict) for n in mine]
            guess = sum(all(constant[n]) for n in mine) / len(mine)
            scores.append(accuracy(NAME, f"{name} prompts followed", followed, guess))
    return scores


def consistency(
    model: Decoder, tokenizer: Tokenizer, times: int, temperature: float, max_new_tokens: int
) -> list[Score]:
    """Sums of one digit, each asked so often at this temperature: how often two answers agree, how
    often one is right, and how often the commonest is (self-consistency, arXiv:2203.11171)."""
    sums = [q for lang in ("zh", "en") for q in generated(f"sums1_{lang}", 0, False, SUMS)]
    questions = [q["question"] for q in sums]
    turns = []
    for seed in range(times):
        drawn = SamplingOptions(temperature, max_new_tokens=max_new_tokens, seed=seed)
        turns.append([o.answer for o in ask_in_chat(model, tokenizer, questions, drawn)])
    agree, single, common = [], [], []
    for number, question in enumerate(sums):
        said = [last_number(turn[number]) for turn in turns]
        right = question["options"][question["answer"]]
        counts = Counter(one for one in said if one is not None)
        pairs = sum(n * (n - 1) for n in counts.values())
        agree.append(pairs / (times * (times - 1)))
        single.append(sum(one == right for one in said) / times)
        common.append(bool(counts) and counts.most_common(1)[0][0] == right)
    return [
        mean(NAME, f"sums, {SAME}: two answers agree", agree, "share"),
        mean(NAME, f"sums, {SAME}: one is right", single, "share"),
        accuracy(NAME, f"sums, {SAME}: the commonest of {times} is right", common),
    ]
