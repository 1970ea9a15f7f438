"""CORE: nanochat's texts (goldens_core.json), a plain reading of its choices, and its baselines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from miao.cli import main
from miao.errors import MiaoError
from miao.evaluate.results.core import (
    ask_core,
    core_of,
    read_core,
    read_records,
    shown_with,
    texts_of,
)
from miao.files import read_jsonl
from miao.model import Decoder, save_model
from miao.tokenizer import Tokenizer

HERE = Path(__file__).parent
BUNDLE = HERE / "data/eval_bundle"
GOLDENS = json.loads((HERE / "goldens_core.json").read_text(encoding="utf-8"))


def test_the_texts_are_nanochats() -> None:
    tasks, name, count = read_core(BUNDLE)
    assert (name, count) == ("core", 15)
    assert [task.chance for task in tasks] == pytest.approx([0.403, 0.5, 0, 0])
    for task in tasks:
        records = read_records(task, None)
        for number, golden in enumerate(GOLDENS[task.label]):
            before = shown_with(task, records, number)
            texts = [before + text for text in texts_of(task, records[number])]
            if task.kind == "language_modeling":
                context = str(records[number]["context"]).strip()
                texts.insert(0, (before + context + task.delimiter).strip())
            assert texts == golden


@torch.inference_mode()
def by_hand(model: Decoder, rows: list[list[int]], kind: str) -> tuple[int | None, bool]:
    """The choice, or whether the text behind the first row is what greedy decoding writes."""
    found = []
    if kind == "language_modeling":
        logits = model(torch.tensor([rows[1][:-1]]))[0]
        written = logits.argmax(-1)[len(rows[0]) - 1 :].tolist()
        return None, written == rows[1][len(rows[0]) :]
    for row in rows:
        lengths = [n for n in range(min(map(len, rows)) + 1)]
        if kind == "schema":
            common = max(n for n in lengths if n == 0 or len({tuple(r[-n:]) for r in rows}) == 1)
            first = len(row) - common
        else:
            first = max(n for n in lengths if len({tuple(r[:n]) for r in rows}) == 1)
        logprobs = model(torch.tensor([row[:-1]]))[0].float().log_softmax(-1)
        own = logprobs.gather(1, torch.tensor(row[1:])[:, None])[first - 1 :, 0]
        found.append(float(-own.mean()))
    return found.index(min(found)), False


def test_the_choices_are_those_of_a_plain_reading(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer
) -> None:
    tasks, name, _ = read_core(BUNDLE)
    for seed in range(3):
        model = make_model(seed, vocab_size=tokenizer.vocab_size, max_position_embeddings=512)
        asked = ask_core(model, tokenizer, tasks, None)
        for task, one in zip(tasks, asked, strict=True):
            for number, answer in enumerate(one.answers):
                texts = GOLDENS[task.label][number]
                rows = [[*tokenizer.document_start, *ids] for ids in tokenizer.encode_batch(texts)]
                choice, written = by_hand(model, rows, task.kind)
                assert answer.choice == choice
                assert bool(answer.right) == (
                    written if choice is None else choice == answer.item.answer
                )
        ensemble = core_of(name, tasks, asked)
        accuracies = [part.value for part in ensemble.parts]
        chances = [0.403, 0.5, 0.0, 0.0]
        centred = [(a - c) / (1 - c) for a, c in zip(accuracies, chances, strict=True)]
        assert ensemble.score().value == pytest.approx(sum(centred) / 4)


def test_what_greedy_decoding_writes_is_right(tokenizer: Tokenizer, bigram_model: Callable) -> None:
    """After the last token of the context comes the answer, whatever stood before."""
    tasks, _, _ = read_core(BUNDLE)
    task = next(task for task in tasks if task.label == "last_word")
    start, end = tokenizer.encode("The capital of France is")[-1], tokenizer.encode(" Paris")
    after = dict.fromkeys(zip([start, *end], end, strict=False), 9.0)
    (asked,) = ask_core(bigram_model(after), tokenizer, [task], None)
    right = {answer.item.options[0]: answer.right for answer in asked.answers}
    assert right["Paris"] and not right["霜。"]


def test_core_from_the_command_line(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save_model(make_model(vocab_size=tokenizer.vocab_size), Path("tiny"))
    tokenizer.save(Path("tiny"))
    words = ["eval", "tiny", "--tasks", "core", "--data", str(BUNDLE.parent)]
    assert main(words) == 0
    assert "core (en): " in capsys.readouterr().out
    lines = read_jsonl("eval_results/tiny/eval_results.jsonl")
    assert {line["task"] for line in lines} == {"where", "who", "last_word", "capitals", "core"}
    shutil.copytree(BUNDLE, "part")
    Path("part/eval_data/who.jsonl").unlink()
    assert main([*words[:5], "part"]) == 0
    shown = capsys.readouterr().out
    assert "no files of who" in shown and "core-3of4 (en): " in shown
    for words_more, message in (
        (["--limit", "2"], "--limit 3 or more"),
        (["--chat"], "has no chat"),
        (["--shots", "1"], "--shots: the set 'core' fixes"),
    ):
        assert main([*words, *words_more]) == 2
        assert message in capsys.readouterr().err
    assert main([*words[:5], "tiny"]) == 2
    assert "nanochat's eval_bundle" in capsys.readouterr().err


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    for old, new, message in (
        ("schema", "generation", "who: tasks of kind generation are unknown"),
        ("label: who", "label: whom", "not CORE's list of tasks: KeyError\\('whom'\\)"),
        ("icl_tasks:", "tasks:", "not CORE's list"),
    ):
        folder = tmp_path / message[:4].replace(":", "")
        shutil.copytree(BUNDLE, folder, dirs_exist_ok=True)
        path = folder / "core.yaml"
        path.write_text((BUNDLE / "core.yaml").read_text().replace(old, new))
        with pytest.raises(MiaoError, match=message):
            read_core(folder)
