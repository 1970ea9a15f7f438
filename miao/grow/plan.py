"""The plan: which model, from which part of the text, in how many minutes of each stage, and why.

Expected bits per byte come from the rules (`miao.rules`), for the text that fits into the minutes
at the speed that was measured, repeated where there is less, at the level of this text; earlier
runs beside this one correct level and speed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from miao import rules
from miao.errors import MiaoError
from miao.files import free_space
from miao.grow.found import BYTES_PER_TOKEN, Found, bytes_per_token, expected
from miao.grow.given import Given
from miao.grow.machine import SEQ_LEN, Speed, shape_config
from miao.grow.outcome import Earlier, earlier
from miao.model import count_parameters
from miao.model.estimate import training_memory

SHAPES = (
    (64, 2), (96, 3), (128, 2), (128, 4), (192, 4), (256, 4), (256, 6), (320, 6), (384, 6),
    (384, 8), (512, 8), (640, 10), (768, 12), (1024, 16), (1280, 20), (1536, 24),
)  # fmt: skip
"""Width and blocks."""
CHARACTERS_PER_ENTRY = 40
"""Of text, below which a vocabulary of this size is not learned well."""
EQUAL = 0.005
"""Of the bits per byte: candidates that are nearer than this are as good, and the smaller is
taken."""
SHOWN = 5
WITH_DPO = 10.0
"""Minutes from which preferences are worth theirs, where no pairs were brought."""
TOKENS_PER_TALK = 45
"""Of a built-in conversation."""
TALKS = (300, 24_000)
TOKENS_PER_PASSAGE = 90
"""Of a conversation that is made from the text."""
CHARACTERS_PER_PASSAGE = 120
"""Of text, for one of them: what its sentences give."""
PASSAGES = (0.4, 0.2)
"""Share of these in what is talked; where own conversations were brought."""
MARGIN = 1.2
"""Text that is taken over what will be read: cleaning and tokenising it cost time, and what is read
twice on a machine that got faster teaches nearly as much."""
TAKEN = 1_000_000
"""Characters that are taken at least, where there are so many: the machine may get faster."""


@dataclass(frozen=True)
class Candidate:
    """A shape and vocabulary, and what they would come to."""

    width: int
    blocks: int
    vocabulary: int
    parameters: int
    inner: int
    """Parameters outside of the embedding."""
    tokens_per_second: float
    tokens: float
    """That pretraining reads."""
    times: float
    """How often it reads the text."""
    bits: float
    low: float
    high: float


@dataclass
class Plan:
    """What will be done, and why."""

    minutes: float
    stages: dict[str, float]
    """Minutes of each stage of training."""
    aside: float
    """Minutes for everything else."""
    candidates: list[Candidate]
    talks: int
    """Built-in conversations."""
    passages: int
    """Conversations that are made from the text."""
    characters: float
    """Of text that is taken."""
    heldout: float
    level: float
    """Of this text over that of the rules, corrected by earlier runs."""
    pace: float
    """What earlier runs here came to in speed, over what was measured."""
    runs: int
    """How many told of the level."""
    processes: int = 1
    notes: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    given: Given | None = None
    going_on: tuple[float, float, float] | None = None
    """Bits per byte that going on with `given` is to bring, and their interval; None: it is none,
    or cannot be taken."""

    @property
    def best(self) -> Candidate:
        """Of the new models."""
        return self.candidates[0]

    @property
    def goes_on(self) -> bool:
        """Whether the given model is trained further, instead of a new one."""
        return self.going_on is not None and self.going_on[0] <= self.best.bits

    @property
    def bits(self) -> tuple[float, float, float]:
        """What is expected, and the interval."""
        if self.goes_on and self.going_on:
            return self.going_on
        return self.best.bits, self.best.low, self.best.high

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"goes_on": self.goes_on}


def make_plan(
    found: Found,
    speed: Speed,
    minutes: float,
    spent: float,
    out: Path,
    given: Given | None = None,
) -> Plan:
    """Args:
        minutes: in all. spent: seconds of them that are gone.
        out: where the runs are. given: a model to go on with, if that is better.

    Raises:
        MiaoError: nothing fits into the time, or onto the disk.
    """
    seconds = 60 * minutes
    aside = spent + _preparing(found, seconds) + _measuring(seconds)
    training = seconds - aside
    if training < 0.25 * seconds:
        raise MiaoError(
            f"of {minutes:g} minutes {aside / 60:.1f} would go into reading, measuring and writing",
            where="--minutes",
            fix=f"give it {math.ceil(2 * aside / 60)} minutes or more",
        )
    before = earlier(out, speed.host, found)
    speed = speed.paced(before.pace)
    pairs = found.total("preference", "records")
    dpo = 0.1 if pairs or minutes >= WITH_DPO else 0.0
    sft = (0.45 if minutes <= 3 else 0.35) - dpo  # so more time is never less for the text
    candidates = ranked(found, speed, training * (1 - sft - dpo), before)
    if not candidates:
        raise MiaoError("no model fits into the memory", fix="free some memory, or bring more text")
    best = candidates[0]
    talk_tokens = training * sft * best.tokens_per_second
    most = 3 * TOKENS_PER_TALK * TALKS[1] + 3 * found.total("conversation", "characters")
    if talk_tokens > most:  # what it would read a fourth time goes into text
        sft *= most / talk_tokens
        talk_tokens = most
        candidates = ranked(found, speed, training * (1 - sft - dpo), before)
        best = candidates[0]
    part = PASSAGES[bool(found.of("conversation"))]
    half = (1 - part) * talk_tokens / 2
    talks = round(min(max(half / TOKENS_PER_TALK, TALKS[0]), TALKS[1]))
    text = found.total("document", "characters")
    passages = round(part / (1 - part) * talks * TOKENS_PER_TALK / TOKENS_PER_PASSAGE)
    passages = min(passages, round(text / CHARACTERS_PER_PASSAGE))
    shares = {"pretrain": 1 - sft - dpo, "sft": sft} | ({"dpo": dpo} if dpo else {})
    per_token = (
        text
        / max(found.total("document", "bytes"), 1)
        * bytes_per_token(best.vocabulary, found.chinese)
    )
    plan = Plan(
        minutes,
        {stage: share * training / 60 for stage, share in shares.items()},
        aside / 60,
        candidates[:SHOWN],
        talks,
        passages,
        min(text, max(MARGIN * best.tokens * per_token, TAKEN)),
        _heldout(text),
        before.level * found.level,
        before.pace,
        before.runs,
        speed.processes,
    )
    if given is not None:
        _compare(plan, given, found, training * shares["pretrain"], before)
    _explain(plan, found, speed, training * shares["pretrain"], before)
    _require_disk(plan, out)
    return plan


def _compare(plan: Plan, given: Given, found: Found, seconds: float, before: Earlier) -> None:
    """Both roads beside each other."""
    best, plan.given = plan.best, given
    new = f"from scratch: {best.bits:.3f} bits per byte ({best.low:.2f} to {best.high:.2f})"
    if given.against:
        plan.why["model.path"] = f"{new}; from {given.path}: not possible, {given.against}"
        return
    tokens = given.tokens_per_second * before.pace * seconds
    plan.going_on = given.after(tokens, found, before.level * found.level)
    value, low, high = plan.going_on
    plan.why["model.path"] = (
        f"{new}; from {given.path}: {given.now:.3f} now (measured), {value:.3f} after "
        f"{tokens:,.0f} tokens ({low:.2f} to {high:.2f}: a guess), so "
    ) + ("it goes on" if plan.goes_on else "a new one is grown")


def ranked(found: Found, speed: Speed, seconds: float, before: Earlier) -> list[Candidate]:
    """All that fit, the one to take first, then by their bits per byte."""
    text = found.total("document", "bytes")
    characters = found.total("document", "characters")
    vocabularies = [v for v in BYTES_PER_TOKEN if v * CHARACTERS_PER_ENTRY <= characters]
    made = []
    for width, blocks in SHAPES:
        for vocabulary in vocabularies or [min(BYTES_PER_TOKEN)]:
            config = shape_config(width, blocks, vocabulary)
            if not speed.holds(training_memory(config, 8, SEQ_LEN, True).total):
                continue
            counted = count_parameters(config)
            inner = counted.inner
            rate = speed.tokens_per_second(config)
            tokens = rate * seconds
            read = tokens * bytes_per_token(vocabulary, found.chinese)
            bits, level = expected(found, inner, vocabulary, tokens), before.level * found.level
            value = level * bits.value
            low = value - level * math.hypot(bits.value - bits.low, before.doubt * bits.value)
            high = value + level * math.hypot(bits.high - bits.value, before.doubt * bits.value)
            made.append(
                Candidate(
                    width, blocks, vocabulary, counted.total, inner, rate, tokens, read / text,
                    value, low, high,
                )
            )  # fmt: skip
    made.sort(key=lambda one: one.bits)
    if not made:
        return []
    near = [one for one in made if one.bits <= (1 + EQUAL) * made[0].bits]
    taken = min(near, key=lambda one: one.parameters)
    return [taken, *(one for one in made if one is not taken)]


def _preparing(found: Found, seconds: float) -> float:
    """Seconds to clean, learn a tokenizer, tokenise: 2.8M characters took 23 on one core, 1M 8."""
    characters = sum(source.characters for source in found.sources)
    return 8.0 + min(characters / 200_000, 0.05 * seconds)


def _measuring(seconds: float) -> float:
    """Seconds for evaluations and the report."""
    return 4.0 + 0.04 * seconds


def _heldout(characters: float) -> float:
    """Share of the text: some 100,000 characters of much, a twentieth of little."""
    return float(f"{min(max(100_000 / characters, 0.002), 0.05):.1g}")


def _require_disk(plan: Plan, out: Path) -> None:
    best = plan.best
    parameters = plan.given.parameters if plan.goes_on and plan.given else best.parameters
    needed = 60 * parameters + 8 * plan.characters + 2**24
    if needed > (free := free_space(out)):
        raise MiaoError(
            f"this run writes about {needed / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB of disk "
            "are free",
            where=out,
            fix="free some space, or choose another place with --out_dir",
        )


def _explain(plan: Plan, found: Found, speed: Speed, seconds: float, before: Earlier) -> None:
    """A line of reason for every choice, and what would bring more."""
    best, text = plan.best, found.total("document", "characters")
    characters, told = f"{text:,.0f} characters", plan.passages * TOKENS_PER_PASSAGE
    share = told / (told + plan.talks * TOKENS_PER_TALK)
    plan.why |= {
        "tokenizer.vocab_size": f"{characters} of text, {CHARACTERS_PER_ENTRY} or more for each "
        "entry; a larger head would cost more time than its longer tokens save",
        "model.hidden_size": f"of {len(SHAPES)} shapes the smallest that comes within {EQUAL:.1%} "
        f"of the fewest bits per byte after {seconds / 60:.1f} minutes at "
        f"{best.tokens_per_second:,.0f} tokens per second",
        "pretrain.minutes": f"{best.tokens:,.0f} tokens: the text {best.times:.1f} times",
        "pretrain.learning_rate": "from the rule of rates (miao/rules.json)",
        "pretrain.batch_tokens": "from the rule of batches: small steps learn more per token",
        "pretrain.weight_decay": "the less text, the more: else it would be learned by heart",
        "sft.minutes": f"{plan.talks:,} built-in conversations beside "
        f"{found.total('conversation', 'records'):,.0f} of yours and {plan.passages:,} about your "
        f"text, made from it ({share:.0%} of what is talked)",
        "dpo.enabled": "your pairs"
        if found.of("preference")
        else "manners and sums, which the chat was taught"
        if "dpo" in plan.stages
        else f"below {WITH_DPO:g} minutes they are better spent on talking",
    }
    time_gain = best.bits - _best_bits(found, speed, 2 * seconds, before)
    text_gain = best.bits - _best_bits(found, speed, seconds, before, 2.0)
    better = "twice the time" if time_gain >= text_gain else "twice the text"
    plan.notes.append(
        f"bits per byte would change by {-time_gain:+.3f} with twice the time, by "
        f"{-text_gain:+.3f} with twice the text; so {better} is worth more"
    )
    if best.times > rules.MOST_PASSES:
        plan.notes.append(
            f"the text is read {best.times:.0f} times, and what is read more than "
            f"{rules.MOST_PASSES} times teaches little more: bring more text rather than more time"
        )
    if text < 100_000:
        plan.notes.append(
            "so little text gives a model that knows some of its words and phrases; it will not "
            "write well, whatever the time"
        )
    chats = found.total("conversation", "records")
    if 0 < chats < 50:
        plan.notes.append(f"{chats:.0f} conversations colour the answers, and teach no new skill")
    if rules.extrapolated(best.inner, best.tokens):
        plan.notes.append("the rules have not been measured at this size and length")
    if speed.device != "cpu":
        plan.notes.append("GPU: sizes above those that the rules were measured at")


def _best_bits(
    found: Found, speed: Speed, seconds: float, before: Earlier, more_text: float = 1.0
) -> float:
    """Bits per byte of the best candidate of other circumstances."""
    bigger = Found(
        [
            replace(one, characters=one.characters * more_text, bytes=one.bytes * more_text)
            for one in found.sources
        ],
        level=found.level,
    )
    return min(c.bits for c in ranked(bigger, speed, seconds, before))
