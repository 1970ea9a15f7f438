"""A question as the model is asked it: the text before the answer, and the possible answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from miao.corpus.records import Message
from miao.evaluate.tasks.items import Item
from miao.evaluate.tasks.pieces import LineEncoder
from miao.evaluate.tasks.task import PromptStyle, Task, template
from miao.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """`context + choice` is what a harness would read for each choice; each choice begins with the
    delimiter, and `plain_choices` are the same without it. `turns` is the context as a chat."""

    context: str
    choices: list[str]
    plain_choices: list[str]
    turns: tuple[Message, ...] = ()


def build_prompt(task: Task, style: PromptStyle, item: Item, examples: Sequence[Item]) -> Prompt:
    """The prompt of one question behind its examples.

    As a chat the description is the system message, and every example a turn of the user and one
    of the assistant: as lm-eval's --apply_chat_template does it.

    Raises:
        MiaoError: a template that does not fit the record.
    """
    where = str(task.path)
    ask = template(style.question, where)
    plain = choices_of(task, style, item)
    description = template(style.description, where)(item.variables)
    asked = ask(item.variables)
    shown = [(ask(example.variables), target_of(task, style, example)) for example in examples]
    context = (
        description
        + "".join(
            question + style.target_delimiter + target + style.fewshot_delimiter
            for question, target in shown
        )
        + (style.examples_end if examples else "")
        + asked
    )
    turns = [Message("system", description)] if description else []
    for question, target in shown:
        turns += [Message("user", question), Message("assistant", target)]
    choices = [style.target_delimiter + choice for choice in plain]
    return Prompt(context, choices, plain, (*turns, Message("user", asked)))


def choices_of(task: Task, style: PromptStyle, item: Item) -> list[str]:
    """What may follow the question, for each option."""
    render = template(style.choice, str(task.path))
    return [
        render(item.variables | {"option": option, "letter": letter})
        for option, letter in zip(item.options, item.letters, strict=True)
    ]


def target_of(task: Task, style: PromptStyle, example: Item) -> str:
    """The answer that is shown with an example."""
    if style.target is not None:
        return template(style.target, str(task.path))(example.variables)
    assert example.answer is not None, "examples have answers"
    if isinstance(example.answer, int):
        return choices_of(task, style, example)[example.answer]
    return example.answer


@dataclass(frozen=True)
class Encoder:
    """Texts to tokens, as a harness does it.

    `begin`: tokens that the tokenizer itself puts before every text (a Llama's <|begin_of_text|>),
    or those that the user asks for. `chat`: the context becomes turns of a chat. `trusted`: control
    tokens spelt out in a text are meant (where a harness has applied a chat template itself).
    """

    tokenizer: Tokenizer
    begin: tuple[int, ...] = ()
    chat: bool = False
    system: str | None = None
    trusted: bool = False

    def context(self, text: str) -> list[int]:
        return [*self.begin, *self._encode([text])[0]]

    def asked(self, prompt: Prompt) -> list[int]:
        """All that stands before the answer: as a text, or in the chat template."""
        if not self.chat:
            return self.context(prompt.context)
        turns = list(prompt.turns)
        if self.system and turns[0].role == "system":
            parted = self.system[-1].isspace() or turns[0].content[0].isspace()
            both = self.system + ("" if parted else "\n\n") + turns[0].content
            turns[0] = Message("system", both)
        elif self.system:
            turns.insert(0, Message("system", self.system))
        return self.tokenizer.chat_template.encode_prompt(self.tokenizer, turns)

    def pairs(self, prompt: Prompt) -> list[tuple[list[int], list[int]]]:
        """(context, continuation) of each choice.

        Spaces at the end of the context belong to the continuation, and the tokens of a
        continuation are those of the whole text behind as many as the context has.
        """
        if self.chat:
            context = self.asked(prompt)
            return [(context, self.tokenizer.encode(choice)) for choice in prompt.plain_choices]
        text = prompt.context.rstrip()
        spaces = prompt.context[len(text) :]
        wholes = [text + spaces + choice for choice in prompt.choices]
        encoded = self._encode([text, *wholes])
        context = [*self.begin, *encoded[0]]
        pairs = [([*self.begin, *whole])[len(context) :] or whole[-1:] for whole in encoded[1:]]
        # Where nothing stands before the answer, it begins a document.
        return [(context or [*self.tokenizer.document_start], pair) for pair in pairs]

    def alone(self, prompt: Prompt) -> list[tuple[list[int], list[int]]]:
        """Each choice as the beginning of a document, as (context, continuation)."""
        choices = prompt.plain_choices if self.chat else prompt.choices
        start = [*self.begin] or [*self.tokenizer.document_start]
        return [(start, ids) for ids in self._encode(choices)]

    def wholes(self, prompt: Prompt) -> list[list[int]]:
        """Context and choice as one text, for each choice."""
        if self.chat:
            return [context + choice for context, choice in self.pairs(prompt)]
        texts = [prompt.context + choice for choice in prompt.choices]
        encoded = [[*self.begin, *ids] for ids in self._encode(texts)]
        if min(len(ids) for ids in encoded) < 2:  # the first token follows nothing
            encoded = [[*self.tokenizer.document_start, *ids] for ids in encoded]
        return encoded

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self._lines.encode_batch(texts)

    @cached_property
    def _lines(self) -> LineEncoder:
        return LineEncoder(self.tokenizer, self.trusted)


class Sized(Protocol):
    """Something made of texts, of which the longest has so many tokens."""

    @property
    def longest(self) -> int: ...


Made = TypeVar("Made", bound=Sized)


def fit(
    build: Callable[[Sequence[Item]], Made], examples: Sequence[Item], room: int | None
) -> tuple[Made, int]:
    """Leaves out examples, the last first, until what is built has at most `room` tokens (None:
    whatever it has).

    Returns what was built and how many examples are left.
    """
    count = len(examples)
    made = build(examples)
    while room is not None and count and made.longest > room:
        count -= 1
        made = build(examples[:count])
    return made, count
