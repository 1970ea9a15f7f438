"""What is measured after a stage, kept and printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miao.console import ProgressLine, print_table, say
from miao.files import read_jsonl, write_jsonl
from miao.recipe import to_dict
from miao.run.chain import Chain
from miao.tokenizer import Tokenizer


def evaluate(chain: Chain, stage: str, base: Path | None) -> None:
    from miao.evaluate.scores import score_rows
    from miao.evaluate.stage import changed_answers, evaluate_stage

    options = chain.recipe.evaluate
    name = f"evaluate {stage}"
    with chain.stage(name, [chain.marks[stage], to_dict(options)], quiet=True) as todo:
        if not todo:
            return
        reference = chain.load(base) if stage == "dpo" and base else None
        tokenizer = Tokenizer.from_directory(chain.run.tokenizer)
        result = evaluate_stage(
            stage,
            chain.load(stage),
            tokenizer,
            chain.run,
            options,
            reference,
            chain.recipe.dpo.beta,
        )
        extended = base if stage == "pretrain" else None
        contexts = _long_contexts(chain, extended, tokenizer) if extended else {}
        if contexts:
            result.scores += contexts["after"].scores()
        line: dict[str, Any] = {
            "stage": stage,
            "scores": [score.to_json() for score in result.scores],
        }
        if contexts:
            line["long_context"] = {name: c.to_json() for name, c in contexts.items()}
        if result.answers:
            write_jsonl(chain.run.answers(stage), result.answers)
        if stage == "dpo" and (old := read_jsonl(chain.run.answers("sft"))):
            changed = changed_answers(old, result.answers)
            line["changed_answers"] = {"of": len(result.answers), "changed": changed}
        chain.run.replace_lines(chain.run.eval_results, stage, [line])
    columns = ["measure", "of", "items", "value", "std. error", "chance"]
    print_table(f"after {stage}", columns, score_rows(result.scores), right_from=2)
    if "changed_answers" in line:
        _say_changes(line["changed_answers"])
    if "long_context" in line:
        _say_long_context(line["long_context"])


def _long_contexts(chain: Chain, base: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What pretraining on a trained model made of a longer context: before and after."""
    from miao.evaluate.long_context import LongContext, measure_long_context
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


def _say_changes(changes: dict[str, Any]) -> None:
    changed = changes["changed"]
    say(f"  DPO changed {len(changed)} of {changes['of']} answers, for example:")
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
