"""Generation against transformers' generate, and against itself in every grouping."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from miao.engine import Engine, Request, Runner, SamplingOptions, Scheduler
from miao.engine.backend import make_runner, pack
from miao.engine.packed import PackedDecoder
from miao.errors import MiaoError
from miao.model import Decoder, save_model

Make = Callable[..., Decoder]
NO_STOP: frozenset[int] = frozenset()
GREEDY = SamplingOptions(max_new_tokens=20)
LENGTHS = [3, 11, 1, 7, 20, 2, 5, 9, 14]


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(97, (n,), generator=generator).tolist() for n in LENGTHS]


@pytest.fixture(scope="module")
def model(make_model: Make) -> Decoder:
    return make_model()


@pytest.fixture(scope="module")
def theirs(model: Decoder, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    directory: Path = tmp_path_factory.mktemp("engine")
    save_model(model, directory)
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def their_answer(theirs: PreTrainedModel, prompt: list[int], **options: object) -> list[int]:
    settings = {"max_new_tokens": 20, "do_sample": False, "temperature": None, "top_p": None}
    ids = torch.tensor([prompt])
    tokens = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings | options
    )
    return tokens[0, len(prompt) :].tolist()


def test_greedy_equals_transformers(model: Decoder, theirs: PreTrainedModel) -> None:
    expected = [their_answer(theirs, prompt) for prompt in prompts()]
    assert len({tuple(answer) for answer in expected}) > 5
    assert Engine(model, NO_STOP).generate(prompts(), GREEDY) == expected


@pytest.mark.parametrize("penalty", [1.5, 0.7])
def test_the_repetition_penalty_equals_transformers(
    model: Decoder, theirs: PreTrainedModel, penalty: float
) -> None:
    expected = [their_answer(theirs, p, repetition_penalty=penalty) for p in prompts()]
    options = SamplingOptions(max_new_tokens=20, repetition_penalty=penalty)
    answers = Engine(model, NO_STOP).generate(prompts(), options)
    assert answers == expected
    assert answers != Engine(model, NO_STOP).generate(prompts(), GREEDY)


def test_stop_ids_end_the_answer_as_in_transformers(
    model: Decoder, theirs: PreTrainedModel
) -> None:
    free = Engine(model, NO_STOP).generate(prompts(), GREEDY)
    stops = [free[0][4], free[3][9]]
    expected = [their_answer(theirs, p, eos_token_id=stops) for p in prompts()]
    expected = [answer[:-1] if answer[-1] in stops else answer for answer in expected]
    answers = Engine(model, frozenset(stops)).generate(prompts(), GREEDY)
    assert answers == expected
    assert len(answers[0]) <= 4 and len(answers[3]) <= 9
    assert max(len(answer) for answer in answers) == 20, "some are not stopped"


@pytest.mark.parametrize("rows", [1, 2, 4, 9, 64])
def test_answers_do_not_depend_on_their_company(model: Decoder, rows: int) -> None:
    """Alone, together, with fewer rows than prompts, and joining when another has finished."""
    free = Engine(model, NO_STOP).generate(prompts(), GREEDY)
    stops = frozenset({free[1][2], free[4][6], free[7][0]})
    alone = [Engine(model, stops).generate([prompt], GREEDY)[0] for prompt in prompts()]
    assert len({len(answer) for answer in alone}) > 2, "they must finish at different times"
    finished: list[int] = []
    engine = Engine(model, stops, rows=rows)
    assert engine.generate(prompts(), GREEDY, finished.append) == alone
    assert finished == [1] * len(alone)
    assert engine.generate(prompts()[::-1], GREEDY) == alone[::-1], "a used cache changes nothing"
    assert engine.generate(prompts()[:2], GREEDY) == alone[:2]


def test_an_answer_may_be_empty(model: Decoder) -> None:
    first = Engine(model, NO_STOP).generate(prompts()[:1], GREEDY)[0][0]
    engine = Engine(model, frozenset({first}))
    assert engine.generate(prompts()[:1], GREEDY) == [[]]
    assert list(engine.stream(prompts()[0], GREEDY)) == []


def test_no_prompts_have_no_answers(model: Decoder) -> None:
    assert Engine(model, NO_STOP).generate([], GREEDY) == []


@pytest.mark.parametrize("length", [None, 30])
def test_an_answer_ends_where_the_context_ends(model: Decoder, length: int | None) -> None:
    engine = Engine(model, NO_STOP, length=length)
    context = length or 64
    assert engine.context == context
    options = SamplingOptions(max_new_tokens=1000)
    for prompt in (prompts()[0], [5] * (context - 1)):
        (answer,) = engine.generate([prompt], options)
        assert len(prompt) + len(answer) == context
    whole = Engine(model, NO_STOP).generate([prompts()[0]], options)[0]
    assert engine.generate([prompts()[0]], options)[0] == whole[: context - len(prompts()[0])]


def test_prompts_that_cannot_be_answered_are_refused(model: Decoder) -> None:
    engine = Engine(model, NO_STOP)
    with pytest.raises(MiaoError, match="empty"):
        engine.generate([[1, 2], []], GREEDY)
    with pytest.raises(MiaoError, match=r"64 tokens.* context of 64"):
        engine.generate([[1] * 64], GREEDY)
    with pytest.raises(MiaoError, match="70 tokens"):
        list(engine.stream([1] * 70, GREEDY))


def test_max_new_tokens(model: Decoder) -> None:
    engine = Engine(model, NO_STOP)
    long = engine.generate(prompts(), GREEDY)
    short = engine.generate(prompts(), SamplingOptions(max_new_tokens=1))
    assert short == [answer[:1] for answer in long]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_stream_is_what_generate_returns(model: Decoder, temperature: float) -> None:
    options = SamplingOptions(temperature=temperature, max_new_tokens=20, seed=3)
    free = Engine(model, NO_STOP).generate(prompts(), GREEDY)
    stops = frozenset({free[1][2], free[4][6], free[7][0]})
    lengths = set()
    for prompt in prompts():
        (expected,) = Engine(model, stops).generate([prompt], options)
        assert list(Engine(model, stops).stream(prompt, options)) == expected
        lengths.add(len(expected))
    assert len(lengths) > 2


def test_a_stream_that_is_left_early_leaves_the_engine_usable(model: Decoder) -> None:
    engine = Engine(model, NO_STOP)
    expected = Engine(model, NO_STOP).generate(prompts()[:2], GREEDY)
    stream = engine.stream(prompts()[0], GREEDY)
    assert [next(stream) for _ in range(3)] == expected[0][:3]
    stream.close()
    assert engine.generate(prompts()[:2], GREEDY) == expected


def test_two_streams_at_once_do_not_disturb_each_other(model: Decoder) -> None:
    engine = Engine(model, NO_STOP)
    expected = [Engine(model, NO_STOP).generate([p], GREEDY)[0] for p in prompts()[:2]]
    engine.generate(prompts()[:2], GREEDY)  # leaves a cache behind, which only one may take
    streams = [engine.stream(prompt, GREEDY) for prompt in prompts()[:2]]
    assert list(map(list, zip(*zip(*streams, strict=True), strict=True))) == expected


def test_sampling_is_repeatable_by_its_seed(model: Decoder) -> None:
    def answers(seed: int) -> list[list[int]]:
        options = SamplingOptions(temperature=1.0, max_new_tokens=20, seed=seed)
        return Engine(model, NO_STOP).generate(prompts(), options)

    assert answers(1) == answers(1) != answers(2)


def test_top_k_one_is_greedy(model: Decoder) -> None:
    engine = Engine(model, NO_STOP)
    sampled = SamplingOptions(temperature=2.0, top_k=1, max_new_tokens=20)
    assert engine.generate(prompts(), sampled) == engine.generate(prompts(), GREEDY)


def test_a_sampled_answer_follows_the_model(model: Decoder) -> None:
    """Frequencies of the second token, given the first, against a full forward pass."""
    prompt, draws = prompts()[0], 3000
    options = SamplingOptions(temperature=1.0, top_k=3, max_new_tokens=2, seed=1)
    answers = Engine(model, NO_STOP, rows=draws).generate([prompt] * draws, options)
    first = max(set(a[0] for a in answers), key=[a[0] for a in answers].count)
    followers = [a[1] for a in answers if a[0] == first]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, first]]))[0, -1]
    top = logits.topk(3)
    for token, expected in zip(top.indices.tolist(), top.values.softmax(0).tolist(), strict=True):
        assert followers.count(token) / len(followers) == pytest.approx(expected, abs=0.05)


def test_the_compute_type_may_change_between_calls(make_model: Make) -> None:
    model = make_model()
    engine = Engine(model, NO_STOP)
    before = engine.generate(prompts(), GREEDY)
    model.set_compute_dtype(torch.bfloat16)
    assert [len(answer) for answer in engine.generate(prompts(), GREEDY)] == [20] * len(LENGTHS)
    model.set_compute_dtype(torch.float32)
    assert engine.generate(prompts(), GREEDY) == before


TOKENS = 80
"""Of the 97 rows of a padded model's weights."""


