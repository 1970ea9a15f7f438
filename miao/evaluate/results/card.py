"""One page on a model: what it knows, what it can, how it writes, where it fails; each number with
its error, beside other models. Made of what `miao eval` has left, without asking anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from miao.console import count, warn
from miao.evaluate.scores import ACCURACY, CENTRED, SHARES
from miao.files import read_jsonl
from miao.recipe import STAGES

Record = dict[str, Any]
FILE = "card.json"
SET, LARGE_SET, WRITING = "early", "grown", "writing"
LARGE = 100_000_000
"""Parameters from which on the larger set says more than its noise (docs, page 21)."""
KNOWLEDGE = ("grammar", "facts", "idioms", "couplets", "sayings")
"""Parts of the score that ask for what was read; the others ask for what can be done."""
Z95 = 1.96
CHANCE, BELOW = "at chance 瞎猜", "below chance 不如瞎猜"
SECTIONS = {
    "score": "In one number · 一个数（0 = guessing 瞎猜, 100 = perfect 全对）",
    "bits": "Held-out text · 留出文本（bits per byte 每字节比特数, lower is better 越低越好）",
    "knows": "What it knows · 知道什么",
    "can": "What it can · 会做什么",
    "writes": "How it writes · 写得怎样",
    "benchmarks": "Public benchmarks · 公开评测",
}
WRONG = {
    "end properly": (0.5, False, "answers do not end properly 回答没有好好结束"),
    "in circles": (0.2, True, "it goes in circles 原地打转"),
    "Chinese to Chinese": (0.9, False, "answers Chinese in another language 中文问题不用中文答"),
    "English to English": (0.9, False, "answers English in another language 英文问题不用英文答"),
    "not empty": (0.95, False, "empty answers 空的回答"),
}
"""Of how it writes: a limit, whether more than that is bad, and what it is called."""
NOTHING = "Nothing that was measured. 测到的没有。"
RIGHT = "right 答对"
NOTE = """Of what it knows and can: the probability of right options among all, and how many are the
likeliest. 知道什么、会做什么：正确选项在所有选项中所占的概率，括号内为它最大的题所占的比例。
± is one standard error, (a to b) a 95 % interval; what cannot be told from
guessing is no score.
± 为一个标准误，(a to b) 为 95 % 区间；与瞎猜分不开的不算分数。"""


def read_card(name: str, lines: Path, stage: str, own: bool = True) -> Record:
    """The numbers of one model, from its eval_results.jsonl; sections without any are empty.

    Args:
        own: also what its run has measured on data of its own, which no other model has seen.
    """
    records = read_jsonl(lines, warn)
    mine = [r for r in records if r.get("model_stage") == stage and isinstance(r.get("task"), str)]
    card: Record = {"model": name, "stage": stage, **{section: [] for section in SECTIONS}}
    for name in (SET, LARGE_SET):
        scored = [r for r in mine if r["task"] == name and "ensemble" in r and not r.get("chat")]
        for line in scored[-1:]:
            card["limit"] = line.get("limit")
            for language, found in line["ensemble"]["scores"].items():
                verdict = CHANCE if found["low"] <= 0 <= found["high"] else None
                row = {"name": name, "category": language, "unit": CENTRED, "verdict": verdict}
                card["score"].append(row | found)
            card["knows"], card["can"] = [], []
            for part in line["ensemble"]["parts"]:
                row = _row(part | {"task": part["name"], "category": part["language"]})
                row["accuracy"] = part.get("accuracy")
                card["knows" if part["name"] in KNOWLEDGE else "can"].append(row)
    for line in mine:
        if line["task"] == WRITING and not line.get("data"):
            card["writes"] = [_row(score) for score in line["scores"]]
    asked_apart = {"skills", SET, LARGE_SET, WRITING, *KNOWLEDGE}
    for line in mine:
        whole = [s for s in line.get("scores", []) if s["category"] == "all"]
        if line["task"] not in asked_apart and whole:
            row = _row(whole[0]) | {"asked": _way(line)}
            if "at_chance" in line and whole[0].get("unit") == ACCURACY:
                p, above = line.get("p_value_against_chance"), whole[0]["value"] > row["chance"]
                row["verdict"] = (
                    None if p is None or (p < 0.05 and above) else BELOW if p < 0.05 else CHANCE
                )
            card["benchmarks"].append(row)
    stages = {r.get("stage"): r for r in records if own and r.get("stage") in STAGES}
    last = next((s for s in (stage, *reversed(STAGES)) if s in stages), None)
    for score in stages[last]["scores"] if last else []:
        if score["task"] == "bits per byte":
            card["bits"].append(_row(score))
        elif score["task"] in ("multiple choice", "questions") and score["category"] == "all":
            card["knows" if score["task"] == "multiple choice" else "can"].append(_row(score))
    card["fails"] = _failures(card)
    return card


def _row(score: Mapping[str, Any]) -> Record:
    """A score, and whether it can be told from guessing."""
    row = {"name": score["task"]}
    names = ("category", "count", "value", "stderr", "chance")
    row |= {name: score.get(name) for name in names} | {"unit": score.get("unit", ACCURACY)}
    row["verdict"] = None
    if row["chance"] and row["stderr"] and row["unit"] in SHARES:
        away = (row["value"] - row["chance"]) / row["stderr"]
        row["verdict"] = CHANCE if abs(away) < Z95 else BELOW if away < 0 else None
    return row


def _way(line: Mapping[str, Any]) -> str:
    words = [line.get("scoring"), f"{line.get('shots', 0)}-shot", line.get("prompts")]
    return ", ".join(str(w) for w in [*words, "chat" if line.get("chat") else None] if w)


def _failures(card: Record) -> list[str]:
    """In words: what cannot be told from guessing, and what is wrong with its answers."""
    found = []
    asked = [*card["knows"], *card["can"], *card["benchmarks"]]
    for verdict in (CHANCE, BELOW):
        if rows := [row for row in asked if row["verdict"] == verdict]:
            found.append(f"{verdict}: {', '.join(map(_label, rows))}")
    kinds = [r for r in card["writes"] if r["category"].startswith("answers")] or card["writes"]
    for row in kinds:
        for ending, (limit, more_is_bad, words) in WRONG.items():
            bad = row["value"] > limit if more_is_bad else row["value"] < limit
            if bad and row["category"].endswith(ending):
                share = row["value"] if more_is_bad else 1 - row["value"]
                found.append(f"{words}: {_value({**row, 'value': share})}")
    return found


def _label(row: Mapping[str, Any]) -> str:
    if row["name"] == WRITING:
        return str(row["category"])
    parts = [str(row["name"]), str(row["category"]) if row["category"] != "all" else ""]
    asked = f" ({row['asked']})" if row.get("asked") else ""
    return " ".join(part for part in parts if part) + asked


def _value(row: Mapping[str, Any]) -> str:
    """`64.0 % ± 3.1`; what cannot be told from guessing is no score."""
    if row.get("verdict"):
        return str(row["verdict"])
    unit, value, error = row["unit"], row["value"], row.get("stderr")
    is_share = unit in (*SHARES, "share")
    scale, places = (100, 1) if is_share or unit == CENTRED else (1, 3)
    text = f"{scale * value:.{places}f}" + (" %" if is_share else "")
    if row.get("low") is not None:
        return f"{text} ({scale * row['low']:.{places}f} to {scale * row['high']:.{places}f})"
    text += "" if error is None else f" ± {scale * error:.{places}f}"
    right = row.get("accuracy")
    return text if right is None else f"{text} ({RIGHT} {100 * right:.0f} %)"


def tables(cards: Sequence[Record]) -> list[tuple[str, list[list[str]]]]:
    """Titles, and rows of a label, a cell per model, and what guessing gives."""
    found = []
    if all("parameters" in card for card in cards):
        sizes = [count(card["parameters"]) for card in cards]
        found.append(("Size · 大小", [["parameters 参数", *sizes, "–"]]))
    for section, title in SECTIONS.items():
        rows: dict[str, list[str]] = {}
        for place, card in enumerate(cards):
            for row in card[section]:
                guess = row.get("chance")
                last = f"{100 * guess:.0f} %" if guess and row["unit"] in SHARES else "–"
                cells = rows.setdefault(_label(row), ["–"] * len(cards) + [last])
                cells[place] = _value(row)
        if rows:
            found.append((title, [[label, *cells] for label, cells in rows.items()]))
    return found


def markdown(cards: Sequence[Record], level: str = "##") -> str:
    """The page without its first title; ± is one standard error, (a to b) a 95 % interval."""
    lines = []
    names = [card["model"] for card in cards]
    for title, rows in tables(cards):
        head = ["", *names, "chance 瞎猜"]
        lines += [f"{level} {title}", "", _line(head), "|---|" + "--:|" * (len(head) - 1)]
        lines += [*map(_line, rows), ""]
    lines += [f"{level} Where it fails · 不行的地方", ""]
    lines += [f"- {text}" for text in cards[0]["fails"]] or [NOTHING]
    return "\n".join([*lines, "", NOTE, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
