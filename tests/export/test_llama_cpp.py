"""GGUF files inside llama.cpp: its tokens, logits and answers against transformers'.

`bash scripts/check_llama_cpp.sh` compiles llama.cpp and runs these tests; elsewhere they are
skipped. `-s` shows what was measured.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import pre_tokenizers

from miao.corpus.records import Message
from miao.export.gguf.file import write_gguf
from miao.export.gguf.tokenizer import SPLITS
from miao.tokenizer import Tokenizer
from tests.export.architectures import KINDS

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("llama_cpp") is None,
        reason="llama-cpp-python is not installed; bash scripts/check_llama_cpp.sh builds it",
    ),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),
]
Make = Callable[..., Path]
PLAIN = ["llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3", "dots1"]
SENTENCES = ["清晨的露水落在小小的苗上。", "The seedling grew a little every day, Don'T you see?"]
TEXTS = [
    "清晨的露水落在小小的苗上，太阳慢慢升起来了。今天天气很好，我们去公园散步。",
    "這是繁體中文，臺灣與香港的用字；「你好嗎？」他問道……",
    "👩‍👩‍👧‍👦 family, 👍🏽 thumbs, 🏳️‍🌈 flag, 🇨🇳🇬🇧, ❤️‍🔥 5️⃣",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣ שלום עולם",
    "e\u0301te\u0301 naïve Z\u0335\u0327a\u0301\u030algo x\u0304\u0304\u0304 ก็ นี้ हिन्दी தமிழ்",
    "\t\ttabs\t and  two   three    spaces   \n\n\n\n\nnewlines\r\n\r\nwindows\r \n \n  ",
    "12345678901234567890123456789012345678901234567890 3.14159 1,000,000 ½ ²³ Ⅷ ①",
    "<|im_start|>user\n<|im_end|> <|endoftext|><think>\n</think> <|im_start|assistant <|reserved_0|>",
    "<|im_end <think>> < think> <|im_end|>> <<|im_end|> <tool_call>{}</tool_call>",
    "def area(width, height):\n    return width * height  # 3 * 4 == 12\n\n\tif x != y and not z[0]:",
    "I'm, you'RE, they'VE, it'S; don't 'quoted' ''s O'Neill's",
    "混合mixed文本text，１２３全角ＡＢＣ、ｶﾅ かな カナ 한국어 Ελληνικά Русский",
    "\u200b\u200d\ufeff\u00a0\u3000 zero\u200cwidth\u2028line\u2029paragraph\u0085",
    "\x00\x01\x1f\x7f control \ufffd \U0001f9ff\U00020000\U0010fffd",
    " leading and trailing ",
    "\n",
    " ",
    "",
    "…—–''«»¿¡§¶†‡•‰™©®°±×÷≈≠≤≥∞∑∏√∫",
    "https://example.org/a?b=c&d=%20e#f  foo_bar  FooBar2000  C++  C#  a.b.c  --flag=1",
]


@pytest.fixture(scope="session")
def open_llama() -> Callable[..., Any]:
    """Opens a GGUF in llama.cpp on one thread, its cache in float32, to be compared exactly."""

    def opens(path: Path, **options: Any) -> Any:
        from llama_cpp import GGML_TYPE_F32, Llama

        settings = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
        cache = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}
        return Llama(str(path), logits_all=True, **settings | cache | options)

    return opens


def shown(text: str) -> None:
    """A measurement, seen with `pytest -s` or `-rP`."""
    print(f"\n  llama.cpp: {text}")


def test_llama_cpp_gives_the_same_tokens(
    make_directory: Make, open_llama: Callable[..., Any], tmp_path: Path
) -> None:
    directory = make_directory("qwen3")
    write_gguf(directory, tmp_path / "m.gguf", "f32")
    llama = open_llama(tmp_path / "m.gguf", vocab_only=True)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer, compared = Tokenizer.from_directory(directory), 0
    for text in TEXTS:
        ids = llama.tokenize(text.encode(), add_bos=True, special=True)
        assert ids == theirs(text)["input_ids"], text
        assert ids == tokenizer.encode(text, allow_special=True), text
        assert llama.detokenize(ids, special=True).decode() == text
        compared += len(ids)
        # As ordinary text; <think> and the tool tags count there too (llama.cpp's rule).
        if "<t" not in text and "</t" not in text:
            plain = llama.tokenize(text.encode(), add_bos=True, special=False)
            assert plain == tokenizer.encode(text), text
            compared += len(plain)
    assert llama.token_eos() == tokenizer.end_of_turn_id
    shown(f"{compared} token ids of {len(TEXTS)} texts equal")


@pytest.mark.parametrize("split", list(SPLITS), ids=list(SPLITS.values()))
def test_llama_cpp_cuts_text_as_other_families_do(
    make_directory: Make,
    open_llama: Callable[..., Any],
    tmp_path: Path,
    split: tuple[tuple[str, ...], bool],
) -> None:
    patterns, ignore_merges = split
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    cuts = [pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in patterns]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_])
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*SENTENCES, *TEXTS] * 2, trainer)
    directory = tmp_path / "model"
    shutil.copytree(make_directory("qwen3"), directory)
    (directory / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    write_gguf(directory, tmp_path / "m.gguf", "f16")
    llama = open_llama(tmp_path / "m.gguf", vocab_only=True)
    different = [
        text
        for text in TEXTS
        if llama.tokenize(text.encode(), special=True) != backend.encode(text).ids
    ]
    assert different == []


def test_llama_cpp_renders_the_same_conversations(
    make_directory: Make, open_llama: Callable[..., Any], tmp_path: Path
) -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    directory = make_directory("qwen3")
    write_gguf(directory, tmp_path / "m.gguf", "f32")
    template = open_llama(tmp_path / "m.gguf", vocab_only=True).metadata["tokenizer.chat_template"]
    formatter = Jinja2ChatFormatter(template, eos_token="<|im_end|>", bos_token="<|endoftext|>")
    messages = [Message("system", "你是苗。"), Message("user", "hi"), Message("assistant", " a\n")]
    messages += [Message("user", "{{ 1 }} 再见")]
    ours = Tokenizer.from_directory(directory).chat_template.render(
        messages, add_generation_prompt=True
    )
    plain = [{"role": m.role, "content": m.content} for m in messages]
    assert formatter(messages=plain).prompt == ours


@pytest.mark.parametrize("kind", list(KINDS))
def test_llama_cpp_computes_what_transformers_computes(
    make_directory: Make, open_llama: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    directory = make_directory(kind)
    facts = write_gguf(directory, tmp_path / "m.gguf", "f32")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(11)
    prompt = torch.randint(360, (1, 150), generator=generator)
    with torch.no_grad():
        truth = model(prompt).logits[0].numpy()
    llama = open_llama(tmp_path / "m.gguf")
    llama.eval(prompt[0].tolist())
    logits = llama.scores[: prompt.shape[1]]
    difference = float(np.abs(logits - truth).max())
    same = int((logits.argmax(-1) == truth.argmax(-1)).sum())

    start = prompt[:, :24]
    model.generation_config.eos_token_id = None
    settings = {"max_new_tokens": 64, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(start, **settings)[0, 24:].tolist()
    llama.reset()
    ids: list[int] = []
    for id in llama.generate(start[0].tolist(), temp=0.0, repeat_penalty=1.0):
        ids.append(id)
        if len(ids) == len(expected):
            break
    shown(
        f"{kind} ({facts.architecture}): max logit difference {difference:.1e} of "
        f"±{np.abs(truth).max():.1f} over {truth.shape[0]} positions, {same} best tokens equal; "
        f"greedy {sum(a == b for a, b in zip(ids, expected, strict=True))}/{len(expected)} equal"
    )
    assert float(truth.std()) > 0.3, "nearly constant logits compare nothing"
    assert difference < 2e-3
    assert same == truth.shape[0]
    assert ids == expected


@pytest.mark.parametrize("file_type, limit", [("f16", 0.005), ("q8_0", 0.03), ("q4_0", 0.15)])
@pytest.mark.parametrize("kind", PLAIN)
def test_llama_cpp_runs_the_smaller_types(
    make_directory: Make,
    open_llama: Callable[..., Any],
    tmp_path: Path,
    kind: str,
    file_type: Any,
    limit: float,
) -> None:
    # Smaller weights than elsewhere: random layers multiply each other's rounding errors.
    directory = make_directory(kind, gain=0.5)
    write_gguf(directory, tmp_path / "f32.gguf", "f32")
    facts = write_gguf(directory, tmp_path / "small.gguf", file_type)
    ids = torch.randint(360, (64,), generator=torch.Generator().manual_seed(3)).tolist()
    logits = []
    for name in ("f32", "small"):
        llama = open_llama(tmp_path / f"{name}.gguf")
        llama.eval(ids)
        logits.append(llama.scores[: len(ids)].copy())
    # The median position: where a router chooses other experts, the logits are quite others.
    norms = [np.linalg.norm(found, axis=1) for found in (logits[1] - logits[0], logits[0])]
    error = float(np.median(norms[0] / norms[1]))
    generated = []
    for id in llama.generate(ids[:8], temp=0.0):
        generated.append(id)
        if len(generated) == 16:
            break
    shown(f"{kind} {file_type}: logits {error:.1%} off those of f32, types {facts.types}")
    assert 0 < error < limit
    assert len(generated) == 16
