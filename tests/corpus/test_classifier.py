"""The quality classifier: beside scikit-learn's own numbers, and on texts that it has not seen."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miao.cli import main
from miao.corpus.clean import Cleaner, Rejected, classifier
from miao.corpus.clean.classifier import BUCKETS, SIZE, Classifier, features, thresholds
from miao.corpus.ngrams import TextView
from miao.corpus.records import Document
from miao.errors import MiaoError
from miao.files import read_jsonl
from miao.recipe.cleaning import CleanOptions

GOOD = ["春天来了", "河边的柳树发了芽", "孩子们在草地上放风筝", "老人坐在长椅上晒太阳。"]
BAD = ["点击领取优惠券", "全场包邮", "限时秒杀", "加微信送好礼", "正品保证", "马上抢购。"]


def texts(pieces: list[str], count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["，".join(rng.choices(pieces, k=5)) + f"{number}。" for number in range(count)]


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("classifier") / "made"
    classifier.train(texts(GOOD, 200, 1), texts(BAD, 200, 2), out)
    return out


def test_it_tells_new_texts_apart_and_rejects_the_bad(trained: Path) -> None:
    made = Classifier(trained)
    good = [made.score(TextView(text)) for text in texts(GOOD, 50, 3)]
    bad = [made.score(TextView(text)) for text in texts(BAD, 50, 4)]
    assert min(good) > 0.5 > max(bad)
    cleaner = Cleaner(CleanOptions(classifier=str(trained)))
    found = cleaner.clean(Document(texts(BAD, 1, 5)[0]))
    assert isinstance(found, Rejected) and found.rule == "classifier"
    assert made.facts["good"] == made.facts["bad"] == 200 and made.facts["auc"] == 1.0


def test_scores_are_those_of_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read from the directory scores as the model that was fitted."""
    linear: Any = pytest.importorskip("sklearn.linear_model")
    from scipy.sparse import csr_matrix

    fitted: list[Any] = []

    class Kept(linear.LogisticRegression):  # type: ignore[misc, name-defined]
        def __init__(self, **settings: Any):
            super().__init__(**settings)
            fitted.append(self)

    monkeypatch.setattr(linear, "LogisticRegression", Kept)
    classifier.train(texts(GOOD, 80, 1), texts(BAD, 90, 2), tmp_path / "made")
    made = Classifier(tmp_path / "made")
    for text in (*texts(GOOD + BAD, 20, 3), "", "Quite another text.", "长" * 30_000):
        numbers = features(TextView(text))
        row = np.zeros(SIZE)
        row[numbers] = len(numbers) ** -0.5
        expected = fitted[0].predict_proba(csr_matrix(row[None]))[0, 1]
        assert made.score(TextView(text)) == pytest.approx(expected, abs=1e-6)


def test_thresholds_by_hand() -> None:
    scores = np.array([0.95, 0.75, 0.55, 0.05, 0.85, 0.05, 0.05, 0.05])
    truth = np.array([True] * 4 + [False] * 4)
    rows = {round(row.threshold, 1): row for row in thresholds(scores, truth)}
    assert (rows[0.5].recall, rows[0.5].bad_kept) == (0.75, 0.25)
    assert rows[0.5].precision == 0.75 and rows[0.9].precision == 1.0
    assert rows[0.9].precision_error > 0  # four samples prove little


def test_features_are_numbers_of_tokens_pairs_and_character_classes() -> None:
    found = features(TextView("一二"))
    assert np.sum(found < BUCKETS) == 3 and np.sum(found >= BUCKETS) == 6
    assert found.tolist() == features(TextView("一，二")).tolist()[:3] + found.tolist()[3:]


def test_contradictions_are_left_out_and_few_samples_refused(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    both = texts(GOOD, 30, 9)
    facts = classifier.train(
        [*texts(GOOD, 100, 1), *both], [*texts(BAD, 100, 2), *both], tmp_path / "made"
    )
    assert facts["contradicting"] == 30 and facts["good"] == facts["bad"] == 100
    with pytest.raises(MiaoError, match="3 different bad samples are too few"):
        classifier.train(texts(GOOD, 100, 1), texts(BAD, 3, 2) * 50, tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_damaged_classifiers_are_named(trained: Path, tmp_path: Path) -> None:
    for name, content in ((classifier.FACTS, b"[]"), (classifier.WEIGHTS, b"no")):
        place = tmp_path / name
        place.mkdir()
        for file in trained.iterdir():
            (place / file.name).write_bytes(content if file.name == name else file.read_bytes())
        with pytest.raises(MiaoError, match="no quality classifier"):
            Classifier(place)


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, score, and filter by the score's column."""
    pytest.importorskip("sklearn")
    good, bad = write(tmp_path / "good.jsonl", texts(GOOD, 99, 1)), tmp_path / "bad.jsonl"
    write(bad, texts(BAD, 99, 2))
    made, scored = tmp_path / "made", tmp_path / "scored.jsonl"
    words = ["corpus", "classifier", "--good", str(good), "--bad", str(bad), "--out", str(made)]
    assert main(words) == 0
    assert "of the kept are good" in capsys.readouterr().out
    assert main(words) == 0  # what it made, it may replace
    mixed = write(tmp_path / "mixed.jsonl", texts(GOOD, 5, 3) + texts(BAD, 5, 4))
    words = ["corpus", "score", str(mixed), "--out", str(scored), "--classifier", str(made)]
    assert main(words) == 0
    rows = list(read_jsonl(scored))
    assert [row["quality"] > 0.5 for row in rows] == [True] * 5 + [False] * 5
    assert [row["text"] for row in rows] == [row["text"] for row in read_jsonl(mixed)]
    assert main(["corpus", "score", str(scored), "--out", str(scored), *words[-2:]]) == 2
    assert main(["corpus", "score", str(mixed), "--out", str(tmp_path / "x.jsonl")]) == 2
