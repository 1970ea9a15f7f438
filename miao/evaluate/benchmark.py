"""One task asked of one model, by one of the ways of scoring."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from miao.engine import SamplingOptions
from miao.errors import MiaoError
from miao.evaluate.measure.continuations import (
    Continuation,
    Likelihood,
    continuation_logprobs,
    rolling,
)
from miao.evaluate.measure.likelihood import Advance, nothing
from miao.evaluate.measure.writing import write_texts
from miao.evaluate.tasks.extract import extractor, is_right
from miao.evaluate.tasks.items import Item, Questions, fingerprint
from miao.evaluate.tasks.prompts import Encoder, Prompt, build_prompt, fit
from miao.evaluate.tasks.task import PromptStyle, Scoring, Task
from miao.model.decoder import Decoder

MEASURES = {
    "character": "per character",
    "byte": "per byte",
    "prior": "against the option alone",
}
"""Measures of an option's text beside its log p: divided by its length, for options of different
length; less its log p where nothing stands before it, for options that are likely anywhere.
lm-evaluation-harness calls them acc_norm, acc_bytes and acc_mutual_info."""


@dataclass
class Answer:
    """What the model made of one question.

    `choice` is the option that it takes by log p, `others` by other measures of it (`MEASURES`);
    `text` what it wrote, `found` the answer in it.
    """

    item: Item
    right: bool | None
    choice: int | None = None
    others: dict[str, int] = field(default_factory=dict)
    logprobs: list[float] = field(default_factory=list)
    nats: float | None = None
    """greedy: -log p of the right option; bits: of the whole text."""
    text: str | None = None
    found: str | None = None

    @property
    def chance(self) -> float:
        """What guessing gives: 0 where nothing is chosen from."""
        options = len(self.item.options)
        return 0.0 if self.nats is not None or not options else 1 / options

    @property
    def probability(self) -> float | None:
        """The right option's share of the probability of all; None where none is chosen from."""
        if not isinstance(self.item.answer, int) or self.nats is not None:
            return None
        return right_share(self.logprobs, self.item.answer)

    def to_json(self) -> dict[str, Any]:
        cluster = self.item.variables.get("cluster")
        values = {
            "subject": self.item.subject,
            "id": self.item.id,
            "cluster": None if cluster is None else fingerprint(str(cluster)),
            "question": self.item.fingerprint,
            "answer": self.item.answer,
            "right": self.right,
            "choice": self.choice,
            "others": self.others,
            "logprobs": [round(value, 4) for value in self.logprobs],
            "text": self.text,
            "nats": None if self.nats is None else round(self.nats, 4),
            "found": self.found,
        }
        return {name: value for name, value in values.items() if value not in (None, [], {})}


def right_share(logprobs: Sequence[float], right: int) -> float | None:
    """p of the right option over the sum of all options' p; None where they are not known."""
    if not logprobs or math.isnan(sum(logprobs)):
        return None
    most = max(logprobs)
    return math.exp(logprobs[right] - most) / sum(math.exp(value - most) for value in logprobs)


@dataclass(frozen=True)
class Asked:
    """All answers to a task, how it was asked, and what of it did not fit the context."""

    task: Task
    style_name: str
    style: PromptStyle
    shots: int
    answers: list[Answer]
    cut: int = 0
    """Prompts that lost their beginning."""
    fewer: int = 0
    """Prompts with fewer examples than asked for."""

    @property
    def key(self) -> str:
        """Names the way of asking: `ceval, lm-eval prompts, letter, 5-shot`."""
        return (
            f"{self.task.name}, {self.style_name} prompts, {self.style.scoring}, {self.shots}-shot"
        )


