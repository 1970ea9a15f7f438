"""What the pages point to is there: files, anchors, the same page in the other language."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"")
MENTIONED = re.compile(
    r"(?<![\w/.-])(?:recipes|docs|scripts|benchmarks|miao)/[\w./-]+\.(?:ya?ml|md|sh|py)\b"
)
FENCE = re.compile(r"^( *>? *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def links_of(text: str) -> list[str]:
    """Targets of all links and images outside of code."""
    prose = re.sub(r"`[^`\n]*`", "`code`", FENCE.sub("", text))
    return [found[0] or found[1] for found in LINK.findall(prose)]


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def problems_of(page: Path) -> list[str]:
    wrong = []
    for link in links_of(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors_of(target.read_text(encoding="utf-8")):
            wrong.append(f"{link}: no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert problems_of(page) == []


def test_the_check_itself_finds_what_it_should(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `B`: *c* (d)\n[one](#a-b-c-d) [two](#e) [three](gone.md) [four](page.md#一-二)\n"
        '<img src="gone.png"> `[five](gone)` [six](https://x.org/y)\n## 一 · 二？\n'
        "```\n# e\n[seven](gone)\n```\n> ```bash\n> [eight](gone)\n> ```\n[nine](page.md#一--二)\n",
        encoding="utf-8",
    )
    found = [problem.partition(":")[0] for problem in problems_of(page)]
    assert found == ["#e", "gone.md", "page.md#一-二", "gone.png"]


def test_both_languages_have_the_same_pages() -> None:
    english, chinese = ({path.name for path in (DOCS / code).iterdir()} for code in ("en", "zh"))
    assert english == chinese
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for name in english:
        assert f"(en/{name})" in index and f"(zh/{name})" in index
        for code, other in (("en", "zh"), ("zh", "en")):
            assert f"(../{other}/{name})" in (DOCS / code / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", ["miao/recipes", "scripts", "docs", "docker"])
def test_files_that_are_mentioned_are_there(folder: str) -> None:
    """`scripts/x.sh` and the like in commands, comments and prose."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in (".yaml", ".sh", ".md") or path.name == "Dockerfile":
            for name in MENTIONED.findall(path.read_text(encoding="utf-8")):
                is_there = (ROOT / name).exists() or Path(name).stem.isupper()  # RECIPE.yaml
                assert is_there, f"{path.relative_to(ROOT)} names {name}"


def messages_of(path: Path) -> list[str]:
    """What a file of the package may say: strings of Python but for docstrings, else all of it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [text]
    nodes = list(ast.walk(ast.parse(text)))
    alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    strings = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in alone]
    return [node.value for node in strings if isinstance(node.value, str)]


def test_no_message_names_a_path_of_the_source_tree() -> None:
    """Whoever installed a wheel has none."""
    for path in sorted((ROOT / "miao").rglob("*")):
        if path.suffix in {".py", ".js", ".html", ".j2", ".yaml"}:
            for message in messages_of(path):
                assert not (named := MENTIONED.findall(message)), f"{path}: {named}"


@pytest.mark.parametrize("code", ["en", "zh"])
def test_every_topic_has_ten_questions_whose_answers_name_a_page(code: str) -> None:
    page = (DOCS / code / "know-it.md").read_text(encoding="utf-8")
    topics = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert len(topics) == 12
    for topic in topics:
        questions = re.split(r"^\d+\. ", topic, flags=re.MULTILINE)[1:]
        assert len(questions) == 10, topic.splitlines()[0]
        for question in questions:
            answer = question.partition("</summary>")[2]
            assert len(answer.split("](")[0].strip()) > 10, question
            assert re.search(r"\]\(\d+-[a-z-]+\.md\)", answer), question


def test_every_lesson_has_two_exercises_with_answers_and_common_mistakes() -> None:
    heads = {
        "en": ("## Two exercises", "**Common mistakes**"),
        "zh": ("## 两道练习", "**常见错误**"),
    }
    for code, (exercises, mistakes) in heads.items():
        for number in range(1, 25):
            (page,) = (DOCS / code).glob(f"{number}-*.md")
            text = page.read_text(encoding="utf-8").partition(exercises)[2]
            assert (
                text.count("<details>") == 2 and text.partition(mistakes)[2].count("\n- ") >= 3
            ), page
