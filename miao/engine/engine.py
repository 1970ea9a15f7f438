"""Generation with a KV cache whose rows are taken and given back sequence by sequence."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from miao.engine.sampling import SamplingOptions, next_tokens
from miao.errors import MiaoError
from miao.model.cache import KVCache
from miao.model.decoder import Decoder


@dataclass
class _Sequence:
    number: int
    row: int
    tokens: list[int]
    prompt_length: int
    stopped_by: int | None = None

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt_length :]


@dataclass
class Engine:
    """Generates for many prompts at once; as one finishes, the next takes its row.

    Args:
        model: a decoder. stop_ids: tokens that end an answer (they are not returned).
        rows: sequences that run at the same time.
        length: longest prompt plus answer (default: the model's context).
    """

    model: Decoder
    stop_ids: frozenset[int]
    rows: int = 64
    length: int | None = None
    _cache: KVCache | None = field(default=None, repr=False)

    @property
    def context(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return self.length or self.model.config.context_length

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: SamplingOptions,
        advance: Callable[[int], None] = lambda finished: None,
    ) -> list[list[int]]:
        """One answer per prompt, in their order, without the token that ended it.

        Raises:
            MiaoError: a prompt that is empty or leaves no room in the context.
        """
        answers: list[list[int]] = [[] for _ in prompts]
        for batch in self._steps(prompts, options):
            for sequence, finished in batch:
                if finished:
                    answers[sequence.number] = sequence.generated
                    advance(1)
        return answers

    def stream(self, prompt: Sequence[int], options: SamplingOptions) -> Iterator[int]:
        """The answer's tokens as they come."""
        for batch in self._steps([prompt], options):
            for sequence, finished in batch:
                if not finished or sequence.stopped_by is None:
                    yield sequence.tokens[-1]

    def _steps(
        self, prompts: Sequence[Sequence[int]], options: SamplingOptions
    ) -> Iterator[list[tuple[_Sequence, bool]]]:
        """Runs until all are finished; yields, step by step, every sequence that grew by a token
        and whether it is finished with it."""
        self._check(prompts)
        self.model.eval()
        generator = None
        if options.seed is not None:
            generator = torch.Generator(self.model.device).manual_seed(options.seed)
        cache = self._take_cache(min(self.rows, len(prompts)))
        waiting = deque(enumerate(prompts))
        free = list(range(cache.rows))
        running: list[_Sequence] = []
        try:
            while waiting or running:
                joining = []
                while waiting and free:
                    number, prompt = waiting.popleft()
                    joining.append(_Sequence(number, free.pop(), list(prompt), len(prompt)))
                for batch, from_start in ((running, False), (joining, True)):
                    if batch:
                        self._grow(batch, cache, from_start, options, generator)
                step = [
                    (sequence, self._finished(sequence, options)) for sequence in running + joining
                ]
                running = [sequence for sequence, finished in step if not finished]
                free += [sequence.row for sequence, finished in step if finished]
                yield step
        finally:
            self._cache = cache

    @torch.inference_mode()
    def _grow(
        self,
        batch: list[_Sequence],
        cache: KVCache,
        from_start: bool,
        options: SamplingOptions,
        generator: torch.Generator | None,
    ) -> None:
        logits_bv = self._forward(batch, cache, from_start)
        chosen = next_tokens(logits_bv, [s.tokens for s in batch], options, generator)
        for sequence, token in zip(batch, chosen.tolist(), strict=True):
            sequence.tokens.append(token)

    def _forward(self, batch: list[_Sequence], cache: KVCache, from_start: bool) -> Tensor:
        """Logits [b, v] after the last token of every sequence, in float32.

        Prompts are padded on the right: what the padding writes to the cache lies behind the
        prompt, where the answer's tokens overwrite it before anything looks there.
        """
        device = self.model.device
        if from_start:
            width = max(len(s.tokens) for s in batch)
            ids = [s.tokens + [0] * (width - len(s.tokens)) for s in batch]
            positions_bt = torch.arange(width, device=device).expand(len(batch), width)
            last = torch.tensor([len(s.tokens) - 1 for s in batch], device=device)
        else:
            ids = [s.tokens[-1:] for s in batch]
            positions_bt = torch.tensor([[len(s.tokens) - 1] for s in batch], device=device)
            last = torch.zeros(len(batch), dtype=torch.int64, device=device)
        visible = max(len(s.tokens) for s in batch)
        cache.select(torch.tensor([s.row for s in batch], device=device), visible)
        ids_bt = torch.tensor(ids, device=device)
        hidden_btd = self.model(ids_bt, positions_bt, cache=cache, output="hidden")
        hidden_bd = hidden_btd[torch.arange(len(batch), device=device), last]
        return self.model.lm_head(hidden_bd).float()

    def _finished(self, sequence: _Sequence, options: SamplingOptions) -> bool:
        if sequence.tokens[-1] in self.stop_ids:
            sequence.stopped_by = sequence.tokens.pop()
            return True
        too_long = len(sequence.generated) >= options.max_new_tokens
        return too_long or len(sequence.tokens) >= self.context

    def _take_cache(self, rows: int) -> KVCache:
        """The cache of the last generation, or a new one where it does not fit or is in use."""
        cache, model, self._cache = self._cache, self.model, None
        if cache is None or cache.rows < rows or cache.keys.dtype != model.compute_dtype:
            cache = KVCache(model.config, rows, self.context, model.compute_dtype, model.device)
        return cache

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        for prompt in prompts:
            if not prompt:
                raise MiaoError("the prompt is empty")
            if len(prompt) >= self.context:
                raise MiaoError(
                    f"the prompt has {len(prompt)} tokens; with an answer it must fit "
                    f"the context of {self.context}",
                    fix="shorten it, or begin a new conversation",
                )
