"""What the pages tell to type is taken by the command line: every verb, option and recipe of every
`miao` line, in both languages. Parsing alone: files need not be there, nothing is trained. And what
they say that their code prints is what it prints."""

from __future__ import annotations

import re
import shlex
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from miao import cli
from miao.errors import MiaoError
from miao.language import Parser
from miao.recipe.reading import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("[ez][nh]/*.md")]
FENCE = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
MENTIONED = re.compile(r"`(miao [a-z][^`\n]*)`")
FLAGS = {"--resume-with-changes", "--measure", "--json", "--help"}
"""Of verbs of a recipe, beside its options."""
NO_RECIPE = re.compile(r"\A(?:RECIPE|配方|\S+\.yaml)\Z")


class Accepted(Exception):
    """The parser had nothing against it."""


def commands_of(text: str) -> list[list[str]]:
    """The words of every `miao` command of a page, without redirections and comments."""
    plain = re.sub(r"^> ?", "", text, flags=re.MULTILINE)
    lines = [
        line for block in FENCE.findall(plain) for line in block.replace("\\\n", " ").splitlines()
    ]
    found = []
    for line in lines + MENTIONED.findall(FENCE.sub("", plain)):
        if re.match(r"\s*(?:\w+=\S+ |(?:torchrun|accelerate|deepspeed) .*-m )?miao [a-z]", line):
            parts = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            parts.whitespace_split = True
            words = list(parts)
            end = next((at for at, word in enumerate(words) if set(word) <= set("|&;<>")), None)
            words = words[words.index("miao") + 1 : end]
            if not any("…" in word or "..." in word for word in words):
                found.append(words)
    return found


def accept(words: list[str]) -> None:
    """Raises or exits where a command line is not taken."""
    verb, rest = words[0], words[1:]
    overrides: list[str] = []
    if verb not in cli.RUN | cli.OTHERS:
        raise MiaoError(f"no verb {verb!r}")
    if (verb in cli.RUN and not cli._is_workshop(verb, rest)) or verb == "doctor":
        overrides = [word for word in rest if word not in FLAGS]
        if overrides and not overrides[0].startswith("-"):
            name = overrides.pop(0)
            load_recipe("seedling" if NO_RECIPE.match(name) else name, overrides)
        return
    with suppress(Accepted):
        cli._dispatch(words)
    at = next((at for at, word in enumerate(rest) if re.match(r"--\w+\.", word)), len(rest))
    if verb in ("corpus", "grow"):
        load_recipe("seedling", rest[at:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_every_command_of_a_page_is_one_that_miao_takes(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Parser.parse_known_args

    def parsed(self: Parser, *given: Any) -> Any:
        _, more = real(self, *given)
        if any(not word.startswith("--") or "." not in word for word in more[:1]):
            self.error(f"unrecognized arguments: {more}")
        raise Accepted

    monkeypatch.setattr(Parser, "parse_known_args", parsed)
    wrong = []
    for words in commands_of(page.read_text(encoding="utf-8")):
        try:
            accept(words)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            said = capsys.readouterr().err.strip().rpartition("\n")[2] or f"{error!r}"
            if "are required" in said and (len(words) < 3 or said.endswith("required: model")):
                continue  # prose names a verb, or an option of it
            wrong.append(f"miao {shlex.join(words)}: {said}")
    assert wrong == []


def test_the_check_itself_finds_a_wrong_command() -> None:
    page = (
        "```bash\nmiao run seedling --sft.epoch 2   # `miao x`\n```\n> ```bash\n> miao chat a \\\n"
        ">   --b > c\n> ```\ntry `miao frobnicate`, `miao …`\n"
    )
    assert commands_of(page) == [
        ["run", "seedling", "--sft.epoch", "2"], ["chat", "a", "--b"], ["frobnicate"],
    ]  # fmt: skip
    for words in commands_of(page):
        with pytest.raises((MiaoError, SystemExit)):
            accept(words)


def test_the_code_of_an_exercise_prints_what_its_answer_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Code with `# → …` behind what it prints; each piece once, for both languages have it."""
    pieces = {
        textwrap.dedent(code): page.name
        for page in PAGES
        for code in re.findall(
            r"^ *```python\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        if "# → " in code
    }
    assert len(pieces) > 20
    for code, name in pieces.items():
        exec(compile(code, name, "exec"), {})
        assert capsys.readouterr().out.splitlines() == re.findall(r"# → (.*)", code), name