def ask(
    model: Decoder,
    encoder: Encoder,
    task: Task,
    questions: Questions,
    style_name: str,
    style: PromptStyle,
    shots: int,
    advance: Advance = nothing,
) -> Asked:
    """Asks every question by the style's way of scoring.

    Raises:
        MiaoError: options are to be compared, but a question has none.
    """
    for item in questions.all():
        if style.scoring not in ("generate", "bits") and not item.options:
            raise MiaoError(
                f"question {item.id} has no options to compare", fix="use --scoring generate"
            )
    groups = [(items, questions.examples.get(name, [])) for name, items in questions.items.items()]
    if style.scoring == "bits":
        answers, cut, fewer = _read_through(model, encoder, questions.all(), advance), 0, 0
    elif style.scoring == "generate":
        answers, cut, fewer = _generate(model, encoder, task, style, groups, advance)
    else:
        answers, cut, fewer = [], 0, 0
        for items, few in groups:  # subject by subject: the tokens of all prompts take gigabytes
            found, more_cut, more_fewer = _compare(model, encoder, task, style, items, few, advance)
            answers += found
            cut, fewer = cut + more_cut, fewer + more_fewer
    return Asked(task, style_name, style, shots, answers, cut, fewer)


def with_scoring(style: PromptStyle, scoring: Scoring | None) -> PromptStyle:
    """The same prompts scored in another way.

    Raises:
        MiaoError: letters are to be compared where the choices are texts, or the other way round.
    """
    if scoring is None:
        return style
    wanted = "letter" if scoring == "letter" else "option"
    if scoring in ("letter", "option", "greedy") and wanted not in style.choice:
        shown = "letters" if wanted == "option" else "texts"
        raise MiaoError(
            f"--scoring {scoring}: the choices of these prompts are {shown} ({style.choice!r})",
            fix="choose ppl or generate, or other --prompts",
        )
    return dataclasses.replace(style, scoring=scoring)


@dataclass(frozen=True)
class _Encoded:
    """A prompt with every choice as tokens, and how many of the last ones are compared; `alone`:
    the choices without the prompt."""

    prompt: Prompt
    texts: list[list[int]]
    scored: list[int]
    alone: list[tuple[list[int], list[int]]] = field(default_factory=list)

    @property
    def longest(self) -> int:
        return max(len(ids) for ids in self.texts)


def _encode(
    encoder: Encoder, task: Task, style: PromptStyle, item: Item, shown: Sequence[Item]
) -> _Encoded:
    prompt = build_prompt(task, style, item, shown)
    if style.scoring == "ppl":  # compared as a whole: from its second token on
        texts = encoder.wholes(prompt)
        return _Encoded(prompt, texts, [len(ids) - 1 for ids in texts])
    pairs = encoder.pairs(prompt)
    texts = [context + continuation for context, continuation in pairs]
    scored = [len(continuation) for _, continuation in pairs]
    alone = encoder.alone(prompt) if style.prior and style.scoring == "option" else []
    return _Encoded(prompt, texts, scored, alone)


def _compare(
    model: Decoder,
    encoder: Encoder,
    task: Task,
    style: PromptStyle,
    items: Sequence[Item],
    examples: Sequence[Item],
    advance: Advance,
) -> tuple[list[Answer], int, int]:
    """letter, option, greedy: log p of each continuation; ppl: of each whole prompt, per token."""
    limit = model.config.context_length
    room = limit if style.overflow == "fewer" else None
    encoded, fewer = [], 0
    for item in items:
        one, left = fit(partial(_encode, encoder, task, style, item), examples, room)
        encoded.append(one)
        fewer += left < len(examples)
    continuations = [
        Continuation(ids, count)
        for one in encoded
        for ids, count in zip(one.texts, one.scored, strict=True)
    ]
    alone = [Continuation(a + b, len(b)) for one in encoded for a, b in one.alone]
    values = iter(continuation_logprobs(model, continuations, limit, advance))
    priors = iter(continuation_logprobs(model, alone, limit))
    answers, cut = [], 0
    for item, one in zip(items, encoded, strict=True):
        found = list(islice(values, len(one.texts)))
        prior = [value.logprob for value in islice(priors, len(one.alone))]
        cut += any(value.cut for value in found)
        sums = [value.logprob for value in found]
        if style.scoring == "greedy":
            answers.append(_written(item, found))
            continue
        if style.scoring == "ppl":
            sums = [v / min(len(ids), limit + 1) for v, ids in zip(sums, one.texts, strict=True)]
        texts = one.prompt.plain_choices if style.scoring == "option" else []
        answers.append(_chosen(item, sums, texts, prior))
    return answers, cut, fewer


