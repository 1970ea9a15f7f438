"""The data report: what a corpus was made of, what was left out and why, with examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miao.console import by_product, say
from miao.corpus.build.summary import account_lines
from miao.files import read_json, write_text
from miao.report.templates import page_assets, template
from miao.report.words import Text, duration, phrases, share, stage_name

LANGUAGES = {
    "zh": Text("中文", "Chinese"),
    "en": Text("英文", "English"),
    "other": Text("其他", "other"),
}
FLOW = {
    "train": Text("用于训练", "to train on"),
    "heldout": Text("留出", "held out"),
    "rejected": Text("被规则拒绝", "rejected by rules"),
    "exact": Text("完全重复", "exact duplicates"),
    "near": Text("近似重复", "near-duplicates"),
    "emptied": Text("段落都已出现过", "all paragraphs seen before"),
    "heldout_duplicates": Text("与留出相同或相近", "same as held out, or nearly"),
    "contaminated": Text("与评测集重合", "overlap with evaluation sets"),
    "left_out": Text("配比不需要", "not wanted by the mix"),
}
STEPS = {
    "clean": Text("清洗", "clean"),
    "duplicates": Text("找重复", "duplicates"),
    "mix and write": Text("配比并写入", "mix and write"),
}
HUES = {"train": "pretrain", "heldout": "sft"}


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: a name, a number, its share of the whole, the bar's length (0 to 1)."""

    name: Text
    number: str
    share: str
    length: float
    hue: str = "other"
    note: Text | None = None


@dataclass(frozen=True)
class Example:
    """What a rule did to one text."""

    source: str
    why: str
    before: str
    after: str | None


def write_data_report(directory: Path) -> Path:
    """Writes `report.html` beside the manifest of a corpus, and returns its path.

    The page loads nothing from anywhere; texts of the corpus are escaped, and a content security
    policy allows no script but the page's own (by its hash).

    Raises:
        MiaoError: no such corpus, or a damaged file in it.
    """
    path = directory / "report.html"
    write_text(path, render(directory))
    return path


def present_corpus(directory: Path) -> None:
    """Says what became of the user's own records, and writes the data report; nothing where there
    are none."""
    manifest = read_json(directory / "manifest.json")
    for stage, accounts in manifest["accounts"].items():
        written = accounts["train"] + accounts["repeated"]
        say(
            f"  {stage}: {accounts['read']:,} records read, {written:,} to train on, "
            f"{accounts['heldout']:,} held out"
        )
        for line in account_lines(accounts):
            say(f"    {line}")
    if manifest["accounts"]:
        with by_product("the report of the corpus"):
            say(f"  report: {write_data_report(directory).resolve().as_uri()}")


def render(directory: Path) -> str:
    """The page of a corpus that `build_corpus` wrote."""
    manifest = read_json(directory / "manifest.json")
    extra = {
        name: read_json(path) if (path := directory / f"{name}.json").exists() else {}
        for name in ("examples", "overlaps", "timing")
    }
    stages = [
        _stage(stage, manifest, accounts, extra) for stage, accounts in manifest["accounts"].items()
    ]
    return template("data_report.html.j2").render(
        name=directory.resolve().name,
        stages=stages,
        steps=_steps(extra["timing"]),
        memory=extra["timing"].get("peak_memory_mib"),
        problems=manifest["problems"],
        skipped=manifest["skipped_files"],
        options=_flat(manifest["options"]),
        files=manifest["sha256"],
        **page_assets(),
    )


