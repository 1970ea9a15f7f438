"""What the tests of several rooms share: tiny random models, a small tokenizer, token shards."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import selectors
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # fixtures import what they need: whoever hands out the tests runs none
    from miao.model import Decoder
    from miao.shards import TokenDataset
    from miao.tokenizer import Tokenizer

# Else each process that tests start compiles all that it imports again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["OMP_NUM_THREADS"] = "1"  # of what tests start; `one_thread` says why
os.environ["MIAO_LANG"] = "en"  # whatever the machine speaks
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background so, and what tests start and stop would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
socketserver.TCPServer.request_queue_size = 128  # five, and a busy machine refuses the sixth client
os.fsync = lambda file: None  # type: ignore[assignment] # slow, and only a power cut would tell

settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

PLACE = os.getcwd()
SHARED: list[tuple[Any, str, Any]] = []


def pytest_collection_finish() -> None:
    for module in (asyncio, select, selectors, socket, threading, time):
        SHARED.extend((module, n, value) for n, value in vars(module).items() if callable(value))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """A server that other tests share runs by these: with a clock set back for a moment, it may
    sleep for hours. A test that sets one sets the name (`time`) of the module that it tests."""
    yield
    changed = [
        f"{m.__name__}.{name}" for m, name, value in SHARED if vars(m).get(name) is not value
    ]
    assert not changed, f"changed for the whole process: {', '.join(changed)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Nor does a test leave to those after it what it has set for itself."""
    yield
    if torch := sys.modules.get("torch"):
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        torch.set_num_threads(1)
        assert threads == 1 and dtype == torch.float32, (threads, dtype)
    place = os.getcwd()
    os.chdir(PLACE)
    assert place == PLACE, f"left in {place}"


SENTENCES = [
    "清晨的露水落在小小的苗上，太阳慢慢升起来了。",
    "今天天气很好，我们去公园散步，好吗？好的，我们走吧。",
    "北京是中国的首都，上海是中国最大的城市之一。",
    "The seedling grew a little every day, and the rain was kind to it.",
    "Why does water freeze? Because the temperature falls below zero degrees.",
    "The weather is fine today, so we shall walk in the park together.",
]
TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,  # not hidden_size / heads, so that nothing may confuse the two
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
LONGEST_FIRST = [
    "studio/test_studio_browser.py", "train/test_parallel.py", "test_run.py", "train/test_spread.py", "train/test_launch.py", "serve/test_web_browser.py",
    "page/test_page_browser.py", "page/test_page_views.py", "page/test_page.py", "train/test_no_waiting.py",
    "grow/test_grow.py", "corpus/test_interrupted.py", "serve/test_web_access.py", "export/test_parity_check.py",
    "train/test_torture.py", "benchmarks/test_benchmarks.py", "train/test_loop.py", "serve/test_stopping.py", "train/test_compiling.py",
    "train/test_checkpoint.py", "corpus/test_pipeline.py", "serve/test_every_field.py", "serve/test_desk.py", "test_hubs.py",
    "serve/test_hostile.py", "test_wheel.py", "test_chat.py", "model/test_activation_checkpointing.py", "corpus/test_datasets.py",
    "engine/test_grammar.py", "doctor/test_doctor.py", "model/test_parity_random.py", "test_cli.py",
    "train/test_grpo_run.py", "train/test_grpo.py", "test_run_books.py", "test_workshop_verbs.py",
]  # fmt: skip

TOGETHER = [
    ("train/test_parallel.py", "train/test_spread.py", "train/test_launch.py", "train/test_torture.py",
     "train/test_grpo.py", "train/test_tasks_while_training.py"),
    ("test_run.py", "grow/test_grow.py"),
]  # fmt: skip
"""Files whose processes are forked from one that has imported what they begin with (`pair.py`):
where one process runs them all, it is imported once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    first = {f"tests/{name}": f"tests/{names[0]}" for names in TOGETHER for name in names}

    class FilesTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return first.get(file, file)

    return FilesTogether(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Each of several processes begins to collect at another directory, and finds the files that
    the others began with compiled."""
    worker = getattr(config, "workerinput", None)
    if worker is not None and config.args_source is config.ArgsSource.TESTPATHS:
        paths = sorted(str(path) for path in Path(__file__).parent.iterdir() if is_collected(path))
        first = len(paths) * int(worker["workerid"][2:]) // worker["workercount"]
        config.args[:] = paths[first:] + paths[:first]


def is_collected(path: Path) -> bool:
    return path.match("test_*.py") or any(path.glob("test_*.py"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays: it need not be looked through again and again."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes that share the tests take whole files in this order: none ends long after others."""
    place = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: (place.get(item.path, len(place)), item.path))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small only lose by waiting for a second thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    from miao.tokenizer import train_tokenizer

    return train_tokenizer(SENTENCES * 2, vocab_size=360)


@pytest.fixture(scope="session")
def llama3_tokenizer() -> Tokenizer:
    """One that puts <|begin_of_text|> before every text, as Llama 3's does."""
    import tokenizers

    from miao.tokenizer import Tokenizer, train_tokenizer

    begin, controls = "<|begin_of_text|>", ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    plain = train_tokenizer(SENTENCES * 2, vocab_size=360, special_tokens=controls)
    text = json.dumps(plain.spec()).replace("<|endoftext|>", "<|finetune_right_pad_id|>")
    spec, id = json.loads(text), plain.token_to_id(begin)
    parts = [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [*parts, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {begin: {"id": begin, "ids": [id], "tokens": [begin]}},
    }
    config = {"bos_token": begin, "eos_token": "<|end_of_text|>"}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)), config)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Decoder]:
    """A tiny decoder, random in every parameter: norms, biases and the matrices that training
    starts at zero too, so that a part left out or misplaced shows in the logits."""
    import torch

    from miao.model import Decoder, ModelConfig

    def make(seed: int = 0, **changes: Any) -> Decoder:
        model = Decoder(ModelConfig(**TINY | changes))
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.data = 1 + 0.3 * values if parameter.ndim == 1 else 0.25 * values
        for mixture in model.mixtures().values():
            for bias in mixture.gate.buffers():
                bias.copy_(0.2 * torch.randn(bias.shape, generator=generator))
        return model.eval()

    return make


def dataset_maker(directory: Path) -> Callable[..., TokenDataset]:
    """Makes token shards there, of given sequences: documents, or with masks conversations or
    preferences."""
    from miao.shards import TokenDataset
    from miao.shards.dataset import Manifest
    from miao.shards.write import write_dataset

    def make(
        sequences: Sequence[Sequence[int]],
        kind: str = "document",
        masks: Sequence[Sequence[bool]] | None = None,
        name: str = "tiny",
        vocab_size: int = 65_536,
    ) -> TokenDataset:
        dtype = "uint16" if vocab_size <= 2**16 else "uint32"
        rows = [(ids, None if masks is None else masks[i], 1) for i, ids in enumerate(sequences)]
        write_dataset(directory / name, Manifest(kind, name, "none", vocab_size, dtype), rows)
        return TokenDataset(directory / name, verify=True)

    return make


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., TokenDataset]:
    return dataset_maker(tmp_path)
