"""The compiled pass against the decoder, against itself in every grouping, and without a compiler."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miao.engine import Engine, Request, Runner, SamplingOptions, Scheduler, compiled, make_runner
from miao.engine.native import NativeDecoder, NativeRunner, unsupported
from miao.engine.packed import PackedDecoder, WeightType
from miao.engine.runner import Piece
from miao.errors import MiaoError
from miao.model import Decoder
from miao.model.layers import Linear
from tests.engine.pieces import EXPERTS, LATENT, PIECES, PLAIN_KINDS

Make = Callable[..., Decoder]
WEIGHTS: tuple[WeightType, ...] = ("fp32", "bf16", "int8")
pytestmark = pytest.mark.skipif(compiled.load_library() is None, reason="no C compiler here")


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_logits_equal_those_of_the_decoder(make_model: Make, kind: str) -> None:
    theirs = Runner(make_model(**PLAIN_KINDS[kind]), 3, 16)
    ours = make_runner(make_model(**PLAIN_KINDS[kind]), 3, 16)
    assert isinstance(ours, NativeRunner)
    for pieces in PIECES:
        torch.testing.assert_close(ours(pieces), theirs(pieces), atol=2e-5, rtol=1e-5)
    ours_tokens, theirs_tokens = [list(runner.hidden([1, 2, 3], 8)) for runner in (ours, theirs)]
    torch.testing.assert_close(ours_tokens, theirs_tokens)
    torch.testing.assert_close(torch.cat(list(ours.hidden([1, 2, 3], 2))), theirs_tokens[0])
    torch.testing.assert_close(torch.cat(list(theirs.hidden([1, 2, 3], 2))), theirs_tokens[0])


def by_rounding(model: Decoder, weights: WeightType) -> Decoder:
    """The decoder with the numbers that its weights become."""
    tied = model.config.tie_word_embeddings
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or (weights == "bf16" and "embed_tokens" in name):
            continue
        with torch.no_grad():
            if weights == "bf16":
                parameter.copy_(parameter.bfloat16())
            else:
                scale = parameter.abs().amax(1, keepdim=True) / 127
                parameter.copy_((parameter / scale).round() * scale)
    assert weights == "int8" or not tied, "the head would be rounded, or the embedding with it"
    return model


SHAPES = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(60, 70),
        # a norm of one number is its sign, and a sum near zero may have either
        "hidden_size": st.integers(2, 50),
        "num_hidden_layers": st.integers(1, 2),
        "head_dim": st.integers(1, 20).map(lambda half: 2 * half),
        "intermediate_size": st.integers(1, 60),
        "qk_norm": st.booleans(),
        "tie_word_embeddings": st.booleans(),
    }
)


@settings(max_examples=40)
@given(
    shape=SHAPES,
    groups=st.integers(1, 6),
    key_heads=st.integers(1, 3),
    tokens=st.integers(1, 7),
    weights=st.sampled_from(WEIGHTS),
)
def test_any_shape(
    make_model: Make,
    shape: dict[str, Any],
    groups: int,
    key_heads: int,
    tokens: int,
    weights: WeightType,
) -> None:
    """Sizes that fill no vector, no tile and no thread's share."""
    shape |= {"num_attention_heads": groups * key_heads, "num_key_value_heads": key_heads}
    shape |= {"tie_word_embeddings": False} if weights == "bf16" else {}
    model, plain = make_model(**shape), make_model(**shape)
    pieces = [Piece(0, list(range(tokens)), 0), Piece(1, [3], 0)]
    expected = Runner(plain if weights == "fp32" else by_rounding(plain, weights), 2, 9)(pieces)
    found = NativeRunner(NativeDecoder(model, weights), 2, 9)(pieces)
    most = {"fp32": 1e-5, "bf16": 1e-5, "int8": 1e-2}[weights]
    assert (found - expected).norm() / expected.norm() < most


