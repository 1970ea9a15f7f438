"""A page as a folder for static hosts, and its theme and card: files, checksums, sizes, colours."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from miao.commands.export import main
from miao.errors import MiaoError
from miao.export.card import Card, Facts
from miao.export.page import card_facts
from miao.model import Decoder, load_config, save_model
from miao.page import html
from miao.page.contents import read_contents
from miao.page.html import HERE, folder
from miao.page.node import has_node
from miao.page.theme import DARK, LIGHT, contrast, themed
from miao.tokenizer import Tokenizer

SHAPE = {"vocab_size": 384, "max_position_embeddings": 256, "eos_token_id": 2}
CSS = (HERE / "page.css").read_text("utf-8")


@pytest.fixture
def model(make_model: Callable[..., Decoder], tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_model(make_model(**SHAPE), tmp_path / "sprout")
    tokenizer.save(tmp_path / "sprout")
    return tmp_path / "sprout"


@pytest.mark.skipif(not has_node(), reason="Node.js is not installed")
def test_export_writes_a_folder_with_what_hosts_want(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site"
    words = [str(model), "--to", "folder", "--out", str(out), "--title", "苗: 'x'"]
    assert main([*words, "--theme", "dark", "b3541e", "--license", "mit"]) == 0
    said = capsys.readouterr().out
    assert "5 of 5 equal" in said and f"http.server --directory {out}" in said
    head = yaml.safe_load((out / "README.md").read_text("utf-8").split("---\n")[1])
    assert head["sdk"] == "static" and head["app_file"] == "index.html"
    assert head["title"] == "苗: 'x'" and head["license"] == "mit"
    sums = dict(
        reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines()
    )
    for name, digest in sums.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert {"index.html", "sw.js", "README.md", ".nojekyll"} < sums.keys()
    assert '<script id="weights"' not in (out / "index.html").read_text("utf-8")
    assert main(words) == 0, "its own earlier folder is replaced"
    with pytest.raises(MiaoError, match="this export is a directory"):
        main([*words[:4], str(tmp_path / "site.html")])
    with pytest.raises(MiaoError, match="--theme pink is no theme"):
        main([*words, "--theme", "pink"])


def test_parts_are_small_and_together_the_weights(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert html.MOST_BYTES <= 25_000_000
    monkeypatch.setattr(html, "MOST_BYTES", 7_000)
    contents = read_contents(model, kind="folder")
    files = folder(contents, "苗", {})
    parts = [name for name in files if name.endswith(".bin")]
    assert parts == sorted(parts) and len(parts) > 3
    assert b"".join(files[name] for name in parts) == contents.weights
    for name in parts:
        assert len(files[name]) <= 7_000
        assert f"{zlib.crc32(files[name]):08x}" in name, "a changed part has another address"
    policy = files["index.html"].decode().split("<style>")[0]
    assert "connect-src 'self'" in policy and "https:" not in policy


def test_the_card_tells_how_the_model_was_grown(model: Path) -> None:
    facts = Facts(
        trained=[["SFT 微调", "0.5M", "240", "5:30", "1.06", ""]],
        sources=[["SFT 微调", "mine", "the author's files", "9", "1", "2K", "1K"]],
        score_columns=["after SFT"],
        scores=[["choice", "", "400", "85.5 % ± 1.8 %", "25.0 %"]],
        base="owner/base",
        tokens="2.4M",
        machine="torch 2.13",
        recipe="name: sprout",
    )
    card = Card("苗", load_config(model), "sft", facts, "mit", ["zh"], True, "int8")
    told = card_facts(card)
    rows = dict(told["facts"])
    assert rows["base"] == "owner/base" and rows["license"] == "mit" and rows["tokens"] == "2.4M"
    assert told["trained"] == [["SFT 微调", "0.5M", "240", "5:30", "1.06"]]
    assert told["sources"] == [["SFT 微调", "mine", "the author's files", "9", "2K", "1K"]]
    assert told["scores"][0][-1] == "25.0 %" and told["recipe"] == "name: sprout"
    stranger = card_facts(Card("苗", card.config, None, None, "unknown", [], True, "int8"))
    assert not stranger["trained"] and not stranger["sources"] and not stranger["recipe"]


@pytest.mark.parametrize("accent", ["ffff00", "#000000", "ffffff", "1f7a4f", "808080"])
def test_an_accent_stands_out_and_can_be_read_on(accent: str) -> None:
    css = themed(CSS, ["auto", accent])
    for number, colours in enumerate((LIGHT, DARK)):
        leaf, ink = (re.findall(rf"--{name}: (#\w+);", css)[number] for name in ("leaf", "on-leaf"))
        paper = colours["paper"]
        leaf, ink, paper = ([int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (leaf, ink, paper))
        assert contrast(leaf, paper) >= 2.95 and contrast(leaf, ink) >= 4.5
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)


def test_a_theme_decides_when_it_is_dark() -> None:
    assert "@media (prefers-color-scheme: dark)" in themed(CSS)
    assert "@media all {" in themed(CSS, ["dark"]) and "@media not all {" in themed(CSS, ["light"])
    assert "{{" not in themed(CSS)
