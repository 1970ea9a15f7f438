"""One score of many tasks: centred, with an error that says how far off it is, in each language."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miao.errors import MiaoError
from miao.evaluate.benchmark import Answer
from miao.evaluate.results.compare_scores import ScoreDifference, paired, score_text
from miao.evaluate.results.ensemble import Ensemble, Part, ensemble_from_json, part_of
from miao.evaluate.results.sets import ask_set, count_options, ensemble_of, read_set, within
from miao.evaluate.scores import PROBABILITY
from miao.evaluate.statistics import clustered_variance, wilson
from miao.evaluate.tasks.items import Item
from miao.evaluate.tasks.prompts import Encoder
from miao.evaluate.tasks.sets import built_in_sets, is_set, load_set
from miao.model import Decoder
from miao.tokenizer import Tokenizer


def part(value: float, count: int = 100, chance: float = 0.25, language: str = "zh") -> Part:
    stderr = math.sqrt(value * (1 - value) / count) or 1 / (2 * (count + 1))
    return Part("t", language, count, value, stderr, chance)


def test_centred_by_hand() -> None:
    assert part(0.25).centred == 0 and part(1.0).centred == 1
    assert part(0.1).centred == pytest.approx(-0.2)
    ensemble = Ensemble("s", (part(0.4), part(0.7), part(0.5, 400, 0.0, "en")))
    zh = (0.2 + 0.6) / 2
    errors = [math.sqrt(0.24 / 100) / 0.75, math.sqrt(0.21 / 100) / 0.75]
    found = ensemble.score("zh")
    assert found.value == pytest.approx(zh)
    assert found.stderr == pytest.approx(math.hypot(*errors) / 2)
    assert found.low < zh < found.high
    both = ensemble.score()
    assert both.value == pytest.approx((zh + 0.5) / 2), (
        "languages count alike, whatever their tasks"
    )
    assert both.stderr == pytest.approx(math.hypot(found.stderr, math.sqrt(0.25 / 400)) / 2)
    assert [score.category for score in ensemble.scores()] == ["zh", "en", "both"]
    assert ensemble_from_json(ensemble.to_json()) == ensemble


def test_wilson_by_the_book() -> None:
    """Newcombe (1998), table 1: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611."""
    assert wilson(81 / 263, 263, 1.959964) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20, 1.959964) == pytest.approx((0.0, 0.1611), abs=5e-5)


def answers(groups: dict[str, list[int]], subject: str = "all", options: int = 4) -> list[Answer]:
    return [
        Answer(Item(f"{text}{n}", subject, "q", list("wxyz")[:options], 0, {"cluster": text}), bool(r))
        for text, marks in groups.items()
        for n, r in enumerate(marks)
    ]  # fmt: skip


def test_questions_on_one_text_are_one_draw_together() -> None:
    whole = {str(n): [n % 2] * 5 for n in range(40)}
    alone = {f"{n}.{i}": [n % 2] for n in range(40) for i in range(5)}
    assert part_of("t", "zh", answers(alone)).stderr == pytest.approx(0.5 / math.sqrt(200))
    found = part_of("t", "zh", answers(whole)).stderr
    assert found == pytest.approx(0.5 / math.sqrt(40) * math.sqrt(40 / 39)), "40 texts, not 200"
    assert clustered_variance([True, False], ["a", "a"]) == 0.125, "one text tells no spread"


def test_subjects_are_fixed_parts_of_a_task() -> None:
    """One known, one not at all: nothing is uncertain about their mean but what is within them."""
    known = answers({str(n): [1] for n in range(50)}, "a")
    unknown = answers({str(n): [n % 2] for n in range(50)}, "b")
    found = part_of("t", "zh", known + unknown)
    assert found.value == 0.75
    assert found.stderr == pytest.approx(0.5 * math.sqrt(0.25 / 50))
    assert found.chance == 0.25


SHAPES: dict[str, tuple[list[float], int]] = {
    "chance": ([0.25] * 10 + [0.5] * 4, 100),
    "strong": ([0.97, 0.99, 0.9, 0.8, 1.0, 0.95], 50),
    "mixed": ([0.0, 0.02, 0.3, 0.5, 0.9, 0.99], 100),
    "one": ([0.3], 200),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_covers_the_truth_95_times_of_100(shape: str) -> None:
    """1,000 draws of a model whose true shares are known; 95 % ± 1.5 (two errors of 0.7)."""
    shares, count = SHAPES[shape]
    rng, draws, hits = np.random.default_rng(1), 1000, 0
    truth = Ensemble("s", tuple(part(share, count) for share in shares)).score().value
    for drawn in rng.binomial(count, shares, (draws, len(shares))) / count:
        found = Ensemble("s", tuple(part(float(share), count) for share in drawn)).score()
        hits += found.low <= truth <= found.high
    assert hits / draws == pytest.approx(0.95, abs=0.015)


BETAS = {"torn": (0.2, 0.6), "soft": (5.0, 15.0), "known": (3.0, 0.3), "chance": (0.5, 1.5)}
"""How the right option's share spreads over questions: near 0 or 1, or in between."""


@pytest.mark.parametrize("shape", BETAS)
def test_the_interval_of_probabilities_covers_the_truth(shape: str) -> None:
    """1,000 draws of 7 tasks of 100 questions whose shares are beta distributed; 95 % ± 1.5."""
    a, b = BETAS[shape]
    drawn = np.random.default_rng(3).beta(a, b, (1000, 7, 100))
    truth, hits = (a / (a + b) - 0.25) / 0.75, 0
    for means, errors in zip(drawn.mean(2), drawn.std(2) / 10, strict=True):
        parts = [Part("t", "zh", 100, m, e, 0.25) for m, e in zip(means, errors, strict=True)]
        found = Ensemble("s", tuple(parts)).score()
        hits += found.low <= truth <= found.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.015)