@pytest.mark.parametrize(
    ("weights", "most", "tied"),
    [("bf16", 1e-5, False), ("int8", 3e-3, False), ("int8", 3e-3, True)],
)
def test_only_the_weights_are_rounded(
    make_model: Make, weights: WeightType, most: float, tied: bool
) -> None:
    """With the rounded numbers in the decoder itself, nothing but bf16's float32 sums, or the 14
    bits of activations beside int8, is left of the difference. Beside int8 the embedding is
    rounded too: what is looked up is what the head multiplies."""
    shape = {"tie_word_embeddings": tied}
    theirs = Runner(by_rounding(make_model(**shape), weights), 3, 16)
    ours = NativeRunner(NativeDecoder(make_model(**shape), weights, consume=True), 3, 16)
    for pieces in PIECES:
        expected, found = theirs(pieces), ours(pieces)
        assert (found - expected).norm() / expected.norm() < most


def test_int8_sums_stay_in_range(make_model: Make) -> None:
    """The largest sum there can be, over the longest rows: all weights and activations alike."""
    model = make_model(num_hidden_layers=1, intermediate_size=40_000, hidden_size=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    expected = Runner(model, 1, 4)([Piece(0, [1, 2], 0)])
    found = NativeRunner(NativeDecoder(model, "int8"), 1, 4)([Piece(0, [1, 2], 0)])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("weights", "threads"), [("fp32", 1), ("fp32", 2), ("bf16", 1), ("int8", 1), ("int8", 2)]
)
def test_bits_do_not_depend_on_company(
    make_model: Make, request: pytest.FixtureRequest, weights: WeightType, threads: int
) -> None:
    """A prompt read alone, in company, in one piece and token by token, by one thread or more: the
    same logits exactly."""
    request.addfinalizer(lambda: torch.set_num_threads(1))
    torch.set_num_threads(threads)
    model, generator = make_model(), torch.Generator().manual_seed(1)
    texts = [torch.randint(97, (n,), generator=generator).tolist() for n in (13, 1, 7, 5, 13, 2)]
    native = NativeDecoder(model, weights)
    together = NativeRunner(native, 6, 16)([Piece(row, t, 0) for row, t in enumerate(texts)])
    torch.set_num_threads(1)
    for row, text in enumerate(texts):
        alone = NativeRunner(native, 1, 16)
        assert torch.equal(alone([Piece(0, text, 0)])[0], together[row])
        stepwise = NativeRunner(native, 3, 20)
        for place, token in enumerate(text):
            logits = stepwise([Piece(2, [token], place)])[0]
        assert torch.equal(logits, together[row])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_random_traffic(make_model: Make, weights: WeightType) -> None:
    """Joins, cancellations and shared beginnings at random: every answer is what it would be
    alone, in any type of weights."""
    native, dice = NativeDecoder(make_model(), weights), random.Random(3)
    beginnings = [[dice.randrange(97) for _ in range(n)] for n in (12, 25, 9)]
    scheduler = Scheduler(NativeRunner(native, 4, 64), frozenset({5}), prefill_tokens=8)
    requests: list[Request] = []
    while len(requests) < 25 or scheduler.has_work:
        if dice.random() < 0.35 and len(requests) < 25:
            start = dice.choice(beginnings)[: dice.randrange(1, 26)]
            options = SamplingOptions(
                temperature=dice.choice([0.0, 1.0]), seed=7, max_new_tokens=dice.randrange(1, 20)
            )
            requests.append(Request([*start, dice.randrange(97)], options))
            scheduler.submit(requests[-1])
        if dice.random() < 0.05 and scheduler.running:
            scheduler.cancel(dice.choice(scheduler.running))
        scheduler.step()
    assert any(r.reused for r in requests) and any(r.finish == "cancelled" for r in requests)
    for request in requests:
        scheduler = Scheduler(NativeRunner(native, 1, 64), frozenset({5}))
        alone = Request(request.prompt, request.options)
        scheduler.submit(alone)
        while scheduler.has_work:
            scheduler.step()
        if request.finish == "cancelled":
            assert request.answer == alone.answer[: len(request.answer)]
        else:
            assert (request.answer, request.finish) == (alone.answer, alone.finish)


