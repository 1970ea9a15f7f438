"""The model card: what a model is, what it read, how it scored. What is not known is said so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from miao.console import by_product, count, duration, say, warn
from miao.errors import MiaoError
from miao.evaluate.results.card import FILE, markdown
from miao.evaluate.results.store import FINAL
from miao.export.origin import Origin, ollama_name
from miao.export.parity.compare import Finding
from miao.files import read_json
from miao.hubs import is_hub_name, parse_hub_name
from miao.model import ModelConfig, count_parameters, load_config, native_architecture
from miao.recipe import STAGES
from miao.rundir import RunDir
from miao.tokenizer import Tokenizer

Record = dict[str, Any]

STAGE_NAMES = {
    "pretrain": "pretraining 预训练",
    "sft": "SFT 微调",
    "dpo": "DPO 偏好",
    "grpo": "GRPO 奖励",
}
TASK_NAMES = {
    "bits per byte": "bits per byte (lower is better) 每字节比特数（越低越好）",
    "multiple choice": "multiple choice 选择题",
    "questions": "questions in the chat 对话问答",
    "preference (likelihood)": "preferred answer is likelier 偏好：似然",
    "preference (reward)": "preferred answer has the higher reward 偏好：隐式奖励",
    "preference margin": "preference margin 偏好间隔",
}
ORIGINS = {
    "seedbed": "Miao's built-in generator 内置语料",
    "files": "the author's files 作者的文本",
}
UNKNOWN_LICENSE = "unknown"
_SETTINGS = (
    *("seq_len", "batch_tokens", "schedule", "learning_rate", "muon_learning_rate"),
    *("weight_decay", "precision", "beta", "replay"),
)


@dataclass(frozen=True)
class Facts:
    """What a run knows of its model; all empty for a directory that came without one."""

    trained: list[list[str]] = field(default_factory=list)
    """A row per stage: its name, tokens, steps, time, loss, settings; empty what is not known."""
    sources: list[list[str]] = field(default_factory=list)
    """A row per source: its stage, name, origin, records to train on and held out, characters,
    tokens."""
    score_columns: list[str] = field(default_factory=list)
    scores: list[list[str]] = field(default_factory=list)
    """A row per measure: its name, category, items, a cell per column, chance."""
    base: str | None = None
    """The model that training began with; None: random weights."""
    trained_length: int = 0
    tokens: str = ""
    machine: str = ""
    recipe: str = ""
    evaluated: str = ""
    """What `miao eval card` has found, as Markdown."""
    is_generated: bool = False
    """Whether all text is the built-in generator's."""


@dataclass(frozen=True)
class Card:
    """What `card_text` is written from."""

    name: str
    config: ModelConfig
    stage: str | None
    facts: Facts | None
    """None: there is no run to tell."""
    license: str
    languages: list[str]
    has_template: bool
    dtype: str
    """The type of the weights, or of each file."""
    files: list[str] = field(default_factory=list)
    """GGUF files; none in a Hugging Face directory."""
    findings: Sequence[Finding] = ()
    checked_with: str = ""
    adapter: str | None = None
    base_hub: str | None = None


def describe(
    origin: Origin,
    source: Path,
    dtype: str,
    model: str,
    license: str | None = None,
    adapter: str | None = None,
) -> Card:
    """The card of a model that is exported.

    Args:
        source: the directory that is read. model: as it was named by the user.
        license: None: the model's own; that of the built-in corpus where nothing else was read.
        adapter: what was merged into the weights.
    """
    facts = None
    with by_product("the run's part of the model card"):
        facts = read_facts(origin.run, origin.stage) if origin.run else None
    own = card_metadata(origin.directory)
    license = license or own.get("license")
    if not license and facts and facts.is_generated and not (facts.base or adapter):
        license = "apache-2.0"  # as the built-in corpus
    if not license:
        say("  no licence given: --license NAME")
    languages = own.get("language") or (["zh", "en"] if origin.run else [])
    base = facts.base if facts else model if is_hub_name(model) else None
    try:
        has_template = bool(Tokenizer.from_directory(source).chat_template)
    except MiaoError:
        has_template = False
    return Card(
        name=origin.name,
        config=load_config(source),
        stage=origin.stage,
        facts=facts,
        license=str(license or UNKNOWN_LICENSE),
        languages=[languages] if isinstance(languages, str) else list(languages),
        has_template=has_template,
        dtype=dtype,
        adapter=Path(adapter).name if adapter else None,
        base_hub=base_on_hub(base),
    )


