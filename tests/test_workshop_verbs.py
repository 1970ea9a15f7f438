"""`miao tokenizer inspect|compare|extend|import` and `miao shards stats|append|export`, as typed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from miao.cli import main
from miao.files import read_json, write_jsonl
from miao.model import Decoder, load_model, save_model
from miao.recipe import Recipe
from miao.shards import TokenDataset
from miao.tokenizer import Tokenizer
from miao.train.stage import trained_tokens

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are not folded."""
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def run(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A run directory as far as these verbs look at one."""
    tokenizer.save(tmp_path / "run" / "tokenizer")
    write_jsonl(tmp_path / "texts.jsonl", ({"text": f"第{n}天 rain was kind"} for n in range(9)))
    chat = [{"role": "user", "content": "好吗？"}, {"role": "assistant", "content": "好的。"}]
    write_jsonl(tmp_path / "chats.jsonl", ({"messages": chat} for _ in range(3)))
    target = tmp_path / "run" / "shards" / "pretrain" / "train" / "texts"
    assert main(["shards", "append", str(target), str(tmp_path / "texts.jsonl")]) == 0
    return tmp_path / "run"


def test_inspect(run: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main(["tokenizer", "inspect", str(run), "--text", "的 the", "--ids"]) == 0
    assert "characters and" in capsys.readouterr().out
    assert main(["tokenizer", "inspect", str(run), "--file", str(run.parent / "chats.jsonl")]) == 0
    assert capsys.readouterr().out.count("learnt)") == 3
    assert main(["tokenizer", "inspect", str(run)]) == 0
    out = capsys.readouterr().out
    assert "common Chinese characters" in out and "unused, longest first" in out
    assert "pretraining shards" in out
    corpus = ["--corpus", str(run.parent / "texts.jsonl")]
    assert main(["tokenizer", "inspect", str(run / "tokenizer"), *corpus]) == 0
    assert "texts.jsonl:" in capsys.readouterr().out


def test_a_chat_file_that_begins_badly_is_still_one(run: Path, capsys: Capture) -> None:
    bad = run.parent / "bad.jsonl"
    chat = {"messages": [{"role": "user", "content": "好吗？"}]}
    answered = {"messages": [*chat["messages"], {"role": "assistant", "content": "好的。"}]}
    write_jsonl(bad, [chat, *[answered] * 3])
    assert main(["tokenizer", "inspect", str(run), "--file", str(bad)]) == 2
    said = capsys.readouterr().err
    assert f"{bad}:1" in said and "no assistant turn" in said


def test_long_work_shows_where_it_is(
    run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miao.console.PLAIN_INTERVAL", -1)
    write_jsonl(run.parent / "new.jsonl", ({"text": "zigzag zigzag"} for _ in range(4)))
    text = str(run.parent / "new.jsonl")
    assert main(["tokenizer", "inspect", str(run), "--corpus", text]) == 0
    assert "counting tokens 75%" in capsys.readouterr().out
    words = ["tokenizer", "extend", str(run), "--out", str(run.parent / "t"), "--text", text]
    assert main([*words, "--new-tokens", "3"]) == 0
    assert "reading the text 75%" in capsys.readouterr().out


def test_compare(run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine.txt").write_text("今天天气很好 [red]", encoding="utf-8")
    words = ["tokenizer", "compare", str(run), str(run / "tokenizer" / "tokenizer.json")]
    words += ["--text", str(tmp_path / "mine.txt")]
    assert main(words) == 0
    out = capsys.readouterr().out
    for column in ("zh", "en", "code", "math", "classical", "mine.txt"):
        assert column in out
    assert main([*words, "--only"]) == 0
    assert "classical" not in capsys.readouterr().out


def test_extend_a_tokenizer_and_a_model(
    run: Path,
    tokenizer: Tokenizer,
    make_model: Callable[..., Decoder],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    write_jsonl(tmp_path / "new.jsonl", ({"text": "zigzag zigzag"} for _ in range(4)))
    text = ["--text", str(tmp_path / "new.jsonl"), "--new-tokens", "3"]
    control = ["--control", "<|note|>"]
    save_model(make_model(vocab_size=tokenizer.vocab_size), run / "model")
    assert main(["tokenizer", "extend", str(run), "--out", str(tmp_path / "t"), *text]) == 0
    said = capsys.readouterr().out
    assert f"the tokenizer only: a model needs as many embedding rows; extend {run}/model" in said
    assert Tokenizer.from_directory(tmp_path / "t").vocab_size == tokenizer.vocab_size + 3
    model = make_model(vocab_size=tokenizer.vocab_size)
    save_model(model, tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    words = ["tokenizer", "extend", str(tmp_path / "model"), "--out", str(tmp_path / "grown")]
    assert main([*words, *text, *control]) == 0
    grown, new = load_model(tmp_path / "grown"), Tokenizer.from_directory(tmp_path / "grown")
    assert grown.config.vocab_size == new.vocab_size == tokenizer.vocab_size + 4
    old_rows, rows = model.model.embed_tokens.weight, grown.model.embed_tokens.weight
    torch.testing.assert_close(rows[: len(old_rows)], old_rows)
    id = tokenizer.vocab_size
    parts = tokenizer.encode(new.token_bytes(id).decode())
    torch.testing.assert_close(rows[id], old_rows[parts].mean(dim=0))
    ids = torch.tensor([tokenizer.encode("今天")])
    torch.testing.assert_close(grown(ids)[..., :id], model(ids))
    recipe = Recipe(name="x")
    new_ids = trained_tokens("sft.adapter.tokens", [], recipe, new, tmp_path / "grown")
    assert new_ids == [id, id + 1, id + 2, id + 3], "beside an adapter their rows are trained"
    assert not trained_tokens("sft.adapter.tokens", [], recipe, tokenizer, tmp_path / "model")
    assert main([*words[:-2], "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_import(tokenizer: Tokenizer, tmp_path: Path, capsys: Capture) -> None:
    ranks = [tokenizer.token_bytes(id) for id in range(16, tokenizer.vocab_size)]
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(ranks)]
    (tmp_path / "v.tiktoken").write_text("\n".join(lines))
    words = ["tokenizer", "import", str(tmp_path / "v.tiktoken"), "--out", str(tmp_path / "out")]
    assert main(words) == 2 and "--pattern" in capsys.readouterr().err
    assert main([*words, "--pattern", "qwen2", "--special", "<|end|>=900", "--bare"]) == 0
    loaded = Tokenizer.from_directory(tmp_path / "out")
    assert loaded.document_boundary_id == 900
    ids = loaded.encode("今天天气很好")
    assert [id + 16 for id in ids] == tokenizer.encode("今天天气很好")


def test_shards(run: Path, tmp_path: Path, capsys: Capture) -> None:
    capsys.readouterr()
    texts = run / "shards" / "pretrain" / "train" / "texts"
    write_jsonl(tmp_path / "more.jsonl", ({"text": f"more {n}"} for n in range(4)))
    assert main(["shards", "append", str(texts), str(tmp_path / "more.jsonl")]) == 0
    assert "4 documents more" in capsys.readouterr().out
    assert main(["shards", "append", str(texts), str(tmp_path / "more.jsonl")]) == 0
    assert "not added twice" in capsys.readouterr().out
    assert len(TokenDataset(texts)) == 13
    chats = ["shards", "append", str(tmp_path / "chats"), str(tmp_path / "chats.jsonl")]
    assert main(chats) == 2 and "which tokenizer" in capsys.readouterr().err
    assert main([*chats, "--tokenizer", str(run), "--kind", "conversation"]) == 0
    capsys.readouterr()
    assert main(["shards", "stats", str(run), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "pretrain/train/texts" in out and "all checksums are right" in out
    assert "> 512" in out and "> 4" not in out
    (run / "recipe.yaml").write_text("pretrain: {seq_len: 4}\nsft: {}\ndpo:\n")
    assert main(["shards", "stats", str(run)]) == 0
    assert "> 4" in capsys.readouterr().out, "the row that the run's recipe has"
    assert main(["shards", "stats", str(tmp_path / "chats"), "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["sequences"]) == ("conversation", 3)
    export = ["shards", "export", str(run), "--to", "tensors", "--out", str(tmp_path / "tensors")]
    assert main([*export, "--max-length", "6", "--no-bos"]) == 0
    manifest = read_json(tmp_path / "tensors" / "manifest.json")
    assert manifest["examples"] == 13 and manifest["truncated"] > 0
    assert main(["shards", "stats", str(tmp_path / "nothing")]) == 2
    assert main(["shards", "append", str(tmp_path), str(tmp_path / "more.jsonl")]) == 2


def test_nothing_else_is_replaced(run: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A run, a folder of texts, shards: none of them gives way to a corpus or a tokenizer."""
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("今天天气很好。", encoding="utf-8")
    (texts / "manifest.json").write_text("{}", encoding="utf-8")
    ranks = tmp_path / "x.tiktoken"
    ranks.write_text("".join(f"{base64.b64encode(bytes([n])).decode()} {n}\n" for n in range(256)))
    for out in (run, texts, ranks):
        for words in (
            ["tokenizer", "import", str(ranks), "--pattern", "gpt2", "--out", str(out)],
            ["tokenizer", "extend", str(run), "--control", "<|x|>", "--out", str(out)],
            ["corpus", "build", str(texts / "a.txt"), "--out", str(out)],
        ):
            before = sorted(tmp_path.rglob("*"))
            assert main(words) == 2
            assert sorted(tmp_path.rglob("*")) == before