def _chosen(item: Item, sums: list[float], texts: list[str], prior: list[float]) -> Answer:
    choice = _best(sums)
    answer = Answer(item, None, choice, logprobs=sums)
    if texts:
        lengths = {"character": [len(t) for t in texts], "byte": [len(t.encode()) for t in texts]}
        for name, counts in lengths.items():
            values = [v / max(count, 1) for v, count in zip(sums, counts, strict=True)]
            answer.others[name] = _best(values)
    if prior:
        answer.others["prior"] = _best([v - p for v, p in zip(sums, prior, strict=True)])
    if item.answer is not None:
        answer.right = choice == item.answer
    return answer


def _best(values: list[float]) -> int:
    return values.index(max(values))


def _written(item: Item, found: Sequence[Likelihood]) -> Answer:
    """Whether greedy decoding writes the right option; a choice only where it writes any."""
    written = [number for number, value in enumerate(found) if value.is_greedy]
    answer = Answer(item, None, logprobs=[value.logprob for value in found])
    answer.choice = written[0] if written else None
    if isinstance(item.answer, int):
        answer.right = item.answer in written
        answer.nats = -found[item.answer].logprob
    return answer


def _read_through(
    model: Decoder, encoder: Encoder, items: Sequence[Item], advance: Advance
) -> list[Answer]:
    """bits: log p of whole texts, each from the token that documents begin with."""
    limit, start = model.config.context_length, encoder.tokenizer.document_start
    answers = []
    for item in items:
        windows = rolling([*start, *encoder.tokenizer.encode(item.question)], limit)
        found = continuation_logprobs(model, windows)
        answers.append(Answer(item, None, nats=-sum(one.logprob for one in found)))
        advance(1)
    return answers


def _read(
    encoder: Encoder, task: Task, style: PromptStyle, item: Item, shown: Sequence[Item]
) -> _Encoded:
    prompt = build_prompt(task, style, item, shown)
    return _Encoded(prompt, [encoder.asked(prompt)], [])


def _generate(
    model: Decoder,
    encoder: Encoder,
    task: Task,
    style: PromptStyle,
    groups: Sequence[tuple[Sequence[Item], Sequence[Item]]],
    advance: Advance,
) -> tuple[list[Answer], int, int]:
    """Greedy text, cut at the first of the style's stops, and the answer found in it."""
    extract = extractor(style.extract)
    room = max(model.config.context_length - style.max_new_tokens, 1)
    prompts, cut, fewer = [], 0, 0
    asked = [(item, few) for items, few in groups for item in items]
    for item, few in asked:
        build = partial(_read, encoder, task, style, item)
        one, left = fit(build, few, room if style.overflow == "fewer" else None)
        fewer += left < len(few)
        cut += one.longest > room
        prompts.append(one.texts[0][-room:])
    options = SamplingOptions(temperature=0.0, max_new_tokens=style.max_new_tokens)
    texts = write_texts(model, encoder.tokenizer, prompts, options, style.until, advance)
    answers = []
    for (item, _), text in zip(asked, texts, strict=True):
        found = extract(text, "".join(item.letters))
        answer = Answer(item, None, text=text, found=found)
        if isinstance(item.answer, int):
            answer.choice = item.letters.index(found) if found in item.letters else None
            answer.right = answer.choice == item.answer
        elif item.answer is not None:
            answer.right = is_right(found, item.answer, style.compare, style.tolerance)
        answers.append(answer)
    return answers, cut, fewer