def card_text(card: Card) -> str:
    """The card as Markdown, its metadata on top as the hubs read it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
    )
    environment.filters["cell"] = _cell
    counted = count_parameters(card.config)
    return environment.get_template("card.md.j2").render(
        card=card,
        ollama_name=ollama_name(card.name),
        facts=card.facts,
        config=card.config,
        metadata=yaml.safe_dump(_metadata(card), allow_unicode=True, sort_keys=False).strip(),
        architecture=native_architecture(card.config),
        total=count(counted.total),
        exact=f"{counted.total:,}",
        active=count(counted.active) if counted.active < counted.total else "",
        embedding=count(counted.embedding),
        shape=_shape(card.config),
        context=card.config.context_length,
        stage_name=STAGE_NAMES.get(card.stage or "", card.stage),
    )


def read_facts(run: RunDir, stage: str | None) -> Facts:
    """What a run has written down, up to the stage whose model is exported; what is missing is
    left empty.

    Raises:
        MiaoError: a damaged file.
    """
    recipe = run.read_recipe()[1]
    last = STAGES.index(stage) if stage in STAGES else len(STAGES) - 1
    stages = [name for name in STAGES[: last + 1] if (run.model(name) / "config.json").exists()]
    corpus = _read_if_there(run.corpus / "manifest.json")
    results = {name: _read_if_there(run.checkpoints(name) / "result.json") for name in stages}
    origin = corpus.get("origin", {})
    columns, scores = _scores(run, stages)
    base = (recipe.get("model") or {}).get("path")
    return Facts(
        trained=[_trained(name, recipe.get(name) or {}, results[name]) for name in stages],
        sources=[
            _source(run, name, source, counts, str(origin.get(name, "")))
            for name in stages
            for source, counts in corpus.get("sources", {}).get(name, {}).items()
        ],
        score_columns=columns,
        scores=scores,
        base=None if base is None else _without_folders(str(base)),
        trained_length=max(
            [int((recipe.get(name) or {}).get("seq_len") or 0) for name in stages], default=0
        ),
        tokens=count(sum(result.get("tokens") or 0 for result in results.values())),
        machine=_machine(_read_if_there(run.path / "manifest.json")),
        recipe=yaml.safe_dump(_public(recipe), allow_unicode=True, sort_keys=False).strip()
        if recipe
        else "",
        evaluated=_evaluated(run, stages),
        is_generated=bool(stages) and all(origin.get(name) == "seedbed" for name in stages),
    )


def _evaluated(run: RunDir, stages: list[str]) -> str:
    """The card of the model that is exported: of its stage, or of the run's last one."""
    cards = _read_if_there(run.path / FILE).get("cards", [])
    last = [name for name in STAGES if (run.model(name) / "config.json").exists()][-1:]
    fits = stages[-1:] + [FINAL] * (stages[-1:] == last)
    return markdown(cards, "###") if cards and cards[0].get("stage") in fits else ""


def card_metadata(directory: Path) -> Record:
    """The YAML at the top of the card that a model directory brings; empty where there is none."""
    file = directory / "README.md"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if not text.startswith("---\n"):
        return {}
    try:
        metadata = yaml.safe_load(text[4:].split("\n---", 1)[0])
    except yaml.YAMLError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _metadata(card: Card) -> Record:
    metadata: Record = {"license": card.license}
    if card.languages:
        metadata["language"] = card.languages
    metadata |= {"library_name": "gguf" if card.files else "transformers"}
    metadata |= {"pipeline_tag": "text-generation", "model_name": card.name}
    metadata["tags"] = ["miao", native_architecture(card.config)]
    metadata["tags"] += ["conversational"] if card.has_template else []
    metadata["tags"] += ["gguf"] if card.files else []
    if card.base_hub:
        metadata["base_model"] = card.base_hub
    return metadata


def _shape(c: ModelConfig) -> list[tuple[str, str]]:
    heads = f"{c.num_attention_heads} query, {c.num_key_value_heads} key/value, size {c.head_dim}"
    if c.is_latent:
        heads = f"{c.num_attention_heads}, latent attention of rank {c.kv_lora_rank}"
    rows = [
        ("layers 层", f"{c.num_hidden_layers}"),
        ("hidden size 隐层宽度", f"{c.hidden_size}"),
        ("attention heads 注意力头", heads),
        ("feed-forward size 前馈宽度", f"{c.intermediate_size}"),
    ]
    if c.num_experts:
        shared = f" + {c.n_shared_experts} shared" if c.n_shared_experts else ""
        rows += [
            ("experts 专家", f"{c.num_experts_per_tok} of {c.num_experts}{shared}"),
            ("expert size 专家宽度", f"{c.moe_intermediate_size}"),
        ]
    scaling = c.rope_scaling or {}
    rope = f"base {c.rope_theta:g}"
    if scaling:
        rope += f", {scaling.get('rope_type')} × {scaling.get('factor')}"
    return [
        *rows,
        ("vocabulary 词表", f"{c.vocab_size:,}"),
        ("rotary positions 旋转位置编码", rope),
        ("tied embeddings 词嵌入共享", "yes 是" if c.tie_word_embeddings else "no 否"),
    ]


