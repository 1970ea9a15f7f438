"""The configuration for OpenCompass is Python that names what its repository has."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from miao.errors import MiaoError
from miao.evaluate.opencompass import DATASETS, write_opencompass
from miao.evaluate.tasks.task import load_task
from miao.model import Decoder, save_model


def test_a_configuration_for_an_exported_model(
    make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    save_model(make_model(), tmp_path / "it's mine")
    path = write_opencompass(tmp_path / "it's mine", "it's mine", ["ceval", "gsm8k"])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imports["ceval_datasets"] == "opencompass.configs.datasets.ceval.ceval_ppl_578f8d"
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and len(n.keywords) > 3]
    values = {
        k.arg: ast.literal_eval(k.value) for k in call.keywords if isinstance(k.value, ast.Constant)
    }
    assert values["path"] == str((tmp_path / "it's mine").resolve())
    assert (values["abbr"], values["max_seq_len"]) == ("it's mine", 64)
    with pytest.raises(MiaoError, match="no OpenCompass configuration of 'cmath'"):
        write_opencompass(tmp_path / "it's mine", "x", ["cmath"])


def test_it_names_the_configurations_whose_prompts_are_reproduced() -> None:
    for task, (module, _) in DATASETS.items():
        if task not in ("ceval_gen", "gsm8k"):
            said = load_task(task).styles["opencompass"].reproduces
            assert module.rpartition(".")[2] in said
