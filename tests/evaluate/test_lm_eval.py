"""lm-evaluation-harness asks, our engine answers; its own model agrees on the exported directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra `eval`)")

from lm_eval.api.instance import Instance

from miao.cli import main
from miao.evaluate.lm_eval_adapter import MiaoLM
from miao.evaluate.tasks.prompts import Encoder
from miao.files import read_jsonl
from miao.model import Decoder, save_model
from miao.tokenizer import Tokenizer

GOLDENS = json.loads((Path(__file__).parent / "goldens_lm_eval.json").read_text(encoding="utf-8"))[
    "goldens"
]
TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{q}}\\nA:"
doc_to_choice: "{{options}}"
doc_to_target: "{{a}}"
metric_list: [{metric: acc}]
"""


@pytest.fixture
def model(make_model: Callable[..., Decoder], tokenizer: Tokenizer) -> Decoder:
    return make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)


def requests() -> list[Instance]:
    pairs = [tuple(pair) for golden in GOLDENS[::3] for pair in golden["requests"] if pair[1]]
    return [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]


def test_equal_to_the_harnesss_own_model(
    model: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Contexts longer than the model's (256 tokens) too, which both cut at the beginning."""
    pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    save_model(model, tmp_path)
    tokenizer.save(tmp_path)
    theirs = HFLM(pretrained=str(tmp_path), device="cpu", dtype="float32", max_length=256)
    asked = requests()
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    found = MiaoLM(model, Encoder(tokenizer)).loglikelihood(asked)
    assert len(found) > 40
    for one, other in zip(found, expected, strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-3)
        assert one[1] == bool(other[1])


def test_rolling_windows_are_the_harnesss(model: Decoder, tokenizer: Tokenizer) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    text = "The seedling grew a little every day. " * 30
    ids = tokenizer.encode(text)
    assert len(ids) > 256
    windows = get_rolling_token_windows(
        token_list=ids, prefix_token=tokenizer.document_boundary_id, max_seq_len=256, context_len=1
    )
    expected = 0.0
    with torch.inference_mode():
        for before, scored in map(make_disjoint_window, windows):
            piece = torch.tensor([[*before, *scored]])
            logprobs = model(piece[:, :-1]).float().log_softmax(-1)
            found = logprobs.gather(2, piece[:, 1:, None])[0, -len(scored) :]
            expected += float(found.sum())
    lm = MiaoLM(model, Encoder(tokenizer))
    (found_by_us,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert found_by_us == pytest.approx(expected, rel=1e-4)


def test_generation_stops_before_the_stop(model: Decoder, tokenizer: Tokenizer) -> None:
    lm = MiaoLM(model, Encoder(tokenizer))
    settings = {"until": [], "max_gen_toks": 12}
    (whole,) = lm.generate_until([Instance("generate_until", {}, ("你好", settings), 0)])
    assert whole
    stop = whole[len(whole) // 2]
    asked = Instance("generate_until", {}, ("你好", settings | {"until": [stop]}), 0)
    assert lm.generate_until([asked]) == [whole[: whole.index(stop)]]


def test_the_command(
    model: Decoder, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_CACHE", str(tmp_path / "cache"))):
        monkeypatch.setenv(name, value)
    save_model(model, Path("tiny"))
    tokenizer.save(Path("tiny"))
    records = [
        {"q": "1+1?", "options": ["2", "3"], "a": 0},
        {"q": "x", "options": ["y", "z"], "a": 1},
    ]
    Path("data.json").write_text("\n".join(json.dumps(r) for r in records), encoding="utf-8")
    Path("tasks").mkdir()
    task = TASK.replace("FILE", str(tmp_path / "data.json"))
    Path("tasks/tiny.yaml").write_text(task, encoding="utf-8")
    words = ["eval", "tiny", "--harness", "lm-eval", "--include-path", "tasks"]
    assert main([*words, "--tasks", "tiny_choice"]) == 0
    (line,) = read_jsonl("eval_results/tiny/eval_results.jsonl")
    assert line["results"][0]["task"] == "tiny_choice" and line["results"][0]["value"] in (
        0,
        0.5,
        1,
    )
    assert main([*words, "--tasks", "no_such_task"]) == 2
    assert "has no task 'no_such_task'" in capsys.readouterr().err
