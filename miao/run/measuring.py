"""What is measured after a stage, kept and printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from miao.console import ProgressLine, print_table, say, warn
from miao.files import read_jsonl, write_jsonl
from miao.recipe import to_dict
from miao.run.chain import Chain
from miao.tokenizer import Tokenizer

if TYPE_CHECKING:
    from miao.evaluate.stage import StageEvaluation
    from miao.rewards.measure import Measured

SHOWN = 3
LONGEST = 120
"""Characters of an answer that is shown."""


def evaluate(chain: Chain, stage: str, base: Path | None) -> None:
    from miao.evaluate.scores import score_rows
    from miao.evaluate.stage import changed_answers, evaluate_stage

    options = chain.recipe.evaluate
    name = f"evaluate {stage}"
    inputs = {"model": chain.marks[stage], "evaluate": to_dict(options)}
    with chain.stage(name, inputs, quiet=True) as todo:
        if not todo:
            return
        reference = chain.load(base) if stage == "dpo" and base else None
        tokenizer = Tokenizer.from_directory(chain.run.tokenizer)
        result = evaluate_stage(
            chain.load(stage),
            tokenizer,
            chain.run,
            options,
            reference,
            chain.recipe.dpo.beta,
            stage == "pretrain",
        )
        extended = base if stage == "pretrain" else None
        contexts = _long_contexts(chain, extended, tokenizer) if extended else {}
        if contexts:
            result.scores += contexts["after"].scores()
        line: dict[str, Any] = {
            "stage": stage,
            "scores": [score.to_json() for score in result.scores],
        }
        measured = _rewards(chain, base, tokenizer) if stage == "grpo" and base else None
        if measured:
            line["scores"] += [change.after.to_json() for change in measured.changes]
            line["rewards"] = [change.to_json() for change in measured.changes]
            changed = changed_answers(measured.answers_before, measured.answers_after)
            line["changed_answers"] = {"of": len(measured.answers_after), "changed": changed}
        if contexts:
            line["long_context"] = {name: c.to_json() for name, c in contexts.items()}
        if result.answers:
            write_jsonl(chain.run.answers(stage), result.answers)
        if result.own:
            write_jsonl(chain.run.answers(f"{stage}.own"), result.own)
        if stage == "dpo" and (old := read_jsonl(chain.run.answers("sft"))):
            changed = changed_answers(old, result.answers)
            line["changed_answers"] = {"of": len(result.answers), "changed": changed}
        chain.run.replace_lines(chain.run.eval_results, stage, [line])
    columns = ["measure", "of", "items", "value", "std. error", "chance"]
    print_table(f"after {stage}", columns, score_rows(result.scores), right_from=2)
    if stage != "pretrain":
        _say_answers(result.own)
        warn_of_babble(chain, stage, result)
    if "rewards" in line:
        _say_rewards(line["rewards"])
    if "changed_answers" in line:
        _say_changes(stage, line["changed_answers"])
    if "long_context" in line:
        _say_long_context(line["long_context"])


def _say_answers(own: list[dict[str, str]]) -> None:
    """Some answers to the user's held-out questions, beside the references."""
    own = sorted(own, key=lambda record: "about" in record)
    for record in own[:SHOWN] + own[SHOWN:][-SHOWN:]:
        said = record["answer"] or "(nothing)"
        say(
            f"  > {shortened(record['question'])}\n    {shortened(said)}\n"
            f"    reference: {shortened(record['reference'])}"
        )