def _trained(name: str, options: Record, result: Record) -> list[str]:
    tokens, loss = result.get("tokens"), result.get("loss")
    settings = {key: options[key] for key in _SETTINGS if options.get(key) is not None}
    return [
        STAGE_NAMES.get(name, name),
        count(tokens) if tokens else "",
        f"{result['steps']:,}" if result.get("steps") else "",
        duration(result["seconds"]) if result.get("seconds") else "",
        f"{loss:.3f}" if isinstance(loss, float) and math.isfinite(loss) else "",
        ", ".join(f"{key} {value}" for key, value in settings.items()),
    ]


def _source(run: RunDir, stage: str, name: str, counts: Record, origin: str) -> list[str]:
    shards = _read_if_there(run.shards(stage, "train") / name / "manifest.json")
    tokens = sum(shard["tokens"] for shard in shards.get("shards", []))
    return [
        STAGE_NAMES.get(stage, stage),
        name,
        ORIGINS.get(origin, origin),
        f"{counts.get('train', 0):,}",
        f"{counts.get('heldout', 0):,}",
        count(counts.get("characters", 0)),
        count(tokens) if tokens else "",
    ]


def _scores(run: RunDir, stages: list[str]) -> tuple[list[str], list[list[str]]]:
    """Column titles, and a row per measure and category in the order of the evaluation."""
    by_stage = {line["stage"]: line["scores"] for line in run.read_lines(run.eval_results, warn)}
    columns = [stage for stage in stages if by_stage.get(stage)]
    rows: dict[tuple[str, str], dict[str, Record]] = {}
    for stage in columns:
        for score in by_stage[stage]:
            rows.setdefault((score["task"], score["category"]), {})[stage] = score
    known = list(TASK_NAMES)
    ordered = sorted(rows, key=lambda key: known.index(key[0]) if key[0] in known else len(known))
    table = []
    for task, category in ordered:
        found = rows[task, category]
        any_score = next(reversed(found.values()))
        cells = [_score_cell(found[stage]) if stage in found else "–" for stage in columns]
        chance = any_score.get("chance")
        shown = "–" if chance is None else _number(chance, any_score["unit"])
        items = f"{any_score['count']:,}"
        table.append([TASK_NAMES.get(task, task), category, items, *cells, shown])
    return [f"after {STAGE_NAMES.get(stage, stage)}" for stage in columns], table


def _score_cell(score: Record) -> str:
    value, error = score.get("value"), score.get("stderr")
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if isinstance(error, int | float) and math.isfinite(error):
        return f"{_number(value, score['unit'])} ± {_number(error, score['unit'])}"
    return _number(value, score["unit"])


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "accuracy" else f"{value:.3f}"


def _machine(manifest: Record) -> str:
    versions = {"miao": manifest.get("miao"), "python": manifest.get("python")}
    versions |= manifest.get("packages", {})
    facts = [f"{name} {version}" for name, version in versions.items() if version]
    facts += [str(manifest["processor"])] if manifest.get("processor") else []
    facts += [f"commit {manifest['commit']}"] if manifest.get("commit") else []
    return ", ".join(facts)


def _public(value: Any) -> Any:
    """The recipe without the folders of the machine that it ran on, which are nobody's business."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items() if key != "out_dir"}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return _without_folders(value) if isinstance(value, str) else value


def _without_folders(text: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or text.startswith("~"):
            return path.name
    return text


def base_on_hub(recipe_base: str | None) -> str | None:
    """`owner/name` where a model began with one from Hugging Face."""
    if recipe_base is None or not is_hub_name(recipe_base):
        return None
    name = parse_hub_name(recipe_base)
    return name.repository if name.hub == "hf" else None


def _read_if_there(path: Path) -> Record:
    return read_json(path) if path.is_file() else {}


def _cell(value: object) -> str:
    """Text inside a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ") or "–"
