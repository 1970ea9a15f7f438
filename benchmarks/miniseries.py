"""A series of small trainings on real text, from which the package's rules are fitted.

    python benchmarks/miniseries.py --data zh.jsonl.xz,3 en.jsonl.xz,1 --work DIR --trials surface
    python benchmarks/miniseries.py --work DIR --trials rates surface --part 0/2
    python benchmarks/miniseries.py --work DIR --list
    python benchmarks/fit_rules.py DIR/trials.jsonl

Every trial is one training to the end of its own schedule, on rows of packed documents, measured on
the same held-out documents by document_bits.py. Trials are given in tokens, not in seconds, so a
busy machine changes nothing but the wait. What is there already is not trained again: interrupt and
continue at will. A trial's words (`n=0.6 tokens=1M muon=0.04`) are also taken from the command
line, for a look at one question: `--try n=1.2 tokens=500K width=160,layers=4`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from arms import Spec, miao_trainer, sources
from common import ROOT, facts, parser_for
from document_bits import Row, bits_per_byte, document_bits, read_documents, standard_error
from material import Material, built_shards
from race import split_texts
from variants import applied

sys.path.insert(0, str(ROOT))

from miao.device import keep_freed_memory
from miao.files import append_jsonl, read_jsonl, write_jsonl
from miao.model import Decoder, ModelConfig
from miao.model.directory import save_model
from miao.recipe import parse_quantity
from miao.tokenizer import Tokenizer
from miao.train.watch.metrics import MetricsLog

SIZES = {
    "0.3": (96, 3, 3, 1, 256),
    "0.6": (128, 3, 4, 2, 352),
    "1.2": (192, 3, 6, 2, 512),
    "2.6": (256, 4, 8, 2, 704),
    "4.4": (256, 6, 8, 4, 704),
    "9.7": (384, 6, 12, 4, 1056),
    "27": (512, 8, 16, 8, 1408),
    "tiny": (64, 1, 2, 1, 128),
}
"""Millions of parameters outside the embedding: width, layers, heads of 32, key/value heads, width
of the feed-forward part."""
K, M = 1_000, 1_000_000


@dataclass(frozen=True)
class Trial:
    """One training; what is not said is what the rules stood at when the series began."""

    n: str
    tokens: int
    vocab: int = 6400
    seq_len: int = 256
    batch: int = 2048
    adam: float = 3e-3
    muon: float = 2e-2
    decay: float = 0.5
    warmup: float = 0.02
    schedule: str = "wsd"
    weight_decay: float = 0.0
    unique: int = 0
    """Characters of text, read again and again; 0: more than are needed."""
    width: int = 0
    layers: int = 0
    kv: int = 0
    untied: int = 0
    variant: str = ""
    """Of variants.py; several with + between them."""
    seed: int = 0
    more: str = ""
    """A variant of the code, for an ablation: NAME:VALUE;... of further pretraining options."""

    @property
    def key(self) -> str:
        """Its words: all that differs from the defaults."""
        fields = asdict(self)
        words = [f"n={self.n}", f"tokens={self.tokens}"]
        base = asdict(Trial(self.n, self.tokens))
        return " ".join(words + [f"{k}={v}" for k, v in fields.items() if v != base.get(k)])

    def config(self) -> dict[str, Any]:
        width, layers, heads, kv, inner = SIZES[self.n]
        if self.width:
            heads, inner, width = self.width // 32, round(self.width * 2.75 / 32) * 32, self.width
        return {
            "vocab_size": self.vocab, "hidden_size": width,
            "num_hidden_layers": self.layers or layers, "num_attention_heads": heads,
            "num_key_value_heads": self.kv or min(kv, heads), "head_dim": 32,
            "intermediate_size": inner, "max_position_embeddings": max(512, self.seq_len),
            "tie_word_embeddings": not self.untied,
        }  # fmt: skip


def trials(name: str) -> Iterator[Trial]:
    """The trials of a question, cheap ones first."""
    if name == "quick":
        yield Trial("tiny", 20 * K, vocab=512, seq_len=64, batch=512)
        yield Trial("tiny", 40 * K, vocab=512, seq_len=64, batch=512)
    elif name == "surface":
        most_of = {"0.3": 4, "0.6": 2, "1.2": 2, "2.6": 1, "4.4": 0.5, "9.7": 0.5}
        cells = [
            Trial(n, most >> halvings, batch=good_batch(most >> halvings))
            for n, most in ((n, int(most * M)) for n, most in most_of.items())
            for halvings in range(5 if most > 2 * M else 4 if most > M else 3)
        ]
        yield from sorted(cells, key=lambda trial: float(trial.n) * trial.tokens)
    elif name == "seeds":
        for n, tokens, seed in itertools.product(("0.6", "1.2"), (500 * K,), (1, 2)):
            yield Trial(n, tokens, batch=good_batch(tokens), seed=seed)
    elif name == "rates":
        for n, tokens in (("0.3", 250 * K), ("0.6", 500 * K), ("2.6", 250 * K), ("1.2", 500 * K)):
            for batch, muon in itertools.product((1024, 512, 2048), (2e-2, 4e-2, 8e-2, 1e-2)):
                if (batch, muon) not in {(512, 8e-2), (2048, 1e-2)}:
                    yield Trial(n, tokens, batch=batch, muon=muon, adam=round(0.15 * muon, 6))
    elif name == "start":  # with the rates that the rules give so few tokens
        for tokens, n in itertools.product((4 * K, 16 * K, 64 * K), ("0.3", "1.2", "4.4")):
            yield Trial(n, tokens, batch=1024, muon=4e-2, adam=6e-3)
    elif name == "heldout":  # predicted, then measured: longer, larger
        yield Trial("0.3", 8 * M, batch=good_batch(8 * M))
        yield Trial("1.2", 4 * M, batch=good_batch(4 * M))
        yield Trial("27", 500 * K, batch=good_batch(500 * K))
    elif name == "adam":
        for n, tokens in (("0.6", 500 * K), ("2.6", 250 * K)):
            for adam in (1.5e-3, 6e-3, 1.2e-2, 2.4e-2):
                yield Trial(n, tokens, batch=1024, adam=adam)
    elif name == "ablations":
        base = Trial("0.6", 500 * K, batch=1024)
        for changes in (
            {"decay": 0.25}, {"decay": 0.8}, {"warmup": 0.1}, {"seq_len": 128}, {"seq_len": 512},
            {"untied": 1}, {"kv": 4}, {"kv": 1}, {"width": 96, "layers": 5},
            {"width": 160, "layers": 2}, {"weight_decay": 0.1}, {"more": "muon_momentum:0.9"},
            {"more": "adam_betas:[0.8,0.95]"}, {"schedule": "cosine"},
            {"variant": "polar_express"}, {"variant": "normuon"}, {"variant": "sqrt_decay"},
            {"variant": "cautious_decay", "weight_decay": 0.1},
        ):  # fmt: skip
            yield replace(base, **changes)
    elif name == "repeats":
        cells = itertools.product((60 * K, 240 * K), (2, 4, 8, 16, 32), (0.0, 0.3, 1.0, 3.0))
        for (characters, passes, decay), layers in itertools.product(cells, (2, 4)):
            tokens = int(0.77 * characters * passes)
            yield Trial(
                "0.3",
                tokens,
                vocab=1024,
                batch=good_batch(tokens),
                muon=3e-2,
                adam=4.5e-3,
                unique=characters,
                width=32 * layers,
                layers=layers,
                weight_decay=decay,
            )
    elif name == "vocab":
        for n, vocab in itertools.product(("0.6", "2.6"), (2048, 4096, 12800)):
            yield Trial(n, 500 * K, batch=1024, vocab=vocab)
    else:
        raise SystemExit(f"there are no trials {name!r}")


def good_batch(tokens: int) -> int:
    """Slots per step: small steps for small budgets."""
    return 1024 if tokens <= M else 2048


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--data", nargs="*", default=[], help="FILE or FILE,SHARE (texts)")
    parser.add_argument("--characters", type=float, default=24e6, help="of text to read, in all")
    parser.add_argument("--heldout-bytes", type=float, default=240e3, help="of text to measure on")
    parser.add_argument("--work", type=Path, required=True, help="texts, shards, trials, models")
    parser.add_argument("--trials", nargs="*", default=[], help="rates, surface, seeds, ...")
    parser.add_argument("--try", dest="words", nargs="*", action="append", default=[], help="one")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth trial, for N processes")
    parser.add_argument("--keep", action="store_true", help="keep the models")
    parser.add_argument("--list", action="store_true", help="what is there, and nothing else")
    options = parser.parse_args()
    options.quick = options.quick or "quick" in options.trials
    options.work.mkdir(parents=True, exist_ok=True)
    record = options.work / "trials.jsonl"
    keep_freed_memory()
    if options.list:
        for row in read_jsonl(record):
            print(f"{row['bits']:.4f}  {row['cpu_seconds']:7.0f} s  {row['key']}")
        return 0
    part, parts = map(int, options.part.split("/"))
    wanted = [trial for name in options.trials for trial in trials(name)]
    wanted += [said(words) for words in options.words]
    for trial in list(dict.fromkeys(wanted))[part::parts]:
        if any(row["key"] == trial.key for row in read_jsonl(record)):
            continue
        row = run(trial, options)
        append_jsonl(record, row)
        print(f"{row['bits']:.4f}  {row['cpu_seconds']:7.0f} s  {trial.key}", flush=True)
    return 0


def said(words: list[str]) -> Trial:
    """`n=0.6 tokens=1M muon=0.04`."""
    given = dict(word.split("=", 1) for word in words)
    kinds = {name: type(value) for name, value in asdict(Trial("0.3", 1)).items()}
    values = {n: parse_quantity(v, n) if kinds[n] is int else v for n, v in given.items()}
    return replace(Trial(given["n"], 1), **{k: kinds[k](v) for k, v in values.items()})


def trained(
    trial: Trial, material: Material
) -> tuple[Spec, Decoder, list[tuple[int, float]], float, float]:
    """The model, its losses by tokens, and seconds of the processor and of the wall."""
    spec = Spec(
        "miao", trial.config(), material.train, tokenizer=material.tokenizer, precision="fp32",
        seq_len=trial.seq_len, batch_tokens=trial.batch, budget=float(trial.tokens),
        seed=trial.seed, log_every=max(1, trial.tokens // trial.batch // 60),
        options={
            "learning_rate": trial.adam, "muon_learning_rate": trial.muon, "decay": trial.decay,
            "weight_decay": trial.weight_decay,
        } | more_options(trial),
    )  # fmt: skip
    model = Decoder(ModelConfig(**spec.config))
    model.initialize(trial.seed)
    curve: list[tuple[int, float]] = []

    class Curve(MetricsLog):
        def write(self, **values: Any) -> None:
            if "tokens_per_second" in values:
                curve.append((int(values["tokens"]), round(float(values["loss"]), 4)))

    began, wall = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as directory, applied(trial.variant):
        log = Curve(Path(directory) / "metrics.jsonl", "pretrain")
        miao_trainer(spec, model, Path(directory), log).run()
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    return spec, model, curve, seconds, wall


def run(trial: Trial, options: Any) -> dict[str, Any]:
    """Trains and measures."""
    material = prepared(options, trial.vocab, trial.unique)
    spec, model, curve, seconds, wall = trained(trial, material)
    model.eval()
    cut = Tokenizer.from_directory(Path(str(material.tokenizer)))
    texts = read_documents(options.work / "heldout.jsonl")
    rows = document_bits(texts, cut.encode, cut.document_start, model, trial.seq_len)
    if options.keep:
        place = options.work / "models" / trial.key.replace(" ", "_")
        save_model(model, place)
        shutil.copytree(str(material.tokenizer), place, dirs_exist_ok=True)
    matrices = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name)
    return {
        "key": trial.key, **asdict(trial), "parameters": matrices,
        "all_parameters": sum(p.numel() for p in model.parameters()),
        "bits": bits_per_byte(rows), "error": standard_error(rows),
        "bits_zh": bits_per_byte(of_language(texts, rows, True)),
        "bits_en": bits_per_byte(of_language(texts, rows, False)),
        "unique_tokens": sum(source.total_tokens for source in sources(spec, spec.data)),
        "heldout_tokens": sum(len(cut.encode(text)) for text in texts),
        "cpu_seconds": seconds, "wall_seconds": wall, "curve": curve, "load": os.getloadavg()[0],
        "facts": facts("cpu"),
    }  # fmt: skip


def more_options(trial: Trial) -> dict[str, Any]:
    more = dict(word.split(":", 1) for word in trial.more.split(";") if word)
    return {name: json.loads(value) for name, value in more.items()} | {
        "warmup": trial.warmup, "schedule": trial.schedule,
    }  # fmt: skip


def of_language(texts: list[str], rows: list[Row], chinese: bool) -> list[Row]:
    def is_chinese(text: str) -> bool:
        return sum("一" <= c <= "鿿" for c in text) > 0.1 * len(text)

    found = [row for text, row in zip(texts, rows, strict=True) if is_chinese(text) == chinese]
    return found or [(0.0, 1)]


def prepared(options: Any, vocab: int, unique: int) -> Material:
    """Texts, split by document, once; a tokenizer and shards for each vocabulary and amount."""
    work: Path = options.work
    train, heldout = work / "train.jsonl", work / "heldout.jsonl"
    if not heldout.exists():
        if options.quick:
            options.characters, options.heldout_bytes = 2e5, 4e3
        split_texts(options, train, heldout)
    place = work / f"vocab-{vocab}"
    whole = tokenized(place, train, vocab, options.quick)
    if not unique:
        return whole
    part = work / f"unique-{unique}"
    if not part.with_suffix(".jsonl").exists():
        write_jsonl(part.with_suffix(".jsonl"), first_characters(train, unique))
    return tokenized(work / f"unique-{unique}-{vocab}", part.with_suffix(".jsonl"), vocab, False,
                     tokenizer=whole.tokenizer)  # fmt: skip


def first_characters(train: Path, limit: int) -> Iterator[dict[str, str]]:
    for text in read_documents(train):
        yield {"text": text[:limit]}
        limit -= len(text)
        if limit <= 0:
            return


def tokenized(
    place: Path, text: Path, vocab: int, quick: bool, tokenizer: str | None = None
) -> Material:
    done = place / "material.json"
    if not done.exists():
        place.mkdir(parents=True, exist_ok=True)
        words = [f"--tokenizer.path={tokenizer}"] if tokenizer else []
        made = built_shards(place, "documents", vocab, [str(text)], quick, words)
        done.write_text(json.dumps(asdict(made)), encoding="utf-8")
    return Material(**json.loads(done.read_text(encoding="utf-8")))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sys.exit(main())
