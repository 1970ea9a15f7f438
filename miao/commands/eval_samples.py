"""Answers to read with one's own eyes, and to be judged by another model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from miao.console import ProgressLine, headline, print_table, say, warn
from miao.errors import MiaoError
from miao.evaluate.judge import judge_pairs, openai_judge
from miao.evaluate.results.store import Target, find_target
from miao.files import read_jsonl, write_jsonl
from miao.options import read_yaml

FILE = "samples.jsonl"
KEY_VARIABLES = ("MIAO_JUDGE_KEY", "OPENAI_API_KEY")


def fixed_prompts() -> tuple[list[str], list[str]]:
    """Beginnings of texts, and requests in the chat: the same for every model."""
    with resources.as_file(resources.files("miao.evaluate") / "samples.yaml") as path:
        found = read_yaml(path)
    return found["texts"], found["prompts"]


def main(words: Sequence[str]) -> int:
    """`miao eval samples MODEL`."""
    parser = _parser("samples", "Greedy answers to a fixed set of prompts in Chinese and English.")
    parser.add_argument("model", help="a run, a model directory or a name on a hub")
    parser.add_argument("--stage", help="a stage of the run (default: the last model)")
    parser.add_argument("--out", type=Path, help="where results go")
    _generation(parser)
    options = parser.parse_args(words)
    target = find_target(options.model, options.stage, options.out)
    path = target.results / FILE
    for record in _written(target, options):
        say(f"> {record['prompt']}\n  {record['answer'].strip()}")
    say(f"\n  all of them: {path}")
    return 0


def judge_command(words: Sequence[str]) -> int:
    """`miao eval judge A B`: the second model against the first."""
    parser = _parser(
        "judge",
        "A judge behind an OpenAI-compatible address compares two models' chat answers, each pair "
        f"in both orders. Its key is read from {' or '.join(KEY_VARIABLES)}.",
    )
    parser.add_argument("models", nargs=2, help="two runs, model directories or names on a hub")
    parser.add_argument("--url", required=True, help="such as http://localhost:8000/v1")
    parser.add_argument("--judge", required=True, help="the judge's model name")
    parser.add_argument("--stages", nargs=2, default=[None, None], help="a stage of each run")
    _generation(parser)
    options = parser.parse_args(words)
    ask = openai_judge(options.url, options.judge, _key())
    asked = list(zip(options.models, options.stages, strict=True))
    targets = [find_target(name, stage, None) for name, stage in asked]
    ask("Answer with one word: ready")  # a judge that is not there is found before anything is done
    questions = fixed_prompts()[1]
    texts = []
    for (name, _), target in zip(asked, targets, strict=True):
        answers = {r["prompt"]: r["answer"] for r in _written(target, options) if r["chat"]}
        if not answers:
            raise MiaoError("this model has no chat template: there are no answers", where=name)
        texts.append([answers[question] for question in questions])
    with ProgressLine("judging", len(questions)) as line:
        found = judge_pairs(questions, texts[0], texts[1], ask, line.advance)
    first, second = (name if stage is None else f"{name}:{stage}" for name, stage in asked)
    columns = ["compared", "questions", "wins", "losses", "ties", "win rate", "p"]
    row = [
        f"{second} against {first}",
        str(len(questions)),
        str(found.wins),
        str(found.losses),
        str(found.ties),
        f"{found.value:.1%} ± {found.stderr:.1%}",
        f"{found.p_value:.3f}",
    ]
    print_table(f"judged by {options.judge}", columns, [row])
    if found.unclear:
        warn(f"{found.unclear} judgements had no verdict and count as ties")
    if abs(found.first_place - 0.5) > 0.2:
        warn(
            f"the judge prefers a place: {found.first_place:.0%} of its verdicts are for the first"
        )
    if found.p_value >= 0.05:
        warn("the difference cannot be told from chance")
    return 0


def _written(target: Target, options: argparse.Namespace) -> list[dict[str, str]]:
    """Answers of one model, written beside its other results; made anew at every call."""
    from miao.device import choose_device, choose_dtype
    from miao.engine import SamplingOptions
    from miao.evaluate.measure.questions import chat_answers
    from miao.evaluate.measure.writing import write_texts
    from miao.model import load_model
    from miao.tokenizer import Tokenizer

    headline(f"samples of {target.name}")
    tokenizer = Tokenizer.from_directory(target.directory)
    device = choose_device(options.device)
    model = load_model(target.directory).to(device)
    model.set_compute_dtype(choose_dtype("fp32", device))
    texts, prompts = fixed_prompts()
    sampling = SamplingOptions(temperature=0.0, max_new_tokens=options.max_new_tokens)
    begun = [[*tokenizer.document_start, *tokenizer.encode(text)] for text in texts]
    continued = write_texts(model, tokenizer, begun, sampling)
    records = [
        {"prompt": text, "answer": answer, "chat": False}
        for text, answer in zip(texts, continued, strict=True)
    ]
    try:
        answers = chat_answers(model, tokenizer, prompts, options.max_new_tokens)
    except MiaoError as error:
        warn(f"no chat answers: {error.what}")
    else:
        records += [
            {"prompt": prompt, "answer": answer, "chat": True}
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
    write_jsonl(target.results / FILE, records)
    return read_jsonl(target.results / FILE)


def _parser(verb: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"miao eval {verb}", description=description, allow_abbrev=False
    )


def _generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-new-tokens", type=int, default=96, help="longest answer")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")


def _key() -> str | None:
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
