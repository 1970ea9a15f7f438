"""What GRPO came to: its curves, and held-out problems before and after."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from miao.report.charts import SHARE, Panel, Series, figure
from miao.report.curves import points
from miao.report.data import RunData
from miao.report.words import Text, decimal, share

STAGE = "grpo"


@dataclass(frozen=True)
class RewardRow:
    """A reward function on held-out problems; `verdict`: more than two standard errors."""

    name: str
    count: int
    before: str
    after: str
    change: str
    verdict: str | None


def reward_rows(data: RunData) -> list[RewardRow]:
    """Rewards on the same held-out problems before and after; none where GRPO was not measured."""
    rows = []
    for record in data.evaluations.get(STAGE, {}).get("rewards", []):
        before, after, change = record["before"], record["after"], record["difference"]
        write = share if after["unit"] == "accuracy" else decimal
        moved = abs(change["value"]) > 2 * (change["stderr"] or 0)
        better = "better" if change["value"] > 0 else "worse"
        rows.append(
            RewardRow(
                after["category"],
                after["count"],
                f"{write(before['value'])} ±{write(before['stderr'] or 0)}",
                f"{write(after['value'])} ±{write(after['stderr'] or 0)}",
                f"{100 * change['value']:+.1f} ±{100 * (change['stderr'] or 0):.1f} %"
                if after["unit"] == "accuracy"
                else f"{change['value']:+.3f} ±{change['stderr'] or 0:.3f}",
                better if moved else None,
            )
        )
    return rows


def reward_curves(data: RunData) -> list[Markup]:
    """Whether the reward rises, whether there is still something to learn, and at what price."""
    rows = [row for row in data.metrics.get(STAGE, []) if "reward" in row]
    if not rows:
        return []
    heldout = [row for row in data.heldout.get(STAGE, []) if "heldout_reward" in row]
    reward = [
        Series(points(rows, "reward"), STAGE, Text("训练（抽样）", "training, sampled")),
        Series(
            points(heldout, "heldout_reward"), "other", Text("留出（贪心）", "held out, greedy")
        ),
    ]
    silent = Text("没有信号的组", "Groups without signal")
    groups = [
        [
            Panel(Text("奖励", "Reward"), [s for s in reward if s.points], height=100),
            Panel(silent, [Series(points(rows, "groups_without_signal"), STAGE)], SHARE, 72,
                  span=(0, 1)),
        ],
        [
            Panel(Text("熵（nat/词元）", "Entropy, nats per token"),
                  [Series(points(rows, "entropy"), STAGE)], height=72, from_zero=True),
            Panel(Text("回答长度（词元）", "Length of an answer, tokens"),
                  [Series(points(rows, "answer_tokens"), STAGE)], height=72, from_zero=True),
            Panel(Text("被截断的词元", "Tokens that clipping stopped"),
                  [Series(points(rows, "clip_fraction"), STAGE)], SHARE, 40, from_zero=True),
            Panel(Text("离参考模型的 KL（nat/词元）", "KL from the reference, nats per token"),
                  [Series(points(rows, "kl"), STAGE)], height=40, from_zero=True),
        ],
    ]  # fmt: skip
    label = Text("奖励训练的曲线", "curves of training with rewards")
    x_end = max(row["tokens"] for row in rows)
    return [figure([p for p in g if p.series[0].points], label, x_end) for g in groups]
