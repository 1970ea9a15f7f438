"""100,000 records of mixed shapes through `corpus build`: in = out + rejected + duplicates, and
every word of every column stands in a record or in a column that is named as not read.

    python benchmarks/corpus_accounts.py [--records 100000]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miao.corpus.build.pipeline import build_corpus
from miao.corpus.records import FIELDS, KINDS
from miao.recipe import CorpusOptions

WORD = re.compile(r"\bw\d+\b")
Say = Callable[[int], str]


def turns(say: Say) -> list[Any]:
    return [{"role": "user", "content": say(9)}, {"role": "assistant", "content": say(20)}]


SHAPES: dict[str, list[Callable[[Say], Any]]] = {
    "paths": [
        lambda say: {"text": say(60), "url": "https://a.b/c", "id": say(1)},
        lambda say: {"title": say(2), "text": say(60), "score": 0.5},
        lambda say: {"raw_content": say(60), "digest": "sha1:x"},
        lambda say: {"文件名": "a", "段落": [{"行号": n, "内容": say(20)} for n in range(3)]},
    ],
    "conversations": [
        lambda say: {"messages": turns(say), "topic": say(1)},
        lambda say: {"instruction": say(5), "question": say(9), "answer": say(20), "id": 1},
        lambda say: {"QUERY": say(9), "Rationale": say(9), "Response": say(20)},
        lambda say: {"conversations": [say(9), say(20), say(9), say(20)], "source": "lima"},
        lambda say: {"question": say(9), "human_answers": [say(9)], "chatgpt_answers": [say(20)]},
        lambda say: {"text": f"Human: {say(9)}\n\nAssistant: {say(9)}"},
        lambda say: {"query": say(9), "tools": [{"name": "f", "description": say(5)}],
                     "answers": json.dumps([{"name": "f", "arguments": {"x": say(3)}}])},
        lambda say: {"question": say(9), "answer": ""},
    ],
    "preferences": [
        lambda say: {"prompt": say(9), "chosen": say(20), "rejected": say(20), "lang": "zh"},
        lambda say: {"query": say(9), "response": say(20), "rejected_response": say(20)},
        lambda say: {"prompt": say(9), "response_0": say(20), "response_1": say(20),
                     "better_response_id": 1},
    ],
}  # fmt: skip
"""What each option of a recipe is given; the last conversation is none."""


class Speaker:
    """Says numbered words, each once; knows how many it has said."""

    def __init__(self, seed: int):
        self.draw, self.number = random.Random(seed), 0

    def __call__(self, length: int) -> str:
        words = []
        for _ in range(length):
            self.number += 1
            words.append(f"w{self.number}")
        return " ".join(words)


def write(path: Path, name: str, count: int, say: Speaker) -> int:
    """Writes so many objects, one in twenty twice; returns how many lines were written."""
    lines = 0
    with open(path, "w", encoding="utf-8") as file:
        while lines < count:
            line = json.dumps(say.draw.choice(SHAPES[name])(say), ensure_ascii=False) + "\n"
            for _ in range(2 if say.draw.random() < 0.05 else 1):
                file.write(line)
                lines += 1
    return lines


def words_of(text: str) -> list[str]:
    """The words in JSON, whose line breaks are two characters."""
    return WORD.findall(text.replace("\\n", " "))


def lost_words(path: Path, out: Path, passed_over: set[int], unread: set[str]) -> list[str]:
    """What the good lines of a file say that stands neither in a record nor in a column that is
    named as not read."""
    kept = {word for file in out.glob("*/*.jsonl") for word in words_of(file.read_text("utf-8"))}
    lost = []
    for number, line in enumerate(path.open(encoding="utf-8"), 1):
        if number not in passed_over:
            for column, value in json.loads(line).items():
                said = words_of(json.dumps(value))
                lost += [] if column in unread else [word for word in said if word not in kept]
    return lost


def measure(records: int, directory: Path) -> dict[str, Any]:
    """The accounts of a build of so many objects.

    Raises:
        AssertionError: something is in no account.
    """
    say = Speaker(0)
    share = {"paths": records // 2, "conversations": records // 3}
    share["preferences"] = records - sum(share.values())
    options = CorpusOptions(skip_bad_records=True, workers=1)
    options.clean.enabled = False
    given = {}
    for name, count in share.items():
        path = directory / f"{name}.jsonl"
        given[name] = write(path, name, count, say)
        setattr(options, name, [str(path)])
    begun = time.perf_counter()
    report = build_corpus(options, 0, directory / "out")
    result: dict[str, Any] = {"seconds": round(time.perf_counter() - begun, 1), "stages": {}}
    problems: dict[str, set[int]] = {name: set() for name in share}
    for line in (directory / "out/problems.jsonl").open(encoding="utf-8"):
        problem = json.loads(line)
        problems[Path(problem["path"]).stem].add(problem["line"])
    for stage, kind in KINDS.items():
        name, accounts = FIELDS[kind], report.accounts[stage].to_json()
        sources = report.sources[stage].values()
        out = sum(s.train + s.heldout + s.heldout_duplicates for s in sources)
        duplicates = accounts["exact"] + accounts["near"]
        gone = sum(accounts["rejected"].values()) + sum(accounts["left_out"].values())
        bad = len(problems[name])
        assert given[name] == out + duplicates + gone + bad, (stage, given, accounts)
        columns = report.columns[stage]
        assert sum(shape["records"] for shape in columns.values()) == given[name] - bad
        unread = {column.split(" (")[0] for shape in columns.values() for column in shape["unread"]}
        path = directory / f"{name}.jsonl"
        lost = lost_words(path, directory / "out" / stage, problems[name], unread)
        assert not lost, (stage, len(lost), lost[:5])
        result["stages"][stage] = {
            **{"in": given[name], "out": out, "duplicates": duplicates, "rejected": gone},
            "problems": bad,
            "columns not read": {
                shape: {k: v["characters"] for k, v in facts["unread"].items()}
                for shape, facts in columns.items()
                if facts["unread"]
            },
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(measure(options.records, Path(directory)), ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
