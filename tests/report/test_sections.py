"""What the sections say: scores and their verdicts, samples, mistakes, data, time, curves."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest

from miao.report import write_report
from miao.report.curves import training_curves
from miao.report.data import read_run
from miao.report.facts import chain, composition
from miao.report.samples import changes, clip, mistakes, samples
from miao.report.scores import near_chance, score_cards, score_tables, size_cards, verdict
from miao.report.words import Text, decimal, duration, quantity, share, stage_name, tick
from miao.rundir import RunDir


def share_score(count: int, right: int, chance: float | None = None) -> dict[str, Any]:
    return {"count": count, "value": right / count, "chance": chance, "unit": "accuracy"}


def bits_score(value: float) -> dict[str, Any]:
    return {"count": 50, "value": value, "stderr": 0.02, "chance": None, "unit": "bits"}


def test_numbers_are_written_for_people() -> None:
    assert [quantity(n) for n in (950, 12_345, 2_000_000, 999_900, 1.5e9, -3000)] == [
        "950",
        "12.3K",
        "2M",
        "1M",
        "1.5B",
        "−3K",
    ]
    assert [decimal(n) for n in (0, 0.003, 0.00002, 1.2345, -23.456, 123.46)] == [
        "0",
        "0.003",
        "2e−5",
        "1.234",
        "−23.46",
        "123.5",
    ]
    assert share(0.12345) == "12.3%" and tick(0.5) == "0.5" and tick(5e-5) == "5e−5"
    assert [duration(s).en for s in (0.58, 42, 785, 7620)] == [
        "0.6 s",
        "42 s",
        "13 min 05 s",
        "2 h 07 min",
    ]
    assert duration(785).zh == "13 分 05 秒" and duration(59.7).en == "1 min 00 s"
    assert stage_name("evaluate sft") == Text("评测：微调 SFT", "Evaluation: SFT")


def test_verdict_marks_only_what_two_standard_errors_bear() -> None:
    low, high = share_score(400, 200), share_score(400, 240)
    assert verdict(low, high) == "better" and verdict(high, low) == "worse"
    assert verdict(low, share_score(400, 220)) is None and verdict(None, low) is None
    assert verdict(bits_score(1.0), bits_score(1.1)) == "worse"
    assert verdict(bits_score(1.0), bits_score(0.9)) == "better"
    assert verdict(bits_score(1.0), bits_score(1.05)) is None
    # The plain standard error of 0 of 1 and of 1 of 1 is zero; that is no evidence.
    assert verdict(share_score(1, 0), share_score(1, 1)) is None
    assert verdict(share_score(12, 0), share_score(12, 11)) == "better"
    assert near_chance(share_score(40, 12, 0.25))
    assert not near_chance(share_score(400, 200, 0.25))
    assert not near_chance(share_score(40, 12))


def test_cards_and_tables_hold_the_scores_of_every_stage(run: RunDir) -> None:
    data = read_run(run)
    cards = {card.label.en: card for card in [*score_cards(data), *size_cards(data)]}
    assert cards["Multiple choice"].value.en == "50.0%" and cards["Questions"].value.en == "52.5%"
    assert cards["Preference: implicit reward"].value.zh == "96.0%"
    assert (
        cards["Bits per byte"].value.en == "1.810" and cards["Tokens trained on"].value.en == "7K"
    )
    assert cards["Wall time"].value.en == "1 min 40 s"
    # 300·64 embeddings, 64 final norm, and two blocks of 4·64·64 + 3·64·128 + 2·64 + 2·64.
    assert data.parameters == 19_200 + 64 + 2 * (16_384 + 24_576 + 256)
    assert cards["Parameters"].value.en == "102K"
    bits, choice, questions, reward = score_tables(data)
    assert [bits.name.en, reward.name.en] == ["Bits per byte", "Preference: implicit reward"]
    cells = [(c.value, c.stderr, c.verdict, c.rose) for c in bits.rows[0].cells if c]
    assert cells == [
        ("1.500", "± 0.020", None, False),
        ("1.800", "± 0.020", "worse", True),
        ("1.810", "± 0.020", None, True),
    ]
    assert [row.category.en for row in choice.rows] == ["All", "Animals"] and choice.rows[
        0
    ].is_total
    assert [c.verdict for c in choice.rows[0].cells if c] == [None, "better", None]
    assert choice.rows[0].chance == "25.0%" and choice.rows[0].count == 40
    assert questions.rows[0].cells[0] is None


def test_samples_show_before_and_after(run: RunDir, hostile: str) -> None:
    beginning, question = samples(read_run(run))
    assert beginning.continued and not question.continued
    assert [(a.label.en, a.text) for a in beginning.answers] == [
        ("after 1.5K tokens", "的的的"),
        ("after 3K tokens", "有一只小猫。"),
    ]
    assert [(a.label.en, a.text) for a in question.answers] == [
        ("SFT", "I am Miao."),
        ("DPO", hostile),
    ]
    assert clip(" a ") == "a" and clip("x" * 1300) == "x" * 1200 + " […]"


def test_changes_and_mistakes_hide_nothing(run: RunDir, hostile: str) -> None:
    data = read_run(run)
    (change,) = changes(data)
    assert (change.of, change.count, change.mended, change.broken) == (40, 2, 1, 1)
    assert [c["after"] for c in change.shown] == ["7", hostile]
    wrong = mistakes(data)
    assert wrong and (wrong.of, wrong.count, len(wrong.shown)) == (24, 23, 12)
    assert [(name.en, bad, of) for name, bad, of in wrong.by_category] == [
        ("Arithmetic", 20, 20),
        ("Identity", 2, 2),
        ("Knowledge", 1, 2),
    ]
    # In turn from every category, so that the largest does not fill the page.
    assert [m.category.en for m in wrong.shown[:6]] == [
        "Arithmetic",
        "Identity",
        "Knowledge",
        "Arithmetic",
        "Identity",
        "Arithmetic",
    ]
    assert wrong.shown[2].expected == "2"


def test_a_flood_of_mended_answers_leaves_room_for_the_broken_ones(run: RunDir) -> None:
    mended = {
        "question": "m",
        "before": "a",
        "after": "b",
        "right_before": False,
        "right_after": True,
    }
    broken = {
        "question": "b",
        "before": "a",
        "after": "b",
        "right_before": True,
        "right_after": False,
    }
    for good, bad, shown in [
        (30, 30, "m" * 6 + "b" * 6),
        (30, 2, "m" * 10 + "b" * 2),
        (1, 30, "m" + "b" * 11),
    ]:
        records = [mended] * good + [broken] * bad
        run.replace_lines(
            run.eval_results,
            "dpo",
            [{"stage": "dpo", "scores": [], "changed_answers": {"of": 99, "changed": records}}],
        )
        (change,) = changes(read_run(run))
        assert "".join(item["question"] for item in change.shown) == shown


def test_data_time_and_chain_add_up(run: RunDir) -> None:
    data = read_run(run)
    stages = composition(data)
    assert [stage.origin.en for stage in stages] == [
        "your files",
        "built-in corpus",
        "built-in corpus",
    ]
    stories, other = stages[0].sources
    assert (stories.width, other.width, stages[1].sources[0].width) == (1.0, 0.25, 0.5)
    assert (stories.tokens, stories.learned, stories.bytes_per_token) == ("4K", "97.5%", "4.00")
    assert other.tokens == "–" and stories.duplicates == 1
    links = chain(data)
    assert [link.stage for link in links[3:7]] == ["shards", "pretrain", "evaluate pretrain", "sft"]
    assert all(link.done for link in links) and sum(link.share for link in links) == pytest.approx(
        1
    )
    assert links[4].share == 0.5 and links[4].seconds == Text("50 秒", "50 s")


def test_curves_show_every_stage_with_its_facts(run: RunDir) -> None:
    pretrain, sft, dpo = training_curves(read_run(run))
    facts = {label.en: value.en for label, value in pretrain.facts}
    assert facts == {
        "Steps": "9",
        "Tokens": "3K",
        "Time": "5.0 s",
        "Last loss": "0.500",
        "Tokens/s": "500",
        "MFU": "25.0%",
        "Data wait": "1.0%",
        "Memory": "900 MiB",
    }
    assert pretrain.chart and sft.chart and dpo.chart and dpo.finished
    assert "nats per token" in pretrain.chart and "ln 2" not in pretrain.chart
    assert "nats per pair" in dpo.chart and "ln 2" in dpo.chart
    points = re.search(r'data-points="([^"]*)"', pretrain.chart)
    assert points
    loss = json.loads(unescape(points[1]))[0]
    # Tokens 1000, 2000, 3000 of 3000; loss 8, 4, 2 with 6 % of room at both ends of 132 units.
    assert [point[0] for point in loss] == [142.0, 244.0, 346.0]
    assert [point[1] for point in loss] == pytest.approx(
        [154 - 132 * (y - 1.64) / 6.72 for y in (8, 4, 2)], abs=0.06
    )
    assert [point[2] for point in loss] == ["8.000", "4.000", "2.000"]


def test_tasks_asked_while_training_are_curves_and_unfinished_stages_are_forecast(
    run: RunDir,
) -> None:
    scores = [
        {"task": "early", "category": name, "count": 9, "value": 0.1, "stderr": 0.02,
         "chance": 0.0, "unit": "centred"} for name in ("zh", "en")
    ]  # fmt: skip
    lines = run.metrics.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if "heldout" not in line]
    for tokens in (1000, 2000):
        line = {"stage": "pretrain", "step": 1, "tokens": tokens, "scores": scores}
        lines.append(json.dumps(line))
    for n in range(1, 9):
        held = {"tokens": 500 * n, "heldout_bits_per_byte": 1 + 20 * (500 * n) ** -0.5}
        lines.append(json.dumps({"stage": "pretrain", "step": n, **held}))
    run.metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = run.path / "recipe.yaml"
    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace(
            "pretrain:\n  enabled: true", "pretrain:\n  enabled: true\n  tokens: 8K"
        ),
        encoding="utf-8",
    )
    assert "forecast" not in str(training_curves(read_run(run))[0].facts), "it is finished"
    (run.checkpoints("pretrain") / "result.json").unlink()
    pretrain = training_curves(read_run(run))[0]
    assert pretrain.chart and "early, 0 is guessing" in pretrain.chart
    facts = {label.en: value.en for label, value in pretrain.facts}
    assert facts["early at the end, forecast"] == "too early to say"
    assert facts["Bits per byte at the end, forecast"].startswith("1.22")


def test_the_card_stands_on_the_page_escaped(run: RunDir, hostile: str) -> None:
    row = {"name": hostile, "category": "zh", "count": 9, "value": 0.5, "stderr": 0.1,
           "chance": 0.25, "unit": "accuracy", "verdict": None}  # fmt: skip
    empty: dict[str, list[str]] = {
        name: [] for name in ("score", "bits", "can", "writes", "benchmarks")
    }
    card = {"model": hostile, "knows": [row], "fails": [hostile], **empty}
    (run.path / "card.json").write_text(json.dumps({"cards": [card]}), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "What it knows and can" in page and "50.0 % ± 10.0" in page
    assert hostile not in page


def test_the_curves_show_how_full_the_rows_were(run: RunDir) -> None:
    data = read_run(run)
    data.recipe["pretrain"] |= {"seq_len": 250, "batch_tokens": "1.3K"}  # five rows: 1,250 places
    pretrain, sft, _ = training_curves(data)
    assert "Places filled with tokens" in str(pretrain.chart) and "80" in str(pretrain.chart)
    assert "Places filled" not in str(sft.chart)  # not known of a recipe without rows
