"""The notebooks are the pages: nothing is added, both languages have as many cells, and below a cell
stands what it printed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def notebooks() -> ModuleType:
    place = ROOT / "scripts" / "notebooks.py"
    spec = importlib.util.spec_from_file_location("notebooks", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_notebook_holds_its_page_and_both_languages_as_many_commands(
    notebooks: ModuleType, tmp_path: Path
) -> None:
    assert notebooks.main(["--out", str(tmp_path)]) == 0
    for english, chinese in zip(notebooks.pages("en"), notebooks.pages("zh"), strict=True):
        counts = []
        for page in (english, chinese):
            written = tmp_path / page.parent.name / f"{page.stem}.ipynb"
            cells = json.loads(written.read_text(encoding="utf-8"))["cells"]
            assert len({cell["id"] for cell in cells}) == len(cells)
            text = page.read_text(encoding="utf-8")
            sources = ["".join(cell["source"]).removeprefix("%%bash\n") for cell in cells]
            for line in "\n".join(sources).splitlines():
                assert line in text, page
            counts.append(sum(cell["cell_type"] == "code" for cell in cells))
        assert counts[0] == counts[1] > 0, english.name


def test_cells_run_in_order_and_a_failing_one_is_told(
    notebooks: ModuleType, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# P\n```python\na = 2\nprint(a)\n```\n```\nno code\n```\n> ```bash\n> echo one \\\n>   two\n"
        "> miao push x --to hf:a/b\n> false\n> ```\n1. q\n   ```python\n   print(a + 1)\n   1 / 0\n   ```\n",
        encoding="utf-8",
    )
    text, wrong = notebooks.notebook(page, "en", tmp_path)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    printed = ["".join(cell["outputs"][0]["text"]) for cell in cells]
    assert printed == [
        "2\n", "one two\n", notebooks.NOT_RUN["en"] + "\n", "", "3\nZeroDivisionError: division by zero\n",
    ]  # fmt: skip
    assert [cell["execution_count"] for cell in cells] == [1, 2, None, 3, 4]
    assert len(wrong) == 2