def test_weights_may_change_in_place_or_move(make_model: Make) -> None:
    model, other = make_model(0), make_model(1)
    engine = Engine(model, frozenset())
    options = SamplingOptions(max_new_tokens=8)
    first = engine.generate([[1, 2, 3]], options)
    expected = Engine(other, frozenset()).generate([[1, 2, 3]], options)
    assert first != expected
    model.load_state_dict(other.state_dict())
    assert engine.generate([[1, 2, 3]], options) == expected
    for parameter, source in zip(model.parameters(), make_model(0).parameters(), strict=True):
        parameter.data = source.data.clone()
    assert engine.generate([[1, 2, 3]], options) == first
    model.set_compute_dtype(torch.bfloat16)
    engine.generate([[1, 2, 3]], options)
    assert engine._scheduler is not None
    assert not isinstance(engine._scheduler.runner, NativeRunner)


def test_fp32_weights_are_not_copied(make_model: Make) -> None:
    model = make_model()
    native = NativeDecoder(model)
    held = {tensor.data_ptr() for tensor in native._kept}
    assert held == {parameter.data_ptr() for parameter in model.parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_consumed_fp32_weights_move_and_stay_the_same(make_model: Make, tied: bool) -> None:
    model = make_model(tie_word_embeddings=tied)
    before = {name: p.clone() for name, p in model.named_parameters()}
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    expected = [NativeRunner(NativeDecoder(model), 3, 16)(pieces) for pieces in PIECES[:1]]
    native = NativeDecoder(model, consume=True)
    found = [NativeRunner(native, 3, 16)(pieces) for pieces in PIECES[:1]]
    assert all(map(torch.equal, found, expected)) and native.is_current
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert (parameter.data_ptr() != places[name]) == (parameter.ndim == 2)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (Piece(0, [97], 0), "id"),
        (Piece(0, [-1], 0), "id"),
        (Piece(2, [1], 0), "row"),
        (Piece(0, [1, 2], 15), "position"),
    ],
)
def test_what_is_out_of_range_touches_nothing(make_model: Make, piece: Piece, why: str) -> None:
    runner = make_runner(make_model(), 2, 16)
    before = [x.clone() for x in runner.cache.flat]
    with pytest.raises(AssertionError, match="out of range"):
        runner([piece])
    assert all(map(torch.equal, before, runner.cache.flat))


