"""`miao doctor`: on a machine of paper the advice, on this one the command as users call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.cli import main as cli_main
from miao.commands import doctor as command
from miao.cores import usable_cores
from miao.doctor import plan
from miao.doctor.advice import machine_advice, recipe_advice
from miao.doctor.machine import Card, Machine, allocator, examine
from miao.doctor.plan import (
    StagePlan,
    checkpoint_bytes,
    plan_recipe,
    plan_stage,
    recipe_config,
)
from miao.doctor.trial import run_trial
from miao.errors import MiaoError
from miao.files import append_jsonl
from miao.model import Decoder, save_model
from miao.model.estimate import GIB, training_memory
from miao.model.presets import preset
from miao.recipe import PretrainOptions, Recipe, SftOptions
from miao.recipe.reading import load_recipe
from miao.recipe.stages import AdapterOptions
from miao.shards import TokenDataset
from miao.train.adapters import with_adapter_settings

RECIPES = Path(__file__).parents[2] / "miao" / "recipes"
CPU = torch.device("cpu")
LAPTOP = Machine(
    system="Linux", python="3.11", torch="2.13", processor="test", cores=4, threads=4,
    cache=2**25, allocator="glibc", memory=16 * GIB, memory_free=8 * GIB, disk_free=100 * GIB,
    device="cpu", gpus=[], compiler="/usr/bin/g++",
    kernels={"SDPA": True, "torch.compile": True}, packages={}, settings={},
    peaks={"fp32": 2e11, "bf16": 4e11, "fp16": 1e9}, bandwidth=4e10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def sixteen_gibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "memory_bytes", lambda device: (8 * GIB, 16 * GIB))
    monkeypatch.setattr(plan, "choose_dtype", lambda option, device: torch.float32)
    monkeypatch.setattr(plan, "peak_flops", lambda device, dtype: plan_peak(device), raising=True)


def plan_peak(device: torch.device) -> Any:
    from miao.device import Peak

    return Peak(2e11, "measured")


def recipe_of(name: str, tmp_path: Path, *words: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml", ["--out_dir", str(tmp_path), *words])


def test_the_plan_of_a_recipe(tmp_path: Path) -> None:
    recipe = recipe_of("26m", tmp_path)
    pretrain, sft, dpo = plan_recipe(recipe, LAPTOP, CPU)
    assert (pretrain.stage, sft.stage, dpo.stage) == ("pretrain", "sft", "dpo")
    assert pretrain.tokens == 450e6 and pretrain.hours is not None
    assert pretrain.hours == pytest.approx(450e6 / pretrain.tokens_per_second / 3600)
    assert pretrain.compiled, "days repay half a minute"
    assert sft.tokens is None and sft.hours is None, "epochs of nothing counted yet"
    assert not sft.compiled
    assert 300 < pretrain.tokens_per_second < 2e11 / 1.75e8, "below the products' own speed"
    assert 0 < pretrain.mfu["mfu"] < pretrain.mfu["mfu_palm"] < 1
    assert pretrain.memory.optimizer < dpo.memory.optimizer, "no Muon in DPO"
    assert (pretrain.micro_batch or 0) * 512 <= 8192
    fixed = recipe_of("26m", tmp_path, "--pretrain.micro_batch", "3", "--sft.enabled", "false")
    first, second = plan_recipe(fixed, LAPTOP, CPU)
    assert first.micro_batch == 3 and second.stage == "dpo"


def test_epochs_are_counted_when_there_are_shards(
    tmp_path: Path, make_dataset: Callable[..., TokenDataset]
) -> None:
    recipe = recipe_of("26m", tmp_path, "--sft.epochs", "3", "--sft.replay", "0.25")
    dataset = make_dataset([[1] * 100, [2] * 60], "conversation", [[True] * 100, [True] * 60])
    target = recipe.run_dir / "shards" / "sft" / "train" / "mine"
    target.parent.mkdir(parents=True)
    dataset.directory.rename(target)
    found = plan_stage("sft", recipe, recipe_config(recipe), LAPTOP, CPU)
    assert found.tokens == pytest.approx(3 * dataset.manifest.tokens / 0.75)


def test_waiting_for_data_is_told(tmp_path: Path) -> None:
    recipe = recipe_of("26m", tmp_path)
    for wait in (0.3, 0.5):
        append_jsonl(recipe.run_dir / "metrics.jsonl", {"stage": "pretrain", "data_wait": wait})
    append_jsonl(recipe.run_dir / "metrics.jsonl", {"stage": "pretrain", "event": "skipped"})
    config = recipe_config(recipe)
    found = plan_stage("pretrain", recipe, config, LAPTOP, CPU)
    assert found.data_wait == pytest.approx(0.4) and found.limit == "data"
    assert any("40% of the last run" in line for line in recipe_advice([found], recipe, config, LAPTOP))  # fmt: skip


def advice_for(changed: StagePlan, tmp_path: Path, machine: Machine = LAPTOP) -> str:
    recipe = recipe_of("64m", tmp_path)
    return "\n".join(recipe_advice([changed], recipe, preset("64m").config, machine))


def test_advice_on_stages(tmp_path: Path) -> None:
    recipe = recipe_of("64m", tmp_path)
    usual = plan_stage("pretrain", recipe, preset("64m").config, LAPTOP, CPU)
    assert "days are long" in advice_for(usual, tmp_path)
    short = replace(usual, tokens=1e6)
    assert advice_for(short, tmp_path) == ""
    on_gpu = replace(LAPTOP, device="cuda:0")
    assert "heads of 64 and 128, not of 96" in advice_for(short, tmp_path, on_gpu)
    full = replace(LAPTOP, disk_free=2**20)
    assert "of disk are free" in advice_for(short, tmp_path, full)
    assert "a single row takes" in advice_for(replace(short, micro_batch=None), tmp_path)
    assert replace(short, micro_batch=None).limit == "memory"
    tight = replace(short, device_memory=int(1.05 * short.memory.total))
    assert "--pretrain.micro_batch auto" in advice_for(tight, tmp_path)
    assert "quarter of the speed" in advice_for(replace(short, recompute=True), tmp_path)
    for part, words in {
        "waiting": "too small to fill",
        "optimizer": "the optimizer takes most",
        "head": "smaller vocabulary",
    }.items():
        parts = replace(short.parts, **{part: 100 * short.parts.total})
        assert words in advice_for(replace(short, parts=parts), tmp_path)


def test_a_model_too_large_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("bitbrain-0.6b", tmp_path)
    config = recipe_config(recipe)
    monkeypatch.setattr(plan, "memory_bytes", lambda device: (0, 4 * GIB))
    found = plan_stage("pretrain", recipe, config, LAPTOP, CPU)
    assert found.micro_batch is None and found.limit == "memory"
    assert found.memory.total >= training_memory(config, 1, 2048).total
    assert command.stage_row(found)[1] == "none fits"


def test_an_adapter_and_models_beside_are_counted(
    tmp_path: Path, make_model: Callable[..., Any]
) -> None:
    """Against numbers counted by hand: 26m is 512 wide, with 8 blocks."""
    recipe = recipe_of("26m", tmp_path)
    config = recipe_config(recipe)
    whole = plan_stage("sft", recipe, config, LAPTOP, CPU)
    for name in ("sft", "dpo"):
        getattr(recipe, name).adapter = AdapterOptions("lora", rank=4)
    wide = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    inner = config.intermediate_size
    layers = [(512, wide), (512, keys), (512, keys), (wide, 512), *3 * [(512, inner)]]
    size = 8 * 4 * sum(map(sum, layers))
    for name in ("sft", "dpo"):
        lora = plan_stage(name, recipe, config, LAPTOP, CPU)
        assert lora.memory.gradients == 4 * size and lora.memory.optimizer == 8 * size
        assert lora.memory.weights == whole.memory.weights + 4 * size
        assert checkpoint_bytes(config, getattr(recipe, name)) == 12 * size * 3
    lora = plan_stage("sft", recipe, config, LAPTOP, CPU)
    assert whole.parts.total > lora.parts.total > 0.5 * whole.parts.total

    plain = plan_stage("pretrain", recipe, config, LAPTOP, CPU)
    teacher = make_model(max_position_embeddings=64)
    save_model(teacher, tmp_path / "teacher")
    recipe.pretrain.teacher.path = str(tmp_path / "teacher")
    taught = plan_stage("pretrain", recipe, config, LAPTOP, CPU)
    held = sum(4 * p.numel() for p in teacher.parameters())
    assert taught.memory.weights == plain.memory.weights + held and taught.uncounted is None
    assert plain.parts.total < taught.parts.total < 1.5 * plain.parts.total
    for path in (str(tmp_path / "nowhere"), "hf:owner/name"):
        recipe.pretrain.teacher.path = path
        unknown = plan_stage("pretrain", recipe, config, LAPTOP, CPU)
        assert unknown.memory == plain.memory
        told = recipe_advice([unknown], recipe, config, LAPTOP)
        assert any(f"the teacher {path} cannot be read here" in line for line in told)

    recipe.grpo.kl_coef = 0.1
    with_reference = plan_stage("grpo", recipe, config, LAPTOP, CPU)
    recipe.grpo.kl_coef = 0.0
    without = plan_stage("grpo", recipe, config, LAPTOP, CPU)
    assert with_reference.memory.weights == 2 * without.memory.weights


def test_advice_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miao.doctor.advice.unused_gpu", lambda device: None)
    assert [line[:30] for line in machine_advice(LAPTOP, CPU)] == ["training runs on the CPU: righ"]
    monkeypatch.setattr("miao.doctor.advice.unused_gpu", lambda device: "because")
    assert machine_advice(LAPTOP, CPU)[0] == "THE GPU IS NOT USED: because"
    poor = replace(
        LAPTOP,
        threads=1,
        allocator="system",
        peaks={"fp32": 2e11, "bf16": 1e9},
        kernels={"torch.compile": False},
        settings={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "active"},
    )
    told = "\n".join(machine_advice(poor, CPU))
    for words in (
        "uses 1 of 4 cores",
        "lets waiting threads spin",
        "tcmalloc",
        "takes fp32",
        "g++",
    ):
        assert words in told
    assert "share 4 cores" in "\n".join(machine_advice(replace(LAPTOP, threads=9), CPU))
    card = Card("NVIDIA H200", 141 * GIB, "9.0", 989e12)
    gpu = replace(LAPTOP, device="cuda:0", gpus=[card])
    assert "expandable_segments" in "\n".join(machine_advice(gpu, torch.device("cuda", 0)))
    assert ["GPU", "NVIDIA H200: 141 GiB, compute capability 9.0, 989 TFLOP/s"] in (
        command.machine_rows(gpu)
    )


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miao.doctor.machine.matmul_flops", lambda device, dtype: 1e11)
    monkeypatch.setattr("miao.doctor.machine.memory_bandwidth", lambda device: 1e10)
    found = examine(CPU, tmp_path / "not" / "yet" / "there")
    assert found.cores == usable_cores() >= 1 and found.threads >= 1
    assert found.disk_free > 0 and found.memory > 2**28 and found.allocator == allocator()
    assert found.packages["numpy"] and found.kernels["SDPA"] and not found.kernels["SDPA flash"]
    assert found.fast_types == [] and LAPTOP.fast_types == ["bf16"]


def test_a_trial_is_real(make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_model(num_experts=4, moe_intermediate_size=24).config
    begun: list[float] = []

    class Begun(Decoder):
        def forward(self, *given: Any, **more: Any) -> Any:
            begun.append(self.model.embed_tokens.weight.std().item())
            return super().forward(*given, **more)

    monkeypatch.setattr("miao.doctor.trial.Decoder", Begun)
    options = PretrainOptions(seq_len=16, batch_tokens=64)
    for recompute in (False, True):
        trial = run_trial(config, options, 2, CPU, torch.float32, False, recompute, seconds=0.01)
        assert trial.passes >= 1 and trial.peak_memory_mib > 0
        whole = 64 / (2 * trial.pass_seconds + trial.optimizer_seconds)
        assert trial.tokens_per_second == pytest.approx(whole)
    assert begun[0] == pytest.approx(0.02, rel=0.2), "logits as wild as torch's own take longer"


def test_a_trial_of_an_adapter_with_a_teacher(
    make_model: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    config = make_model().config
    options = SftOptions(seq_len=16, batch_tokens=32, adapter=AdapterOptions("lora", rank=2))
    options = with_adapter_settings(options)
    trial = run_trial(config, options, 2, CPU, torch.float32, beside=[config], seconds=0.01)
    assert trial.passes >= 1 and capsys.readouterr().out == "", "JSON may be printed"


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "examine", lambda device, where: LAPTOP)
    monkeypatch.setattr(command, "run_trial", partial(run_trial, seconds=0.01))
    monkeypatch.setenv("COLUMNS", "120")
    path = str(RECIPES / "smoke.yaml")
    words = ["--out_dir", str(tmp_path), "--device", "cpu", "--model.hidden_size", "32"]
    for stage in ("pretrain", "sft", "dpo"):
        words += [f"--{stage}.seq_len", "16", f"--{stage}.batch_tokens", "64"]
    assert cli_main(["doctor", path, "--json", "--measure", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["peaks"]["fp32"] == 2e11
    first = found["stages"][0]
    assert first["stage"] == "pretrain" and first["seq_len"] == 16
    assert sum(first["parts"].values()) == pytest.approx(1)
    assert first["measured"]["tokens_per_second"] > 0
    assert cli_main(["doctor", path, "--measure", *words]) == 0
    printed = capsys.readouterr().out
    for part in ("this machine", "200 GFLOP/s", "limited by", "BitBrain's", "measured in"):
        assert part in printed
    assert cli_main(["doctor", "--device", "cpu"]) == 0
    assert "limited by" not in capsys.readouterr().out
    assert cli_main(["doctor", "--help"]) == 0
    assert "--measure" in capsys.readouterr().out


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main(["doctor", str(tmp_path / "none.yaml")]) == 2
    assert cli_main(["doctor", str(RECIPES / "smoke.yaml"), "--pretrain.tokenz", "3"]) == 2
    assert "did you mean" in capsys.readouterr().err
    recipe = recipe_of("smoke", tmp_path, "--model.path", "hf:Qwen/Qwen3-0.6B")
    with pytest.raises(MiaoError, match="downloads nothing"):
        recipe_config(recipe)
