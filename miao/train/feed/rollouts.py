"""Steps for GRPO: problems are put to the model as it is now, its answers judged, packed and
learned from; then the next problems are asked.

The weights are shared in memory with the engine that generates. Of several processes each asks its
share of the problems; all know all answers, and learn from their shares of the same rows. The state
is the number of the rollout and, in the middle of one, its answers, so that a run goes on exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch

from miao.console import say, warn
from miao.errors import MiaoError
from miao.model import Decoder
from miao.ops.head_chunks import IGNORE
from miao.recipe import parse_quantity
from miao.recipe.grpo import GrpoOptions
from miao.rewards import Problem, load_problems
from miao.rewards.answers import Answer, Examiner, make_examiner, sample_record
from miao.rewards.served import VllmServer, check_served
from miao.shards.packing import best_fit_rows
from miao.tokenizer import Tokenizer
from miao.train.distributed.world import World
from miao.train.feed.prefetch import Step, Whole
from miao.train.objectives.base import hidden_states
from miao.train.objectives.grpo import RolloutBatch, group_advantages, policy_logprobs
from miao.train.optim import local

MOST_SILENT = 20
"""Rollouts in a row without any signal that end the training."""
Rows = list[list[Answer]]


@dataclass
class Pool:
    """The answers of one rollout that there is something to learn from, and of all of them the
    number, what they said, their length and figures."""

    answers: list[Answer]
    count: int
    said: int
    tokens: int
    figures: dict[str, float] = field(default_factory=dict)


class Rollouts:
    """The source of GRPO's steps (`StepSource`).

    Groups whose answers are all worth the same give no gradient, nor do answers that are worth
    their group's mean: without a KL term they are left out of the passes, while everything is still
    divided by the number of all.

    Args:
        model: the one that is trained. reference: the one that it must not leave, or None.
    """

    def __init__(
        self,
        options: GrpoOptions,
        model: Decoder,
        examiner: Examiner,
        problems: Sequence[Problem],
        heldout: Sequence[Problem],
        seed: int,
        world: World,
        reference: Decoder | None = None,
    ):
        self.options, self.model, self.examiner = options, model, examiner
        self.world, self.seed, self.reference = world, seed, reference
        self.answering: Callable[[], Decoder] | None = None
        """Of a model that is spread: gives what this process can generate with by itself."""
        self.problems = [p for p in problems if examiner.fits(p)]
        self.heldout_problems = [p for p in heldout if examiner.fits(p)]
        self.left_out = len(problems) + len(heldout)
        self.left_out -= len(self.problems) + len(self.heldout_problems)
        if not self.problems:
            raise MiaoError(
                f"no problem fits a row of {options.seq_len} tokens beside an answer of "
                f"{options.max_new_tokens}",
                where="grpo.seq_len",
                fix="raise it, or lower grpo.max_new_tokens",
            )
        self.rows_per_step = max(
            1, int(parse_quantity(options.batch_tokens, "batch_tokens")) // options.seq_len
        )
        self.figures: dict[str, float] = {}
        """Of the rollout that the coming steps are made of; `GrpoObjective` logs them."""
        self.number = self.done = self.silent = 0
        self.pool: Pool | None = None

    def steps(self, tokens: int, budget: float) -> Generator[tuple[Step, float], None, None]:
        """See `StepSource`; ends early when nothing is left to learn."""
        while tokens < budget:
            began = time.perf_counter()
            if self.pool is None:
                if self.silent >= MOST_SILENT:
                    self._say_silent()
                    return
                self.pool = self._roll_out()
            pool, plan = self.pool, self._plan(self.pool)
            self.figures.clear()
            self.figures |= pool.figures
            total = pool.tokens * self.options.passes
            while self.pool is not None and tokens < budget:
                rows, number = plan[self.done], self.done
                of_step = total * (number + 1) // len(plan) - total * number // len(plan)
                share = self._batch(self.world.share_of(rows), self._scale(rows, plan, pool))
                tokens += of_step
                self._count_step(len(plan))
                step = Step(share, Whole(len(rows), of_step, share.sequences), self.state())
                yield step, time.perf_counter() - began
                began = time.perf_counter()

    def state(self) -> dict[str, Any]:
        pool = None
        if self.pool is not None:
            pool = vars(self.pool) | {"answers": [vars(answer) for answer in self.pool.answers]}
        return {"rollout": self.number, "done": self.done, "silent": self.silent, "pool": pool}

    def restore(self, state: dict[str, Any]) -> None:
        self.number, self.done, self.silent = state["rollout"], state["done"], state["silent"]
        self.pool = None
        if (pool := state["pool"]) is not None:
            self.pool = Pool(**pool | {"answers": [Answer(**answer) for answer in pool["answers"]]})

    def samples(self, model: Decoder, most: int = 4) -> list[dict[str, Any]]:
        """Greedy answers to held-out problems, with their rewards."""
        problems = self.heldout_problems[:most]
        answers = self.examiner.ask(model, problems, [None] * len(problems))
        return [sample_record(p, answer) for p, answer in zip(problems, answers, strict=True)]

    def heldout(self, model: Decoder, most: int = 200) -> dict[str, float]:
        """The mean reward of greedy answers to held-out problems."""
        problems = self.heldout_problems[:most]
        if not problems:
            return {}
        model = self.answering() if self.answering else model
        answers = self.examiner.ask(model, problems, [None] * len(problems))
        return {"heldout_reward": fmean(answer.reward for answer in answers)}

    def _count_step(self, of: int) -> None:
        self.done += 1
        if self.done == of:
            self.number, self.done, self.pool = self.number + 1, 0, None

    def _roll_out(self) -> Pool:
        """Asks the next problems, and keeps what there is to learn."""
        options, training = self.options, self.model.training
        model = self.answering() if self.answering else self.model
        began = time.perf_counter()
        chosen = self._next_problems()
        mine = self.world.share_of(list(enumerate(chosen)))
        try:
            asked = [problem for _, problem in mine]
            seeds = [self._seed_of(index) for index, _ in mine]
            size, temperature = options.group_size, options.temperature
            answers = self.examiner.ask(model, asked, seeds, size, temperature)
        except torch.OutOfMemoryError as error:
            raise MiaoError(
                f"out of memory with {options.parallel_answers} answers at the same time",
                where="grpo",
                fix="run again with a smaller --grpo.parallel_answers; it continues",
            ) from error
        for answer in answers:
            answer.problem = mine[answer.problem][0]
        everyone = [a for given in self.world.gather_objects(answers) for a in given]
        seconds = time.perf_counter() - began
        groups = _groups(everyone, options.group_size)
        for group in groups:
            rewards = [answer.reward for answer in group]
            advantages = group_advantages(rewards, options.loss != "dr_grpo")
            for answer, advantage in zip(group, advantages, strict=True):
                answer.advantage = advantage
        telling = [group for group in groups if any(a.advantage for a in group)]
        self.silent = 0 if telling else self.silent + 1
        kept = groups if options.kl_coef else telling or groups[:1]
        pool = Pool(
            [a for group in kept for a in group if a.advantage or not telling or options.kl_coef],
            len(everyone),
            max(1, sum(answer.said for answer in everyone)),
            sum(len(answer.ids) - 1 for answer in everyone),
            _figures(
                everyone, groups, len(telling), seconds, self.examiner.environment is not None
            ),
        )
        self._note_logprobs(pool, model)
        self.model.train(training)
        return pool

    def _next_problems(self) -> list[Problem]:
        """The problems of this rollout: all in a random order, then all in another."""
        count, size = self.options.prompts_per_rollout, len(self.problems)
        first = self.number * count
        order: dict[int, Any] = {}
        chosen = []
        for place in range(first, first + count):
            epoch = place // size
            if epoch not in order:
                order[epoch] = np.random.default_rng([self.seed, epoch]).permutation(size)
            chosen.append(self.problems[order[epoch][place % size]])
        return chosen

    def _seed_of(self, index: int) -> int:
        place = self.number * self.options.prompts_per_rollout + index
        return (self.seed << 40) + place

    def _plan(self, pool: Pool) -> list[Rows]:
        """The rows of every step of every pass; the same whenever it is asked for."""
        sizes = [len(answer.ids) - 1 for answer in pool.answers]
        packed = best_fit_rows(sizes, self.options.seq_len)
        rows = [[pool.answers[index] for index in row] for row in packed]
        steps = -(-len(rows) // self.rows_per_step)
        plan = []
        for turn in range(self.options.passes):
            order = np.random.default_rng([self.seed, self.number, turn]).permutation(len(rows))
            for step in range(steps):
                part = order[len(rows) * step // steps : len(rows) * (step + 1) // steps]
                plan.append([rows[index] for index in part])
        return plan

    def _scale(self, rows: Rows, plan: list[Rows], pool: Pool) -> float:
        """What the loss of a token is multiplied with, but for `grpo`'s division by the answer's
        length. The loop divides by the answers of the step."""
        steps = len(plan) // self.options.passes
        in_step = sum(map(len, rows)) * steps
        if self.options.loss == "grpo":
            return in_step / pool.count
        if self.options.loss == "dr_grpo":
            turns = self.options.max_turns if self.examiner.environment else 1
            return in_step / (pool.count * turns * self.options.max_new_tokens)
        return in_step / pool.said

    def _note_logprobs(self, pool: Pool, model: Decoder) -> None:
        """log p of what was said, where the weights will move before it is learned, and of the
        reference model; each process computes a share."""
        moves = len(self._plan(pool)) > 1
        if not moves and self.reference is None:
            return
        mine = self.world.share_of(pool.answers)
        found = [
            self._logprobs(model, mine) if moves else None,
            self._logprobs(self.reference, mine) if self.reference is not None else None,
        ]
        for column, name in enumerate(("old", "reference")):
            told = [given[column] for given in self.world.gather_objects(found)]
            if told[0] is None:
                continue
            values = [numbers for given in told for numbers in given]
            for answer, numbers in zip(pool.answers, values, strict=True):
                setattr(answer, name, numbers)

    @torch.no_grad()
    def _logprobs(self, model: Decoder, answers: Sequence[Answer]) -> list[list[float]]:
        model.eval()
        sizes = [len(answer.ids) - 1 for answer in answers]
        found: list[list[float]] = [[] for _ in answers]
        packed = best_fit_rows(sizes, self.options.seq_len)
        at_once = max(1, 8192 // self.options.seq_len)
        if local(model.lm_head.weight) is not model.lm_head.weight:
            self._read_nothing(model, -(-len(packed) // at_once))
        for first in range(0, len(packed), at_once):
            part = packed[first : first + at_once]
            rows = self._batch([[answers[index] for index in row] for row in part], 1.0)
            batch = rows.to(model.device, rows.document_places if model.has_varlen else None)
            values = policy_logprobs(model, model, batch, self.options.temperature).cpu()
            for row, line in zip(part, values, strict=True):
                slot = 0
                for index in row:
                    found[index] = line[slot : slot + sizes[index]].tolist()
                    slot += sizes[index]
        return found

    def _read_nothing(self, model: Decoder, passes: int) -> None:
        """As many passes as another process needs more, where all must run equally many."""
        most = max(number for [number] in self.world.gather([passes]))
        empty = self._batch([], 1.0).empty(1).to(model.device, 1 if model.has_varlen else None)
        for _ in range(most - passes):
            hidden_states(model, empty)

    def _batch(self, rows: Rows, scale: float) -> RolloutBatch:
        """Packed rows of answers."""
        shape = (len(rows), self.options.seq_len)
        ids, positions, segments = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
        labels = torch.full(shape, IGNORE, dtype=torch.int64)
        numbers = {name: torch.zeros(shape) for name in ("advantages", "shares", "scales")}
        logprobs = {
            name: torch.zeros(shape)
            for name in ("old", "reference")
            if rows and getattr(rows[0][0], name) is not None
        }
        for b, row in enumerate(rows):
            slot = 0
            for segment, answer in enumerate(row, start=1):
                size = len(answer.ids) - 1
                here = slice(slot, slot + size)
                learned = torch.tensor(answer.learned[1:])
                target = torch.tensor(answer.ids[1:])
                ids[b, here] = torch.tensor(answer.ids[:-1])
                labels[b, here] = target.masked_fill(~learned, IGNORE)
                positions[b, here], segments[b, here] = torch.arange(size), segment
                share = learned / max(answer.said, 1)
                numbers["shares"][b, here] = share
                numbers["advantages"][b, here] = answer.advantage
                numbers["scales"][b, here] = scale * (
                    share if self.options.loss == "grpo" else learned.float()
                )
                for name, column in logprobs.items():
                    column[b, here] = torch.tensor(getattr(answer, name))
                slot += size
        return RolloutBatch(
            ids,
            labels,
            positions,
            segments,
            sequences=[[(f"rollout {self.number}", a.problem) for a in row] for row in rows],
            reference_bt=logprobs.get("reference"),
            advantages_bt=numbers["advantages"],
            shares_bt=numbers["shares"],
            scales_bt=numbers["scales"],
            old_bt=logprobs.get("old"),
        )

    def _say_silent(self) -> None:
        reward = self.figures.get("reward", 0.0)
        warn(
            f"grpo: in {MOST_SILENT} rollouts in a row all answers to each problem were worth the "
            f"same (mean reward {reward:.3f}): nothing is left to learn, the stage ends here"
        )


def make_rollouts(
    options: GrpoOptions,
    model: Decoder,
    tokenizer: Tokenizer,
    seed: int,
    world: World,
    reference: Decoder | None = None,
) -> Rollouts:
    """What a recipe's GRPO asks; says it.

    Args:
        reference: of the KL term.

    Raises:
        MiaoError: problems, rewards or the environment are not there or no good.
    """
    problems, heldout = load_problems(options, seed)
    examiner = make_examiner(options, model, tokenizer)
    rollouts = Rollouts(options, model, examiner, problems, heldout, seed, world, reference)
    if options.rollouts == "vllm":
        check_served(model.config, world.size)
        examiner.server = VllmServer(options, examiner.stop_ids, examiner.length)
    rewards = ", ".join(f"{weight:g} × {name}" for name, weight in options.rewards.items())
    say(
        f"  {len(rollouts.problems):,} problems and {len(rollouts.heldout_problems):,} held out; "
        f"{options.prompts_per_rollout} × {options.group_size} answers per rollout; reward: "
        f"{rewards}"
    )
    if rollouts.left_out:
        say(f"  {rollouts.left_out} problems are too long for a row and are left out")
    return rollouts


def _groups(answers: list[Answer], size: int) -> list[list[Answer]]:
    return [answers[first : first + size] for first in range(0, len(answers), size)]


def _figures(
    answers: list[Answer],
    groups: list[list[Answer]],
    telling: int,
    seconds: float,
    with_turns: bool,
) -> dict[str, float]:
    """Means over all answers of a rollout."""
    rewards = torch.tensor([[a.reward for a in group] for group in groups], dtype=torch.float64)
    figures = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(dim=1).mean()),
        "groups_without_signal": 1 - telling / len(groups),
        "answer_tokens": fmean(a.said for a in answers),
        "unfinished": fmean(not a.finished for a in answers),
        "rollout_tokens_per_second": sum(a.said for a in answers) / max(seconds, 1e-9),
    }
    names = answers[0].values
    if len(names) > 1:
        figures |= {f"reward {name}": fmean(a.values[name] for a in answers) for name in names}
    if with_turns:
        figures["turns"] = fmean(a.turns for a in answers)
    return figures
