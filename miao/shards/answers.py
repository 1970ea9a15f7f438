"""Preferences answer by answer, as KTO wants them."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from miao.errors import MiaoError
from miao.shards.dataset import TokenDataset

Ids = NDArray[np.int64]


class LabelledAnswers:
    """A view of a preference dataset, read like any other: sequence 2k is the answer k after its
    prompt, and 2k+1 the same prompt with the answer to another one, from which KTO estimates the
    KL divergence. A pair is two answers, a desirable and an undesirable one.

    Which answer goes with which prompt follows from the seed; every answer is used once, but for
    those whose partner would have had the same prompt.

    Raises:
        MiaoError: all answers are to the same prompt.
    """

    group_size = 2

    def __init__(self, dataset: TokenDataset, seed: int):
        self.dataset, self.directory = dataset, dataset.directory
        self._of = np.flatnonzero(dataset.learns())  # sequence of each answer
        found = self._of.tolist()
        self._prompt = np.array([self._begin(sequence) for sequence in found], dtype=np.int64)
        prompts = [
            blake2b(dataset.tokens(sequence, 0, size).tobytes(), digest_size=16).digest()
            for sequence, size in zip(found, self._prompt.tolist(), strict=True)
        ]
        if len(set(prompts)) < 2:
            raise MiaoError(
                "KTO needs answers to different prompts, and here is only one",
                where=self.directory,
                fix="bring more records, or use another --dpo.loss",
            )
        self._other = _partners(prompts, seed)
        own = dataset.lengths[self._of]
        mixed = self._prompt + (own - self._prompt)[self._other]
        self.lengths = np.stack([own, mixed], axis=1).reshape(-1)
        """Tokens of every sequence, int64 [2 x answers]."""
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.desirable = self._of % 2 == 0
        """The label of each answer, bool [answers]."""
        self.manifest = replace(dataset.manifest)

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, sequence: int, start: int = 0, stop: int | None = None) -> Ids:
        """Token ids `start:stop` of a sequence, int64."""
        answer, is_mixed = divmod(sequence, 2)
        if not is_mixed:
            return self.dataset.tokens(int(self._of[answer]), start, stop)
        prompt = self.dataset.tokens(int(self._of[answer]), 0, int(self._prompt[answer]))
        other = self._other[answer]
        begun = int(self._prompt[other])
        return np.concatenate([prompt, self.dataset.tokens(int(self._of[other]), begun)])[
            start:stop
        ]

    def mask(
        self, sequence: int, start: int = 0, stop: int | None = None
    ) -> NDArray[np.bool_] | None:
        """Which of these tokens are the answer."""
        answer, is_mixed = divmod(sequence, 2)
        at = int(self._of[answer])
        if not is_mixed:
            return self.dataset.mask(at, start, stop)
        prompt, other = int(self._prompt[answer]), self._other[answer]
        learned = self.dataset.mask(int(self._of[other]), int(self._prompt[other]))
        assert learned is not None
        return np.concatenate([np.zeros(prompt, dtype=bool), learned])[start:stop]

    def read(self, sequences: Ids, starts: Ids, most: int) -> tuple[Ids, NDArray[np.bool_], Ids]:
        """See `TokenDataset.read`."""
        bounds = [
            (sequence, start, start + most)
            for sequence, start in zip(sequences.tolist(), starts.tolist(), strict=True)
        ]
        ids = [self.tokens(*bound) for bound in bounds]
        masks = [mask for bound in bounds if (mask := self.mask(*bound)) is not None]
        return np.concatenate(ids), np.concatenate(masks), np.array([len(one) for one in ids])

    def learns(self, slots: int | None = None) -> NDArray[np.bool_]:
        """See `TokenDataset.learns`: here all are learned."""
        return np.ones(len(self.lengths), dtype=bool)

    def flat_offset(self, sequence: int) -> int:
        """Where the sequence begins when all are laid end to end (for extra columns)."""
        return int(self._offsets[sequence])

    def _begin(self, sequence: int) -> int:
        """Where the answer begins."""
        learned = self.dataset.mask(sequence)
        assert learned is not None, "preferences have a mask"
        return int(learned.argmax())


def _partners(prompts: list[bytes], seed: int) -> NDArray[np.int64]:
    """For each answer the next one of a random circle whose prompt is another."""
    circle = np.random.default_rng([seed, len(prompts)]).permutation(len(prompts)).tolist()
    # Turned so that its last and its first answer differ in their prompts.
    turn = next(n for n in range(len(circle)) if prompts[circle[n - 1]] != prompts[circle[n]])
    circle = circle[turn:] + circle[:turn]
    partner = np.empty(len(prompts), dtype=np.int64)
    following = circle[0]
    for answer, after in zip(reversed(circle), [circle[0], *reversed(circle[1:])], strict=True):
        if prompts[after] != prompts[answer]:
            following = after
        partner[answer] = following
    return partner
