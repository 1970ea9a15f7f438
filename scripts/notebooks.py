"""The course as notebooks: pages 1 to 9 and the reading path, their commands and code as cells.

    python scripts/notebooks.py --out notebooks            # both languages, not run
    python scripts/notebooks.py --out notebooks --run      # with what every cell really prints

The pages are the only source: nothing of this is in the repository, and what is made can be opened
in Jupyter, which is not needed to make it. `--run` works in a folder of its own (`--work`), where
`seedling` is the recipe `smoke`: the same commands, a minute instead of ten. What needs a network,
a token or files that only a reader has is left as it stands, and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FENCE = re.compile(
    r"^(?P<lead>(?:> ?| +)?)```(?P<kind>\w*)\n(?P<code>.*?)^(?:> ?| +)?```", re.M | re.S
)
NEEDS_MORE = re.compile(
    r"^(?:pip|curl|apt|ollama|llama-\w+)\b|\bhf:|modelscope:|\bDIR\b|models/base|my_adapter"
    r"|wandb|tensorboard|\.tiktoken|tokenizer\.model|Ctrl-C"
)
"""Commands that a folder with nothing but a small run cannot do."""
NOT_RUN = {
    "en": "not run here: it needs a network, a package or files of yours",
    "zh": "这里没有运行：需要网络、别的软件包或你自己的文件",
}
SECONDS = 600
Cell = dict[str, Any]


def cells_of(page: str) -> Iterator[Cell]:
    """Text, code, text, ... of a page; of a block of commands each is a cell."""
    at = 0
    for found in FENCE.finditer(page):
        lead, kind = found["lead"], found["kind"]
        if kind not in ("python", "bash"):
            continue
        yield from _text(page[at : found.start()])
        at = found.end()
        code = re.sub(r"^> ?", "", found["code"], flags=re.M) if ">" in lead else found["code"]
        code = textwrap.dedent(code).strip("\n")
        if kind == "python":
            yield _cell("code", code)
            continue
        for command in re.split(r"(?<!\\)\n", code):
            if command.strip():
                yield _cell("code", f"%%bash\n{command}")
    yield from _text(page[at:])


def _text(text: str) -> Iterator[Cell]:
    if text.strip(" >\n"):
        yield _cell("markdown", text.strip("\n"))


def _cell(kind: str, source: str) -> Cell:
    lines = source.splitlines(keepends=True)
    cell: Cell = {"cell_type": kind, "metadata": {}, "source": lines}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def run_cells(cells: list[Cell], work: Path, language: str) -> list[str]:
    """Runs the code in order, in one namespace, and puts what it prints below; what failed."""
    names: dict[str, Any] = {}
    wrong: list[str] = []
    ran = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        command = source.removeprefix("%%bash\n")
        if command != source and NEEDS_MORE.search(command):
            printed = NOT_RUN[language] + "\n"
        else:
            ran += 1
            cell["execution_count"] = ran
            run = _python if command == source else _bash
            printed, fault = run(command, names, work, language)
            if fault:
                wrong.append(f"{command}\n{printed}")
        cell["outputs"] = [
            {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
        ]
    return wrong


def _python(code: str, names: dict[str, Any], work: Path, _: str) -> tuple[str, bool]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.chdir(work):
            exec(compile(code, "cell", "exec"), names)
    except Exception as error:
        return f"{said.getvalue()}{type(error).__name__}: {error}\n", True
    return said.getvalue(), False


def _bash(code: str, _: dict[str, Any], work: Path, language: str) -> tuple[str, bool]:
    own = f'python() {{ "{sys.executable}" "$@"; }}\nmiao() {{ python -m miao "$@"; }}\n'
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        ["bash", "-c", own + code],
        cwd=work,
        env=os.environ | {"PYTHONPATH": path, "MIAO_LANG": language},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
    )
    printed = done.stdout.decode("utf-8", "replace")
    return re.sub(r"[^\n]*\r(?!\n)", "", printed), done.returncode != 0


def notebook(page: Path, language: str, work: Path | None = None) -> tuple[str, list[str]]:
    """The notebook of a page, and what failed in it; with `work` it is run there."""
    cells = list(cells_of(page.read_text(encoding="utf-8")))
    for number, cell in enumerate(cells):
        seed = f"{page.name} {number} {''.join(cell['source'])}"
        cell["id"] = hashlib.sha256(seed.encode()).hexdigest()[:8]
    wrong = [] if work is None else run_cells(cells, work, language)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n", wrong


def pages(language: str) -> list[Path]:
    """Those that become notebooks, in their order."""
    folder = ROOT / "docs" / language
    return [*(next(folder.glob(f"{n}-*.md")) for n in range(1, 10)), folder / "reading.md"]


def prepare(work: Path) -> None:
    """What the commands of the pages find: a small trained run, and a reader's texts."""
    texts = work / "my_texts"
    texts.mkdir(parents=True, exist_ok=True)
    days = [f"第{n}天，小苗又长高了一点。 Day {n}: the seedling grew." for n in range(400)]
    written = [{"title": f"第{n}天", "body": day, "notes": ""} for n, day in enumerate(days)]
    talk = [{"question": f"{n}加1等于多少？", "answer": f"{n}+1={n + 1}。"} for n in range(60)]
    (texts / "days.txt").write_text("\n\n".join(days), encoding="utf-8")
    (work / "my.txt").write_text("人工智能 2026，hello world\n" * 50, encoding="utf-8")
    rows = [f"{one['question']},{one['answer']}\n" for one in talk]
    (work / "my.csv").write_text("q,data.a\n" + "".join(rows), encoding="utf-8")
    for name, records in (("my.jsonl", written), ("my_chats.jsonl", talk)):
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
        (work / name).write_text(text, encoding="utf-8")
    smoke = (ROOT / "miao" / "recipes" / "smoke.yaml").read_text(encoding="utf-8")
    recipe = re.sub(r"^name: .*$", "name: seedling", smoke, flags=re.M)
    (work / "seedling.yaml").write_text(recipe, encoding="utf-8")
    said, failed = _bash("miao run seedling", {}, work, "en")
    if failed:
        raise SystemExit(said)


def main(words: list[str] | None = None) -> int:
    """Writes the notebooks; 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder: OUT/en, OUT/zh")
    parser.add_argument(
        "--run", action="store_true", help="run every cell, and keep what it prints"
    )
    parser.add_argument("--work", type=Path, default=Path("notebook-work"), help="where they run")
    parser.add_argument("--language", choices=["en", "zh"], help="default: both")
    parser.add_argument("--page", nargs="*", default=[], help="only these: 1 reading")
    options = parser.parse_args(words)
    work = options.work.resolve() if options.run else None
    if work is not None:
        prepare(work)
    failed = 0
    for language in [options.language] if options.language else ["en", "zh"]:
        for page in pages(language):
            if options.page and page.stem.partition("-")[0] not in options.page:
                continue
            text, wrong = notebook(page, language, work)
            target = options.out / language / f"{page.stem}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            print(target, flush=True)
            for one in wrong:
                print(textwrap.indent(one.strip(), "  failed: "), flush=True)
            failed += len(wrong)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
