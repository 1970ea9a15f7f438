"""Problems put to a model: all at once, over several turns where a tool answers, and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from miao.corpus.records import Conversation, Message
from miao.engine import Request, Runner, SamplingOptions, Scheduler, make_runner
from miao.engine.packed import PackedDecoder
from miao.errors import MiaoError, first_line
from miao.model.decoder import Decoder
from miao.recipe.grpo import GrpoOptions
from miao.rewards.functions import Rewards, load_rewards
from miao.rewards.problems import Problem
from miao.rewards.served import VllmServer
from miao.rewards.tools import Environment, load_environment
from miao.tokenizer import Tokenizer

PREFILL = 1024
"""Prompt tokens that are read per pass; nobody waits for a first word here."""
SHORTEST_TURN = 4
"""Tokens below which another turn is not begun."""


@dataclass
class Answer:
    """One answer to a problem: everything that was read and said, and what it is worth."""

    problem: int
    """Which of the problems that were asked together."""
    ids: list[int]
    learned: list[bool]
    """Which ids the model said itself: not the prompt, not what tools answered."""
    text: str = ""
    values: dict[str, float] = field(default_factory=dict)
    """What each reward function gave."""
    reward: float = 0.0
    finished: bool = False
    """Ended by the model, not by a limit."""
    turns: int = 0
    advantage: float = 0.0
    old: list[float] | None = None
    """log p of ids[1:] when they were said, where they are learned."""
    reference: list[float] | None = None
    """The same of the reference model."""

    @property
    def said(self) -> int:
        """How many tokens the model said."""
        return sum(self.learned)


class _TurnEnd:
    """Ends a turn with a stop token that stays part of it: the model learns to say it."""

    def __init__(self, stop_ids: frozenset[int]):
        self._stop_ids = stop_ids

    def feed(self, token: int) -> bool:
        return token in self._stop_ids


class Examiner:
    """Lets a model answer problems by sampling, and judges what it says.

    Args:
        length: most tokens of a problem with its answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        rewards: Rewards,
        environment: Environment | None,
        options: GrpoOptions,
        length: int,
    ):
        self.tokenizer, self.rewards, self.environment = tokenizer, rewards, environment
        self.options, self.length = options, length
        self.stop_ids = frozenset(tokenizer.stop_ids)
        self.server: VllmServer | None = None
        """Draws answers in place of the engine, which still gives the greedy ones."""
        self._kept: tuple[Decoder, Decoder | PackedDecoder, Runner] | None = None

    def prompt_ids(self, problem: Problem) -> list[int]:
        """A problem up to where the assistant begins to speak."""
        tools = self.environment.tools if self.environment else None
        return self.tokenizer.chat_template.encode_prompt(self.tokenizer, problem.messages, tools)

    def fits(self, problem: Problem) -> bool:
        """Whether a whole turn fits behind the problem."""
        return len(self.prompt_ids(problem)) + self.options.max_new_tokens <= self.length

    def ask(
        self,
        model: Decoder,
        problems: Sequence[Problem],
        seeds: Sequence[int | None],
        copies: int = 1,
        temperature: float = 0.0,
        advance: Callable[[int], None] = lambda finished: None,
    ) -> list[Answer]:
        """`copies` answers to every problem, in their order.

        Args:
            seeds: one per problem; equal seeds draw equal answers, whatever runs beside them.
            temperature: 0 is greedy.
        """
        model.eval()
        prompts = [self.prompt_ids(problem) for problem in problems]
        room = max(map(len, prompts), default=0) + self.options.max_new_tokens + 1
        length = self.length if self.environment else min(room, self.length)
        rows = max(1, min(self.options.parallel_answers, copies * len(problems)))
        scheduler: Scheduler | VllmServer
        if self.server is not None and temperature:
            scheduler = self.server.load(model)
        else:
            runner, reuse = self._runner(model, rows, length + 1), bool(self.environment)
            scheduler = Scheduler(runner, frozenset(), PREFILL, reuse_prefixes=reuse)
        answers: list[Answer] = []
        asked: dict[int, Answer] = {}
        for number, (ids, seed) in enumerate(zip(prompts, seeds, strict=True)):
            for copy in range(copies):
                answer = Answer(number, ids, [False] * len(ids))
                answers.append(answer)
                request = self._request(answer, temperature, seed, copy, length)
                asked[request.number] = answer
                scheduler.submit(request)
        while scheduler.has_work:
            for event in scheduler.step():
                if not event.finishes:
                    continue
                request = event.request
                answer = asked.pop(request.number)
                self._hear(answer, request)
                if self._goes_on(answer, problems[answer.problem], length):
                    seed, copy = request.options.seed, request.index + copies
                    follow = self._request(answer, temperature, seed, copy, length)
                    asked[follow.number] = answer
                    scheduler.submit(follow)
                else:
                    advance(1)
        for answer in answers:
            self._judge(answer, problems[answer.problem])
        return answers

    def _runner(self, model: Decoder, rows: int, length: int) -> Runner:
        """That of the last time, with its cache and CUDA graphs, reading the weights of now. On a
        GPU it has one copy of them in bfloat16, rather than casting each for every token."""
        if self._kept is not None and self._kept[0] is model:
            _, read, runner = self._kept
            cache = runner.cache
            same = runner.is_current and cache.keys.dtype == model.compute_dtype
            if same and cache.rows >= rows and cache.length >= length:
                if isinstance(read, PackedDecoder):
                    read.follow()
                return runner
            rows, length = max(rows, cache.rows), max(length, cache.length)
        self._kept = None  # its memory first
        adapted = model.token_rows is not None or any(
            "lora_" in n for n, _ in model.named_modules()
        )
        read = model
        casts = model.lm_head.weight.dtype != model.compute_dtype == torch.bfloat16
        if model.device.type == "cuda" and casts and not adapted:
            read = PackedDecoder(model, "bf16")
        self._kept = model, read, make_runner(read, rows, length)
        return self._kept[2]

    def _request(
        self, answer: Answer, temperature: float, seed: int | None, index: int, length: int
    ) -> Request:
        room = min(self.options.max_new_tokens, length - len(answer.ids))
        options = SamplingOptions(temperature=temperature, max_new_tokens=room, seed=seed)
        return Request(answer.ids, options, index, watcher=_TurnEnd(self.stop_ids))

    def _hear(self, answer: Answer, request: Request) -> None:
        """Takes note of a turn of the assistant."""
        turn = self.tokenizer.decode(request.answer)
        # Only a tool's results may look like a tool's results.
        answer.text += turn.replace("<tool_response>", "").replace("</tool_response>", "")
        answer.ids = request.tokens
        answer.learned = answer.learned + [True] * len(request.answer)
        answer.finished = request.finish == "stop"
        answer.turns += 1

    def _goes_on(self, answer: Answer, problem: Problem, length: int) -> bool:
        """Lets the environment answer; whether the assistant speaks again."""
        if self.environment is None or not answer.finished:
            return False
        if answer.turns >= self.options.max_turns:
            return False
        said = answer.text.rpartition("</tool_response>")[2]
        try:
            results = self.environment.respond(said, problem.record)
        except Exception as error:
            raise MiaoError(
                f"the environment failed: {type(error).__name__}: {first_line(error)}",
                where=f"grpo.environment, problem {problem.prompt[:80]!r}, answer {said[:80]!r}",
                fix="mend it; MIAO_DEBUG=1 shows where",
            ) from error
        if not results:
            return False
        between = self._between(results)
        if len(answer.ids) + len(between) + SHORTEST_TURN > length:
            answer.finished = False
            return False
        answer.ids = answer.ids + between
        answer.learned = answer.learned + [False] * len(between)
        for result in results:
            answer.text += f"\n<tool_response>\n{result}\n</tool_response>\n"
        return True

    def _between(self, results: Sequence[str]) -> list[int]:
        """The ids from the end of a turn of the assistant to the beginning of the next one."""
        template, tokenizer = self.tokenizer.chat_template, self.tokenizer
        turns = [Message("user", "?"), Message("assistant", "!")]
        said, learned = template.encode(tokenizer, Conversation(turns))
        end = len(learned) - learned[::-1].index(True)
        answered = [*turns, *(Message("tool", result) for result in results)]
        whole = template.encode_prompt(tokenizer, answered)
        if whole[:end] != said[:end]:
            raise MiaoError(
                "the chat template rewrites earlier turns, so that a tool cannot answer",
                where="grpo.environment",
            )
        return whole[end:]

    def _judge(self, answer: Answer, problem: Problem) -> None:
        answer.text = answer.text.strip()
        answer.values = self.rewards.values(problem.prompt, answer.text, dict(problem.record))
        answer.reward = self.rewards.total(answer.values)


def make_examiner(options: GrpoOptions, model: Decoder, tokenizer: Tokenizer) -> Examiner:
    """Who puts the recipe's problems to a model."""
    return Examiner(
        tokenizer,
        load_rewards(options.rewards),
        load_environment(options.environment),
        options,
        min(options.seq_len + 1, model.config.context_length),
    )


def sample_record(problem: Problem, answer: Answer) -> dict[str, Any]:
    """A problem with its answer and reward, to be looked at."""
    return {"prompt": problem.prompt, "answer": f"{answer.text}  [reward {answer.reward:g}]"}
