"""Continuous batching: requests join and leave between steps; prompts are read in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from miao.engine.request import Event, Finish, Request, TokenLogprobs
from miao.engine.runner import Piece, Runner
from miao.engine.sampling import NOTHING, Draw, NoTokenError, next_tokens
from miao.errors import MiaoError

CPU_PREFILL, GPU_PREFILL = 256, 2048
PATIENCE = 0.05
"""Seconds that a step may wait for a constraint, where there is nothing else to do."""
SHORTEST_PREFIX = 8
"""Tokens below which a common beginning is not worth a copy."""
SCORED_LOGITS = 2**24
"""Logits that exist at once where a prompt's own tokens are scored."""


class Scheduler:
    """Grows all running sequences by a token per step; waiting ones take rows as they get free.

    Rows 0 to n-1 of the cache belong to the n running requests, so that a forward pass reads them
    in place. What finished requests leave in the other rows serves prompts that begin alike, as
    the turns of a chat do.

    Not safe to share between threads.

    Args:
        runner: the model with its cache.
        stop_ids: tokens that end an answer (they are not part of it).
        prefill_tokens: prompt tokens read per step at most; running sequences wait so long
            (default: by the device).
        reuse_prefixes: keep what finished requests have read. Off where weights may change.
    """

    def __init__(
        self,
        runner: Runner,
        stop_ids: frozenset[int],
        prefill_tokens: int | None = None,
        reuse_prefixes: bool = True,
    ):
        self.runner, self.stop_ids = runner, stop_ids
        config = runner.model.config
        on_cpu = runner.model.device.type == "cpu"
        self.prefill_tokens = prefill_tokens or (CPU_PREFILL if on_cpu else GPU_PREFILL)
        self.reuse_prefixes = reuse_prefixes
        if (config.rope_scaling or {}).get("rope_type") == "dynamic":
            # Its rotations depend on the length of what is read in one pass.
            self.prefill_tokens, self.reuse_prefixes = runner.cache.length**2, False
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        """By row."""
        self._left: list[list[int]] = [[] for _ in range(runner.cache.rows)]
        """The tokens that each row without a request holds from position 0 on."""
        self._used: list[int] = list(range(runner.cache.rows))
        """Rows, the longest unused first."""
        self._failed: list[Event] = []
        """Of the step that runs."""

    @property
    def context(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return self.runner.cache.length

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def check(self, prompt: Sequence[int]) -> None:
        """Raises:
        MiaoError: the prompt is empty, leaves no room in the context or holds unknown ids.
        """
        tokens = self.runner.model.config.tokens
        if not prompt:
            raise MiaoError("the prompt is empty")
        if len(prompt) >= self.context:
            excess = len(prompt) - self.context + 1
            raise MiaoError(
                f"the prompt has {len(prompt)} tokens; with an answer it must fit "
                f"the context of {self.context} (at least {excess} too many)",
                fix="shorten it, or begin a new conversation",
            )
        if not (min(prompt) >= 0 and max(prompt) < tokens):
            raise MiaoError(f"the prompt holds ids outside the vocabulary of {tokens}")

    def submit(self, request: Request) -> None:
        """Puts a request in the queue.

        Raises:
            MiaoError: see `check`; or options that do not fit the model.
        """
        self.check(request.prompt)
        model = self.runner.model
        request.draw = Draw(
            request.options, request.prompt, model.config.tokens, model.device, request.index
        )
        self.waiting.append(request)

    def cancel(self, request: Request) -> None:
        """Ends a request, and frees its row at once."""
        if request.finish is not None:
            return
        if request.row < 0:
            self.waiting.remove(request)
            request.finish = "cancelled"
        else:
            self._leave(request, "cancelled")

    def clear(self) -> None:
        """Forgets everything: requests, and the prefixes of earlier ones."""
        for request in [*self.running, *self.waiting]:
            self.cancel(request)
        self._left = [[] for _ in self._left]

    def step(self) -> list[Event]:
        """Reads one chunk of new prompts, and grows every sequence that is read by a token.

        What goes wrong with one request ends that one, with its `error`; the others go on.
        """
        self._admit()
        held = [r for r in self.running if r.held_v is not None]
        grown = [r for r in self.running if r.is_read and r.held_v is None]
        read = self._read_all([(r, len(r.tokens)) for r in grown])
        chunk = self._read_all(self._next_chunk())
        read += [(r, logits_v) for r, logits_v in chunk if r.computed == len(r.prompt)]
        read = self._without_late(read, held, may_wait=not (read or chunk))
        events = []
        if read:
            requests, logits = zip(*read, strict=True)
            events = self._extend(list(requests), torch.stack(logits))
        failed, self._failed = self._failed, []
        return events + failed

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.runner.cache.rows:
            request = self.waiting.popleft()
            row = len(self.running)
            self.running.append(request)
            request.row = row
            try:
                self._take_row(request)
            except Exception as error:
                self._fail(request, error)

    def _next_chunk(self) -> list[tuple[Request, int]]:
        """Requests whose prompts are read next, and up to where. All of one pass get the same
        width, so those that need as much are read together."""
        unread = [r for r in self.running if not r.is_read]
        unread = [r for r in unread if r.computed < len(r.prompt)]
        if not unread:
            return []
        chunk: list[Request] = []
        width, room = 0, self.prefill_tokens
        for request in sorted(unread, key=lambda r: r.number):
            if request.scores_prompt:
                room = min(room, max(1, SCORED_LOGITS // self.runner.model.config.vocab_size))
            need = min(len(request.prompt) - request.computed, room)
            if chunk and max(width, need) * (len(chunk) + 1) > room:
                break
            chunk.append(request)
            width = max(width, need)
        chunk.sort(key=lambda r: r.row)
        return [(r, min(len(r.prompt), r.computed + width)) for r in chunk]

    def _read_all(self, wanted: list[tuple[Request, int]]) -> list[tuple[Request, Tensor]]:
        """Reads requests up to where is said; those that could be, with the logits [v] behind."""
        if not wanted:
            return []
        requests = [request for request, _ in wanted]
        try:
            return list(
                zip(requests, self._read(requests, [end for _, end in wanted]), strict=True)
            )
        except Exception as error:
            if len(wanted) == 1:
                self._fail(requests[0], error)
                return []
        # Whose fault it is shows when each is read alone; what was written is written again.
        return [read for one in wanted for read in self._read_all([one])]

    def _read(self, requests: list[Request], ends: list[int]) -> Tensor:
        """Logits [b, v] behind the last tokens that are read."""
        pieces = [
            Piece(r.row, r.tokens[r.computed : end], r.computed, r.scores_prompt and not r.is_read)
            for r, end in zip(requests, ends, strict=True)
        ]
        logits_nv = self.runner(pieces)
        last, count = [], 0
        for request, piece, end in zip(requests, pieces, ends, strict=True):
            if piece.every:
                self._score(request, logits_nv[count : count + len(piece.tokens)])
            count += len(piece.wanted)
            last.append(count - 1)
            request.computed = end
        return logits_nv if count == len(last) else logits_nv[last]

    def _score(self, request: Request, logits_tv: Tensor) -> None:
        """Notes the log-probabilities of the prompt's tokens behind those that were read."""
        following = request.prompt[request.computed + 1 :][: len(logits_tv)]
        targets = torch.tensor(following, dtype=torch.int64, device=logits_tv.device)
        most = request.options.logprobs or 0
        chosen, ids, values = top_logprobs(logits_tv[: len(targets)], targets, most)
        for logprob, *top in zip(chosen.tolist(), ids.tolist(), values.tolist(), strict=True):
            request.prompt_logprobs.append(TokenLogprobs(logprob, list(zip(*top, strict=True))))

    def _without_late(
        self, read: list[tuple[Request, Tensor]], held: list[Request], may_wait: bool
    ) -> list[tuple[Request, Tensor]]:
        """Those whose constraints are ready, with some that were `held` before; the logits of
        others are held."""
        if held and may_wait and held[0].constraint is not None:
            held[0].constraint.wait(PATIENCE)
        ready = []
        for request, logits_v in [*((r, r.held_v) for r in held), *read]:
            if logits_v is None or request.finish is not None:
                continue
            is_late = request.constraint is not None and not request.constraint.is_ready
            request.held_v = logits_v.clone() if is_late else None
            if not is_late:
                ready.append((request, logits_v))
        return ready

    def _extend(self, requests: list[Request], logits_bv: Tensor) -> list[Event]:
        try:
            chosen = self._choose(requests, logits_bv)
        except Exception as error:
            if len(requests) == 1:
                self._fail(requests[0], error)
                return []
            # Whose fault it is shows when each is extended alone; all keep the dice they threw.
            alone = zip(requests, logits_bv.split(1), strict=True)
            return [event for request, row in alone for event in self._extend([request], row)]
        events = []
        for request, (token, logprobs) in zip(requests, chosen, strict=True):
            try:
                events.append(self._grow(request, token, logprobs))
            except Exception as error:
                self._fail(request, error)
        return events

    def _choose(
        self, requests: list[Request], raw_bv: Tensor
    ) -> list[tuple[int, TokenLogprobs | None]]:
        """Every request's next token. It changes nothing, so that it may be done again."""
        draws = [request.draw for request in requests if request.draw is not None]
        for draw in draws:
            draw.hold()
        logits_bv = raw_bv
        if any(request.constraint for request in requests):
            logits_bv = raw_bv.clone()
            for row, request in enumerate(requests):
                if request.constraint is not None:
                    logits_bv[row] = request.constraint.allowed(logits_bv[row])
        tokens_b = next_tokens(logits_bv, draws)
        tokens = tokens_b.tolist()
        if NOTHING in tokens:
            raise NoTokenError
        return list(zip(tokens, self._logprobs(requests, raw_bv, tokens_b), strict=True))

    def _logprobs(
        self, requests: list[Request], logits_bv: Tensor, tokens_b: Tensor
    ) -> list[TokenLogprobs | None]:
        found: list[TokenLogprobs | None] = [None] * len(requests)
        wanted = [row for row, r in enumerate(requests) if r.options.logprobs is not None]
        if wanted:
            most = max(requests[row].options.logprobs or 0 for row in wanted)
            chosen, ids, values = top_logprobs(logits_bv[wanted], tokens_b[wanted], most)
            columns = zip(wanted, chosen.tolist(), ids.tolist(), values.tolist(), strict=True)
            for row, logprob, top_ids, top_values in columns:
                count = requests[row].options.logprobs or 0
                top = list(zip(top_ids[:count], top_values[:count], strict=True))
                found[row] = TokenLogprobs(logprob, top)
        return found

    def _grow(self, request: Request, token: int, logprobs: TokenLogprobs | None) -> Event:
        if token in self.stop_ids:
            self._leave(request, "stop")
            return Event(request, None, finishes=True)
        request.tokens.append(token)
        if logprobs is not None:
            request.logprobs.append(logprobs)
        assert request.draw is not None
        request.draw.note(token)
        finish = self._finish(request, token)
        if finish is not None:
            self._leave(request, finish)
        return Event(request, token, finish is not None)

    def _finish(self, request: Request, token: int) -> Finish | None:
        """Whether the answer ends with this token, and why."""
        length, watcher, constraint = len(request.tokens), request.watcher, request.constraint
        if watcher is not None and watcher.feed(token):
            return "stop"
        if constraint is not None and constraint.accept(token):
            return "stop"
        too_long = length - len(request.prompt) >= request.options.max_new_tokens
        return "length" if too_long or length >= self.context else None

    def _fail(self, request: Request, error: Exception) -> None:
        """Gives up a request that cannot go on."""
        request.error = error
        self._leave(request, "cancelled")
        self._failed.append(Event(request, None, finishes=True))

    def _leave(self, request: Request, finish: Finish) -> None:
        """Gives the row back: the last running row moves into its place."""
        row, last = request.row, len(self.running) - 1
        self._left[row] = request.tokens[: request.computed]
        if row != last:
            moved = self.running[last]
            self._left[last] = moved.tokens[: moved.computed]
            self._swap(row, last)
            self.running[row], moved.row = moved, row
        self.running.pop()
        if not self.reuse_prefixes:
            self._left[last] = []
        self._used.remove(last)
        self._used.append(last)
        request.row, request.finish, request.draw = -1, finish, None

    def _swap(self, one: int, other: int) -> None:
        held = self._left[one], self._left[other]
        self.runner.cache.swap(one, other, max(map(len, held)))
        self._left[one], self._left[other] = held[1], held[0]

    def _take_row(self, request: Request) -> None:
        """Finds the longest beginning of the prompt that some row holds, and brings it into the
        request's own row, which must not lose a longer one to it."""
        row = request.row
        best, count = -1, 0
        if self.reuse_prefixes and not request.scores_prompt:
            for other in range(len(self._left)):
                found = self._common(other, request)
                if found > count:
                    best, count = other, found
        if count < SHORTEST_PREFIX:
            best, count = -1, 0
        idle = [other for other in self._used if other >= row]
        is_idle = best >= row
        if is_idle and best != row and count * 2 >= len(self._left[best]):
            self._swap(row, best)
        elif best != row or count * 2 < len(self._left[best]):
            # What the row holds moves to the one that is longest unused.
            self._keep(row, next((other for other in idle if other != best), row))
            if best not in (-1, row):
                self.runner.cache.copy(best, row, count)
        self._left[row] = []
        request.computed = request.reused = count

    def _keep(self, row: int, victim: int) -> None:
        held = self._left[row]
        if victim == row or not held:
            return
        self.runner.cache.copy(row, victim, len(held))
        self._left[victim] = held
        self._used.remove(victim)
        self._used.append(victim)

    def _common(self, row: int, request: Request) -> int:
        """How many tokens of the prompt, all but its last at most, a row holds."""
        if row < len(self.running) - 1:
            other = self.running[row]
            held = other.tokens[: other.computed]
        else:
            held = self._left[row]
        prompt = request.tokens
        low, high = 0, min(len(held), len(prompt) - 1)
        while low < high:
            middle = (low + high + 1) // 2
            if held[low:middle] == prompt[low:middle]:
                low = middle
            else:
                high = middle - 1
        return low


def top_logprobs(logits_bv: Tensor, tokens_b: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """log p of the chosen tokens [b]; the `count` likeliest ids [b, count] and their log p.

    Of the model's own distribution: before temperature, penalties and biases.
    """
    logprobs_bv = logits_bv.log_softmax(dim=-1)
    chosen_b = logprobs_bv.gather(1, tokens_b[:, None]).squeeze(1)
    top = logprobs_bv.topk(min(count, logprobs_bv.shape[1]), dim=-1)
    return chosen_b, top.indices, top.values
