"""`miao eval --harness lm-eval`: tasks of lm-evaluation-harness on a model of ours.

Needs the extra `eval`; this file is imported only then.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from miao.console import headline, print_table, say
from miao.errors import MiaoError
from miao.evaluate.lm_eval_adapter import MiaoLM
from miao.evaluate.measure.loading import load_for_evaluation
from miao.evaluate.results.store import find_target, write_scores


def run_lm_eval(options: argparse.Namespace) -> dict[str, Any]:
    """Runs tasks of the harness on a model of ours, prints and writes what it found."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

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
    facts = {"lm_eval": version("lm-eval"), "shots": options.shots, "results": scores}
    name = f"lm-eval {' '.join(options.tasks)}"
    write_scores(target, name, "lm-evaluation-harness", [], facts)
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