def _stage(
    stage: str, manifest: dict[str, Any], accounts: dict[str, Any], extra: dict[str, Any]
) -> dict[str, Any]:
    rejected = dict(accounts["rejected"])
    flow = {key: accounts[key] for key in FLOW if key not in ("rejected", "left_out")}
    flow |= {"rejected": sum(rejected.values()), "left_out": sum(accounts["left_out"].values())}
    sources = manifest["sources"][stage]
    sizes = {name: counts["characters"] for name, counts in sources.items()}
    overlaps = extra["overlaps"].get(stage, [])
    return {
        "id": stage,
        "name": stage_name(stage),
        "records": phrases("records")[stage],
        "read": accounts["read"],
        "repeated": accounts["repeated"],
        "flow": bars({k: flow[k] for k in FLOW if flow[k]}, FLOW, accounts["read"], HUES),
        "rules": bars(rejected, {}, accounts["read"], notes=phrases("rules")),
        "edits": bars(accounts["edited"], {}, accounts["read"], notes=phrases("rules")),
        "languages": bars(
            {k: accounts["languages"][k] for k in LANGUAGES if k in accounts["languages"]},
            LANGUAGES,
            hue="pretrain",
        ),
        "lengths": _lengths(accounts["lengths"]),
        "sources": bars(sizes, {}, hue="sft"),
        "mix": [
            (name, _share_words(part), part["notes"]) for name, part in accounts["mix"].items()
        ],
        "examples": _examples(extra["examples"].get(stage, {})),
        "overlaps": overlaps[:20],
        "overlaps_found": accounts["overlaps_found"],
    }


def bars(
    numbers: Mapping[str, int],
    names: Mapping[str, Text],
    whole: int | None = None,
    hues: Mapping[str, str] | None = None,
    hue: str = "other",
    notes: Mapping[str, Text] | None = None,
) -> list[Bar]:
    """A bar per number, the longest one full; without `whole`, shares are of their sum."""
    whole = sum(numbers.values()) if whole is None else whole
    longest = max(numbers.values(), default=0) or 1
    rows = numbers.items() if names else sorted(numbers.items(), key=lambda row: -row[1])
    return [
        Bar(
            names.get(name, Text(name, name)),
            f"{number:,}",
            share(number / whole) if whole else "",
            number / longest,
            (hues or {}).get(name, hue),
            (notes or {}).get(name),
        )
        for name, number in rows
    ]


def _lengths(counts: list[int]) -> list[Bar]:
    """How many records have up to 2, 4, 8, ... characters."""
    used = [place for place, number in enumerate(counts) if number]
    if not used:
        return []
    named = {}
    for place in range(used[0], used[-1] + 1):
        low, high = (0, 0) if place == 0 else (1 << (place - 1), (1 << place) - 1)
        words = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        named[words] = counts[place]
    return bars(named, {name: Text(name, name) for name in named}, hue="pretrain")


def _share_words(part: dict[str, Any]) -> Text:
    lines = part["copies"] * part["usable"] * part["repeat"]
    copies = f"{part['copies'] * part['repeat']:.2f}"
    return Text(
        f"有 {part['records']:,} 条，取 {copies} 遍，约 {lines:,.0f} 条",
        f"{part['records']:,} there, taken {copies} times: about {lines:,.0f}",
    )


def _examples(
    by_rule: dict[str, list[dict[str, Any]]],
) -> list[tuple[str, Text | None, list[Example]]]:
    rules = []
    for rule, examples in by_rule.items():
        shown = [
            Example(
                str(example.get("source", "")),
                str(example.get("why", example.get("similarity", ""))),
                example.get("before", example.get("text", "")),
                example.get("after"),
            )
            for example in examples
        ]
        rules.append((rule, phrases("rules").get(rule), shown))
    return rules


def _steps(timing: dict[str, Any]) -> list[tuple[Text, Text, Text, str]]:
    rows = []
    for step in timing.get("steps", []):
        seconds = max(step["seconds"], 1e-3)
        speed = f"{step['characters'] / seconds / 1e6:.2f}M" if step["characters"] else "–"
        name = STEPS.get(step["name"], Text(step["name"], step["name"]))
        rows.append((stage_name(step["stage"]), name, duration(seconds), speed))
    return rows


def _flat(options: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in options.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, "null" if value is None else str(value)))
    return rows
