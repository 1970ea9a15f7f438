"""A configuration with which OpenCompass evaluates an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miao.errors import MiaoError
from miao.files import write_text

DATASETS = {
    "ceval": ("ceval.ceval_ppl_578f8d", "ceval_datasets"),
    "ceval_gen": ("ceval.ceval_gen_5f30c7", "ceval_datasets"),
    "cmmlu": ("cmmlu.cmmlu_ppl_8b9c76", "cmmlu_datasets"),
    "mmlu": ("mmlu.mmlu_ppl_ac766d", "mmlu_datasets"),
    "arc_easy": ("ARC_e.ARC_e_ppl_a450bd", "ARC_e_datasets"),
    "hellaswag": ("hellaswag.hellaswag_ppl_a6e128", "hellaswag_datasets"),
    "piqa": ("piqa.piqa_ppl_1cf9f0", "piqa_datasets"),
    "openbookqa": ("obqa.obqa_ppl_c7c154", "obqa_datasets"),
    "c3": ("CLUE_C3.CLUE_C3_ppl_e24a31", "C3_datasets"),
    "gsm8k": ("gsm8k.gsm8k_gen_1d7fe4", "gsm8k_datasets"),
}
"""Our task -> OpenCompass's configuration (module, variable): those whose prompts Miao reproduces,
and GSM8K's."""


def opencompass_config(
    model: Path, name: str, context: int, tasks: Sequence[str] = ("ceval", "cmmlu"), gpus: int = 0
) -> str:
    """The text of a configuration file: `opencompass THIS_FILE`, in OpenCompass's environment.

    Args:
        model: the exported directory. context: its longest input in tokens.

    Raises:
        MiaoError: a task that OpenCompass has under no name known here.
    """
    for task in tasks:
        if task not in DATASETS:
            raise MiaoError(
                f"no OpenCompass configuration of '{task}' is known here",
                fix=f"known: {', '.join(DATASETS)}",
            )
    lines = [
        f"# OpenCompass on {name}. In an environment of its own:",
        '#   pip install opencompass==0.5.4 "pyarrow<21" transformers==4.57.6',
        "#   opencompass THIS_FILE" + (" --hf-num-gpus 0" if not gpus else ""),
        "from mmengine.config import read_base",
        "from opencompass.models import HuggingFaceBaseModel",
        "",
        "with read_base():",
    ]
    for task in tasks:
        module, variable = DATASETS[task]
        lines.append(
            f"    from opencompass.configs.datasets.{module} import {variable} as {task}_datasets"
        )
    lines += [
        "",
        "datasets = [" + ", ".join(f"*{task}_datasets" for task in tasks) + "]",
        "models = [",
        "    dict(",
        "        type=HuggingFaceBaseModel,",
        f"        abbr={name!r},",
        f"        path={str(model.resolve())!r},",
        f"        max_seq_len={context},",
        "        max_out_len=64,",
        "        batch_size=8,",
        f"        run_cfg=dict(num_gpus={gpus}),",
        "    )",
        "]",
        "",
    ]
    return "\n".join(lines)


def write_opencompass(directory: Path, name: str, tasks: Sequence[str] = ()) -> Path:
    """Writes `opencompass.py` into an exported model's directory.

    Raises:
        MiaoError: not a model directory, or an unknown task.
    """
    from miao.model import load_config

    context = load_config(directory).context_length
    path = directory / "opencompass.py"
    write_text(path, opencompass_config(directory, name, context, tasks or ("ceval", "cmmlu")))
    return path
