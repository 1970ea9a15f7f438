"""Scores read off probabilities, on models whose probabilities are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from miao.corpus.records import Document, Message, Preference
from miao.corpus.seedbed.items import ChoiceItem
from miao.evaluate.measure import likelihood
from miao.evaluate.measure.likelihood import (
    answer_loss,
    bits_per_byte,
    choose_by_perplexity,
    prefer,
    sequence_logprobs,
)
from miao.model import Decoder
from miao.shards import TokenDataset, build_dataset
from miao.tokenizer import Tokenizer

Make = Callable[..., Decoder]
Bigram = Callable[..., Decoder]
TEXTS = ["今天天气很好。", "The rain", "水的温度降到了零度以下，" * 3, "a"]


def documents(tokenizer: Tokenizer, directory: Path, texts: list[str]) -> TokenDataset:
    build_dataset([Document(t) for t in texts], "document", "src", tokenizer, directory / "data")
    return TokenDataset(directory / "data")


def random_sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(8)
    lengths = [5, 40, 2, 64, 13, 65, 30, 2, 200]
    return [torch.randint(97, (n,), generator=generator).tolist() for n in lengths]


@torch.inference_mode()
def by_full_softmax(model: Decoder, ids: list[int], context: int) -> torch.Tensor:
    """Window by window: every token after the first is predicted once."""
    found = []
    for start in range(0, len(ids) - 1, context):
        window = torch.tensor([ids[start : start + context + 1]])
        logprobs = model(window[:, :-1]).log_softmax(-1)
        found.append(logprobs.gather(2, window[:, 1:, None])[0, :, 0])
    return torch.cat(found)


@pytest.mark.parametrize("batch_tokens", [8192, 100, 1])
def test_sequence_logprobs_equal_the_full_softmax(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    """In any batching; sequences longer than the context (64) piece by piece."""
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", batch_tokens)
    model, sequences = make_model(), random_sequences()
    done: list[int] = []
    found = sequence_logprobs(model, sequences, done.append)
    for ids, values in zip(sequences, found, strict=True):
        assert values.shape == (len(ids) - 1,)
        torch.testing.assert_close(values, by_full_softmax(model, ids, 64), atol=1e-5, rtol=1e-5)
    assert sum(done) == len(sequences) - 1 + math.ceil(199 / 64)


def test_a_uniform_model_needs_log2_of_the_vocabulary_per_token(
    tokenizer: Tokenizer, bigram_model: Bigram, tmp_path: Path
) -> None:
    data = documents(tokenizer, tmp_path, TEXTS)
    score = bits_per_byte(bigram_model({}), data, tokenizer, 1e9)
    predictions = sum(len(tokenizer.encode(text)) + 1 for text in TEXTS)  # and the end of each
    num_bytes = sum(len(text.encode()) for text in TEXTS)
    expected = predictions * math.log2(tokenizer.vocab_size) / num_bytes
    assert score.value == pytest.approx(expected, rel=1e-5)
    assert (score.task, score.category, score.unit) == ("bits per byte", "src", "bits")
    assert (score.count, score.chance) == (4, None)


def test_bits_per_byte_by_hand(tokenizer: Tokenizer, bigram_model: Bigram, tmp_path: Path) -> None:
    """One token is e² times as likely as each other: log p is 2 - ln(e² + V - 1), or 2 less."""
    favourite = tokenizer.encode("a")[0]
    model = bigram_model({(None, favourite): 2.0})
    data = documents(tokenizer, tmp_path, TEXTS)
    score = bits_per_byte(model, data, tokenizer, 1e9)
    norm = math.log(math.exp(2) + tokenizer.vocab_size - 1)
    bits, num_bytes = [], []
    for number, text in enumerate(TEXTS):
        targets = data.tokens(number)[1:].tolist()
        bits.append(sum(norm - 2 * (t == favourite) for t in targets) / math.log(2))
        num_bytes.append(len(text.encode()))
    assert favourite in data.tokens(3).tolist()
    ratio = sum(bits) / sum(num_bytes)
    assert score.value == pytest.approx(ratio, rel=1e-5)
    residuals = np.array(bits) - ratio * np.array(num_bytes)
    stderr = math.sqrt(4 / 3 * (residuals**2).sum()) / sum(num_bytes)
    assert score.stderr == pytest.approx(stderr, rel=1e-4)


def test_the_standard_error_agrees_with_the_jackknife(
    tokenizer: Tokenizer, bigram_model: Bigram, tmp_path: Path
) -> None:
    sentence = "The seedling grew a little every day, and the rain was kind to it."
    texts = [sentence[: 1 + (17 * n) % 66] for n in range(40)]
    model = bigram_model({(None, i): float(math.sin(i)) for i in range(tokenizer.vocab_size)})
    data = documents(tokenizer, tmp_path, texts)
    score = bits_per_byte(model, data, tokenizer, 1e9)
    logprobs = sequence_logprobs(model, [data.tokens(i).tolist() for i in range(40)])
    bits = np.array([-float(v.sum()) / math.log(2) for v in logprobs])
    num_bytes = np.array([len(text.encode()) for text in texts])
    without = (bits.sum() - bits) / (num_bytes.sum() - num_bytes)
    jackknife = math.sqrt(39 / 40 * ((without - without.mean()) ** 2).sum())
    assert score.stderr == pytest.approx(jackknife, rel=0.1)


def test_bits_per_byte_reads_whole_documents_up_to_the_budget(
    tokenizer: Tokenizer, bigram_model: Bigram, tmp_path: Path
) -> None:
    data = documents(tokenizer, tmp_path, TEXTS)
    first = int(data.lengths[0])
    counts = [
        bits_per_byte(bigram_model({}), data, tokenizer, n).count for n in (1, first, first + 1)
    ]
    assert counts == [1, 1, 2]
    assert bits_per_byte(bigram_model({}), data, tokenizer, 1).stderr is None


def test_answer_loss_is_the_mean_over_learned_tokens(make_model: Make, make_dataset: Any) -> None:
    model, sequences = make_model(), random_sequences()[:5]
    rng = np.random.default_rng(1)
    masks = [rng.random(len(ids)) < 0.4 for ids in sequences]
    data = make_dataset(sequences, "conversation", masks)
    learned = [
        by_full_softmax(model, ids, 64)[torch.from_numpy(mask[1:])]
        for ids, mask in zip(sequences, masks, strict=True)
    ]
    expected = -float(torch.cat(learned).mean())
    assert answer_loss(model, data, 1e9) == pytest.approx(expected, rel=1e-5)
    assert answer_loss(model, data, 1) == pytest.approx(-float(learned[0].mean()), rel=1e-5)


def chain(tokenizer: Tokenizer, text: str, logit: float) -> dict[tuple[int, int], float]:
    """Logits that make a text's tokens follow one another."""
    return dict.fromkeys(pairwise(tokenizer.encode(text)), logit)


