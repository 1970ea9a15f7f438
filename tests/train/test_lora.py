"""Adapters: what they change, what is saved, and that peft reads it on transformers' model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from miao.cli import main
from miao.engine.engine import Engine
from miao.engine.sampling import SamplingOptions
from miao.errors import Interrupted, MiaoError
from miao.export.adapter import merge_adapter
from miao.model import Decoder, ModelConfig, load_model, save_model
from miao.model.directory import read_safetensors
from miao.recipe import DpoOptions, PretrainOptions, SftOptions
from miao.recipe.stages import AdapterOptions
from miao.shards import TokenDataset
from miao.tokenizer import Tokenizer
from miao.train.adapters import (
    adapter_of,
    adapter_size,
    add_adapter,
    has_adapter,
    merged,
    save_adapter,
    with_adapter_settings,
)
from miao.train.loop import Trainer
from tests.train.tiny import curve, stop_after, trainer

peft = pytest.importorskip("peft")
KINDS = ["lora", "rslora", "dora"]
IDS = torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(2))


def disturb(model: Decoder) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def everywhere_alike(
    model: Decoder, base: Path, ids: torch.Tensor, folder: Path
) -> tuple[Decoder, torch.Tensor]:
    """The merged model and the logits, which are also those of PEFT with the saved adapter and of
    what `miao export --merge-lora` writes; the adapter is left in `folder`."""
    transformers = pytest.importorskip("transformers")
    changed = model(ids).detach()
    save_adapter(model, folder / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    other = peft.PeftModel.from_pretrained(theirs, folder / "adapter").eval()
    plain = merged(model)
    (folder / "written").mkdir()
    assert merge_adapter(base, folder / "adapter", folder / "written").passed
    written = load_model(folder / "written")
    with torch.no_grad():
        torch.testing.assert_close(other(ids).logits, changed, atol=2e-3, rtol=1e-4)
        torch.testing.assert_close(plain(ids), changed, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(written(ids), changed, atol=2e-3, rtol=1e-4)
    return plain, changed


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_nothing_and_a_merged_one_is_the_same_model(
    kind: Any, make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    model = make_model()
    with torch.no_grad():
        before = model(IDS)
        add_adapter(model, AdapterOptions(kind, rank=3), tmp_path, seed=0)
        torch.testing.assert_close(model(IDS), before, atol=1e-4, rtol=1e-5)
        disturb(model)
        changed = model(IDS)
        assert float((changed - before).abs().max()) > 0.1
        plain = merged(model)
        torch.testing.assert_close(plain(IDS), changed, atol=1e-3, rtol=1e-4)
    assert not has_adapter(plain) and has_adapter(model)
    assert set(plain.state_dict()) == set(make_model().state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_pefts_own_loader_gives_the_same_logits(
    kind: Any, make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    model = make_model(qk_norm=True)
    save_model(model, tmp_path / "base")
    options = AdapterOptions(kind, rank=4, alpha=6, targets=["q_proj", "o_proj", "down_proj"])
    add_adapter(model, options, tmp_path / "base", seed=0)
    disturb(model)
    save_adapter(model, tmp_path / "adapter")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    other = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(other(IDS).logits, model(IDS), atol=2e-3, rtol=1e-4)
    assert other.peft_config["default"].base_model_name_or_path == str(tmp_path / "base")


def test_all_linear_layers_by_default_and_latent_attention_too(
    make_model: Callable[..., Decoder], tmp_path: Path, capsys: Any
) -> None:
    from tests.model.shapes import LATENT

    model = make_model(**LATENT)
    add_adapter(model, AdapterOptions("lora", rank=2), tmp_path, seed=0)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert not any("lora_" in name for name in frozen)
    adapted = {n.split(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
    linear = {n for n, _ in make_model(**LATENT).named_modules() if "_proj" in n.rpartition(".")[2]}
    assert {name for name in linear if ".experts" not in name} == adapted
    assert "kv_b_proj" in capsys.readouterr().out
    disturb(model)
    with torch.no_grad():
        torch.testing.assert_close(merged(model)(IDS), model(IDS), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("shape", ["dense", "latent"])
def test_what_is_generated_comes_from_the_adapted_model(
    shape: str, make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    from tests.model.shapes import LATENT

    model = make_model(**(LATENT if shape == "latent" else {})).eval()
    add_adapter(model, AdapterOptions("lora", rank=2), tmp_path, seed=0)
    before = greedy(model)
    disturb(model)
    assert greedy(model) != before
    assert greedy(model) == greedy(merged(model))


def greedy(model: Decoder) -> list[int]:
    """What the engine goes on with; every token must be the full forward pass's."""
    prompt = IDS[0, :8].tolist()
    (found,) = Engine(model, frozenset()).generate([prompt], SamplingOptions(max_new_tokens=12))
    with torch.no_grad():
        assert model(torch.tensor([prompt + found]))[0, 7:-1].argmax(dim=-1).tolist() == found
    return found


