"""`miao eval`: benchmarks on a model, honest about what they show; and comparisons of models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from miao.commands.eval_data import task_data
from miao.commands.eval_sets import CORE, run_set
from miao.console import ProgressLine, headline, print_table, say, warn
from miao.errors import MiaoError
from miao.evaluate.tasks.items import Questions, read_questions
from miao.evaluate.tasks.sets import built_in_sets, is_set, load_set
from miao.evaluate.tasks.task import PromptStyle, Scoring, Task, built_in_tasks, load_task
from miao.language import AsWritten, Parser

if TYPE_CHECKING:
    from miao.evaluate.benchmark import Asked
    from miao.evaluate.results.summary import Summary
    from miao.evaluate.tasks.prompts import Encoder
    from miao.model import Decoder

EPILOG = """other uses:
  miao eval list                         the tasks, their prompts and the files that they look for
  miao eval compare RUN_A RUN_B ...      differences on the same questions, with significance
  miao eval stages RUN ...               what each stage of runs scored, and what it changed
  miao eval cloze FILE ...               questions from held-out texts of your own (--tasks cloze)
  miao eval writing MODEL                repetition, ends, language, verifiable instructions
  miao eval arena A B C --url URL --judge MODEL    a judge behind an OpenAI-compatible API compares
                                         all pairs; a table of strengths (also: eval judge A B)
  miao eval card MODEL [--beside B C]    one page: what it knows, can and cannot, beside others
  miao eval samples MODEL                a fixed set of prompts, to read with your own eyes
