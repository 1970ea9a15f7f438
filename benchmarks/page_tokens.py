"""Whether a page says, token for token, what the engine with int8 weights says of the same model.

    python benchmarks/page_tokens.py MODEL

200 prompts (Chinese, English, mixed, emoji, digits), greedy, in WebAssembly and in plain
JavaScript, under Node.js. Both sides add the same int8 numbers, but round what lies between in
another order: an answer may part where two logits are close; the gap there is told, as a share of
the largest.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from common import parser_for, report

WORDS = {
    "zh": "你 是 谁 苗 水 为什么 天空 蓝 请 写 一 首 诗 春天 北京 告诉 我 数学 怎么 吃饭",
    "en": "who are you why does water freeze write a poem about spring tell me the sky is",
    "emoji": "😀 👍🏽 🌱 🏳️‍🌈 👨‍👩‍👧 ❤️ 🇨🇳 🐼",
    "digits": "37 45 1024 3.14 + - × = 7 0 999 12:30 50%",
}
COLUMNS = ("engine", "prompts", "tokens", "equal", "part at a tie", "part", "largest gap")
TIE = 1e-3
"""Share of the largest logit; the 14 bits of an activation leave about as much."""


def prompts(count: int) -> list[str]:
    """Of each kind in turn, and mixed ones; the same every time."""
    dice, kinds = random.Random(18), [*WORDS, "mixed"]
    texts = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        words = (" ".join(WORDS.values()) if kind == "mixed" else WORDS[kind]).split()
        chosen = dice.choices(words, k=dice.randint(1, 12))
        texts.append(("" if kind in ("zh", "emoji") else " ").join(chosen))
    return texts


def compare(model: Path, count: int, tokens: int) -> list[dict[str, Any]]:
    """A row for each of the page's engines."""
    import torch

    from miao.corpus.records import Message
    from miao.engine import Engine, SamplingOptions
    from miao.engine.backend import pack
    from miao.engine.packed import whole_rows
    from miao.model import load_model
    from miao.page.contents import read_contents
    from miao.page.html import page_html
    from miao.page.node import run_in_node
    from miao.tokenizer import Tokenizer

    tokenizer, decoder = Tokenizer.from_directory(model), load_model(model)
    template, said = tokenizer.chat_template, prompts(count)
    asked = [template.encode_prompt(tokenizer, [Message("user", text)]) for text in said]
    stops = frozenset(tokenizer.stop_ids)
    engine = Engine(pack(load_model(model), "int8"), stops, rows=8)
    truth = engine.generate(asked, SamplingOptions(max_new_tokens=tokens))
    for parameter in decoder.parameters():  # to weigh what parts
        if parameter.ndim >= 2:
            numbers, scale_o = whole_rows(parameter.detach())
            parameter.data = numbers.float() * scale_o[..., None]

    def gap(prompt: list[int], mine: list[int], theirs: list[int]) -> float:
        part = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
        with torch.inference_mode():
            logits_v = decoder(torch.tensor([[*prompt, *theirs[:part]]]))[0, -1]
        return float(abs(logits_v[mine[part]] - logits_v[theirs[part]]) / logits_v.abs().max())

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "page.html"
        card: dict[str, Any] = {"facts": [], "trained": [], "scores": [], "score_columns": []}
        page.write_text(page_html(read_contents(model), "page", card), "utf-8")
        for plain in (False, True):
            found = run_in_node(page, prompts=asked, count=tokens, plain=plain)
            answers = [[id for id in ids if id not in stops] for ids in found["prompts"]]
            pairs = list(zip(asked, answers, truth, strict=True))
            gaps = [gap(*each) for each in pairs if each[1] != each[2]]
            rows.append(
                {
                    "engine": found["engine"],
                    "prompts": count,
                    "tokens": sum(map(len, truth)),
                    "equal": count - len(gaps),
                    "part at a tie": sum(gap <= TIE for gap in gaps),
                    "part": sum(gap > TIE for gap in gaps),
                    "largest gap": max(gaps, default=0.0),
                }
            )
    return rows


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64, help="of every answer at most")
    options = parser.parse_args()
    rows = compare(options.model, options.prompts, options.tokens)
    report("page_tokens", options, "cpu", COLUMNS, rows, model=str(options.model))


if __name__ == "__main__":
    main()