def choice(prompt: str, options: list[str], answer: int, category: str = "x") -> ChoiceItem:
    return ChoiceItem(prompt, options, answer, category, "en")


def test_the_option_that_the_model_prefers_is_chosen(
    tokenizer: Tokenizer, bigram_model: Bigram
) -> None:
    cities = [" Paris", " Rome", " Berlin", " Oslo"]
    for number, city in enumerate(cities):
        model = bigram_model(chain(tokenizer, f"A:{city}", 8.0))
        items = [
            choice("Q: Where?\nA:", cities, 2, "here"),
            choice("Q: Who?\nA:", cities[::-1], 0, "there"),
        ]
        scores, choices = choose_by_perplexity(model, tokenizer, items)
        assert choices == [number, 3 - number]
        values = {score.category: (score.value, score.chance, score.count) for score in scores}
        assert values["here"] == (float(number == 2), 0.25, 1)
        assert values["there"] == (float(number == 3), 0.25, 1)
        assert values["all"] == (((number == 2) + (number == 3)) / 2, 0.25, 2)


def test_options_are_compared_per_token_from_where_they_differ(
    tokenizer: Tokenizer, bigram_model: Bigram
) -> None:
    """By hand: digits are single tokens, so "12" and "1999" share a "1" that must not count."""
    one, two, nine = (tokenizer.encode(digit)[0] for digit in "129")
    assert tokenizer.encode("A1999") == [*tokenizer.encode("A"), one, nine, nine, nine]
    model = bigram_model({(None, nine): 1.0, (None, two): 1.5, (nine, nine): 1.9})
    norm = math.log(math.exp(1.0) + math.exp(1.5) + tokenizer.vocab_size - 2)
    after_nine = math.log(math.exp(1.9) + math.exp(1.5) + tokenizer.vocab_size - 2)
    means = {"12": 1.5 - norm, "1999": (1.0 - norm + 2 * (1.9 - after_nine)) / 3}
    assert means["1999"] > means["12"], "the longer one wins by its mean alone"
    assert 3 * means["1999"] < means["12"]
    with_the_one = {"12": (means["12"] - norm) / 2, "1999": (3 * means["1999"] - norm) / 4}
    assert with_the_one["1999"] > with_the_one["12"]
    _, choices = choose_by_perplexity(model, tokenizer, [choice("A", ["12", "1999"], 0)])
    assert choices == [1]


def test_a_likely_prompt_does_not_count(tokenizer: Tokenizer, bigram_model: Bigram) -> None:
    """By the options alone four 2s (logit 1 each) beat one 7 (0.8); together with the four 9s of
    the prompt the shorter option would win."""
    logits = {"9": 3.0, "2": 1.0, "7": 0.8}
    model = bigram_model({(None, tokenizer.encode(d)[0]): x for d, x in logits.items()})
    assert (4 * 3 + 4 * 1) / 8 < (4 * 3 + 0.8) / 5
    _, choices = choose_by_perplexity(model, tokenizer, [choice("9999", ["7", "2222"], 0)])
    assert choices == [1]


