"""What the run was made of: its chain of stages, its data, its time, its settings."""

from __future__ import annotations

from dataclasses import dataclass

from miao.report.data import Record, RunData
from miao.report.scores import stage_seconds
from miao.report.words import (
    Text,
    category_name,
    duration,
    phrases,
    quantity,
    share,
    stage_name,
)


@dataclass(frozen=True)
class Link:
    """One stage of the chain, with its share of the time once it is done."""

    stage: str
    name: Text
    hue: str
    done: bool
    seconds: Text | None
    share: float


@dataclass(frozen=True)
class Source:
    name: Text
    width: float
    """Length of its bar: characters, as a share of the largest source of all stages."""
    characters: str
    train: int
    heldout: int
    duplicates: int
    tokens: str
    learned: str
    """Share of the tokens on which there is a loss."""
    bytes_per_token: str


@dataclass(frozen=True)
class StageData:
    stage: str
    name: Text
    origin: Text
    records: Text
    sources: list[Source]
    shapes: list[tuple[str, int]]


def chain(data: RunData) -> list[Link]:
    """The stages of this recipe in order, done or not."""
    seconds = dict(stage_seconds(data))
    total = sum(seconds.values()) or 1.0
    links = []
    for stage in data.expected_stages():
        of = stage.removeprefix("evaluate ")
        links.append(
            Link(
                stage,
                stage_name(stage),
                of if of in data.stages else "plain",
                stage in data.finished,
                duration(seconds[stage]) if stage in seconds else None,
                seconds.get(stage, 0.0) / total,
            )
        )
    return links


def composition(data: RunData) -> list[StageData]:
    """Per stage: where its text is from, and what each source holds."""
    sources: dict[str, dict[str, Record]] = data.corpus.get("sources", {})
    largest = (
        max([c["characters"] for named in sources.values() for c in named.values()], default=0) or 1
    )
    origins = {
        "seedbed": Text("内置语料", "built-in corpus"),
        "files": Text("你的文件", "your files"),
    }
    found = []
    for stage, named in sources.items():
        origin = data.corpus.get("origin", {}).get(stage, "")
        records = f"{data.corpus.get('records', {}).get(stage, 0):,}"
        kind = phrases("records").get(stage, Text("条记录", "records"))
        shards = data.shards.get(stage, {})
        found.append(
            StageData(
                stage,
                stage_name(stage),
                origins.get(origin, Text(origin, origin)),
                Text(f"{records} {kind.zh}", f"{records} {kind.en}"),
                [
                    _source(name, counts, shards.get(name), largest)
                    for name, counts in named.items()
                ],
                list(data.corpus.get("shapes", {}).get(stage, {}).items()),
            )
        )
    return found


def settings(data: RunData) -> list[tuple[Text, str]]:
    """The facts that name this run exactly; the recipe itself stands below them."""
    machine, config = data.machine, data.config
    packages = machine.get("packages", {})
    heads = f"{config.get('num_attention_heads')}/{config.get('num_key_value_heads')}"
    shape = [
        f"{config.get('model_type')}",
        f"{config.get('num_hidden_layers')} × {config.get('hidden_size')}",
        f"{heads} heads",
        f"FFN {config.get('intermediate_size')}",
        f"{config.get('vocab_size')} tokens",
        f"{config.get('max_position_embeddings')} context",
    ]
    versions = {"miao": machine.get("miao"), "python": machine.get("python"), **packages}
    facts = [
        (Text("模型", "Model"), " · ".join(shape) if config else ""),
        (Text("随机种子", "Seed"), str(data.recipe.get("seed", ""))),
        (Text("机器", "Machine"), machine.get("processor") or ""),
        (Text("系统", "System"), machine.get("platform") or ""),
        (Text("提交", "Commit"), machine.get("commit") or ""),
        (Text("版本", "Versions"), " · ".join(f"{k} {v}" for k, v in versions.items() if v)),
    ]
    return [(label, value) for label, value in facts if value]


def _source(name: str, counts: Record, shard: Record | None, largest: int) -> Source:
    tokens = sum(part["tokens"] for part in shard["shards"]) if shard else 0
    return Source(
        category_name(name),
        counts["characters"] / largest,
        quantity(counts["characters"]),
        counts["train"],
        counts["heldout"],
        counts["heldout_duplicates"],
        quantity(tokens) if tokens else "–",
        share(shard["trained_tokens"] / tokens) if shard and tokens else "–",
        f"{shard['bytes'] / tokens:.2f}" if shard and tokens else "–",
    )