def shortened(text: str) -> str:
    """On one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."


def warn_of_babble(chain: Chain, stage: str, result: StageEvaluation) -> None:
    """Says so of a chat that says nothing or goes in circles, with what to change."""
    from miao.evaluate.own import babble

    texts = [record["answer"] for record in (*result.own, *result.answers)]
    if (what := babble(texts)) is None:
        return
    recipe, before = chain.recipe, read_jsonl(chain.run.answers("sft"))
    before += read_jsonl(chain.run.answers("sft.own"))
    corpus = recipe.corpus
    if stage == "dpo" and before and babble([record["answer"] for record in before]) is None:
        fix = "it did not before DPO: lower dpo.learning_rate, or --dpo.enabled false"
    elif corpus.conversations and not corpus.mixes_built_in and not recipe.model.path:
        fix = "your conversations alone are too few to learn talking from: --corpus.own_share auto"
    else:
        fix = f"it has read too little: more {stage}.epochs (or minutes), more conversations, or a "
        fix += "smaller model, which sees more in the same time"
    loss = heldout_answer_loss(chain, stage)
    warn(f"the chat babbles: of {len(texts)} answers {what}{loss}; {fix}")


def heldout_answer_loss(chain: Chain, stage: str) -> str:
    """The last one in the log of a stage, in words."""
    lines = [r for r in read_jsonl(chain.run.metrics, warn) if r.get("stage") == stage]
    values = [r["heldout_answer_loss"] for r in lines if "heldout_answer_loss" in r]
    return f" (held-out loss of the chat {values[-1]:.2f} nats per token)" if values else ""


def evaluate_before(chain: Chain, stage: str, base: Path, mark: str) -> None:
    """The same measures of the model that a run begins with (`mark` is its fingerprint), on this
    run's held-out data."""
    from miao.evaluate.scores import score_rows
    from miao.evaluate.stage import evaluate_stage

    options = chain.recipe.evaluate
    inputs = {
        "model": mark,
        "shards": chain.marks["shards"],
        "questions": chain.marks["eval items"],
        "evaluate": to_dict(options),
    }
    with chain.stage("evaluate before", inputs, quiet=True) as todo:
        if not todo:
            return
        tokenizer = Tokenizer.from_directory(chain.run.tokenizer)
        result = evaluate_stage(chain.load(base), tokenizer, chain.run, options)
        if result.answers:
            write_jsonl(chain.run.answers("before"), result.answers)
        line = {"stage": "before", "scores": [score.to_json() for score in result.scores]}
        chain.run.replace_lines(chain.run.eval_results, "before", [line])
    columns = ["measure", "of", "items", "value", "std. error", "chance"]
    print_table(f"before {stage}, {base}", columns, score_rows(result.scores), right_from=2)


def _rewards(chain: Chain, base: Path, tokenizer: Tokenizer) -> Measured | None:
    """Rewards on problems held out of GRPO, before and after it."""
    from miao.rewards import load_problems
    from miao.rewards.answers import make_examiner
    from miao.rewards.measure import measure

    options, after = chain.recipe.grpo, chain.load("grpo")
    examiner = make_examiner(options, after, tokenizer)
    problems = [p for p in load_problems(options, chain.recipe.seed)[1] if examiner.fits(p)]
    if not problems:
        return None
    with ProgressLine("held-out problems", 2 * len(problems)) as line:
        return measure(examiner, chain.load(base), after, problems, line.advance)


def _say_rewards(changes: list[dict[str, Any]]) -> None:
    def cell(score: dict[str, Any], signed: bool = False) -> str:
        value, error = score["value"], score["stderr"] or 0.0
        return f"{value:{'+' if signed else ''}.3f} ±{error:.3f}"

    rows = [
        [
            change["after"]["category"],
            f"{change['after']['count']:,}",
            cell(change["before"]),
            cell(change["after"]),
            cell(change["difference"], signed=True),
        ]
        for change in changes
    ]
    columns = ["reward", "problems", "before", "after", "change (paired)"]
    print_table("held-out problems, greedy answers (± one standard error)", columns, rows, 1)


def _long_contexts(chain: Chain, base: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What pretraining on a trained model made of a longer context: before and after."""
    from miao.evaluate.measure.long_context import LongContext, measure_long_context
    from miao.model import load_config
    from miao.shards import TokenDataset

    length = load_config(chain.run.model("pretrain")).context_length
    if length <= load_config(base).context_length:
        return {}
    models = {"before": chain.load(base), "after": chain.load("pretrain")}
    heldout = sorted(chain.run.shards("pretrain", "heldout").glob("*/"))
    datasets = [TokenDataset(directory) for directory in heldout]
    found: dict[str, LongContext] = {}
    with ProgressLine("long context", 0) as progress:
        for name, model in models.items():
            found[name] = measure_long_context(
                model, tokenizer, length, datasets, progress.advance, chain.recipe.seed
            )
    return found


def _say_changes(stage: str, changes: dict[str, Any]) -> None:
    changed = changes["changed"]
    say(f"  {stage.upper()} changed {len(changed)} of {changes['of']} answers, for example:")
    for record in changed[:3]:
        say(
            f"  > {record['question']}\n    before: {record['before']}\n"
            f"    after:  {record['after']}"
        )


def _say_long_context(contexts: dict[str, Any]) -> None:
    before, after = contexts["before"], contexts["after"]
    columns = ["passkey found at", "before", "after"]
    rows = [
        [f"{tokens:,} tokens", f"{100 * old:.0f}%", f"{100 * new:.0f}%"]
        for (tokens, old, _), (_, new, _) in zip(before["passkeys"], after["passkeys"], strict=True)
    ]
    print_table(
        "a number said in one place of a text, to be said again", columns, rows, right_from=1
    )
    if not after["positions"]:
        say("  bits per byte by position: not measured, no held-out document is that long")
        return
    rows = [
        [f"up to {end:,}", f"{old:.3f}", f"{new:.3f}"]
        for (end, old), (_, new) in zip(before["positions"], after["positions"], strict=True)
    ]
    print_table("bits per byte by position", ["position", "before", "after"], rows, right_from=1)