"""
OTHER_USES = {
    "cloze": "eval_cloze",
    "stages": "eval_stages",
    "judge": "eval_arena",
    "arena": "eval_arena",
    "samples": "eval_samples",
    "writing": "eval_writing",
    "card": "eval_card",
}
DEFAULT_DATA = "data/eval"
ROWS_SHOWN = 24


def main(words: Sequence[str]) -> int:
    """Runs `miao eval WORDS`."""
    if words[:1] == ["list"]:
        return _list()
    if words[:1] == ["compare"]:
        return _compare(words[1:])
    if words and (module := OTHER_USES.get(words[0])):
        found = import_module(f"miao.commands.{module}")
        return int(found.main(words[1:]))
    options = _parser().parse_args(words)
    if options.harness == "lm-eval":
        from miao.commands.eval_harness import run_lm_eval

        run_lm_eval(options)
        return 0
    evaluate(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="miao eval",
        description="Benchmarks on a model: accuracy with its standard error, beside guessing.",
        epilog=EPILOG,
        formatter_class=AsWritten,
    )
    add = parser.add_argument
    add("model", help="a run (runs/NAME), a model directory or a name on a hub")
    add(
        "--tasks", nargs="+", required=True, metavar="TASK", help="early: one score of what "
        "small models show first, no files needed; grown: with skills, from 100M on; core: CORE of "
        "DCLM and nanochat; "
        f"{', '.join(built_in_tasks())}, or YAML files of yours",
    )  # fmt: skip
    add("--data", default=DEFAULT_DATA, help="folder of the tasks' files (default data/eval), or "
        "hf:owner/name")  # fmt: skip
    add("--prompts", help="whose prompts: lm-eval, opencompass, miao (default: the task's first)")
    add(
        "--scoring",
        choices=get_args(Scoring),
        help="letter: log p of the letter; option: of the option's text; ppl: of each whole "
        "prompt; greedy: whether the model writes the right option by itself; bits: bits "
        "per byte of whole texts; generate: free text "
        "(default: the prompts' own)",
    )
    add("--shots", type=int, help="examples before each question (default: the prompts' own)")
    add("--split", help="which split (default: the task's)")
    add("--subjects", nargs="+", default=[], metavar="NAME", help="only these subjects")
    add("--limit", type=int, help="at most so many questions per subject")
    add("--stage", help="a stage of the run (default: the last model)")
    add("--chat", action="store_true", help="ask in the chat template: the description as "
        "system message, an example as two turns, as lm-eval's --apply_chat_template")  # fmt: skip
    add("--system", help="with --chat: a system prompt")
    add("--begin-document", action="store_true", help="put the token that documents begin with "
        "before every prompt")  # fmt: skip
    add("--contamination", nargs="+", default=[], metavar="FILE", help="training text in which the "
        "questions are looked for")  # fmt: skip
    add("--by-subject", action="store_true", help="show all subjects, however many")
    add("--show", type=int, metavar="N", help="print the first N prompts and leave")
    add("--device", default="auto", help="auto, cpu, cuda, mps")
    add("--precision", default="fp32", choices=("auto", "fp32", "bf16"), help="default fp32")
    add("--out", type=Path, help="where results go (default: the run, or eval_results/NAME)")
    add("--harness", choices=("miao", "lm-eval"), default="miao", help="lm-eval: "
        "lm-evaluation-harness asks, Miao's engine answers; its own task names")  # fmt: skip
    add("--include-path", help="with --harness lm-eval: a folder of its task files")
    return parser


def evaluate(options: argparse.Namespace) -> None:
    """Every task, one after the other; what is wrong with any is said before a model is loaded."""
    sets = [name for name in options.tasks if name == CORE or is_set(name)]
    work = [_prepared(name, options) for name in options.tasks if name not in sets]
    for name in sets:
        run_set(name, options)
    if not work:
        return
    if options.show:
        for task, _, style, questions, _ in work:
            _show(task, style, questions, options.show)
        return
    from miao.evaluate.measure.loading import load_for_evaluation
    from miao.evaluate.results.store import find_target, write_results, write_submission

    target = find_target(options.model, options.stage, options.out)
    flags = [_contaminated(options.contamination, questions) for _, _, _, questions, _ in work]
    model, encoder = load_for_evaluation(target.directory, options)
    for (task, style_name, style, questions, shots), flagged in zip(work, flags, strict=True):
        headline(f"{task.title_en}: {target.name}")
        asked = _ask(model, encoder, task, style_name, style, questions, shots)
        split = options.split or task.split
        facts: dict[str, Any] = {"cut": asked.cut, "fewer_shots": asked.fewer}
        summary = None
        if questions.labelled:
            summary, more = _judged(asked, questions, flagged)
            facts |= more
            _print(asked, summary, options.by_subject)
        path = write_results(target, asked, summary, split, options.chat, facts)
        say(f"  all answers: {path}")
        if not questions.labelled:
            if task.submission:
                say(f"  to hand in:  {write_submission(target, asked, split, options.chat)}")
            warn(f"the split {split} has no answers: nothing was scored")
    run = target.lines.parent
    if (run / "recipe.yaml").is_file():
        say(f"  on the run's page: miao report {run}")


Prepared = tuple[Task, str, PromptStyle, Questions, int]


def _prepared(name: str, options: argparse.Namespace) -> Prepared:
    from miao.evaluate.benchmark import with_scoring

    task = load_task(name)
    style_name, style = task.style(options.prompts)
    shots = style.shots if options.shots is None else options.shots
    if shots < 0 or (options.limit is not None and options.limit < 1):
        raise MiaoError("--shots must not be negative, --limit must be positive")
    split = options.split or task.split
    splits = [split, task.fewshot_split if shots else None]
    data = task_data(options.data, task, splits, options.subjects)
    questions = read_questions(task, data, options.split, shots, options.subjects, options.limit)
    return task, style_name, with_scoring(style, options.scoring), questions, shots


def _ask(
    model: Decoder,
    encoder: Encoder,
    task: Task,
    style_name: str,
    style: PromptStyle,
    questions: Questions,
    shots: int,
) -> Asked:
    from miao.evaluate.benchmark import ask

    items = questions.all()
    per_item = 1 if style.scoring in ("generate", "bits") else 0
    total = sum(per_item or len(item.options) for item in items)
    with ProgressLine(f"{len(items):,} questions", total) as line:
        return ask(model, encoder, task, questions, style_name, style, shots, line.advance)


def _contaminated(files: Sequence[str], questions: Questions) -> list[bool | None] | None:
    """For every question whether it stands in the training text; None: too short to tell."""
    if not files:
        return None
    from miao.corpus.read.formats import read_records
    from miao.evaluate.tasks.contamination import find_contamination

    items = questions.all()
    with ProgressLine("looking for questions in the training text", 0) as line:
        texts = (document.text for document in read_records(list(files), "document"))
        found = find_contamination(items, texts, line.advance)
    return [
        None if share is None else flag
        for share, flag in zip(found.shares, found.flagged, strict=True)
    ]


def _judged(
    asked: Asked, questions: Questions, flagged: list[bool | None] | None
) -> tuple[Summary, dict[str, Any]]:
    from miao.evaluate.results.summary import summarise
    from miao.evaluate.scores import accuracy

    summary = summarise(asked, questions.missing)
    if flagged is None:
        return summary, {}
    count, unknown = flagged.count(True), flagged.count(None)
    note = f"{count} of {len(flagged)} questions stand in the training text"
    if unknown:
        note += f" ({unknown} are too short to tell)"
    summary.notes.append(note)
    clean = [
        bool(answer.right)
        for answer, flag in zip(asked.answers, flagged, strict=True)
        if flag is not True and answer.right is not None
    ]
    if count and clean:
        chance = summary.scores[-1].chance
        summary.scores.append(accuracy(asked.task.name, "not in the training text", clean, chance))
    ids = [
        f"{answer.item.subject}/{answer.item.id}"
        for answer, flag in zip(asked.answers, flagged, strict=True)
        if flag
    ]
    return summary, {"contaminated": ids}


def _print(asked: Asked, summary: Summary, by_subject: bool) -> None:
    from miao.evaluate.scores import score_rows

    subjects = {answer.item.subject for answer in asked.answers}
    scores = summary.scores
    hidden = len(subjects) > ROWS_SHOWN and not by_subject
    if hidden:
        scores = [score for score in scores if score.category not in subjects]
    units = {score.unit for score in scores}
    title = {"bits": "bits per byte"}.get(unit := units.pop(), unit) if len(units) == 1 else "value"
    columns = ["task", "of", "questions", title, "std. error", "guessing"]
    print_table(asked.key, columns, score_rows(scores), right_from=2)
    if hidden:
        say(f"  {len(subjects)} subjects: --by-subject shows each; all are in eval_results.jsonl")
    if summary.predicted:
        chosen = ", ".join(f"{letter} {n}" for letter, n in summary.predicted.items())
        right = ", ".join(f"{letter} {n}" for letter, n in summary.expected.items())
        say(f"  chosen: {chosen}; right: {right}; always the commonest: {summary.majority:.1%}")
    for note in summary.notes:
        warn(note)


def _show(task: Task, style: PromptStyle, questions: Questions, count: int) -> None:
    from miao.evaluate.tasks.prompts import build_prompt

    asked = [(item, name) for name, items in questions.items.items() for item in items]
    for item, name in asked[:count]:
        prompt = build_prompt(task, style, item, questions.examples.get(name, []))
        say(f"--- {task.name} {item.subject}/{item.id}, right: {item.answer}")
        say(prompt.context)
        for choice in prompt.choices:
            say(f"    + {choice!r}")


def _list() -> int:
    rows = []
    for name in built_in_tasks():
        task = load_task(name)
        styles = [f"{style} ({prompt.scoring})" for style, prompt in task.styles.items()]
        files = [
            "none: come with Miao" if source.built_in else source.files or "none: made from a seed"
            for source in task.sources
        ]
        subjects = str(len(task.subjects)) if task.subjects else "-"
        rows.append([name, f"{task.title_zh}", subjects, ", ".join(styles), "\n".join(files)])
    columns = ["task", "title", "subjects", "prompts", "files in --data"]
    print_table("tasks", columns, rows, right_from=9)
    for name in built_in_sets():
        found = load_set(name)
        parts = ", ".join(dict.fromkeys(part.name for part in found.parts))
        say(f"  --tasks {name}: {found.title_en} ({found.title_zh}), one score of {parts}")
    say("  A task of your own is a YAML file like those in miao/evaluate/tasks/.")
    return 0


def _compare(words: Sequence[str]) -> int:
    parser = Parser(
        prog="miao eval compare",
        description="Every later model against the first, on the questions that both answered.",
    )
    parser.add_argument("models", nargs="+", help="RUN, RUN:STAGE or a folder of results")
    parser.add_argument("--task", help="only this task or set")
    options = parser.parse_args(words)
    if len(options.models) < 2:
        raise MiaoError("two models are needed", fix="miao eval compare RUN_A RUN_B")
    from miao.evaluate.results.compare import compare_results, comparison_text
    from miao.evaluate.results.compare_scores import compare_scores, score_text

    scores = compare_scores(options.models, options.task)
    for difference in scores:
        say(score_text(difference))
        if difference.left_out:
            warn(f"{difference.name}: {difference.left_out} questions that only one answered")
    if scores and options.task and is_set(options.task):
        return 0
    for one in compare_results(options.models, options.task):
        say(comparison_text(one))
        if one.left_out:
            warn(f"{one.task}: {one.left_out} questions that only one answered are left out")
    return 0
