"""The page itself: well-formed, self-contained, and inert whatever the texts contain."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from miao.errors import MiaoError
from miao.files import append_jsonl
from miao.report import write_report
from miao.report.words import phrases
from miao.rundir import RunDir

VOID = {"meta", "input", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """Checks that every tag is closed in order; collects scripts, attributes and text."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(run: RunDir) -> tuple[str, Page]:
    path = write_report(run)
    assert path == run.path / "report.html"
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def test_sections_are_there_in_both_languages(run: RunDir) -> None:
    _, page = page_of(run)
    ids = [attributes.get("id") for _, attributes in page.tags]
    for name in (
        "summary",
        "training",
        "scores",
        "samples",
        "changes",
        "mistakes",
        "data",
        "time",
        "settings",
    ):
        assert ids.count(name) == 1, name
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    assert links and all(link and link[0] == "#" and link[1:] in ids for link in links)
    text = "".join(page.text)
    for title in (
        "训练曲线",
        "Training curves",
        "答错的题",
        "Wrong answers",
        "数据",
        "Where the time went",
    ):
        assert title in text
    assert (
        "abc123" in text and "a small CPU" in text and "torch 2.13.0" in text and "seed: 7" in text
    )
    assert "not complete" not in text
    assert sum(tag == "svg" and a.get("class") == "chart" for tag, a in page.tags) == 3 + 2


def test_page_loads_nothing_and_runs_no_script_but_its_own(run: RunDir) -> None:
    html, page = page_of(run)
    for tag, attributes in page.tags:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "action", "onerror"), (tag, name)
            if name != "aria-label":
                assert "http://" not in (value or "") and "https://" not in (value or ""), (
                    tag,
                    name,
                )
    assert not re.search(r"url\(|@import", html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert html.count("<script>") == html.count("</script>") == 1
    policy = next(
        a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy and "default-src 'none'" in policy and "unsafe-inline'; script" in policy
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_text_is_shown_not_obeyed(run: RunDir, hostile: str) -> None:
    html, page = page_of(run)
    # Sample, change (question and answer), 12 mistakes less one, source, shape, file, recipe.
    assert "".join(page.text).count(hostile) == 1 + 2 + 11 + 1 + 1 + 1 + 1
    assert "<img" not in html and "alert('x')</script>" not in html


@pytest.mark.parametrize("empty", [True, False])
def test_a_run_that_has_just_begun_gives_a_report_that_says_so(tmp_path: Path, empty: bool) -> None:
    run = RunDir(tmp_path / "begun")
    run.path.mkdir()
    if not empty:
        (run.path / "recipe.yaml").write_text("name: begun\ndpo: {enabled: false}\n", "utf-8")
        stages = {"corpus": {"fingerprint": "f", "seconds": 1.0}}
        (run.path / "stages.json").write_text(json.dumps(stages), "utf-8")
        lines = [("pretrain", 3.0), ("pretrain", math.nan), ("pretrain", 2.0), ("dpo", 0.6)]
        for step, (stage, loss) in enumerate(lines, 1):
            tokens = 1000 * step
            line = {"stage": stage, "step": step, "tokens": tokens, "seconds": 1.0, "loss": loss}
            append_jsonl(run.metrics, line)
    _, page = page_of(run)
    text = "".join(page.text)
    for words in (
        "not complete",
        "Nothing has been evaluated yet.",
        "There are no samples yet.",
        "No questions have been asked yet.",
        "There is no corpus yet.",
    ):
        assert words in text, words
    assert ("There is no recipe.yaml." in text) == empty
    assert ("their earlier results are not shown" in text) != empty
    assert ("This stage has not been trained to its end." in text) != empty
    assert text.count("Nothing is logged of this stage yet.") == (3 if empty else 1)


def test_no_run_and_a_damaged_recipe_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(MiaoError, match="there is no run here"):
        write_report(RunDir(tmp_path / "nothing"))
    (tmp_path / "recipe.yaml").write_text("a: [1", "utf-8")
    with pytest.raises(MiaoError, match=r"recipe\.yaml: the recipe is not YAML"):
        write_report(RunDir(tmp_path))
    (tmp_path / "recipe.yaml").write_text("- a", "utf-8")
    with pytest.raises(MiaoError, match="not a mapping"):
        write_report(RunDir(tmp_path))


def test_every_rule_of_the_corpus_is_explained_in_both_languages() -> None:
    assert len(phrases("rules")) > 40
    assert not [name for name, why in phrases("rules").items() if not why.zh or why.zh == why.en]
