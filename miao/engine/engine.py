"""Generation for callers that have all their prompts at hand: evaluation, samples, chat."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

from miao.engine.backend import make_runner
from miao.engine.native import NativeDecoder
from miao.engine.packed import PackedDecoder
from miao.engine.request import Request, Watcher
from miao.engine.sampling import SamplingOptions
from miao.engine.scheduler import Scheduler
from miao.errors import MiaoError
from miao.model.decoder import Decoder


@dataclass
class Engine:
    """Generates for many prompts at once; as one finishes, the next takes its row.

    Args:
        model: a decoder, also one that is packed.
        stop_ids: tokens that end an answer (they are not returned).
        rows: sequences that run at the same time.
        length: longest prompt plus answer (default: the model's context).
        reuse_prefixes: keep what was read for later prompts that begin alike, as the turns of a
            chat do. Only where the weights stay as they are.
    """

    model: Decoder | PackedDecoder | NativeDecoder
    stop_ids: frozenset[int]
    rows: int = 64
    length: int | None = None
    reuse_prefixes: bool = False
    _scheduler: Scheduler | None = field(default=None, repr=False)

    @property
    def context(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return self.length or self.model.config.context_length

    def prepare(self, sequences: int = 1) -> None:
        """Makes ready what the first generation would make: compiled code, the cache."""
        self._scheduler = self._take_scheduler(sequences)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: SamplingOptions,
        advance: Callable[[int], None] = lambda finished: None,
        watcher: Callable[[], Watcher] | None = None,
    ) -> list[list[int]]:
        """One answer per prompt, in their order, without the token that ended it.

        Args:
            watcher: makes one for every answer, which may end it.

        Raises:
            MiaoError: a prompt that is empty or leaves no room in the context.
        """
        requests = [
            Request(prompt, options, index=index, watcher=watcher() if watcher else None)
            for index, prompt in enumerate(prompts)
        ]
        for _ in self._tokens(requests, advance):
            pass
        return [request.answer for request in requests]

    def stream(self, prompt: Sequence[int], options: SamplingOptions) -> Generator[int, None, None]:
        """The answer's tokens as they come."""
        yield from self._tokens([Request(prompt, options)])

    def _tokens(
        self, requests: list[Request], advance: Callable[[int], None] = lambda finished: None
    ) -> Iterator[int]:
        """Runs until all are finished; yields every token of every answer."""
        self.model.eval()
        # Taken out while in use: a second generation inside this one gets its own.
        scheduler, self._scheduler = self._take_scheduler(len(requests)), None
        try:
            for request in requests:
                scheduler.check(request.prompt)
            for request in requests:
                scheduler.submit(request)
            while scheduler.has_work:
                for event in scheduler.step():
                    if event.request.error is not None:
                        raise event.request.error
                    if event.token is not None:
                        yield event.token
                    if event.finishes:
                        advance(1)
        except (GeneratorExit, MiaoError):
            for request in [*scheduler.running, *scheduler.waiting]:
                scheduler.cancel(request)
            self._keep(scheduler)
            raise
        self._keep(scheduler)

    def _keep(self, scheduler: Scheduler) -> None:
        """For the next generation. One that an exception, Ctrl-C above all, has left in the middle
        of a step is not kept."""
        if not self.reuse_prefixes:
            scheduler.clear()
        self._scheduler = scheduler

    def _take_scheduler(self, sequences: int) -> Scheduler:
        """That of the last generation, or a new one where it does not fit or is in use."""
        rows, scheduler = max(1, min(self.rows, sequences)), self._scheduler
        if scheduler is not None:
            cache = scheduler.runner.cache
            fits = cache.rows >= rows and cache.length == self.context
            same_type = cache.keys.dtype == self.model.compute_dtype
            if fits and same_type and scheduler.runner.is_current:
                return scheduler
        runner = make_runner(self.model, rows, self.context)
        return Scheduler(runner, self.stop_ids, reuse_prefixes=self.reuse_prefixes)
