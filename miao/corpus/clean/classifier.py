"""A quality classifier: a linear model over hashed n-grams, trained on good and bad samples.

The idea of DCLM's and FineWeb-Edu's filters (arXiv:2406.11794, arXiv:2406.17557), with logistic
regression in place of fastText: p(good) = sigmoid(bias + sum of the weights of the text's features
/ sqrt(their number)). Features are the tokens and pairs of tokens (`ngrams.TextView`), and how much
of the text is letters, digits, marks: numbers of one kind for Chinese and English.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miao.corpus.ngrams import Hashes, TextView, text_key
from miao.errors import MiaoError, install_hint
from miao.files import at_home, atomic_directory, read_json, write_json

WEIGHTS, FACTS = "classifier.safetensors", "classifier.json"
BUCKETS = 1 << 18
STEPS = 10  # in which the share of a class of characters is counted
SIZE = BUCKETS + 6 * (STEPS + 1)
HELD_OUT = 0.2
FEWEST = 50  # of either kind, to train and to measure on
LONGEST = 20_000
"""Characters of a text that are looked at."""


@dataclass(frozen=True)
class Row:
    """What a threshold does to the held-out samples."""

    threshold: float
    precision: float
    """Of what it keeps, how much is good (as if there were as many good as bad)."""
    recall: float
    """Of the good, how much it keeps."""
    bad_kept: float
    precision_error: float
    """Standard error of the precision."""


def features(view: TextView) -> NDArray[np.int64]:
    """The numbers of a text's features, each once, ascending."""
    if len(view.text) > LONGEST:
        view = TextView(view.text[:LONGEST])
    grams: Hashes = np.concatenate([view.ngrams(1), view.ngrams(2)])
    total = max(len(view.text), 1)
    shares = [kind * (STEPS + 1) + STEPS * n // total for kind, n in enumerate(view.counts)]
    numbers = np.concatenate([(grams & np.uint64(BUCKETS - 1)).astype(np.int64),
                              BUCKETS + np.array(shares, dtype=np.int64)])  # fmt: skip
    return np.unique(numbers)


class Classifier:
    """A trained classifier, read from its directory.

    Raises:
        MiaoError: no such directory, or files that are not a classifier's.
    """

    def __init__(self, directory: str | Path):
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = at_home(directory)
        try:
            self.facts: dict[str, Any] = read_json(path / FACTS)
            self._weights = load_file(path / WEIGHTS)["weights"]
            self._bias = float(self.facts["bias"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, MiaoError) as error:
            raise MiaoError(
                "this is no quality classifier",
                where=path,
                fix="train one: miao corpus classifier --good FILES --bad FILES --out DIR",
            ) from error
        if self._weights.shape != (SIZE,):
            raise MiaoError("made with another version: train it again", where=path)

    def score(self, view: TextView) -> float:
        """How good the text is, 0 to 1."""
        found = features(view)
        value = self._bias + float(self._weights[found].sum()) / np.sqrt(len(found))
        return float(1 / (1 + np.exp(-np.clip(value, -50, 50))))


def train(good: Iterable[str], bad: Iterable[str], directory: Path) -> dict[str, Any]:
    """Trains on four fifths of the samples, measures on the rest, and writes the classifier.

    Which samples are held out is told by their content; a text that stands twice counts once, one
    that is called both good and bad not at all.

    Returns:
        what was measured: `auc`, `rows` (one per threshold), and how many samples of each kind.
    Raises:
        MiaoError: scikit-learn is missing, or too few samples.
    """
    try:
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
    except ImportError as error:
        raise MiaoError("scikit-learn is not installed", fix=install_hint("data")) from error
    kinds: dict[tuple[int, int], set[bool]] = {}
    rows: dict[tuple[int, int], NDArray[np.int64]] = {}
    for is_good, texts in ((True, good), (False, bad)):
        for text in texts:
            key = text_key(text)
            kinds.setdefault(key, set()).add(is_good)
            if key not in rows:
                rows[key] = features(TextView(text))
    keys = [key for key, found in kinds.items() if len(found) == 1]
    labels = np.array([True in kinds[key] for key in keys])
    apart = np.array([key[0] / 2**64 < HELD_OUT for key in keys])
    for name, wanted in (("good", labels), ("bad", ~labels)):
        count = int(np.sum(wanted)) if keys else 0
        if count < FEWEST or not np.any(wanted & apart):
            raise MiaoError(
                f"{count} different {name} samples are too few",
                fix=f"give {FEWEST} or more of each kind; a few thousand make a good classifier",
            )
    matrix = csr_matrix(
        (
            np.concatenate([np.full(len(rows[key]), len(rows[key]) ** -0.5) for key in keys]),
            np.concatenate([rows[key] for key in keys]),
            np.cumsum([0, *(len(rows[key]) for key in keys)]),
        ),
        shape=(len(keys), SIZE),
    )
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
    model.fit(matrix[~apart], labels[~apart])
    scores, truth = model.predict_proba(matrix[apart])[:, 1], labels[apart]
    facts = {
        "bias": float(model.intercept_[0]),
        "good": int(labels.sum()),
        "bad": int((~labels).sum()),
        "contradicting": len(kinds) - len(keys),
        "held_out": int(apart.sum()),
        "auc": float(roc_auc_score(truth, scores)),
        "rows": [asdict(row) for row in thresholds(scores, truth)],
    }
    write(directory, model.coef_[0], facts)
    return facts


def write(directory: Path, weights: NDArray[Any], facts: dict[str, Any]) -> None:
    from safetensors.numpy import save

    with atomic_directory(directory) as path:
        (path / WEIGHTS).write_bytes(save({"weights": weights.astype(np.float32)}))
        write_json(path / FACTS, facts)


def thresholds(scores: NDArray[Any], truth: NDArray[np.bool_]) -> list[Row]:
    """Precision and recall at thresholds from 0.1 to 0.9."""
    found = []
    for threshold in np.arange(1, 10) / 10:
        kept = scores >= threshold
        recall, wrong = float(kept[truth].mean()), float(kept[~truth].mean())
        precision = recall / (recall + wrong) if recall + wrong else 1.0
        # The delta method over two independent shares, with one more of each (none is no proof).
        n_good, n_bad = int(truth.sum()) + 2, int((~truth).sum()) + 2
        a, b = (kept[truth].sum() + 1) / n_good, (kept[~truth].sum() + 1) / n_bad
        spread = a * (1 - a) / n_good * b**2 + b * (1 - b) / n_bad * a**2
        error = float(np.sqrt(spread) / (a + b) ** 2)
        found.append(Row(float(threshold), precision, recall, wrong, error))
    return found


def is_classifier(directory: Path) -> bool:
    """Whether a directory is one that `train` wrote."""
    facts = directory / FACTS
    return facts.is_file() and "bias" in facts.read_text("utf-8", "replace")
