"""lm-evaluation-harness on our models: it asks, our engine answers (`miao eval --harness lm-eval`).

Needs the extra `eval`; this file is imported only then.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from miao.console import ProgressLine, headline, print_table, say, warn
from miao.engine import SamplingOptions
from miao.errors import MiaoError, install_hint
from miao.evaluate.continuations import Continuation, continuation_logprobs
from miao.evaluate.prompts import Encoder, Prompt
from miao.evaluate.writing import ROWS, write_texts
from miao.files import read_jsonl, write_jsonl
from miao.model.decoder import Decoder

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
except ImportError as error:
    raise MiaoError("lm-evaluation-harness is not installed", fix=install_hint("eval")) from error

MAX_NEW_TOKENS = 256


class MiaoLM(LM):
    """A model of ours as lm-evaluation-harness sees it: texts in, log-probabilities and texts out.

    Contexts and continuations are tokenised as its own `hf` model does, so that scores agree.
    """

    def __init__(self, model: Decoder, encoder: Encoder, rows: int = ROWS):
        super().__init__()
        self.model, self._rows = model, rows
        self.encoder = replace(encoder, chat=False, trusted=True)
        self._rank, self._world_size = 0, 1

    @property
    def tokenizer_name(self) -> str:
        return self.encoder.tokenizer.fingerprint()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the text that the model reads."""
        template = self.encoder.tokenizer.chat_template
        return template.render(chat_history, add_generation_prompt=add_generation_prompt)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(log p, whether greedy decoding would write it) of each continuation."""
        continuations = []
        for request in requests:
            context, continuation = request.args
            ((before, after),) = self.encoder.pairs(Prompt(context, [continuation], [continuation]))
            continuations.append(Continuation(before + after, len(after)))
        with ProgressLine("log-likelihoods", len(continuations)) as line:
            found = continuation_logprobs(self.model, continuations, advance=line.advance)
        if cut := sum(one.cut > 0 for one in found):
            warn(f"{cut} texts were longer than the context and lost their beginning")
        return [(one.logprob, one.is_greedy) for one in found]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """log p of whole texts, in windows of the context's length that do not overlap."""
        limit, windows, owners = self.model.config.context_length, [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            ids = [
                self.encoder.tokenizer.document_boundary_id,
                *self.encoder.tokenizer.encode(text),
            ]
            for start in range(0, len(ids) - 1, limit):
                piece = ids[start : start + limit + 1]
                windows.append(Continuation(piece, len(piece) - 1))
                owners.append(number)
        sums = [0.0] * len(requests)
        for owner, one in zip(owners, continuation_logprobs(self.model, windows), strict=True):
            sums[owner] += one.logprob
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy or sampled text up to the first of the stops."""
        answers: list[str] = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        for numbers in groups.values():
            settings = dict(requests[numbers[0]].args[1])
            for number, text in zip(
                numbers,
                self._generate([requests[n].args[0] for n in numbers], settings),
                strict=True,
            ):
                answers[number] = text
        return answers

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else list(until)
        limit = self.model.config.context_length
        longest = int(settings.get("max_gen_toks") or MAX_NEW_TOKENS)
        longest = min(longest, limit - 1)
        temperature = float(settings.get("temperature") or 0.0)
        options = SamplingOptions(
            temperature=temperature if settings.get("do_sample") else 0.0,
            top_p=float(settings.get("top_p") or 1.0),
            max_new_tokens=longest,
        )
        tokenizer = self.encoder.tokenizer
        prompts = [
            (self.encoder.context(text) or [tokenizer.document_boundary_id])[-(limit - longest) :]
            for text in contexts
        ]
        with ProgressLine("generating", len(prompts)) as line:
            return write_texts(
                self.model, tokenizer, prompts, options, until, line.advance, self._rows
            )


def run_lm_eval(options: argparse.Namespace) -> dict[str, Any]:
    """Runs tasks of the harness on a model of ours, prints and writes what it found."""
    from importlib.metadata import version

    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from miao.evaluate.command import load_for_evaluation
    from miao.evaluate.store import find_target

    target = find_target(options.model, options.stage, options.out)
    manager = _understood(lambda: TaskManager(include_path=options.include_path))
    known = set(manager.all_tasks)
    for name in options.tasks:
        if name not in known and not name.endswith((".yaml", ".yml")):
            raise MiaoError(
                f"lm-evaluation-harness has no task '{name}'",
                fix="its names: lm_eval ls tasks; a folder of your own: --include-path",
            )
    model, encoder = load_for_evaluation(target.directory, options)
    headline(f"lm-evaluation-harness {version('lm-eval')}: {target.name}")
    results = _understood(
        lambda: simple_evaluate(
            model=MiaoLM(model, encoder),
            tasks=list(options.tasks),
            num_fewshot=options.shots,
            limit=options.limit,
            task_manager=manager,
            apply_chat_template=options.chat,
            system_instruction=options.system,
        )
    )
    scores = _metrics(results["results"])
    rows = [
        [one["task"], one["metric"], f"{one['value']:.4f}", _sure(one["stderr"])] for one in scores
    ]
    print_table("results", ["task", "metric", "value", "std. error"], rows, right_from=2)
    line: dict[str, Any] = {
        "stage": f"lm-eval {' '.join(options.tasks)} of {target.stage}",
        "lm_eval": version("lm-eval"),
        "shots": options.shots,
        "results": scores,
        "scores": [],
    }
    kept = [record for record in read_jsonl(target.lines) if record["stage"] != line["stage"]]
    write_jsonl(target.lines, [*kept, line])
    say(f"  written to {target.lines}")
    return results


def _metrics(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every number of the harness's results with its standard error, None where it has none."""
    found = []
    for task, values in results.items():
        for name, value in values.items():
            metric, comma, kind = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{kind}")
            sure = error if isinstance(error, int | float) else None
            found.append({"task": task, "metric": name, "value": value, "stderr": sure})
    return found


def _sure(stderr: float | None) -> str:
    return "-" if stderr is None else f"±{stderr:.4f}"


def _understood(run: Callable[[], Any]) -> Any:
    """What the harness cannot do is said without its traceback (MIAO_DEBUG=1 shows it)."""
    try:
        return run()
    except MiaoError:
        raise
    except Exception as error:  # the harness, its data sets and the hub raise of every kind
        raise MiaoError(
            f"lm-evaluation-harness stopped: {type(error).__name__}: {str(error)[:300]}",
            fix="its data sets come from the hub; without a network set HF_HUB_OFFLINE=1 and name "
            "task files with local data by --include-path",
        ) from error
