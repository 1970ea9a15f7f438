"""The curves of training: what was logged, arranged as panels over tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from miao.evaluate.forecast import Forecast, decay_of, forecast_loss, forecast_share
from miao.evaluate.scores import CENTRED
from miao.recipe.quantities import parse_quantity
from miao.report.charts import (
    NUMBER,
    QUANTITY,
    SHARE,
    Panel,
    Point,
    Series,
    Span,
    figure,
    value_span,
)
from miao.report.data import Record, RunData
from miao.report.words import (
    Text,
    decimal,
    duration,
    is_number,
    quantity,
    share,
    stage_name,
    task_name,
)


@dataclass(frozen=True)
class StageCurves:
    """A training stage: its figures, if it logged anything, and the numbers beside them."""

    stage: str
    name: Text
    facts: list[tuple[Text, Text]]
    chart: Markup | None
    finished: bool


def training_curves(data: RunData) -> list[StageCurves]:
    """Per stage: loss, held-out bits per byte, learning rate, gradient norm, speed.

    The held-out axis is the same for all stages, since they measure the same text: what a later
    stage forgets can be seen.
    """
    heldout = {s: points(data.heldout.get(s, []), "heldout_bits_per_byte") for s in data.stages}
    values = [value for points in heldout.values() for _, value in points]
    span = value_span(values) if values else None
    return [_stage_curves(data, stage, heldout[stage], span) for stage in data.stages]


def preference_curves(data: RunData) -> list[Markup]:
    """How DPO moved: whether the better answer wins, by how much, and at what price."""
    charts = []
    for stage in data.stages:
        rows = [row for row in data.metrics.get(stage, []) if "margin" in row]
        if not rows:
            continue
        x_end = max(row["tokens"] for row in rows)
        half, zero = (0.5, Text("瞎猜", "guessing")), (0.0, Text("", ""))
        wins = Panel(
            Text("好回答胜出的比例", "Better answer wins"),
            [Series(points(rows, "accuracy"), stage)],
            SHARE,
            height=72,
            span=(0, 1),
            guide=half,
        )
        margin = Panel(
            Text("间隔（已乘 β）", "Margin, times β"),
            [Series(points(rows, "margin"), stage)],
            height=72,
            guide=zero,
        )
        sides = Panel(
            Text("对数概率", "Log-probability"),
            [
                Series(points(rows, "chosen_logprob"), stage, Text("好回答", "better")),
                Series(points(rows, "rejected_logprob"), "other", Text("差回答", "worse")),
            ],
            height=72,
        )
        drift = Panel(
            Text("离参考模型的 KL（nat/词元）", "KL from the reference, nats per token"),
            [Series(points(rows, "kl"), stage)],
            height=72,
            from_zero=True,
        )
        groups = [[wins, margin], [sides, drift]]
        charts += [
            figure(group, Text("偏好训练的曲线", "curves of preference training"), x_end)
            for group in groups
        ]
    return charts


def long_context_curves(data: RunData) -> Markup | None:
    """A model before and after its context was extended; None where that was not done."""
    contexts = data.evaluations.get("pretrain", {}).get("long_context")
    if not contexts:
        return None
    names = {"before": Text("扩展之前", "before"), "after": Text("扩展之后", "after")}
    hues = {"before": "other", "after": "pretrain"}
    passkeys = [
        Series([(tokens, share) for tokens, share, _ in contexts[key]["passkeys"]], hues[key], name)
        for key, name in names.items()
    ]
    panels = [
        Panel(
            Text("找回前文的数字", "A number found again"), passkeys, SHARE, height=100, span=(0, 1)
        )
    ]
    if contexts["after"]["positions"]:
        curves = [
            Series([(end, bits) for end, bits in contexts[key]["positions"]], hues[key], name)
            for key, name in names.items()
        ]
        title = Text("各位置的比特/字节", "Bits per byte, by position")
        panels.append(Panel(title, curves, height=100))
    label = Text("更长的上下文", "the longer context")
    return figure(panels, label, contexts["after"]["length"])


def stage_tokens(data: RunData, stage: str) -> int | None:
    """Real tokens that a stage has trained on, so far."""
    logged = [row["tokens"] for row in data.metrics.get(stage, [])]
    return data.results.get(stage, {}).get("tokens") or (logged[-1] if logged else None)


def _stage_curves(
    data: RunData, stage: str, heldout: Sequence[Point], heldout_span: Span | None
) -> StageCurves:
    rows = data.metrics.get(stage, [])
    result = data.results.get(stage, {})
    pairs = any("margin" in row for row in rows)
    unit = Text("nat/对", "nats per pair") if pairs else Text("nat/词元", "nats per token")
    start = Text("ln 2：与参考模型相同", "ln 2: the reference itself")
    panels = [
        Panel(
            Text(f"损失（{unit.zh}）", f"Loss, {unit.en}"),
            [Series(points(rows, "loss"), stage)],
            height=132,
            guide=(math.log(2), start) if pairs else None,
        ),
        Panel(
            Text("留出文本（比特/字节）", "Held-out text, bits per byte"),
            [Series(heldout, stage)],
            height=84,
            span=heldout_span,
        ),
        *_task_panels(data.tasks.get(stage, []), stage),
        Panel(
            Text("学习率", "Learning rate"),
            [Series(points(rows, "lr"), stage)],
            NUMBER,
            40,
            from_zero=True,
        ),
        Panel(
            Text("梯度范数", "Gradient norm"),
            [Series(points(rows, "grad_norm"), stage)],
            height=40,
            from_zero=True,
        ),
        Panel(
            Text("装满的位置", "Places filled with tokens"),
            [Series(_filled(rows, data.recipe.get(stage, {})), stage)],
            SHARE,
            40,
            span=(0, 1),
        ),
        Panel(
            Text("专家均衡（1 为最匀）", "Evenness of the experts, 1 is best"),
            [Series(points(rows, "expert_entropy"), stage)],
            NUMBER,
            40,
            span=(0, 1),
        ),
        _speed_panel(rows, stage),
    ]
    panels = [panel for panel in panels if panel.series[0].points]
    x_end = max([row["tokens"] for row in rows] + [x for x, _ in heldout], default=0)
    name = stage_name(stage)
    label = Text(f"{name.zh}的曲线", f"curves of {name.en}")
    chart = figure(panels, label, x_end) if panels and x_end > 0 else None
    return StageCurves(stage, name, _facts(data, stage), chart, bool(result))


def _task_panels(rows: Sequence[Record], stage: str) -> list[Panel]:
    """One of the scores of sets, by language, and one of each task that was asked alone."""
    sets = [s["task"] for row in rows[-1:] for s in row["scores"] if s.get("unit") == CENTRED]
    panels = []
    for name in dict.fromkeys(sets):
        series = [
            Series(_asked(rows, name, language), hue, Text(zh, language))
            for language, hue, zh in (("zh", stage, "中文"), ("en", "other", "英文"))
        ]
        title = Text(f"{name}（0 为瞎猜）", f"{name}, 0 is guessing")
        panels.append(Panel(title, [one for one in series if one.points], height=84))
    for score in rows[-1]["scores"] if rows and not sets else []:
        title = task_name(score["task"])
        series = [Series(_asked(rows, score["task"], score["category"]), stage)]
        guide = (score["chance"] or 0.0, Text("瞎猜", "guessing"))
        panels.append(Panel(title, series, SHARE, 60, guide=guide))
    return panels


def _asked(rows: Sequence[Record], task: str, category: str) -> list[Point]:
    return [
        (row["tokens"], float(score["value"]))
        for row in rows
        for score in row["scores"]
        if (score["task"], score["category"]) == (task, category) and is_number(row.get("tokens"))
    ]


def _forecasts(data: RunData, stage: str) -> list[tuple[Text, Text]]:
    """Where the curves of a stage that is not done go, if its budget is known."""
    tokens = data.budgets.get(stage)
    if data.results.get(stage) or tokens is None:
        return []
    decay = decay_of(data.recipe.get(stage, {}), tokens)
    heldout = points(data.heldout.get(stage, []), "heldout_bits_per_byte")
    bits = Text("终点的比特/字节（外推）", "Bits per byte at the end, forecast")
    found = [(bits, _foreseen(forecast_loss(heldout, tokens, decay), decimal))] if heldout else []
    asked = data.tasks.get(stage, [])
    first = next((s for row in asked[-1:] for s in row["scores"]), None)
    if first is not None:
        curve = [
            (row["tokens"], score["value"], score["stderr"] or 0.0)
            for row in asked
            for score in row["scores"][:1]
        ]
        title = Text(f"终点的 {first['task']}（外推）", f"{first['task']} at the end, forecast")
        found.append((title, _foreseen(forecast_share(curve, tokens, first["chance"] or 0), share)))
    return found


def _foreseen(found: Forecast | None, write: Callable[[float], str]) -> Text:
    if found is None:
        return Text("还太早，说不准", "too early to say")
    text = f"{write(found.value)} ({write(found.low)} – {write(found.high)})"
    return Text(text, text)


def _speed_panel(rows: Sequence[Record], stage: str) -> Panel:
    rows = [row for row in rows if is_number(row.get("tokens_per_second"))]
    labels = [
        quantity(row["tokens_per_second"])
        + (f" · {share(row['mfu'])}" if is_number(row.get("mfu")) else "")
        for row in rows
    ]
    series = Series(points(rows, "tokens_per_second"), stage, labels=labels)
    return Panel(
        Text("每秒词元 · MFU", "Tokens per second · MFU"), [series], QUANTITY, 40, from_zero=True
    )


def _filled(rows: Sequence[Record], options: Record) -> list[Point]:
    """The real tokens of the steps between two lines, as a share of the places in their rows;
    the last steps of a budget are shorter than the others."""
    seq_len, batch = options.get("seq_len"), options.get("batch_tokens")
    if not seq_len or not batch or "group_size" in options:  # answers of GRPO are not packed ahead
        return []
    places = max(int(parse_quantity(batch, "batch_tokens")) // seq_len, 1) * seq_len
    lines = [row for row in rows if is_number(row.get("step")) and is_number(row.get("loss"))]
    return [
        (now["tokens"], min((now["tokens"] - before["tokens"]) / (steps * places), 1.0))
        for before, now in pairwise(lines)
        if (steps := now["step"] - before["step"]) > 0 and now["tokens"] > before["tokens"]
    ]


def points(rows: Sequence[Record], key: str) -> list[Point]:
    """(tokens, value) of the lines that have the key; what is no number becomes a gap."""
    return [
        (row["tokens"], float(row[key]) if is_number(row[key]) else math.nan)
        for row in rows
        if key in row
    ]


def _facts(data: RunData, stage: str) -> list[tuple[Text, Text]]:
    """The stage in numbers; only those that are known."""
    result, rows = data.results.get(stage, {}), data.metrics.get(stage, [])
    last = rows[-1] if rows else {}
    steps, seconds = (
        result.get("steps", last.get("step")),
        result.get("seconds", last.get("seconds")),
    )
    loss, mfu = result.get("loss", last.get("loss")), result.get("mfu")
    speed, memory = result.get("tokens_per_second"), result.get("peak_memory_mib")
    waits = [row["data_wait"] for row in rows if is_number(row.get("data_wait"))]
    tokens = stage_tokens(data, stage)
    facts: list[tuple[Text, Text | str | None]] = [
        (Text("步数", "Steps"), f"{steps:,}" if is_number(steps) else None),
        (Text("词元", "Tokens"), quantity(tokens) if tokens else None),
        (Text("训练用时", "Time"), duration(seconds) if is_number(seconds) else None),
        (Text("最后的损失", "Last loss"), decimal(loss) if is_number(loss) else None),
        (Text("每秒词元", "Tokens/s"), quantity(speed) if is_number(speed) else None),
        (Text("MFU", "MFU"), share(mfu) if is_number(mfu) else None),
        *(
            (
                Text(f"MFU（{whose}）", f"MFU ({whose})"),
                share(result[key]) if is_number(result.get(key)) else None,
            )
            for whose, key in (("PaLM", "mfu_palm"), ("BitBrain", "mfu_bitbrain"))
        ),
        (
            Text("等数据", "Data wait"),
            share(sum(waits) / len(waits)) if waits else None,
        ),
        (Text("内存峰值", "Memory"), f"{memory:,} MiB" if is_number(memory) else None),
    ]
    known = [(k, v if isinstance(v, Text) else Text(v, v)) for k, v in facts if v is not None]
    return known + _forecasts(data, stage)