def test_the_paired_interval_covers_and_is_narrower() -> None:
    """1,000 draws of two models that find the same questions hard: 5 tasks of 80 questions, of 40
    texts. The truth is the mean step; standing alone the two scores would be far less sure."""
    rng, hits, widths = np.random.default_rng(4), 0, []
    texts = [n // 2 for n in range(80)]
    for _ in range(1000):
        base = np.repeat(rng.beta(0.5, 1.0, (5, 40)), 2, axis=1)
        step = np.repeat(rng.normal(0.03, 0.1, (5, 40)), 2, axis=1) + rng.normal(0, 0.05, (5, 80))
        value, stderr = paired(
            [(0.2, [("all", t, s) for t, s in zip(texts, row, strict=True)]) for row in step]
        )
        hits += abs(value - 0.03) <= 1.959964 * stderr
        widths.append(stderr / math.sqrt(2 * base.var() / 400))
    assert hits / 1000 == pytest.approx(0.95, abs=0.015)
    assert np.mean(widths) < 0.5


def test_a_difference_as_between_runs_of_one_recipe_is_said_to_be_one() -> None:
    one = ScoreDifference(
        "early", "both", "a", "b", 0.03, 0.05, 0.02, 0.005, 0.01, 0.03, 1e-4, 756, 0
    )
    assert "b is better, as single runs" in score_text(one)
    assert score_text(replace(one, value=0.04)).endswith("b is better")
    assert score_text(replace(one, name="core")).endswith("b is better")
    assert score_text(replace(one, p_value=0.06)).endswith("no difference shown")


def test_the_right_option_s_share_by_hand() -> None:
    item = Item("1", "all", "q", ["a", "b"], 1, {})
    one = Answer(item, False, 0, logprobs=[math.log(0.06), math.log(0.02)])
    two = Answer(item, True, 1, logprobs=[-2000.0, -1999.0])
    assert one.probability == pytest.approx(0.25)
    assert two.probability == pytest.approx(1 / (1 + math.exp(-1)))
    assert Answer(item, True, nats=1.0, logprobs=[-1.0]).probability is None
    found = part_of("t", "zh", [one, two], PROBABILITY)
    assert found.value == pytest.approx((one.probability + two.probability) / 2)
    assert (found.accuracy, found.unit, found.chance) == (0.5, "probability", 0.5)
    assert found.stderr == pytest.approx(abs(two.probability - one.probability) / 2 / math.sqrt(2))
    assert part_of("t", "zh", [one, two]).value == 0.5


def test_the_interval_covers_where_questions_share_texts() -> None:
    """60 texts of four questions; how much is known of a text differs (beta 2, 2)."""
    rng, draws, covered, naive = np.random.default_rng(2), 1000, 0, 0
    clusters = [n // 4 for n in range(240)]
    for _ in range(draws):
        known = np.repeat(rng.beta(2, 2, 60), 4)
        right = (rng.random(240) < known).tolist()
        share = sum(right) / 240
        stderr = math.sqrt(clustered_variance(right, clusters))
        low, high = Part("t", "zh", 240, share, stderr).limits()
        covered += low <= 0.5 <= high
        low, high = part(share, 240, 0.0).limits()
        naive += low <= 0.5 <= high
    assert covered / draws == pytest.approx(0.95, abs=0.015)
    assert naive / draws < 0.92, "as if they stood alone: too narrow"


def test_a_set_that_needs_no_files_gives_a_score(
    make_model: Callable[..., Decoder], tokenizer: Tokenizer
) -> None:
    assert [one.name for one in within(load_set("grown"))] == ["early"]
    chosen = load_set("grown")
    prepared = read_set(chosen, Path("nowhere"), limit=3)
    model = make_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    done: list[int] = []
    asked = ask_set(model, Encoder(tokenizer), prepared, done.append)
    assert sum(done) == count_options(prepared) > 200
    ensemble = ensemble_of(chosen, asked)
    assert ensemble.languages == ["zh", "en"] and len(ensemble.parts) == len(chosen.parts)
    sums = next(one for one in ensemble.parts if one.name == "sums")
    assert (sums.count, sums.chance) == (6, 0.25), "two subjects of three questions"
    grammar = next(one for one in ensemble.parts if one.name == "grammar")
    assert (grammar.count, grammar.chance) == (3, 0.5)


def test_sets_of_ones_own(tmp_path: Path) -> None:
    assert built_in_sets() == ["early", "grown"] and is_set("early") and not is_set("skills")
    path = tmp_path / "mine.yaml"
    text = "limits: {{skills: 5}}\nparts: {{zh: {{copying: {}}}}}\n"
    path.write_text(text.format("skills copying_zh"), encoding="utf-8")
    assert is_set(str(path)) and load_set(str(path)).subjects("skills") == ["copying_zh"]
    for words, message in (
        ("skills juggling_zh", "skills has no subject juggling_zh"),
        ("facts zh", "limits: facts is missing"),
        ("fact zh", "there is no task 'fact'"),
    ):
        path.write_text(text.format(words), encoding="utf-8")
        with pytest.raises(MiaoError, match=message):
            load_set(str(path))
    path.write_text("unit: luck\n" + text.format("skills"), encoding="utf-8")
    with pytest.raises(MiaoError, match="unit: luck"):
        load_set(str(path))
    path.write_text("parts: [1]\n", encoding="utf-8")
    with pytest.raises(MiaoError, match="not a set of tasks"):
        load_set(str(path))
    with pytest.raises(MiaoError, match="did you mean 'early'"):
        load_set("eraly")