def test_a_target_that_is_not_there_is_named(
    make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    with pytest.raises(MiaoError, match="'qq_proj'") as error:
        add_adapter(make_model(), AdapterOptions("lora", targets=["qq_proj"]), tmp_path, 0)
    assert "q_proj" in str(error.value)


def test_adapters_train_with_adamw_and_dropout_excludes_computing_twice() -> None:
    options = SftOptions(adapter=AdapterOptions("lora"), muon_learning_rate=0.02)
    settings = with_adapter_settings(options)
    assert settings.muon_learning_rate == 0 and settings.activation_checkpointing == "auto"
    dropped = DpoOptions(adapter=AdapterOptions("lora", dropout=0.1))
    assert with_adapter_settings(dropped).activation_checkpointing == "off"
    for whole in (SftOptions(), PretrainOptions()):
        assert with_adapter_settings(whole) is whole and adapter_of(whole) is None


def adapted(sources: list[TokenDataset], directory: Path, seed: int = 0) -> Trainer:
    model = Decoder(ModelConfig(97, 32, 2, 2, 1, 16, 48, max_position_embeddings=64))
    model.initialize(0)
    add_adapter(model, AdapterOptions("lora", rank=4, dropout=0.2), directory, seed)
    torch.manual_seed(seed)
    return trainer(sources, directory, model, muon_learning_rate=0.0)


def test_only_the_adapter_is_trained_and_kept_and_it_resumes_to_the_bit(
    sources: list[TokenDataset], tmp_path: Path
) -> None:
    whole = adapted(sources, tmp_path / "whole")
    before = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.run()
    after = whole.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_" in name}

    stopped = adapted(sources, tmp_path / "stopped")
    stop_after(stopped, 7)
    with pytest.raises(Interrupted):
        stopped.run()
    (saved,) = (tmp_path / "stopped" / "checkpoints").glob("step-*7/model.safetensors")
    assert set(read_safetensors(saved)) == moved
    resumed = adapted(sources, tmp_path / "stopped", seed=9)
    resumed.run()
    for name, value in after.items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert curve(tmp_path / "whole") == curve(tmp_path / "stopped")


def test_chat_with_an_adapter_is_chat_with_the_merged_model(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("transformers")
    model = make_model(vocab_size=tokenizer.vocab_size, qk_norm=True)
    for name in ("base", "merged"):
        tokenizer.save(tmp_path / name, model_max_length=64)
    save_model(model, tmp_path / "base")
    add_adapter(model, AdapterOptions("lora", rank=2), tmp_path / "base", seed=0)
    disturb(model)
    save_adapter(model, tmp_path / "adapter")
    save_model(merged(model), tmp_path / "merged")
    answers = []
    directories = [[str(tmp_path / "merged")], [str(tmp_path / "base")]]
    adapter = ["--adapter", str(tmp_path / "adapter")]
    for words in (*directories, [directories[1][0], *adapter], adapter):
        capsys.readouterr()
        question = ["-p", "好吗", "--temperature", "0", "--max-new-tokens", "6", "--device", "cpu"]
        assert main(["chat", *words, *question]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[2] == answers[3] != answers[1]


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_new_tokens_are_trained_beside_an_adapter_and_peft_reads_them(
    tied: bool, make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    """Their gradients are those of the whole matrices, no other row moves, and PEFT's model, the
    merged one, and the one that `miao export --merge-lora` writes have the same logits."""
    tokens, base = [5, 90, 91], tmp_path / "base"
    model, whole = (make_model(tie_word_embeddings=tied) for _ in range(2))
    save_model(model, base)
    ids = IDS.clone()
    ids[0, :6] = torch.tensor([5, 90, 91, 5, 90, 7])
    with torch.no_grad():
        before = model(ids)
    add_adapter(model, AdapterOptions("lora", rank=3), base, seed=0, tokens=tokens)
    torch.testing.assert_close(model(ids), before, atol=1e-4, rtol=1e-5)
    assert model.token_rows is not None
    rows = model.token_rows.rows
    for one in (model, whole):
        one(ids[:, :-1], labels_bt=ids[:, 1:], output="loss").backward()
    tables = {"embed_tokens": whole.model.embed_tokens, "lm_head": whole.lm_head}
    assert set(rows) == ({"embed_tokens"} if tied else set(tables))
    for name, values in rows.items():
        gradient = tables[name].weight.grad
        assert values.grad is not None and gradient is not None
        torch.testing.assert_close(values.grad, gradient[tokens], atol=1e-4, rtol=1e-3)
    assert model.model.embed_tokens.weight.grad is None and model.lm_head.weight.grad is None
    disturb(model)
    for values in rows.values():
        values.data += 0.3
    plain, _ = everywhere_alike(model, base, ids, tmp_path)
    kept = [id for id in range(97) if id not in tokens]
    own, old = (one.model.embed_tokens.weight[kept] for one in (plain, whole))
    assert torch.equal(own, old)
    options = SamplingOptions(max_new_tokens=9)
    answers = [Engine(m, frozenset()).generate([[5, 90, 3]], options) for m in (model, plain)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("tied", "named"),
    [(False, ["embed_tokens", "lm_head"]), (False, ["lm_head"]), (True, ["embed_tokens"])],
)
def test_whole_matrices_are_trained_beside_an_adapter_and_peft_reads_them(
    tied: bool, named: list[Any], make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    """PEFT's `modules_to_save`: its model, the merged one, and the one that `miao export
    --merge-lora` writes have the same logits; nothing else of the base moves."""
    base = tmp_path / "base"
    model, before = (make_model(tie_word_embeddings=tied) for _ in range(2))
    save_model(model, base)
    options = AdapterOptions("lora", rank=3, modules_to_save=named)
    add_adapter(model, options, base, seed=0)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    whole = {name for name in trained if "lora_" not in name}
    assert whole == {f"model.{n}.weight" if n == "embed_tokens" else f"{n}.weight" for n in named}
    assert adapter_size(before, options) == sum(model.get_parameter(n).numel() for n in trained)
    disturb(model)
    generator = torch.Generator().manual_seed(4)
    for name in whole:
        table = model.get_parameter(name)
        table.data += 0.1 * torch.randn(table.shape, generator=generator)
    _, changed = everywhere_alike(model, base, IDS, tmp_path)
    with torch.no_grad():
        assert float((changed - before(IDS)).abs().max()) > 0.1
    saved = read_safetensors(tmp_path / "adapter" / "adapter_model.safetensors")
    both = {"model.embed_tokens.weight", "lm_head.weight"} if tied else whole
    assert {n.removeprefix("base_model.model.") for n in saved if "lora_" not in n} == both


def test_half_of_a_pair_trained_whole_leaves_no_rows_behind(
    make_model: Callable[..., Decoder], tmp_path: Path
) -> None:
    options = AdapterOptions("lora", modules_to_save=["embed_tokens"])
    with pytest.raises(MiaoError, match="name both"):
        add_adapter(make_model(tie_word_embeddings=False), options, tmp_path, seed=0, tokens=[5])