OTHERS = {
    "of another kind": LATENT,
    "experts": EXPERTS,
    "how much is read": {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
}


@pytest.mark.parametrize("reason", OTHERS)
def test_other_models_are_read_by_plain_operations(make_model: Make, reason: str) -> None:
    model = make_model(**OTHERS[reason])
    assert reason in str(unsupported(model))
    assert type(make_runner(model, 2, 16)) is Runner


def test_adapters_are_not_overlooked(make_model: Make) -> None:
    class Adapted(Linear):
        pass

    model = make_model()
    model.model.layers[1].self_attn.q_proj = Adapted(32, 48, bias=False)
    assert unsupported(model) == "it holds a Adapted"


class TestCompiling:
    """What happens where the code cannot be made, or was made before."""

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
        """An empty cache, and a quick compiler: it copies what the real one has made."""
        library = compiled.load_library()
        assert library is not None
        quick = tmp_path / "quick"
        quick.write_text(
            f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ncp {library._name} "$2"\n'
        )
        quick.chmod(0o755)
        monkeypatch.setenv("CC", str(quick))
        monkeypatch.setenv("MIAO_CACHE", str(tmp_path / "cache"))
        compiled.load_library.cache_clear()
        yield
        compiled.load_library.cache_clear()

    def falls_back(self, model: Decoder, capsys: pytest.CaptureFixture[str]) -> str:
        runner = make_runner(model, 1, 16)
        assert type(runner) is Runner
        expected = model(torch.tensor([[1, 2, 3]]))[0, -1]
        torch.testing.assert_close(runner([Piece(0, [1, 2, 3], 0)])[0], expected)
        return capsys.readouterr().out

    def test_no_compiler(
        self,
        make_model: Make,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("shutil.which", lambda name: None)
        said = self.falls_back(make_model(), capsys)
        assert "there is no C compiler" in said and "slower" in said
        assert self.falls_back(make_model(), capsys) == "", "said once"

    def test_a_compiler_that_fails(
        self,
        make_model: Make,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        broken = tmp_path / "broken"
        broken.write_text("#!/bin/sh\necho 'unknown option -fopenmp' >&2\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("CC", str(broken))
        assert "unknown option -fopenmp" in self.falls_back(make_model(), capsys)
        assert not list((tmp_path / "cache").rglob("*.so"))

    def test_a_compiler_without_openmp(
        self,
        make_model: Make,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        real = next(filter(None, map(shutil.which, compiled.COMPILERS)))
        apple = tmp_path / "apple"
        apple.write_text(
            "#!/bin/sh\nfor word; do shift; case $word in\n"
            "-fopenmp) echo \"clang: error: unsupported option '-fopenmp'\" >&2; exit 1;;\n"
            '-O3) word=-O1;;\nesac; set -- "$@" "$word"; done\n'
            f'exec {real} "$@"\n'
        )
        apple.chmod(0o755)
        monkeypatch.setenv("CC", str(apple))
        runner = make_runner(make_model(), 3, 16)
        assert isinstance(runner, NativeRunner)
        said = capsys.readouterr().out
        assert "without -fopenmp" in said and "one thread" in said
        theirs = Runner(make_model(), 3, 16)
        for pieces in PIECES:
            torch.testing.assert_close(runner(pieces), theirs(pieces), atol=2e-5, rtol=1e-5)

    def test_code_that_others_could_have_written_is_not_run(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        def made_anew() -> bool:
            compiled.load_library.cache_clear()
            assert compiled.load_library() is not None
            return "compiling" in capsys.readouterr().out

        assert made_anew() and not made_anew()
        (made,) = (tmp_path / "cache").rglob("*.so")
        made.chmod(0o666)
        assert made_anew() and made.stat().st_mode & 0o777 == 0o600 and not made_anew()
        made.parent.chmod(0o777)
        assert made_anew() and not made_anew()
        if os.getuid() == 0:
            os.chown(made, 12345, -1)
            assert made_anew()

    def test_switched_off(
        self,
        make_model: Make,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("MIAO_NATIVE", "0")
        assert "MIAO_NATIVE=0" in self.falls_back(make_model(), capsys)

    def test_a_damaged_file_is_made_anew(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        def made_anew() -> bool:
            compiled.load_library.cache_clear()
            assert compiled.load_library() is not None
            return "compiling" in capsys.readouterr().out

        real = ctypes.CDLL

        def open_library(name: str) -> ctypes.CDLL:
            if Path(name).stat().st_size < 2000:
                raise OSError(f"{name}: file too short")
            return real(name)

        monkeypatch.setattr(ctypes, "CDLL", open_library)
        assert made_anew() and not made_anew()
        (made,) = (tmp_path / "cache").rglob("*.so")
        whole = made.read_bytes()
        made.unlink()  # not written over: it is mapped into this process
        made.write_bytes(whole[:1000])
        assert made_anew() and made.read_bytes() == whole and not made_anew()

    def test_a_cache_that_cannot_be_written(
        self,
        make_model: Make,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(compiled, "private_directory", lambda name: tmp_path / "file")
        assert isinstance(make_runner(make_model(), 1, 16), NativeRunner)
        assert "cannot be kept" in capsys.readouterr().out


def test_structures_are_laid_out_as_in_c() -> None:
    """Pointers and 64-bit numbers only, but for one float that is padded."""
    from miao.engine.native import _Layer, _Matrix, _Model

    assert ctypes.sizeof(_Matrix) == 5 * 8
    assert ctypes.sizeof(_Layer) == 4 * 8 + 7 * 40
    assert ctypes.sizeof(_Model) == 8 * 8 + 8 + 3 * 8 + 2 * 40 + 8


def test_packed_weights_are_the_plain_twin(make_model: Make) -> None:
    for weights in WEIGHTS[:1]:
        ours = NativeRunner(NativeDecoder(make_model(), weights), 3, 16)
        theirs = Runner(PackedDecoder(make_model(), weights), 3, 16)
        for pieces in PIECES:
            torch.testing.assert_close(ours(pieces), theirs(pieces), atol=2e-5, rtol=1e-5)


def test_int8_without_the_library_says_what_it_needs(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from miao.engine import backend

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(backend, "load_library", lambda: None)
    monkeypatch.setattr(torch, "quantize_per_channel", refuse)
    with pytest.raises(MiaoError, match="int8 weights cannot be multiplied here"):
        backend.pack(make_model(), "int8")