def padded_model(make_model: Make) -> Decoder:
    """The rows that are no tokens would be the likeliest by far."""
    model = make_model(tie_word_embeddings=False)
    model.config = replace(model.config, num_tokens=TOKENS)
    with torch.no_grad():
        model.lm_head.weight[TOKENS:] *= 50
    return model


@pytest.mark.parametrize("runner", ["plain", "fastest", "packed", "bf16"])
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.0}, {"temperature": 5.0, "top_k": 90}, {"temperature": 2, "top_p": 0.9},
     {"temperature": 1.0, "min_p": 0.01}, {"repetition_penalty": 1.5, "logit_bias": {3: 1.0}}],
)  # fmt: skip
def test_rows_of_a_padded_vocabulary_are_never_drawn_nor_have_a_probability(
    make_model: Make, runner: str, options: dict[str, object]
) -> None:
    model = padded_model(make_model)
    read = {
        "plain": lambda: Runner(model, 4, 64),
        "fastest": lambda: make_runner(model, 4, 64),
        "packed": lambda: Runner(PackedDecoder(model), 4, 64),
        "bf16": lambda: make_runner(pack(model, "bf16"), 4, 64),
    }[runner]()
    scheduler = Scheduler(read, NO_STOP)
    given = SamplingOptions(max_new_tokens=20, seed=5, logprobs=TOKENS + 9, **options)  # type: ignore[arg-type]
    requests = [Request([7, n], given, index=n) for n in range(4)]
    for request in requests:
        scheduler.submit(request)
    while scheduler.has_work:
        scheduler.step()
    for request in requests:
        assert len(request.answer) == 20 and max(request.answer) < TOKENS
        for noted in request.logprobs:
            assert sorted(id for id, _ in noted.top) == list(range(TOKENS))
            assert sum(math.exp(value) for _, value in noted.top) == pytest.approx(1, abs=1e-4)


def test_rows_of_a_padded_vocabulary_cannot_be_asked_for(make_model: Make) -> None:
    engine = Engine(padded_model(make_model), NO_STOP)
    with pytest.raises(MiaoError, match=f"outside the vocabulary of {TOKENS}"):
        engine.generate([[1, TOKENS]], GREEDY)
    biased = SamplingOptions(logit_bias={TOKENS: 1.0})
    with pytest.raises(MiaoError, match=f"the vocabulary has {TOKENS}"):
        engine.generate([[1]], biased)