def test_chance_follows_the_number_of_options(tokenizer: Tokenizer, bigram_model: Bigram) -> None:
    items = [choice("A", ["1", "2"], 0), choice("B", ["1", "2", "3", "4"], 0)]
    for picked, chance in ((items[:1], 0.5), (items[1:], 0.25), (items, 0.375)):
        scores, _ = choose_by_perplexity(bigram_model({}), tokenizer, picked)
        assert {score.chance for score in scores} == {chance}


def pair(prompt: str, chosen: str, rejected: str, source: str = "s") -> Preference:
    sides = [[Message("assistant", text)] for text in (chosen, rejected)]
    return Preference([Message("user", prompt)], *sides, source)


def test_preferences_by_likelihood_are_per_token(
    tokenizer: Tokenizer, bigram_model: Bigram
) -> None:
    """The likelier answer wins though it is longer; what the prompt says does not count."""
    nine, two = tokenizer.encode("9")[0], tokenizer.encode("2")[0]
    model = bigram_model({(None, nine): 3.0, (None, two): 1.0})
    pairs = [pair("2 2 2 2", "999999", "2"), pair("9", "2", "999999"), pair("?", "9", "2")]
    (score,) = prefer(model, tokenizer, pairs)
    assert (score.task, score.value, score.count) == ("preference (likelihood)", 2 / 3, 3)
    assert score.chance == 0.5


def test_preferences_by_implicit_reward_by_hand(tokenizer: Tokenizer, bigram_model: Bigram) -> None:
    """Against a uniform reference: beta·(log pi - log ref), summed over the answer's tokens."""
    nine, two = tokenizer.encode("9")[0], tokenizer.encode("2")[0]
    model, reference = bigram_model({(None, nine): 3.0, (None, two): 1.0}), bigram_model({})
    shift = math.log(tokenizer.vocab_size)
    shift -= math.log(math.exp(3) + math.e + tokenizer.vocab_size - 2)
    pairs = [pair("a", "99", "2", "x"), pair("b", "2", "9", "y"), pair("c", "9", "2", "y")]
    # Every answer ends with <|im_end|>, which has the logit 0.
    rewards = [(2 * 3 + 3 * shift, 1 + 2 * shift), (1 + 2 * shift, 3 + 2 * shift)]
    margins = [0.1 * (a - b) for a, b in rewards]
    margins.append(-margins[1])
    scores = prefer(model, tokenizer, pairs, reference, beta=0.1)
    values = {(score.task, score.category): score.value for score in scores}
    assert values["preference (reward)", "x"] == 1.0
    assert values["preference (reward)", "y"] == 0.5
    assert values["preference (reward)", "all"] == pytest.approx(2 / 3)
    assert values["preference margin", "all"] == pytest.approx(sum(margins) / 3, rel=1e-4)
    same = prefer(reference, tokenizer, pairs, reference, beta=0.1)
    assert {score.value for score in same} == {0.0}


def test_earlier_answers_in_the_prompt_do_not_count(
    tokenizer: Tokenizer, bigram_model: Bigram
) -> None:
    """By the answers alone four 2s (logit 1 each) and an end beat one 2 and an end; were the nine
    9s of the history counted, the shorter answer would win."""
    nine, two = tokenizer.encode("9")[0], tokenizer.encode("2")[0]
    model = bigram_model({(None, nine): 3.0, (None, two): 1.0})
    assert 4 / 5 > 1 / 2 and (27 + 4) / 15 < (27 + 1) / 12
    history = [Message("user", "1"), Message("assistant", "999999999"), Message("user", "2")]
    sides = [[Message("assistant", text)] for text in ("2222", "2")]
    (score,) = prefer(model, tokenizer, [Preference(history, *sides, "s")])
    assert score.value == 1.0


def test_a_beginning_of_the_tokenizer_itself_is_given_not_measured(
    llama3_tokenizer: Tokenizer, make_model: Make, tmp_path: Path
) -> None:
    tokenizer = llama3_tokenizer
    model = make_model(vocab_size=tokenizer.vocab_size)
    score = bits_per_byte(model, documents(tokenizer, tmp_path, TEXTS), tokenizer, 1e9)
    bits, end = 0.0, tokenizer.document_boundary_id
    for text in TEXTS:
        ids = [tokenizer.token_to_id("<|begin_of_text|>"), *tokenizer.encode(text), end]
        bits -= float(by_full_softmax(model, ids, 64).sum()) / math.log(2)
    assert score.value == pytest.approx(bits / sum(len(t.encode()) for t in TEXTS), rel=1e-5)
    item = ChoiceItem("", ["今天", "The rain"], 0, "", "zh")
    one = choose_by_perplexity(model, tokenizer, [item])[1]
    means = []
    for option in item.options:
        ids = [tokenizer.token_to_id("<|begin_of_text|>"), *tokenizer.encode(option)]
        means.append(float(by_full_softmax(model, ids, 64).mean()))
    assert one == [means.index(max(means))]
