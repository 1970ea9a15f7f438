"""What the model says: samples stage by stage, answers that DPO changed, answers that are wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from miao.report.data import Record, RunData
from miao.report.words import Text, category_name, quantity, stage_name

SHOWN = 12
LONGEST = 1200
"""Characters of one text that are shown."""


@dataclass(frozen=True)
class Answer:
    """A text of the model, and which model it was."""

    label: Text
    hue: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A prompt and what the stages made of it; a beginning of text is continued, not answered."""

    prompt: str
    continued: bool
    answers: list[Answer]


@dataclass(frozen=True)
class Changes:
    """Answers that are others than before the stage. Those whose verdict changed come first."""

    stage: str
    of: int
    count: int
    mended: int
    broken: int
    shown: list[Record]
    """`question`, `before`, `after`, `right_before`, `right_after`."""


@dataclass(frozen=True)
class Mistake:
    category: Text
    question: str
    answer: str
    expected: str


@dataclass(frozen=True)
class Mistakes:
    """Wrong answers of the last stage that was asked, spread over the categories."""

    stage: Text
    of: int
    count: int
    by_category: list[tuple[Text, int, int]]
    """Category, wrong ones, all of them."""
    shown: list[Mistake]


def samples(data: RunData) -> list[Sample]:
    """Each prompt with the last text of every stage; after pretraining alone, the first too."""
    prompts: dict[str, list[Answer]] = defaultdict(list)
    continued: dict[str, bool] = {}
    for stage in data.stages:
        by_prompt: dict[str, list[Record]] = defaultdict(list)
        for record in data.samples.get(stage, []):
            by_prompt[record["prompt"]].append(record)
        for prompt, records in by_prompt.items():
            continued.setdefault(prompt, stage == "pretrain")
            first, last = records[0], records[-1]
            if stage == "pretrain" and first["tokens"] < last["tokens"]:
                prompts[prompt].append(_answer(stage, first, with_tokens=True))
            prompts[prompt].append(_answer(stage, last, with_tokens=stage == "pretrain"))
    return [Sample(clip(prompt), continued[prompt], answers) for prompt, answers in prompts.items()]


def changes(data: RunData) -> list[Changes]:
    """What a stage changed in the answers to the held-out questions."""
    found = []
    for stage in data.stages:
        note = data.evaluations.get(stage, {}).get("changed_answers")
        if note is None:
            continue
        records = note["changed"]
        mended = [r for r in records if r["right_after"] and not r["right_before"]]
        broken = [r for r in records if r["right_before"] and not r["right_after"]]
        same = [r for r in records if r["right_before"] == r["right_after"]]
        # Half of the room to each kind of change, so that neither good nor bad news is hidden.
        half = SHOWN // 2
        picked = [
            *mended[: max(half, SHOWN - len(broken))],
            *broken[: max(half, SHOWN - len(mended))],
            *same,
        ]
        shown = [
            {key: clip(value) if isinstance(value, str) else value for key, value in r.items()}
            for r in picked[:SHOWN]
        ]
        found.append(Changes(stage, note["of"], len(records), len(mended), len(broken), shown))
    return found


def mistakes(data: RunData) -> Mistakes | None:
    """Wrong answers after the last stage that has answers; None: no questions were asked."""
    asked = [stage for stage in data.stages if data.answers.get(stage)]
    if not asked:
        return None
    answers = data.answers[asked[-1]]
    wrong: dict[str, list[Record]] = defaultdict(list)
    for record in answers:
        if not record["right"]:
            wrong[record["category"]].append(record)
    # Round and round over the categories: the first of each, the second of each, ...
    queues = list(wrong.values())
    rounds = range(max(map(len, queues), default=0))
    spread = [queue[turn] for turn in rounds for queue in queues if turn < len(queue)]
    total = Counter(record["category"] for record in answers)
    return Mistakes(
        stage_name(asked[-1]),
        len(answers),
        len(spread),
        [(category_name(name), len(wrong.get(name, [])), number) for name, number in total.items()],
        [
            Mistake(
                category_name(r["category"]),
                clip(r["question"]),
                clip(r["answer"]),
                " / ".join(data.expected.get(r["question"], [])[:3]),
            )
            for r in spread[:SHOWN]
        ],
    )


def clip(text: str) -> str:
    """At most `LONGEST` characters, and a mark where more were cut off."""
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} […]"


def _answer(stage: str, record: Record, with_tokens: bool) -> Answer:
    name = stage_name(stage)
    if with_tokens:
        seen = quantity(record["tokens"])
        name = Text(f"读过 {seen} 词元", f"after {seen} tokens")
    return Answer(name, stage, clip(record["answer"]))
