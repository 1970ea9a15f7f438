"""One answer in the making: its prompt, what was generated, why it ended."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from miao.engine.sampling import Draw, SamplingOptions

Finish = Literal["stop", "length", "cancelled"]
_numbers = itertools.count()


class TokenLogprobs(NamedTuple):
    """A token's log-probability, and the likeliest tokens in its place."""

    chosen: float
    top: list[tuple[int, float]]


class Constraint(Protocol):
    """Restricts which tokens may come, as a grammar does. One per request."""

    @property
    def is_ready(self) -> bool:
        """Whether `allowed` would answer at once. Until then the others go on without it."""

    def wait(self, seconds: float) -> None:
        """Returns when it is ready, or after so long."""

    def allowed(self, logits_v: Tensor) -> Tensor:
        """The logits with everything that must not come at -inf."""

    def accept(self, token: int) -> bool:
        """Takes note of a token; True when nothing may follow it."""


class Watcher(Protocol):
    """Looks at the tokens as they come, for texts that end the answer. One per request."""

    def feed(self, token: int) -> bool:
        """True when the answer ends with this token."""


@dataclass(eq=False)
class Request:
    """What the scheduler works on.

    Args:
        prompt: token ids. index: which of several answers to one prompt this is.
        scores_prompt: log-probabilities of the prompt's tokens too, as of the answer's. It is read
            from its beginning then, whatever the cache holds.
    """

    prompt: Sequence[int]
    options: SamplingOptions
    index: int = 0
    constraint: Constraint | None = None
    watcher: Watcher | None = None
    scores_prompt: bool = False

    number: int = field(default_factory=lambda: next(_numbers))
    tokens: list[int] = field(default_factory=list)
    """Prompt and answer."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Of the prompt's tokens from the second on: nothing comes before the first."""
    finish: Finish | None = None
    draw: Draw | None = field(default=None, repr=False)
    row: int = -1
    computed: int = 0
    """How many tokens stand in the cache."""
    reused: int = 0
    """How many of the prompt's tokens stood there before."""
    held_v: Tensor | None = field(default=None, repr=False)
    """Logits that wait for the constraint."""
    error: Exception | None = None
    """Why it was given up, where that was no wish of anybody."""
    submitted: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def answer(self) -> list[int]:
        return self.tokens[len(self.prompt) :]

    @property
    def is_read(self) -> bool:
        """Whether all but the newest token stand in the cache."""
        return self.computed >= len(self.tokens) - 1 and len(self.tokens) > len(self.prompt)


class Event(NamedTuple):
    """A request that grew by a token, or ended. `token` is None when it ended without one that
    belongs to the answer (a stop token, or a cancellation)."""

    request: Request
    token: int | None
    finishes: bool = False
